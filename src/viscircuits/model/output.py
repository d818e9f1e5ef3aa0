"""Reading a model's output: which of its tensors is meant, and under what name the others stand.

This is the one place that looks into what a forward returned. A model may return a tensor, or several of them in
tuples, lists, dicts, named tuples and dataclasses, one within the other. A tensor is named by its way there: ``[0]``,
``[aux]``, ``[0][1]``. A single tensor is the model's output; of several it is the one under ``logits``, else the one
under ``out``; otherwise none is, and a target has to name one. One number a picture is one channel.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass

from jaxtyping import Shaped
from torch import Tensor

KEYS = ("logits", "out")
"""What the output proper is called where a model returns several tensors, in this order."""


def named_leaves(output: object) -> dict[str, Tensor]:
    """Returns way -> tensor, for every tensor in an output; one that is the whole output has the name ``""``."""
    return {way: leaf for way, leaf in _walk(output, "") if isinstance(leaf, Tensor)}


def chosen(names: Sequence[str]) -> str | None:
    """Returns which of the leaves is the output proper; None where that is not said."""
    if len(names) == 1:
        return names[0]
    return next((f"[{key}]" for key in KEYS if f"[{key}]" in names), None)


def meant(name: str, output: object) -> Tensor | None:
    """Returns the tensor of an output that a name of `viscircuits.model.graph` means; None where there is none.

    Of the model that is what `chosen` says, or the part that is named; of a layer in it the first of several.
    """
    leaves = named_leaves(output)
    if name == "":
        proper = chosen(list(leaves))
        return None if proper is None else leaves[proper]
    if is_part(name):
        return leaves.get(name)
    # a list of layers' outputs, or a state beside the output, comes after what the next layer is given
    first = next(leaf for _, leaf in _walk(output, ""))
    return first if isinstance(first, Tensor) else None


def is_part(name: str) -> bool:
    """Whether a module's name stands for one of several tensors that the model returns: ``[1]``, ``[aux]``."""
    return name.startswith("[")


def module_of(name: str) -> str:
    """Returns the module whose output a name stands for, without the number of the call (``features.3@1``)."""
    return "" if is_part(name) else name.partition("@")[0]


def with_channels(output: Shaped[Tensor, "n ..."]) -> Shaped[Tensor, "n ..."]:
    """Returns a module's output with an axis of channels: one number a picture is one channel."""
    return output[:, None] if output.ndim == 1 else output


def _walk(value: object, way: str) -> Iterator[tuple[str, object]]:
    """All that can be reached, the parts before the whole: the first is the first leaf of all."""
    for key, part in _parts(value):
        yield from _walk(part, f"{way}[{key}]")
    yield way, value


def _parts(value: object) -> list[tuple[object, object]]:
    if isinstance(value, Mapping):
        return list(value.items())
    if isinstance(value, tuple | list):  # torch's own named results have no ``_fields`` and are numbered
        return list(zip(getattr(value, "_fields", range(len(value))), value, strict=True))
    if is_dataclass(value) and not isinstance(value, type):
        return [(field.name, getattr(value, field.name)) for field in fields(value)]
    return []
