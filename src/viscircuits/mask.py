"""Which structures of a network are kept: exact counts, set algebra, overlap.

A mask always knows its denominator: the *relevant* structures, those with a path to the target. What is not relevant is
neither kept nor removed, because it cannot change the target. True means kept, everywhere.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Shaped
from torch import Tensor

from viscircuits.bounds.arguments import checked
from viscircuits.card import Card, Shown, sized
from viscircuits.errors import MaskError
from viscircuits.model.graph import KernelLayer, NetGraph
from viscircuits.types import Granularity


@dataclass(frozen=True, repr=False)
class Mask(Shown):
    """The kept part of what is relevant to a target.

    Args:
        kept: layer -> True where a structure is kept; arrays ``(out,)``, ``(out, in/g)`` or ``(out, in/g, *kernel)``.
        relevant: layer -> True where a structure has a path to the target; same shapes, layers in order of execution.
        granularity: what one entry stands for.
        input_shape: ``(c, h, w)`` of the images for which the network was traced.
        zero_scores: how many kept structures had a score of exactly zero (they were taken only to reach the count).
    """

    kept: Mapping[str, Bool[Tensor, "..."]]
    relevant: Mapping[str, Bool[Tensor, "..."]]
    granularity: Granularity
    input_shape: tuple[int, ...]
    zero_scores: int = 0

    def __post_init__(self) -> None:
        if set(self.kept) != set(self.relevant):
            raise MaskError(f"kept and relevant name different layers: {set(self.kept) ^ set(self.relevant)}")
        for name, kept in self.kept.items():
            if kept.shape != self.relevant[name].shape or kept.dtype != torch.bool:
                raise MaskError(
                    f"mask of layer {name!r}: expected booleans of shape {tuple(self.relevant[name].shape)}, "
                    f"got {kept.dtype} of shape {tuple(kept.shape)}"
                )
            if bool((kept & ~self.relevant[name]).any()):
                raise MaskError(f"mask of layer {name!r} keeps structures that are not relevant to the target")

    def _card(self) -> Card:
        used = sum(bool(kept.any()) for kept in self.kept.values())
        return Card("Mask", {
            "keeps": f"{self.n_kept:,} of {self.n_relevant:,} relevant {self.granularity}s",
            "density": f"{self.density:.4g}", "layers": f"{len(self.kept):,}, of which it keeps any of {used:,}",
            "with a score of zero": self.zero_scores or None, "image": sized(self.input_shape),
        })  # fmt: skip

    @cached_property
    def n_kept(self) -> int:
        """Number of kept structures."""
        return sum(int(kept.count_nonzero()) for kept in self.kept.values())  # sum() would take thirty times as long

    @cached_property
    def n_relevant(self) -> int:
        """Number of relevant structures: the denominator of density."""
        return sum(int(relevant.count_nonzero()) for relevant in self.relevant.values())

    @property
    def density(self) -> float:
        """Kept over relevant, in [0, 1]."""
        return self.n_kept / self.n_relevant if self.n_relevant else 0.0

    @property
    def sparsity(self) -> float:
        """One minus density."""
        return 1.0 - self.density

    @property
    def counts(self) -> dict[str, tuple[int, int]]:
        """Layer -> (kept, relevant)."""
        return {name: (int(kept.sum()), int(self.relevant[name].sum())) for name, kept in self.kept.items()}

    def __invert__(self) -> "Mask":
        """Returns the complement within what is relevant."""
        # not ~kept: what is not relevant is neither kept nor removed
        return self._with({name: self.relevant[name] & ~kept for name, kept in self.kept.items()})

    def __and__(self, other: "Mask") -> "Mask":
        """Returns what both keep."""
        return self._merge(other, torch.logical_and)

    def __or__(self, other: "Mask") -> "Mask":
        """Returns what either keeps; relevant is what is relevant to either."""
        return self._merge(other, torch.logical_or)

    def __sub__(self, other: "Mask") -> "Mask":
        """Returns what this keeps and the other does not."""
        return self._merge(other, lambda a, b: a & ~b)

    def __le__(self, other: "Mask") -> bool:
        """Whether everything this keeps is kept by the other too."""
        return (self - other).n_kept == 0

    def __eq__(self, other: object) -> bool:
        """Whether both keep the same of the same: granularity, kept and relevant; empty layers do not count."""
        return (
            isinstance(other, Mask)
            and self.granularity == other.granularity
            and _same(self.kept, other.kept)
            and _same(self.relevant, other.relevant)
        )

    # equal masks may name other layers, so no hash that is cheap would agree with ==
    __hash__ = None  # pyright: ignore[reportAssignmentType]

    @checked
    def iou(self, other: "Mask") -> float:
        """Returns intersection over union of what the two keep, in [0, 1]; two empty masks agree fully."""
        union = (self | other).n_kept
        return (self & other).n_kept / union if union else 1.0

    @checked
    def iou_by_layer(self, other: "Mask") -> dict[str, float]:
        """Returns the same layer by layer; a layer that is empty in both is left out."""
        both, either = self & other, self | other
        return {n: int(both.kept[n].sum()) / int(k.sum()) for n, k in either.kept.items() if bool(k.any())}

    @checked
    def within(self, relevant: Mapping[str, Bool[Tensor, "..."]]) -> "Mask":
        """Returns the mask over another denominator: what it keeps of it; layers it does not name are removed whole."""
        # False, which broadcasts: a layer that this mask does not name is removed whole
        kept = {name: array & self.kept.get(name, torch.tensor(False)) for name, array in relevant.items()}
        return Mask(kept, relevant, self.granularity, self.input_shape, self.zero_scores)

    @checked
    def factors(self, graph: NetGraph) -> dict[str, Shaped[Tensor, "..."]]:
        """Returns weight name -> 0/1 array that broadcasts against the layer's stored weight."""
        factors = {}
        # 1 where nothing is relevant: what cannot change the target stays as it is
        for name, kept in self.kept.items():
            layer = graph.layers[name]
            factors[layer.weight] = stored_factor(layer, kept | ~self.relevant[name], self.granularity)
        return factors

    def _with(self, kept: dict[str, Tensor]) -> "Mask":
        return Mask(kept, self.relevant, self.granularity, self.input_shape)

    def _merge(self, other: "Mask", combine: Callable[[Tensor, Tensor], Tensor]) -> "Mask":
        if self.granularity != other.granularity:
            raise MaskError(f"masks of {self.granularity}s and of {other.granularity}s do not combine")
        # a layer that one of them does not name is empty in it: nothing there is relevant to its target
        shapes = {**{n: k.shape for n, k in other.kept.items()}, **{n: k.shape for n, k in self.kept.items()}}
        clash = [n for n in self.kept.keys() & other.kept.keys() if self.kept[n].shape != other.kept[n].shape]
        if clash:
            raise MaskError(f"masks of different networks: layer {clash[0]!r} has another shape in each")

        def of(arrays: Mapping[str, Tensor], name: str) -> Tensor:
            return arrays[name] if name in arrays else torch.zeros(shapes[name], dtype=torch.bool)

        order = list(dict.fromkeys([*self.kept, *other.kept]))
        kept = {name: combine(of(self.kept, name), of(other.kept, name)) for name in order}
        relevant = {name: of(self.relevant, name) | of(other.relevant, name) for name in order}
        return Mask(kept, relevant, self.granularity, self.input_shape)


def by_layer(
    values: Shaped[Tensor, " m"], structures: Mapping[str, Bool[Tensor, "..."]]
) -> dict[str, Shaped[Tensor, "..."]]:
    """Returns layer -> one number a structure, 0 where none is asked for.

    Args:
        values: one for each of the structures, layers in order.
        structures: layer -> True where there is one.
    """
    parts = values.cpu().split([int(array.sum()) for array in structures.values()])
    return {
        name: torch.zeros(array.shape, dtype=values.dtype).masked_scatter(array, part)
        for (name, array), part in zip(structures.items(), parts, strict=True)
    }


def axes_of(layer: str, granularity: Granularity) -> tuple[str, ...]:
    """Returns the names of the axes of a layer's array of structures, for the check of a file."""
    axes = (f"out of {layer}", f"in of {layer}", f"*inside {layer}")
    return axes[: {"filter": 1, "kernel": 2, "weight": 3}[granularity]]


def stored_factor(
    layer: KernelLayer, values: Shaped[Tensor, "out ..."], granularity: Granularity
) -> Shaped[Tensor, "..."]:
    """Returns one number a structure in the shape that broadcasts against the layer's stored weight.

    Args:
        layer: the kernel layer.
        values: ``(out,)``, ``(out, in/g)`` or ``(out, in/g, *kernel)``, filters first also where the weight has them
            second.
        granularity: what one number stands for.
    """
    if granularity == "filter":
        values = values[:, None].expand(layer.shape)
    return layer.stored(values.reshape(*values.shape, *[1] * (2 + len(layer.kernel_size) - values.ndim)))


def _same(mine: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> bool:
    a, b = _filled(mine), _filled(theirs)
    return a.keys() == b.keys() and all(torch.equal(array, b[name]) for name, array in a.items())


def _filled(arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: array for name, array in arrays.items() if bool(array.any())}


def expand_relevant(
    graph: NetGraph, kernels: Mapping[str, Bool[Tensor, "out in"]], granularity: Granularity
) -> dict[str, Bool[Tensor, "..."]]:
    """Returns relevant kernels as structures of a granularity; layers that have none, or are not scored, drop out.

    Args:
        graph: the network.
        kernels: layer -> True where a kernel has a path to the target.
        granularity: what one entry of the result stands for.
    """
    arrays = {}
    for name, layer in graph.layers.items():
        relevant = kernels.get(name)
        if relevant is None or not layer.scored or not bool(relevant.any()):
            continue
        if granularity == "filter":
            arrays[name] = relevant.any(1)
        elif granularity == "weight" and layer.kernel_size:
            view = relevant.reshape(*relevant.shape, *[1] * len(layer.kernel_size))
            # an expanded array is one number many times over: writing to a part of it would write to all
            arrays[name] = view.expand(layer.structure_shape("weight")).clone()
        else:
            arrays[name] = relevant
    return arrays
