"""What a diagram shows that only running the network tells: filters' pictures, and the responses of the inset.

The one file of `viscircuits.diagram` that runs a model. What it returns is data; how that is drawn is said in the other
files, and which kernels are drawn at all in `viscircuits.diagram.walk`, from the graph and the weights alone.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal, get_args

from viscircuits.activations.exciting import Unit, colours_of, field, pixels, seen, strongest_places
from viscircuits.bounds.arguments import checked
from viscircuits.circuit.circuit import Circuit
from viscircuits.data.images import ImageSet, Prepare
from viscircuits.diagram.content import Content
from viscircuits.diagram.glyphs import SHEET, FilterPictures
from viscircuits.diagram.inset import Agreement
from viscircuits.errors import ImageError, ModelError, UnsupportedOperation, closest
from viscircuits.evaluate.preservation import Reference, reference
from viscircuits.model.trace import trace
from viscircuits.optvis.objective import Activation, Renderable
from viscircuits.optvis.render import render
from viscircuits.optvis.rendering import Rendering
from viscircuits.plots.plate import Rgb, blank
from viscircuits.target import Loss, Target, indices
from viscircuits.types import Progress

PictureSource = Literal["optvis", "crops", "none"]
"""Where pictures of filters come from: rendered on the circuit, cut out of images, or nowhere."""

_SIDE = 96
"""Rgb of what the network sees while a filter's picture is rendered; smaller networks keep their own size."""

_STEPS = 96

_SEEDS = 8
"""From how many seeds a picture is tried that nothing leads up to; behind a ReLU many a start has no gradient."""


@checked
def vertex_pictures(
    circuit: Circuit,
    content: Content,
    images: ImageSet | None = None,
    *,
    source: PictureSource = "optvis",
    prepare: Prepare | None = None,
    cache: str | Path | None = None,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> FilterPictures:
    """Returns (layer, channel) -> a picture of that filter, cut to its receptive field where that is smaller.

    Args:
        circuit: the circuit; its filters are looked into, not the full model's.
        content: which filters are drawn. One that reads the image shows its kernel and needs no picture.
        images: where to look for exciting pieces; prepared as for the network.
        source: "optvis" renders what the middle of each filter's map looks for; "crops" takes the piece of an image
            that excites the filter most; "none" makes no pictures.
        prepare: what prepared the images; it tells the colours (ImageNet's by default).
        cache: a folder that keeps rendered pictures, so that interrupted work goes on there.
        batch_size: pictures at a time.
        progress: called as the work goes on.
    """
    if source not in get_args(PictureSource):
        raise ImageError(f"unknown source of pictures {source!r}{closest(source, get_args(PictureSource))}")
    units = _units(circuit, content) if source != "none" else []
    if not units:
        return {}
    if source == "optvis":
        return rendered(circuit, units, prepare=prepare, cache=cache, batch_size=batch_size, progress=progress)
    if images is None:
        raise ImageError("crops are cut out of images, and there are none; pass images=, or source='optvis'")
    crops = exciting_crops(circuit, content, images, 1, prepare=prepare, batch_size=batch_size, progress=progress)
    return {unit: pieces[0] for unit, pieces in crops.items()}


def original_pictures(
    circuit: Circuit,
    content: Content,
    images: ImageSet | None = None,
    *,
    every: bool = False,
    source: PictureSource = "optvis",
    prepare: Prepare | None = None,
    cache: str | Path | None = None,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> FilterPictures:
    """Returns (layer, channel) -> a picture of that filter in the full model, made as `vertex_pictures` are.

    Args:
        circuit: the circuit; its model is looked into, with every kernel.
        content: which filters are drawn.
        images: where to look for exciting pieces; prepared as for the network.
        every: of all filters that are drawn; else of the target alone.
        source: where pictures come from.
        prepare: what prepared the images; it tells the colours.
        cache: a folder that keeps rendered pictures.
        batch_size: pictures at a time.
        progress: called as the work goes on.
    """
    mask = circuit.mask
    # compensation and silenced biases belong to the circuit: the full model has neither
    full = Circuit(circuit.model, circuit.target, replace(mask, kept=dict(mask.relevant)))
    if not every:
        content = replace(content, vertices=tuple(v for v in content.vertices if v.is_target))
    return vertex_pictures(
        full, content, images, source=source, prepare=prepare, cache=cache, batch_size=batch_size, progress=progress
    )


def exciting_crops(
    circuit: Circuit,
    content: Content,
    images: ImageSet,
    count: int,
    *,
    prepare: Prepare | None = None,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> Mapping[Unit, list[Rgb]]:
    """Returns (layer, channel) -> the pieces of the images that excite that filter most, the strongest first.

    Filters without a map, and those that read the image, are left out.

    Args:
        circuit: the circuit; its filters are looked into, not the full model's.
        content: which filters are drawn.
        images: where to look; prepared as for the network.
        count: how many images a filter.
        prepare: what prepared the images; it tells the colours.
        batch_size: pictures at a time.
        progress: called as the work goes on.
    """
    units = _units(circuit, content)
    mapped = [unit for unit in units if unit[0] and len(circuit.graph.output(unit[0]).map_shape) == 2]
    best = strongest_places(circuit, images, mapped, count, batch_size=batch_size, progress=progress)
    colours = colours_of(prepare, circuit.graph.input_shape[0])
    crops: dict[Unit, list[Rgb]] = {}
    for unit, places in best.items():
        pieces = [(images[place.image], seen(circuit.graph, unit, place.position)) for place in places]
        crops[unit] = [pixels(colours.pictures(image), box) for image, box in pieces]
    return crops


def rendered(
    circuit: Circuit,
    units: list[Unit],
    *,
    prepare: Prepare | None = None,
    side: int = _SIDE,
    steps: int = _STEPS,
    cache: str | Path | None = None,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> FilterPictures:
    """Returns (layer, channel) -> what the middle of its map looks for in a circuit; a layer's filters in one batch.

    The layer "" stands for the circuit's own target. A picture of one colour, `blank`, was found from no start.

    Args:
        circuit: the circuit; its filters are looked into, not the full model's.
        units: the filters.
        prepare: what prepared the images; it tells the colours (ImageNet's by default).
        side: pixels of what the network sees meanwhile, at most; smaller networks keep their own size.
        steps: steps of a rendering.
        cache: a folder that keeps rendered pictures.
        batch_size: pictures at a time.
        progress: called as the work goes on.
    """
    colours = colours_of(prepare, circuit.mask.input_shape[0])
    size = _size(circuit, side)
    pictures: dict[Unit, Rgb] = {}
    for layer in dict.fromkeys(layer for layer, _ in units):
        own = [unit for unit in units if unit[0] == layer]
        objectives = [_middle(circuit, unit) for unit in own]

        # its own first and count as defaults: a closure would see those of the layer that the loop has come to
        def report(what: str, done: int, total: int, first: int = len(pictures), count: int = len(own)) -> None:
            if progress is not None:
                progress("filters drawn", first + count * done // total, len(units))

        draw = partial(render, circuit, colours=colours, size=size, batch_size=batch_size)
        climb = partial(draw, crop=_followed(circuit, own[0]), cache=cache, steps=steps)
        for unit, what, picture in zip(own, objectives, climb(objectives, progress=report), strict=True):
            pictures[unit] = pixels(picture.cropped())
            if blank(pictures[unit]) and (seed := _lively_seed(draw, what)):
                pictures[unit] = pixels(climb([what], seed=seed)[0].cropped())
        report("", 1, 1)  # also where all were kept
    return pictures


def _lively_seed(draw: Callable[..., Rendering], what: Renderable) -> int:
    """The first further seed from which something leads up; 0 where there is none."""
    for seed in range(1, _SEEDS):
        # one step tells: from a start without a gradient it leads nowhere, and the picture is still of one colour
        if not blank(draw([what], steps=1, seed=seed).images[0].numpy()):
            return seed
    return 0


def agreement(
    circuit: Circuit, images: ImageSet, *, full: Reference | None = None, batch_size: int = 16,
    progress: Progress | None = None,
) -> Agreement:  # fmt: skip
    """Returns both responses to images; take pictures that were not scored on.

    Args:
        circuit: the circuit.
        images: pictures of the circuit's size.
        full: the full model's responses to them, when known.
        batch_size: pictures at a time.
        progress: called after every batch.
    """
    full = full or reference(circuit, images, batch_size=batch_size, progress=progress)
    values = circuit.respond(images, frozen=full.response.frozen, batch_size=batch_size, progress=progress)
    # both with the same arg-max positions, or the circuit would be read somewhere else than the model
    measured = full.compare(values, disconnected=circuit.disconnected)
    return Agreement(full.response.values.double().numpy(), values.double().numpy(), measured)


def _units(circuit: Circuit, content: Content) -> list[Unit]:
    """What is drawn and has an output to read; the target itself where it is no filter."""
    outputs = circuit.graph.outputs
    drawn = [member for vertex in content.vertices for member in vertex.members[:SHEET] or (vertex,)]
    units = [
        (vertex.layer, vertex.channel)
        for vertex in drawn
        if vertex.kernel is None
        and vertex.kind != "join"
        and (vertex.layer in outputs if vertex.layer else vertex.is_target and not isinstance(circuit.target, Loss))
    ]
    return list(dict.fromkeys(units))


def _middle(circuit: Circuit, unit: Unit) -> Renderable:
    layer, channel = unit
    if not layer:
        assert not isinstance(circuit.target, Loss)
        return Activation(circuit.target)
    return Target(layer, channel, position="center" if circuit.graph.output(layer).map_shape else None)


def _size(circuit: Circuit, side: int) -> tuple[int, ...]:
    """The shape at which filters are rendered: the circuit's own, or a smaller one where the network takes it."""
    channels, height, width = circuit.mask.input_shape
    # the shorter side decides, so that the proportion stays that of the network's pictures
    shrunk = side / min(height, width)
    smaller = channels, round(height * shrunk), round(width * shrunk)
    if shrunk >= 1:
        return circuit.mask.input_shape
    try:
        trace(circuit.model, smaller)
    except (ModelError, UnsupportedOperation):  # a network of one size only
        return circuit.mask.input_shape
    return smaller


def _followed(circuit: Circuit, unit: Unit) -> bool:
    """Whether the receptive field of the middle of a unit's map is known."""
    if not unit[0]:
        return False
    middle = indices("center", circuit.graph.output(unit[0]).map_shape)
    return bool(middle) and field(circuit.graph, unit, middle) is not None
