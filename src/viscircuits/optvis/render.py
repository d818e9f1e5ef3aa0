"""`render`: pictures of what drives a channel, a neuron, a class or a kernel, in a model or in a circuit alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from viscircuits.bounds.arguments import checked
from viscircuits.circuit.circuit import Circuit
from viscircuits.data.colours import Colours, probe
from viscircuits.data.images import Prepare
from viscircuits.errors import ImageError, TargetError, closest
from viscircuits.model.guard.clean import clean
from viscircuits.model.trace import trace
from viscircuits.model.zoo.zoo import prepared_shape
from viscircuits.optvis.ascent import Ascent
from viscircuits.optvis.cache import Cache
from viscircuits.optvis.network import Network
from viscircuits.optvis.objective import Objective, Renderable, objective
from viscircuits.optvis.parameterisation import Fourier, Parameterisation, Pixels
from viscircuits.optvis.rendering import Picture, Rendering
from viscircuits.optvis.transforms import STANDARD, Transform
from viscircuits.optvis.window import window
from viscircuits.store import spelled
from viscircuits.types import Progress

PARAMETERISATIONS: dict[str, type[Fourier] | type[Pixels]] = {"fourier": Fourier, "pixels": Pixels}
"""Name -> parameterisation with its usual options."""


@checked
@clean
@torch.inference_mode(False)  # gradients are needed, whatever the caller does
@torch.enable_grad()
def render(
    model: nn.Module | Circuit,
    targets: Renderable | Sequence[Renderable] | None = None,
    *,
    prepare: Prepare | None = None,
    colours: Colours | None = None,
    size: int | tuple[int, ...] | None = None,
    canvas: int | None = None,
    steps: int = 256,
    parameterisation: Literal["fourier", "pixels"] | Parameterisation = "fourier",
    transforms: Sequence[Transform] = STANDARD,
    sign: Literal[1, -1] = 1,
    seed: int = 0,
    variants: int = 1,
    diversity: float = 0.0,
    crop: bool = False,
    batch_size: int = 16,
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> Rendering:
    """Returns one picture a target (or ``variants`` of them) that the network answers as strongly as possible.

    Every picture is what it would be if it were rendered alone, up to rounding; the model is left exactly as it was.

    Args:
        model: a network in evaluation mode, or a circuit: then its masked weights are looked into.
        targets: targets, their texts, or objectives; for a circuit its own target where None.
        prepare: what prepares pictures for the network; it tells the size and the colours.
        colours: mean and deviation, where ``prepare`` is not given or does more than normalise; ImageNet's by default
            for three channels, else values in [0, 1] as they are.
        size: side in pixels of what the network sees, or its whole shape ``(c, h, w)``; by default that of ``prepare``,
            or of the circuit.
        canvas: shorter side in pixels of the picture that is drawn, where that is larger; the transforms then need a
            `Crop`, or the network sees it shrunk.
        steps: steps of Adam.
        parameterisation: "fourier", "pixels", or one with options: ``Fourier(decay=1.5)``, ``Maco(images=images)``,
            ``Accentuation(image=image)``.
        transforms: random views, in the order in which they are applied.
        sign: -1 for what the network answers as negatively as possible.
        seed: of starts and views; variant v grows from seed + v.
        variants: pictures a target.
        diversity: what it costs when all variants are alike, as a fraction of the objective.
        crop: pictures of one position are shown cropped to its receptive field.
        batch_size: pictures at a time; changes nothing beyond rounding.
        cache: a folder in which pictures are kept, by all that decides what they look like.
        progress: called as the work goes on.

    Raises:
        TargetError, ImageError, ModelError, UnsupportedOperation: see each.
    """
    if steps < 1 or variants < 1 or batch_size < 1:
        raise TargetError(f"expected at least 1 of each; got {steps=}, {variants=}, {batch_size=}")
    if sign not in (1, -1):
        raise TargetError(f"expected a sign of 1 or -1, got {sign!r}")
    network = _network(model, prepare, colours, size)
    wanted = [objective(target) for target in _listed(model, targets)]
    for one in wanted:
        one.layers(network.graph)  # checks it, before any long work
    shape = _canvas(network.graph.input_shape, canvas)
    drawn = _parameterisation(parameterisation).at(shape, network.colours, progress)
    ascent = Ascent(network, drawn, tuple(transforms), steps, sign, variants, diversity)
    kept = Cache(None) if cache is None else Cache(Path(cache), ascent.recipe)
    job = _Job(ascent, seed, kept, batch_size, progress)
    pictures = job.pictures(wanted)
    if crop:
        repeated = [one for one in wanted for _ in range(variants)]
        pictures = [
            picture._replace(window=window(network, one, picture.image))
            for picture, one in zip(pictures, repeated, strict=True)
        ]
    return Rendering(tuple(pictures))


@dataclass(frozen=True, eq=False)
class _Job:
    """One call of `render`, after its arguments are understood."""

    ascent: Ascent
    seed: int
    cache: Cache
    batch_size: int
    progress: Progress | None

    def pictures(self, wanted: Sequence[Objective]) -> list[Picture]:
        """Returns the pictures of all objectives, variants next to each other; only those not kept are rendered."""
        kept = [self._kept(one) for one in wanted]
        # pictures of one objective are kept or made together, because variants may have been driven apart
        missing = [n for n, group in enumerate(kept) if group is None]
        # variants stand next to each other in one batch: they look at each other
        at_once = max(1, self.batch_size // self.ascent.variants)
        batches = [missing[i : i + at_once] for i in range(0, len(missing), at_once)]
        for number, batch in enumerate(batches):
            rendered = self._climb([wanted[n] for n in batch], number, len(batches))
            for n, group in zip(batch, rendered, strict=True):
                kept[n] = group
        # in the order asked, whichever were kept
        return [picture for group in kept for picture in group or ()]

    @property
    def _seeds(self) -> list[int]:
        return [self.seed + variant for variant in range(self.ascent.variants)]

    def _kept(self, one: Objective) -> list[Picture] | None:
        kept = [self.cache.read(spelled(one), str(seed)) for seed in self._seeds]
        group = [picture for picture in kept if picture is not None]
        return group if len(group) == len(kept) else None

    def _climb(self, wanted: Sequence[Objective], number: int, batches: int) -> list[list[Picture]]:
        def stepped(step: int) -> None:
            if self.progress is not None:
                steps = self.ascent.steps
                self.progress("render", number * steps + step, batches * steps)

        seeds = self._seeds * len(wanted)
        repeated = [one for one in wanted for _ in self._seeds]
        peak = self.ascent.climb(repeated, seeds, stepped)
        pictures = [
            Picture(image, str(one), value, seed, note)
            for image, one, value, seed, note in zip(
                peak.pictures, repeated, peak.values.tolist(), seeds, peak.notes, strict=True
            )
        ]
        for picture, one in zip(pictures, repeated, strict=True):
            self.cache.write(picture, spelled(one), str(picture.seed))
        return [pictures[i : i + len(self._seeds)] for i in range(0, len(pictures), len(self._seeds))]


def _network(
    model: nn.Module | Circuit, prepare: Prepare | None, colours: Colours | None, size: int | tuple[int, ...] | None
) -> Network:
    shape = None
    if prepare is not None:
        shape = prepared_shape(prepare)  # says what is wrong with it
        colours = probe(prepare)[0] if colours is None else colours
    if shape is None and isinstance(model, Circuit):
        shape = model.mask.input_shape
    if isinstance(size, int):
        shape = (3 if shape is None else shape[0], size, size)
    shape = size if isinstance(size, tuple) else shape
    if shape is None or len(shape) != 3 or min(shape) < 1:
        raise ImageError(f"expected prepare=, or size= in pixels or as (channels, height, width); got {size=}")
    # without a word about colours they are taken to be ImageNet's, as most networks of three channels have it
    own = colours or (Colours() if shape[0] == 3 else Colours.unchanged(shape[0]))
    if isinstance(model, Circuit):
        return Network(model.model, trace(model.model, shape), model.weights, own)
    return Network(model, trace(model, shape), {}, own)


def _listed(model: nn.Module | Circuit, targets: Renderable | Sequence[Renderable] | None) -> Sequence[Renderable]:
    if targets is None:
        if not isinstance(model, Circuit):
            raise TargetError("expected targets to render, got none; only a circuit has one of its own")
        return [model.target]
    listed = [targets] if isinstance(targets, str) or not isinstance(targets, Sequence) else targets
    if not listed:
        raise TargetError("expected at least one target to render, got an empty list")
    return listed


def _parameterisation(given: str | Parameterisation) -> Parameterisation:
    if isinstance(given, Parameterisation):
        return given
    if given not in PARAMETERISATIONS:
        raise ImageError(
            f"unknown parameterisation {given!r}{closest(given, PARAMETERISATIONS)}; expected "
            f"{', '.join(PARAMETERISATIONS)}, or an object such as Maco(images=images)"
        )
    return PARAMETERISATIONS[given]()


def _canvas(shape: tuple[int, ...], canvas: int | None) -> tuple[int, int, int]:
    channels, height, width = shape
    factor = 1.0 if canvas is None else canvas / min(height, width)
    if factor < 1:
        raise ImageError(f"expected a canvas of at least the {min(height, width)} pixels that are seen, got {canvas}")
    # the proportion stays, or the network would see the picture squeezed
    return channels, round(height * factor), round(width * factor)
