"""A picture for every filter of a diagram: what it looks for in the circuit, or what in real images excites it most."""

from functools import partial
from pathlib import Path
from typing import Literal, get_args

from viscircuits.activations.exciting import Unit, colours_of, field, pixels, seen, strongest
from viscircuits.bounds import checked
from viscircuits.circuit import Circuit
from viscircuits.data.images import ImageSet, Prepare
from viscircuits.diagram.content import Content
from viscircuits.diagram.glyphs import Pictures
from viscircuits.errors import ImageError, ModelError, UnsupportedOperation, closest
from viscircuits.mask import Mask
from viscircuits.model.trace import trace
from viscircuits.optvis.objective import Activation, Renderable
from viscircuits.optvis.render import render
from viscircuits.plots.plate import Pixels, blank
from viscircuits.subcircuits.split import Split
from viscircuits.target import Loss, Target
from viscircuits.types import Progress

Source = Literal["optvis", "crops", "none"]
"""Where pictures of filters come from: rendered on the circuit, cut out of images, or nowhere."""

SHEET = 9
"""How many members of a bundle are shown."""

_SIDE = 96
"""Pixels of what the network sees while a filter's picture is rendered; smaller networks keep their own size."""

_STEPS = 96

_SPLIT_SIDE, _SPLIT_STEPS = 128, 160
"""The same for the few pictures of a split."""

_SEEDS = 8
"""From how many seeds a picture is tried that nothing leads up to; behind a ReLU many a start has no gradient."""


@checked
def vertex_pictures(
    circuit: Circuit,
    content: Content,
    images: ImageSet | None = None,
    *,
    source: Source = "optvis",
    prepare: Prepare | None = None,
    cache: str | Path | None = None,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> Pictures:
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
    if source not in get_args(Source):
        raise ImageError(f"unknown source of pictures {source!r}{closest(source, get_args(Source))}")
    units = _units(circuit, content) if source != "none" else []
    if not units:
        return {}
    if source == "optvis":
        return rendered(circuit, units, prepare=prepare, cache=cache, batch_size=batch_size, progress=progress)
    if images is None:
        raise ImageError("crops are cut out of images, and there are none; pass images=, or source='optvis'")
    mapped = [unit for unit in units if unit[0] and len(circuit.graph.output(unit[0]).map_shape) == 2]
    best = strongest(circuit, images, mapped, batch_size=batch_size, progress=progress)
    colours = colours_of(prepare, circuit.graph.input_shape[0])
    return {
        unit: pixels(colours.pictures(images[place.image]), seen(circuit.graph, unit, place.position))
        for unit, place in best.items()
    }


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
) -> Pictures:
    """Returns (layer, channel) -> what the middle of its map looks for in a circuit; a layer's filters in one batch.

    The layer "" stands for the circuit's own target. A picture of one colour, `blank`, was found from no start. See
    `vertex_pictures` for the rest.
    """
    colours = colours_of(prepare, circuit.mask.input_shape[0])
    size = _size(circuit, side)
    made: Pictures = {}
    for layer in dict.fromkeys(layer for layer, _ in units):
        own = [unit for unit in units if unit[0] == layer]
        wanted = [_middle(circuit, unit) for unit in own]

        def report(what: str, done: int, total: int, first: int = len(made), count: int = len(own)) -> None:
            if progress is not None:
                progress("filters drawn", first + count * done // total, len(units))

        draw = partial(render, circuit, colours=colours, size=size, batch_size=batch_size)
        again = partial(draw, crop=_followed(circuit, own[0]), cache=cache, steps=steps)
        for unit, one, picture in zip(own, wanted, again(wanted, progress=report), strict=True):
            made[unit] = pixels(picture.cropped())
            if blank(made[unit]):
                starts = ((seed, draw([one], steps=1, seed=seed).images[0]) for seed in range(1, _SEEDS))
                if seed := next((seed for seed, start in starts if not blank(start.numpy())), 0):
                    made[unit] = pixels(again([one], seed=seed)[0].cropped())
        report("", 1, 1)  # also where all were kept
    return made


def renderings(
    found: Split, prepare: Prepare | None = None, *, cache: Path | None = None, progress: Progress | None = None
) -> list[Pixels]:
    """Returns what the target looks for in the model, then in each set's circuit: same seed, same steps."""
    target = found.target
    if target.channel is None:
        return []
    mask = found.division.masks[0]
    whole = Circuit(found.model, target, Mask(mask.relevant, mask.relevant, mask.granularity, mask.input_shape))
    unit = (target.layer, target.channel)
    return [
        rendered(
            circuit, [unit], prepare=prepare, side=_SPLIT_SIDE, steps=_SPLIT_STEPS, cache=cache, progress=progress
        )[unit]
        for circuit in (whole, *found.circuits)
    ]  # fmt: skip


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
    middle = tuple(size // 2 for size in circuit.graph.output(unit[0]).map_shape)
    return bool(middle) and field(circuit.graph, unit, middle) is not None
