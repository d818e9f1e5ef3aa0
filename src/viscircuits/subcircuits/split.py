"""A feature split by the images that excite it: one subcircuit a set of images, and how far each serves the others.

Source: circuit pruning, section 6.1. Scores start from one activation an image, its highest; the difference of a
circuit is the mean absolute change of these activations over their mean size in the full model. If the sets are
answered by distinct computations, the circuit of one fails on another at densities at which it still serves its own; if
by a shared one, it does not. Random splits into the same sizes are the control.

Differs: 1. the control is repeated, and gives a permutation p-value. 2. The last density that keeps the own set within
the tolerance is found by bisection, alike for the sets and for the controls, so that the test is exact; where a curve
crosses the tolerance several times it is one of the crossings. 3. Each circuit is found on one random half of its set
and measured on the other, because a circuit serves the very pictures it was found on better than it serves their kind;
``held_out=False`` does both on all of them, as the paper did.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from viscircuits.bounds.arguments import checked
from viscircuits.card import Card, Shown, few
from viscircuits.circuit.circuit import Circuit
from viscircuits.data.images import ImageSet
from viscircuits.errors import ImageError, MaskError
from viscircuits.model.fingerprint import fingerprint
from viscircuits.saliency.registry import lookup
from viscircuits.store import digest
from viscircuits.subcircuits.division import Division, Sets, bench
from viscircuits.subcircuits.known import Known
from viscircuits.subcircuits.per_image import ImageScores, located, score_each
from viscircuits.subcircuits.per_set import SetScores, check_places
from viscircuits.subcircuits.verdict import Verdict, judge
from viscircuits.target import Target
from viscircuits.types import Biases, Granularity, Progress

DENSITIES = (
    1.0, 0.85, 0.7, 0.6, 0.5, 0.45, 0.4, 0.35, 0.3, 0.25, 0.2, 0.16, 0.13, 0.1, 0.08, 0.06, 0.04, 0.02, 0.01, 0.005,
)  # fmt: skip
"""Where curves are measured unless told otherwise; the paper's range is .5 to .005."""

TOLERANCE = 0.15
"""The difference up to which a circuit counts as keeping its activations (paper 6.1)."""

TableRow = dict[str, str | float | int | bool]
"""One line of a table: column -> value."""


@dataclass(frozen=True, repr=False)
class Split(Shown):
    """A feature's subcircuits for some sets of images, measured on their own and on each other's images.

    Images are named by their index among those that took part.

    Args:
        model: the user's module.
        target: the feature, each image read at its own place.
        images: the pictures that took part.
        names: the label of each set, ascending.
        densities: where the curves were measured, descending.
        tolerance: the relative difference up to which a circuit keeps its activations.
        division: the sets asked about.
        controls: random divisions of the same images into the same sizes.
        curves: density x circuit x set: the relative difference.
        control_curves: the same for the first few controls.
        values: each picture's activation in the full model.
        places: where on the target's map it was read, flat.
        biases: what became of filters without kernels.
    """

    model: nn.Module = field(repr=False)
    target: Target
    images: ImageSet
    names: tuple[int, ...]
    densities: tuple[float, ...]
    tolerance: float
    division: Division
    controls: tuple[Division, ...]
    curves: Float[Tensor, "d s s"]
    control_curves: Float[Tensor, "k d s s"]
    values: Float[Tensor, " n"]
    places: Int[Tensor, " n"]
    biases: Biases = "masked"

    def _card(self) -> Card:
        sizes = [len(images) for images in self.division.sets]
        return Card("Split", {
            "target": self.target, "model": type(self.model).__name__, "images": f"{len(self.images):,}",
            "sets": few([f"{name}: {size}" for name, size in zip(self.names, sizes, strict=True)]),
            "verdict": self.verdict, "densities of the circuits": few(self.division.densities),
            "random splits": len(self.controls),
        })  # fmt: skip

    @cached_property
    def circuits(self) -> tuple[Circuit, ...]:
        """Each set's circuit, at the last density that keeps its own activations."""
        return tuple(Circuit(self.model, self.target, mask, self.biases) for mask in self.division.masks)

    @cached_property
    def verdict(self) -> Verdict:
        """Whether the sets are answered by distinct computations."""
        division = self.division
        sizes = [len(images) for images in division.sets]
        smallest = min(map(len, (*division.scored, *division.measured)))
        sparse = all(density < 1 for density in division.densities)
        controls = [control.excess for control in self.controls]
        return judge(
            division.excess, controls, sizes, least=division.least_excess, smallest=smallest, sparse=sparse,
            tolerance=self.tolerance,
        )  # fmt: skip

    @property
    def iou_p(self) -> float:
        """Probability of circuits that overlap as little in a random split, ``(1 + as low) / (1 + splits)``."""
        # one-sided: circuits of distinct computations overlap less
        as_low = sum(control.iou <= self.division.iou for control in self.controls)
        return (1 + as_low) / (1 + len(self.controls))

    def rows(self) -> list[TableRow]:
        """Returns the curves as tidy rows, a difference each; division 0 is that of the sets, the others are random."""
        return [
            {
                "division": number,
                "density": density,
                "circuit": circuit,
                "images": images,
                "own": circuit == images,
                "difference": float(curves[d, s, t]),
            }
            for number, curves in enumerate((self.curves, *self.control_curves))
            for d, density in enumerate(self.densities)
            for s, circuit in enumerate(self.names)
            for t, images in enumerate(self.names)
        ]

    def overlaps(self) -> list[TableRow]:
        """Returns the overlap of circuits as tidy rows: which division (0: the sets, then the controls), layer, IoU.

        Layer ``""`` is the whole circuit. Rows with a density compare circuits of that density, the others those at
        the last density that keeps their own set.
        """
        rows: list[TableRow] = []
        for number, division in enumerate((self.division, *self.controls)):
            last = {"": division.iou} | division.iou_by_layer
            rows += [{"division": number, "density": 0.0, "layer": name, "iou": iou} for name, iou in last.items()]
            rows += [
                {"division": number, "density": density, "layer": "", "iou": iou}
                for density, iou in zip(self.densities, division.iou_at, strict=True)
            ]
        return rows


@checked
def split(
    model: nn.Module,
    target: Target,
    images: ImageSet,
    labels: Sequence[int],
    *,
    places: Int[Tensor, " n"] | None = None,
    criterion: str = "actgrad",
    densities: Sequence[float] = DENSITIES,
    tolerance: float = TOLERANCE,
    controls: int = 39,
    bands: int = 5,
    held_out: bool = True,
    granularity: Granularity = "kernel",
    normalise: Literal["minmax"] | None = None,
    biases: Biases = "masked",
    seed: int = 0,
    batch_size: int = 16,
    kept: Path | None = None,
    progress: Progress | None = None,
) -> Split:
    """Returns a feature's subcircuits for sets of images, measured on their own and on each other's images.

    Args:
        model: a network in evaluation mode; it is left exactly as it was.
        target: a channel or direction of a layer.
        images: pictures that excite it; held in memory meanwhile.
        labels: the set of each picture; pictures with a negative label take no part.
        places: the flat position of each image's map to explain; its highest in the full model where None.
        criterion: a name in `CRITERIA`, but force and learned. One that scores a set as a whole (reconstruct) does so
            for every set and every random split, and reads each image at its highest place. Of reconstruct the means
            count, ``"reconstruct,mean=1"``, unless told otherwise: pictures of one kind excite alike.
        densities: where to measure, in (0, 1]; 1, where every difference is 0, is always among them.
        tolerance: the relative difference up to which a circuit keeps its activations.
        controls: how many random splits; 19 or more for a verdict.
        bands: of how many of them whole curves are measured.
        held_out: whether a circuit is found on one half of its set and measured on the other; else both on all.
        granularity, normalise, biases: as in `score` and `Circuit`.
        seed: of halves and random splits, and of criteria that draw random numbers.
        batch_size: pictures at a time; changes no result beyond rounding.
        kept: a file that keeps what was measured, so that interrupted work goes on there.
        progress: called as the work goes on.
    """
    names, sets, used = _sets(labels, len(images))
    grid = _grid(densities)
    chosen = images.subset(used).in_memory()
    where = None if places is None else places[torch.tensor(used)]
    each = _scores(model, target, chosen, where, criterion, granularity, normalise, seed, batch_size, progress)
    recipe = digest(
        fingerprint(model), chosen.hash, str(target.at("max")), torch.tensor([]) if where is None else where, criterion,
        granularity, str(normalise), biases, str(seed),
    )  # fmt: skip
    # what was measured before is known by all that decides it, so another question never gets old numbers
    measured = bench(model, target, chosen, where, each, grid, tolerance, Known(recipe, kept), biases, batch_size)
    generator = torch.Generator().manual_seed(seed)
    first = _parts(sets, held_out, generator)
    curves = measured.curves(*first, progress, "subcircuits")
    division = measured.divide(*first)
    divisions: list[Division] = []
    bands = min(bands, controls)
    control_curves = torch.empty(bands, *curves.shape, dtype=curves.dtype)
    for number, random in enumerate(_random(sets, controls, generator)):
        # drawn for every split, also where curves are not measured, so that ``bands`` changes no later split
        parts = _parts(random, held_out, generator)
        if number < bands:
            control_curves[number] = measured.curves(*parts, progress, f"control curves {number + 1}")
        divisions.append(measured.divide(*parts))
        if progress is not None:
            progress("random splits", number + 1, controls)
    return Split(
        model, target.at("max"), chosen, names, grid, tolerance, division, tuple(divisions), curves, control_curves,
        measured.full.values[:, 0], measured.places, biases,
    )  # fmt: skip


def _scores(
    model: nn.Module, target: Target, images: ImageSet, places: Int[Tensor, " n"] | None, criterion: str,
    granularity: Granularity, normalise: Literal["minmax"] | None, seed: int, batch_size: int,
    progress: Progress | None,
) -> ImageScores | SetScores:  # fmt: skip
    """What gives the scores of any set of the images: sums over its images, or one score of the set as a whole."""
    method = lookup(criterion)
    if method.learned or not method.ranks:
        return score_each(
            model, target, images, places, criterion, granularity=granularity, normalise=normalise, seed=seed,
            progress=progress,
        )  # fmt: skip
    located(model, target, images, places)
    if normalise is not None:
        raise MaskError(f"{method.name} ranks structures across layers, and 'minmax' would undo that; leave it out")
    if places is not None:
        check_places(model, target, images, places)
    if "mean" in method.options and "mean" not in method.settings:
        criterion += ",mean=1"  # pictures of one kind excite alike, and what a circuit has to keep is how much
    return SetScores(
        model, target, images, criterion, granularity=granularity, seed=seed, batch_size=batch_size, progress=progress
    )


def _sets(labels: Sequence[int], n_images: int) -> tuple[tuple[int, ...], Sets, list[int]]:
    """Names of the sets; their images, by index among those in a set; the indices of these among all."""
    if len(labels) != n_images:
        raise ImageError(f"expected one label an image ({n_images}), got {len(labels)}")
    used = [index for index, label in enumerate(labels) if label >= 0]
    own = torch.tensor([int(labels[index]) for index in used])
    names = tuple(own.unique().tolist())
    if len(names) < 2:
        raise ImageError(f"expected at least two sets of images, got the labels {list(names)}; nothing to split")
    return names, tuple((own == name).nonzero()[:, 0] for name in names), used


def _grid(densities: Sequence[float]) -> tuple[float, ...]:
    for density in densities:
        if not 0 < density <= 1:
            raise MaskError(f"density {density!r} is out of range; expected a fraction in (0, 1], such as 0.1")
    return tuple(sorted({1.0, *map(float, densities)}, reverse=True))


def _random(sets: Sets, repeats: int, generator: torch.Generator) -> Iterator[Sets]:
    """Random divisions of the same images into the same sizes."""
    sizes = [len(one) for one in sets]
    for _ in range(repeats):
        yield tuple(part.sort().values for part in torch.randperm(sum(sizes), generator=generator).split(sizes))


def _parts(sets: Sets, held_out: bool, generator: torch.Generator) -> tuple[Sets, Sets]:
    """What each circuit is found on, and what it is measured on: random halves, the first the larger, or all twice."""
    if not held_out:
        return sets, sets
    orders = [one[torch.randperm(len(one), generator=generator)] for one in sets]
    # the larger half finds the circuit, because scores need more images than a mean does
    halves = [(order[: (len(order) + 1) // 2], order[(len(order) + 1) // 2 :]) for order in orders]
    return tuple(a.sort().values for a, _ in halves), tuple(b.sort().values for _, b in halves)
