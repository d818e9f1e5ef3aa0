"""The part of a picture that an objective of fixed positions looks at."""

import torch
from jaxtyping import Float
from torch import Tensor

from viscircuits.model.field.receptive_field import Area, receptive_field
from viscircuits.optvis.network import Network
from viscircuits.optvis.objective import KernelMap, Objective
from viscircuits.readout import Readout
from viscircuits.target import Target, indices


def window(network: Network, what: Objective, image: Float[Tensor, "c h w"]) -> Area | None:
    """Returns the smallest box around the receptive fields of all positions that an objective reads.

    None where it reads a whole map, or where the field is empty. A larger canvas is taken to be seen whole.

    Args:
        network: what is looked into.
        what: the objective.
        image: the picture, in [0, 1]; ``max`` is the position of the largest value on it.
    """
    boxes = []
    for part in (*what.targets, *what.kernels):
        # one part that reads a whole map is enough: all of the picture matters then
        place = _position(network, part, image)
        if place is None:
            return None
        channel = part.channel if isinstance(part, Target) else part.out
        boxes.append(receptive_field(network.graph, part.layer, place, channel=channel, visible=True))
    # an empty field has edges all the same, which would stretch the box
    boxes = [box for box in boxes if not box.empty]
    return _scaled(_around(boxes), image.shape[1] / network.graph.input_shape[1]) if boxes else None


def _position(network: Network, part: Target | KernelMap, image: Tensor) -> tuple[int, ...] | None:
    if part.position is None or isinstance(part.position, tuple):
        return part.position
    sizes = network.graph.output(part.layer).map_shape
    if part.position == "center":
        return indices("center", sizes)
    assert isinstance(part, Target)
    with torch.no_grad():
        flat = Readout(part, network.graph).freeze(network.answers(image[None], (part.layer,)))[0]
    assert flat is not None
    return tuple(int(i) for i in torch.unravel_index(flat[0].cpu(), sizes))


def _around(boxes: list[Area]) -> Area:
    return Area(
        min(box.top for box in boxes),
        min(box.left for box in boxes),
        max(box.bottom for box in boxes),
        max(box.right for box in boxes),
    )


def _scaled(box: Area, factor: float) -> Area:
    top, left, bottom, right = (round(edge * factor) for edge in (box.top, box.left, box.bottom, box.right))
    return Area(top, left, bottom, right)
