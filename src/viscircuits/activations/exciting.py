"""Where images excite a filter most, and the piece of an image that a filter sees."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from viscircuits.circuit.circuit import Circuit
from viscircuits.data.colours import Colours, probe
from viscircuits.data.images import ImageSet, Prepare
from viscircuits.errors import ImageError, UnsupportedOperation
from viscircuits.execution.loop import batches
from viscircuits.model.field.receptive_field import Area, receptive_field
from viscircuits.model.graph import NetGraph
from viscircuits.model.guard.clean import clean
from viscircuits.model.instrument import run
from viscircuits.model.output import with_channels
from viscircuits.types import Progress

Unit = tuple[str, int]
"""A layer and a channel."""

_LEAST = 8
"""Pixels a side that a piece of an image has at least."""


class Place(NamedTuple):
    """Where in which image a filter answers how much; without a position where it has no map."""

    image: int
    position: tuple[int, ...]
    value: float


def ranked(values: Float[Tensor, "n p"], shape: Sequence[int], count: int, *, least: bool = False) -> list[Place]:
    """Returns each image's strongest place, of the ``count`` images that excite most; or least, and the weakest.

    Args:
        values: the responses to images, places of a map in one axis.
        shape: that of the map.
        count: how many images.
        least: look for the lowest values.
    """
    best, where = (-values if least else values).max(1)
    order = best.argsort(descending=True, stable=True)[:count].tolist()
    places = []
    for n in order:
        position = np.unravel_index(int(where[n]), tuple(shape))
        places.append(Place(n, tuple(map(int, position)), float(values[n, where[n]])))
    return places


def strongest(
    circuit: Circuit, images: ImageSet, units: Sequence[Unit], *, batch_size: int, progress: Progress | None = None
) -> dict[Unit, Place]:
    """Returns where each unit of a circuit answers most, of all positions of all images.

    Args:
        circuit: the circuit whose filters answer.
        images: where to look.
        units: layers with their channels.
        batch_size: images at a time.
        progress: called after every batch.
    """
    places = strongest_places(circuit, images, units, 1, batch_size=batch_size, progress=progress)
    return {unit: best[0] for unit, best in places.items()}


@clean
@torch.no_grad()
def strongest_places(
    circuit: Circuit,
    images: ImageSet,
    units: Sequence[Unit],
    count: int,
    *,
    batch_size: int,
    progress: Progress | None = None,
) -> dict[Unit, list[Place]]:
    """Returns each unit's strongest place in each of the images that excite it most, the strongest first.

    Args:
        circuit: the circuit whose filters answer.
        images: where to look.
        units: layers with their channels.
        count: how many images a unit.
        batch_size: images at a time.
        progress: called after every batch.
    """
    best: dict[Unit, list[Place]] = {}
    layers = list(dict.fromkeys(layer for layer, _ in units))
    outputs = circuit.graph.outputs
    model, graph = circuit.model, circuit.graph
    for batch in batches(images, model, graph, batch_size, progress=progress, what="exciting images"):
        answers = run(model, graph, batch.images, layers, weights=circuit.weights)
        for layer, channel in units:
            maps = with_channels(answers[layer]).movedim(outputs[layer].channel_axis, 1)[:, channel].float().cpu()
            places = [
                place._replace(image=batch.start + place.image)
                for place in ranked(maps.flatten(1), maps.shape[1:], count)
            ]
            # a stable sort: of equals the image that came first stays in front, whatever the batches
            merged = sorted([*best.get((layer, channel), []), *places], key=lambda place: -place.value)
            best[layer, channel] = merged[:count]
    return best


def seen(graph: NetGraph, unit: Unit, position: Sequence[int]) -> Area | None:
    """Returns the square of the image that holds all a unit can see there; None where that is the whole image.

    It is as large as the receptive field, and moved to lie inside the image.

    Args:
        graph: the network.
        unit: a layer and a channel.
        position: where on the channel's map, row before column.
    """
    height, width = graph.input_shape[1:]
    box = field(graph, unit, position)
    if box is None or box.empty or max(box.size) >= min(height, width):
        return None
    side = max(*box.size, _LEAST)
    middle = (box.top + box.bottom) // 2, (box.left + box.right) // 2
    top, left = (min(max(0, at - side // 2), size - side) for at, size in zip(middle, (height, width), strict=True))
    return Area(top, left, top + side, left + side)


def field(graph: NetGraph, unit: Unit, position: Sequence[int]) -> Area | None:
    """Returns the receptive field of a unit at a position, None where it cannot be followed.

    Args:
        graph: the network.
        unit: a layer and a channel.
        position: where on the channel's map, row before column.
    """
    try:
        return receptive_field(graph, unit[0], position, channel=unit[1])
    except UnsupportedOperation:
        return None


def colours_of(prepare: Prepare | None, channels: int) -> Colours:
    """Returns the colours of a network: those of ``prepare`` where it only normalises, else ImageNet's or none."""
    if prepare is not None:
        try:
            return probe(prepare)[0]
        except ImageError:  # it does more to colours; then they are shown as if it did not
            pass
    return Colours() if channels == 3 else Colours.unchanged(channels)


def pixels(image: Float[Tensor, "c h w"], box: Area | None = None) -> Float[np.ndarray, "3 y x"]:
    """Returns an image of values in [0, 1], or the part in a box, in three channels; further ones are left out."""
    part = (image if box is None else image[:, *box.slices]).float().cpu()
    return (part[:3] if len(part) >= 3 else part[:1].expand(3, -1, -1)).contiguous().numpy()
