"""Which pixels a position of a layer can depend on, and cutting them out of a picture or putting them into one.

A `Area` holds half-open ranges of pixels. Without borders taken into account it may reach beyond the image; then all
positions of an ordinary convolutional network have boxes of one size, ``jump`` pixels apart (`Grid`). What is found
holds for any weights and any image: it is what the *graph* allows, so a kernel of zeros does not make a field smaller.
Where operations on the way read every position (attention, squeeze-and-excitation, a mean over space, a linear layer),
the field truly is the whole image, and says so.

The way back through the graph is in `viscircuits.model.field.demands`; crops that give a position's exact value in
`viscircuits.model.field.aligned`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Shaped
from torch import Tensor

from viscircuits.bounds.arguments import checked
from viscircuits.errors import ImageError, TargetError
from viscircuits.model.field.demands import demands, image_node
from viscircuits.model.field.places import Demand, Places
from viscircuits.model.graph import NetGraph
from viscircuits.model.guard.clean import clean


@dataclass(frozen=True)
class Area:
    """Pixels of an image: rows ``top`` to ``bottom``, columns ``left`` to ``right``, the ends not included.

    Attributes:
        whole: operations that read every position make the field the whole image, not the reach of windows.
    """

    top: int
    left: int
    bottom: int
    right: int
    whole: bool = False

    @property
    def height(self) -> int:
        """Number of rows."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.right - self.left

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width

    @property
    def empty(self) -> bool:
        """Whether there is no pixel in it."""
        return self.height <= 0 or self.width <= 0

    @property
    def slices(self) -> tuple[slice, slice]:
        """The rows and columns as slices, for an image that has them: ``image[..., *box.slices]``."""
        if self.top < 0 or self.left < 0:
            raise ImageError(f"{self} begins before the image; use box.clipped(image.shape) for the part that is in it")
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def clipped(self, shape: Sequence[int]) -> "Area":
        """Returns the part of the box in an image of a shape that ends with height and width."""
        (top, bottom), (left, right) = (
            (min(max(0, start), size), max(0, min(stop, size)))
            for start, stop, size in zip((self.top, self.left), (self.bottom, self.right), shape[-2:], strict=True)
        )
        return Area(top, left, bottom, right, self.whole)


@dataclass(frozen=True)
class Grid:
    """The boxes of all positions of a layer, where they are regular.

    Attributes:
        start: top and left of the box of position (0, 0).
        jump: pixels from one position's box to the next, down and right.
        size: height and width of every box.
    """

    start: tuple[int, int]
    jump: tuple[int, int]
    size: tuple[int, int]

    def box(self, position: Sequence[int]) -> Area:
        """Returns the box of a position."""
        top, left = (s + j * p for s, j, p in zip(self.start, self.jump, position, strict=True))
        return Area(top, left, top + self.size[0], left + self.size[1])


@checked
@clean
def receptive_field(
    graph: NetGraph, layer: str, position: Sequence[int], *, channel: int | None = None, visible: bool = False
) -> Area:
    """Returns the box of pixels that one position of a module's output can depend on.

    Args:
        graph: the traced network.
        layer: name of any module.
        position: where on its map, ``(y, x)`` for a convolution; as many numbers as the map has axes.
        channel: of one channel only; of all of them, together, where None. (Branches that are concatenated can have
            fields of different sizes.)
        visible: the smallest box around the pixels that are really there and read. Otherwise the box is computed as if
            the image went on beyond its borders: its size does not depend on where the position is, and the part of it
            in the image may exceed the visible one where the network leaves out rows at the borders of its maps.

    Returns:
        A box; an empty one at ``(0, 0)`` where no pixel matters.

    Raises:
        TargetError: no such layer, position or channel.
        UnsupportedOperation: an operation on the way has no rule, and trying it does not show what it reads.
    """
    image = image_node(graph)
    demand = _demand_at(graph, layer, position, channel)
    at_image = demands(graph, graph.output(layer).node, demand, borders=visible).get(image)
    if at_image is None:
        return Area(0, 0, 0, 0)
    rows, columns = at_image[2:]
    (top, bottom), (left, right) = (
        (0, size) if places.mixed else (min(places.at), max(places.at) + 1)
        for places, size in zip((rows, columns), graph.input_shape[1:], strict=True)
    )
    return Area(top, left, bottom, right, rows.mixed and columns.mixed)


def grid(graph: NetGraph, layer: str) -> Grid | None:
    """Returns how the boxes of a layer's positions lie, None where they are not regular.

    The jump along an axis with a single place is 0.
    """
    shape = graph.output(layer).map_shape
    if len(shape) != 2:
        return None
    diagonal = torch.arange(max(shape))[:, None].minimum(torch.tensor(shape) - 1)  # the last place repeats
    ends = [tuple(place) for place in diagonal.tolist()]
    boxes = [receptive_field(graph, layer, position) for position in ends]
    first, second = boxes[0], boxes[min(1, len(boxes) - 1)]
    jump = second.top - first.top, second.left - first.left
    regular = Grid((first.top, first.left), jump, first.size)
    same = all(regular.box(position) == box for position, box in zip(ends, boxes, strict=True))
    return regular if same and not first.empty else None


def crop(
    images: Shaped[Tensor, "*n c h w"], box: Area, *, fill: float | None = None
) -> Shaped[Tensor, "*n c crop_h crop_w"]:
    """Returns the pixels of a box, of an image or a batch.

    Args:
        images: pictures.
        box: what to take.
        fill: without it the box is clipped, so crops at a border are smaller; a number stands for what is not there,
            so that all boxes of one size give crops of one size (0 is the mean colour of normalised pictures).
    """
    part = box.clipped(images.shape)
    if part.empty:
        raise ImageError(f"{box} and the image, {_size(images)} pixels, have none in common; nothing can be cropped")
    taken = images[..., *part.slices]
    if fill is None:
        return taken
    beyond = (part.left - box.left, box.right - part.right, part.top - box.top, box.bottom - part.bottom)
    return torch.nn.functional.pad(taken, beyond, value=fill)


def paste(
    stimulus: Shaped[Tensor, "*n c box_h box_w"], box: Area, background: Shaped[Tensor, "*m c h w"]
) -> Shaped[Tensor, "*k c h w"]:
    """Returns the background with a stimulus in place of a box of it; what lies beyond the border is cut off.

    Args:
        stimulus: one or several pictures of exactly the box's size, before clipping: at a border the part of the
            stimulus that falls into the image stays where the field has it.
        box: where to put it.
        background: one or several pictures; ``torch.zeros(c, h, w)`` or ``torch.full`` for a constant.
    """
    if tuple(stimulus.shape[-2:]) != box.size:
        raise ImageError(
            f"the stimulus has {_size(stimulus)} pixels but {box} has {box.height} x {box.width}; resize it"
        )
    part = box.clipped(background.shape)
    lead = torch.broadcast_shapes(stimulus.shape[:-2], background.shape[:-2])
    pasted = background.expand(*lead, *background.shape[-2:]).clone()
    if not part.empty:
        there = Area(part.top - box.top, part.left - box.left, part.bottom - box.top, part.right - box.left)
        pasted[..., *part.slices] = stimulus[..., *there.slices].to(pasted)
    return pasted


def _size(images: Tensor) -> str:
    return f"{images.shape[-2]} x {images.shape[-1]}"


def _demand_at(graph: NetGraph, layer: str, position: Sequence[int], channel: int | None) -> Demand:
    output = graph.output(layer)
    shape = output.map_shape
    if len(position) != len(shape) or not all(0 <= p < size for p, size in zip(position, shape, strict=False)):
        raise TargetError(
            f"position {tuple(position)} is not on the map of layer {layer!r}, which has {len(shape)} axes of sizes "
            f"{shape}; give one number an axis, counted from 0"
        )
    if channel is not None and not 0 <= channel < output.n_channels:
        raise TargetError(f"layer {layer!r} has channels 0 to {output.n_channels - 1}, not {channel}")
    channels = range(output.n_channels) if channel is None else (channel,)
    demand = [Places(frozenset({int(p)})) for p in (0, *position)]
    demand.insert(output.channel_axis, Places(frozenset(channels)))
    return tuple(demand)
