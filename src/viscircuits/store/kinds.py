"""Kinds of files of tensors: what the header and the tensors of each have to be.

A kind is declared where its files are written and checked whenever one is read (`viscircuits.store.tensors`). Knows no
domain word.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from viscircuits.store.checks import Check, Fields, one_of, shown, wrong

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
BOOLS = (torch.bool,)
INTS = (torch.int64,)


@dataclass(frozen=True)
class Array:
    """What a tensor has to be.

    Args:
        dtypes: which it may have.
        axes: for each axis its size, or a name; axes of one name have one size in all of a file's tensors. ``*name``
            at the end stands for any number of axes.
        least, most: the range of its values.
        nan: whether a value may be nan; infinite none may be.
    """

    dtypes: tuple[torch.dtype, ...]
    axes: tuple[str | int, ...]
    least: float = -math.inf
    most: float = math.inf
    nan: bool = False

    def wrong(self, tensor: Tensor, known: dict[str, tuple[int, ...]]) -> str:
        """Returns what is wrong with a tensor, in words, or nothing; adds the sizes of its axes to those known."""
        if tensor.dtype not in self.dtypes:
            return f"expected {_joined(self.dtypes)}, got {tensor.dtype}"
        if not self._fits(tuple(tensor.shape), known):
            wanted = [axis if isinstance(axis, int) else known.get(axis, axis) for axis in self.axes]
            return f"expected the shape {shown(wanted)}, got {list(tensor.shape)}"
        if tensor.dtype == torch.bool or tensor.numel() == 0:  # of nothing there is no smallest value
            return ""
        values = tensor[~tensor.isnan()] if self.nan else tensor
        # before the range, because the least of some values with nan is nan
        if not bool(values.isfinite().all()):
            return "expected finite values"
        if values.numel() and not (self.least <= values.min().item() and values.max().item() <= self.most):
            return f"expected values from {self.least:g} to {self.most:g}"
        return ""

    def _fits(self, shape: tuple[int, ...], known: dict[str, tuple[int, ...]]) -> bool:
        for i, axis in enumerate(self.axes):
            if isinstance(axis, int):
                if shape[i : i + 1] != (axis,):
                    return False
                continue
            # as a slice, which is empty where the tensor has fewer axes, instead of an index that would raise
            own = shape[i:] if axis.startswith("*") else shape[i : i + 1]
            if (not own and not axis.startswith("*")) or known.setdefault(axis, own) != own:
                return False
        return bool(self.axes and str(self.axes[-1]).startswith("*")) or len(shape) == len(self.axes)


def _nothing(fields: Fields, tensors: Mapping[str, Tensor]) -> str:
    return ""


@dataclass(frozen=True)
class Kind:
    """What a file of one kind holds.

    Args:
        name: stands in its header as ``kind``.
        called: what messages call such a file: "a circuit file".
        fields: of the header, beside ``kind`` and ``format``.
        arrays: what its tensors are, by name, given the header's fields and the names of those that are there.
        formats: which versions are read; (None,) where it has none.
        fits: returns what else does not fit between fields and tensors, in words, or nothing.
    """

    name: str
    called: str
    fields: Mapping[str, Check]
    arrays: Callable[[Fields, Iterable[str]], Mapping[str, Array]]
    formats: tuple[int | None, ...] = (1,)
    fits: Callable[[Fields, Mapping[str, Tensor]], str] = _nothing

    def foreign(self, header: object) -> str:
        """Returns what a file is instead of one of this kind, in words; empty where it is one."""
        expected = f" of format {self.formats[0]}" if self.formats[0] is not None else ""
        if not isinstance(header, dict):
            return f"is not {self.called}{expected}"
        name, version = header.get("kind"), header.get("format")
        if one_of(self.name).holds(name) and one_of(*self.formats).holds(version):
            return ""
        return f"is not {self.called}{expected}, but {_plain(name)} of format {_plain(version)}"

    def wrong(self, header: Fields, tensors: Mapping[str, Tensor]) -> str:
        """Returns what is wrong with the content of a file of this kind, in words; empty where it is sound."""
        fields = {name: value for name, value in header.items() if name not in ("kind", "format")}
        # fields first: `arrays` and `fits` read them and rely on their types
        if fault := wrong(self.fields, fields):
            return fault
        arrays = self.arrays(header, tensors)
        if arrays.keys() != tensors.keys():
            return f"expected other tensors: {shown(sorted(arrays.keys() ^ tensors.keys()))} is missing or unknown"
        known: dict[str, tuple[int, ...]] = {}
        for name, array in arrays.items():
            if fault := array.wrong(tensors[name], known):
                return f"tensor {shown(name)}: {fault}"
        return self.fits(header, tensors)


def _joined(dtypes: Iterable[torch.dtype]) -> str:
    return " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)


def _plain(value: object) -> str:
    """A value out of a file without quotes, where it is a text that needs none."""
    return value if isinstance(value, str) and shown(value)[1:-1] == value else shown(value)
