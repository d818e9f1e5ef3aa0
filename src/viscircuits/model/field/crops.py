"""Crops that were tried: those of `aligned`, if the model computes on them what it computes on all of the picture.

The graph is that of one size of image. A forward that does something else at another size (pads its input to a
multiple of 32, pads convolutions by the size of what comes in) is noticed only by running it.
"""

import torch
from torch import nn

from viscircuits.model.field.aligned import AlignedCrops, aligned_crops
from viscircuits.model.graph import NetGraph
from viscircuits.model.guard.clean import clean
from viscircuits.model.guard.untouched import untouched
from viscircuits.model.instrument import run
from viscircuits.model.tracing.differences import at_least_rounding
from viscircuits.model.trial import noise

EXACT = 1e-4
"""How far a value may be off on a crop, as a share of the largest of the map."""


@clean
def tried_crops(model: nn.Module, graph: NetGraph, layer: str) -> AlignedCrops | None:
    """Returns exact crops for all positions of a layer; None where there are none, or the model differs on them.

    They are tried at the corners and in the middle of the layer's map, once a graph, layer and size of crop.

    Args:
        model: the user's module.
        graph: its graph.
        layer: name of a module whose output is a map.
    """
    crops = aligned_crops(graph, layer)
    if crops is None:
        return None
    key = layer, crops.size
    if key not in graph.crops_agree:
        graph.crops_agree[key] = _agree(model, graph, layer, crops)
    return crops if graph.crops_agree[key] else None


@torch.no_grad()
def _agree(model: nn.Module, graph: NetGraph, layer: str, crops: AlignedCrops) -> bool:
    image = noise(model, 1, graph.input_shape)
    output = graph.output(layer)
    height, width = output.map_shape
    positions = [(y, x) for y in (0, height - 1) for x in (0, width - 1)] + [(height // 2, width // 2)]
    places = [crops.at(position) for position in positions]
    parts = torch.cat([image[:, :, *box.slices] for box, _ in places])
    with untouched(model):
        whole = run(model, graph, image.contiguous(memory_format=graph.memory_format), [layer])[layer]
        try:
            own = run(model, graph, parts.contiguous(memory_format=graph.memory_format), [layer])[layer]
        except Exception:  # it may refuse the size; then nothing is computed on it
            return False
    whole, own = (maps.movedim(output.channel_axis, 1) for maps in (whole, own))
    there = torch.stack([own[i][..., y, x] for i, (_, (y, x)) in enumerate(places)])
    wanted = torch.stack([whole[0][..., y, x] for y, x in positions])
    return bool(((there - wanted).abs() <= at_least_rounding(EXACT, whole.dtype) * whole.abs().max()).all())
