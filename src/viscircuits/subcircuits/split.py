"""A feature split by the images that excite it: one subcircuit a set of images, and how far each serves the others.

Source: circuit pruning, section 6.1. Scores start from one activation an image, its highest; the difference of a
circuit is the mean absolute change of these activations over their mean size in the full model. If the sets are
answered by distinct computations, the circuit of one fails on another at densities at which it still serves its own; if
by a shared one, it does not. Random splits into the same sizes are the control.

Differs: 1. the control is repeated, and gives a permutation p-value. 2. The last density that keeps the own set within
the tolerance is found by bisection, alike for the sets and for the controls, so that the test is exact; where a curve
crosses the tolerance several times it is one of the crossings.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from viscircuits.circuit import Biases, Circuit
from viscircuits.data.images import ImageSet
from viscircuits.errors import ImageError, MaskError
from viscircuits.subcircuits.division import Division, Sets, bench
from viscircuits.subcircuits.per_image import score_each
from viscircuits.subcircuits.verdict import Verdict, judge
from viscircuits.target import Target
from viscircuits.types import Granularity, Progress

DENSITIES = (
    1.0, 0.85, 0.7, 0.6, 0.5, 0.45, 0.4, 0.35, 0.3, 0.25, 0.2, 0.16, 0.13, 0.1, 0.08, 0.06, 0.04, 0.02, 0.01, 0.005,
)  # fmt: skip
"""Where curves are measured unless told otherwise; the paper's range is .5 to .005."""

TOLERANCE = 0.15
"""The difference up to which a circuit counts as keeping its activations (paper 6.1)."""

Row = dict[str, str | float | int | bool]
"""One line of a table: column -> value."""


@dataclass(frozen=True)
class Split:
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
        control_curves: the same for the first control; None without controls.
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
    control_curves: Float[Tensor, "d s s"] | None
    biases: Biases = "masked"

    @cached_property
    def circuits(self) -> tuple[Circuit, ...]:
        """Each set's circuit, at the last density that keeps its own activations."""
        return tuple(Circuit(self.model, self.target, mask, self.biases) for mask in self.division.masks)

    @cached_property
    def verdict(self) -> Verdict:
        """Whether the sets are answered by distinct computations."""
        sizes = [len(images) for images in self.division.sets]
        sparse = all(density < 1 for density in self.division.densities)
        controls = [control.excess for control in self.controls]
        return judge(self.division.excess, controls, sizes, sparse=sparse, tolerance=self.tolerance)

    @property
    def iou_p(self) -> float:
        """Probability of circuits that overlap as little in a random split, ``(1 + as low) / (1 + splits)``."""
        as_low = sum(control.iou <= self.division.iou for control in self.controls)
        return (1 + as_low) / (1 + len(self.controls))

    def rows(self) -> list[Row]:
        """Returns the curves as tidy rows: division, density, whose circuit, on whose images, difference."""
        both: Mapping[str, Tensor | None] = {"sets": self.curves, "random": self.control_curves}
        return [
            {
                "division": division,
                "density": density,
                "circuit": circuit,
                "images": images,
                "own": circuit == images,
                "difference": float(curves[d, s, t]),
            }
            for division, curves in both.items()
            if curves is not None
            for d, density in enumerate(self.densities)
            for s, circuit in enumerate(self.names)
            for t, images in enumerate(self.names)
        ]

    def overlaps(self) -> list[Row]:
        """Returns the overlap of circuits as tidy rows: which division (0: the sets, then the controls), layer, IoU.

        Layer ``""`` is the whole circuit. Rows with a density compare circuits of that density, the others those at
        the last density that keeps their own set.
        """
        rows: list[Row] = []
        for number, division in enumerate((self.division, *self.controls)):
            last = {"": division.iou} | division.iou_by_layer
            rows += [{"division": number, "density": 0.0, "layer": name, "iou": iou} for name, iou in last.items()]
            rows += [
                {"division": number, "density": density, "layer": "", "iou": iou}
                for density, iou in zip(self.densities, division.iou_at, strict=True)
            ]
        return rows


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
    granularity: Granularity = "kernel",
    normalise: Literal["minmax"] | None = None,
    biases: Biases = "masked",
    seed: int = 0,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> Split:
    """Returns a feature's subcircuits for sets of images, measured on their own and on each other's images.

    Args:
        model: a network in evaluation mode; it is left exactly as it was.
        target: a channel or direction of a layer.
        images: pictures that excite it; held in memory meanwhile.
        labels: the set of each picture; pictures with a negative label take no part.
        places: the flat position of each image's map to explain; its highest in the full model where None.
        criterion: a name in `CRITERIA`, but force.
        densities: where to measure, in (0, 1]; 1, where every difference is 0, is always among them.
        tolerance: the relative difference up to which a circuit keeps its activations.
        controls: how many random splits; 19 or more for a verdict.
        granularity, normalise, biases: as in `score` and `Circuit`.
        seed: of the random splits, and of criteria that draw random numbers.
        batch_size: pictures at a time; changes no result beyond rounding.
        progress: called as the work goes on.
    """
    names, sets, used = _sets(labels, len(images))
    grid = _grid(densities)
    chosen = images.subset(used).in_memory()
    where = None if places is None else places[torch.tensor(used)]
    each = score_each(
        model, target, chosen, where, criterion, granularity=granularity, normalise=normalise, seed=seed,
        progress=progress,
    )  # fmt: skip
    measured = bench(model, target, chosen, where, each, grid, tolerance, biases, batch_size)
    curves = measured.curves(sets, progress, "subcircuits")
    division = measured.divide(sets, curves)
    found: list[Division] = []
    control_curves = None
    for number, random in enumerate(_random(sets, controls, seed)):
        if number == 0:
            control_curves = measured.curves(random, progress, "control curves")
        found.append(measured.divide(random, control_curves if number == 0 else None))
        if progress is not None:
            progress("random splits", number + 1, controls)
    return Split(
        model, target.at("max"), chosen, names, grid, tolerance, division, tuple(found), curves, control_curves, biases
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


def _random(sets: Sets, repeats: int, seed: int) -> Iterator[Sets]:
    """Random divisions of the same images into the same sizes."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [len(one) for one in sets]
    for _ in range(repeats):
        yield tuple(part.sort().values for part in torch.randperm(sum(sizes), generator=generator).split(sizes))
