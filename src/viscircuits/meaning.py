"""What a target means, in words: for whoever reads a card and does not know the notation by heart.

Not here: the notation itself (`viscircuits.target`), nor what a class is called (only a data set knows).
"""

from collections.abc import Sequence

from viscircuits.model.graph import OUTPUT
from viscircuits.model.output import is_part
from viscircuits.types import Reduction

_LARGEST = 3
"""Channels that a direction names."""

REDUCED: dict[Reduction, str] = {"sum_abs": "sum of |values|", "sum": "sum of values", "mean": "mean of values"}
"""What gradients start from."""


def what(layer: str, channel: int | None, direction: Sequence[float] | None) -> str:
    """Returns what is read of each image.

    Args:
        layer: the module; "" for the model itself.
        channel: of its output.
        direction: or one coefficient a channel.
    """
    whole = layer == OUTPUT or is_part(layer)
    home = f"the model's output{f' {layer}' if layer else ''}" if whole else layer
    if direction is None:
        return f"number {channel} of {home}" if whole else f"channel {channel} of the output of {home}"
    largest = sorted(range(len(direction)), key=lambda place: -abs(direction[place]))[:_LARGEST]
    parts = ", ".join(f"{direction[place]:+.2f} of {place}" for place in sorted(largest))
    return f"a direction over the {len(direction):,} channels of {home}, mostly {parts}"


def where(position: Sequence[int] | str | None) -> str:
    """Returns where on a map it is read."""
    if position is None:
        return "everywhere"
    if isinstance(position, str):
        return {"center": "at the centre", "max": "where each image has its maximum in the full model"}[position]
    return "at row {}, column {}".format(*position) if len(position) == 2 else f"at {tuple(position)}"
