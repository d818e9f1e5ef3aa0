"""One way of dividing images into sets: the circuit of each set, and how far it serves the others."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from viscircuits.activations.agreement import relative_difference
from viscircuits.card import Card, Shown, few
from viscircuits.circuit.circuit import Circuit
from viscircuits.data.images import ImageSet
from viscircuits.errors import ImageError, TargetError
from viscircuits.execution.response import Response, masked_weights, respond
from viscircuits.mask import Mask
from viscircuits.model.trace import trace
from viscircuits.readout import Readout
from viscircuits.store import digest
from viscircuits.subcircuits.known import Known
from viscircuits.subcircuits.per_image import ImageScores
from viscircuits.subcircuits.per_set import SetScores
from viscircuits.target import Target
from viscircuits.types import Biases, Progress

Sets = tuple[Int[Tensor, " _"], ...]
"""The images of each set, by index."""


@dataclass(frozen=True, repr=False)
class Division(Shown):
    """Sets of images, and the circuit of each at the last density that keeps its own activations.

    Args:
        scored: the images of each set that its circuit was found on, by index.
        measured: those that it is measured on.
        densities: of each set's circuit.
        masks: of each set's circuit.
        differences: circuit x set: the relative difference of one set's circuit on another.
        iou_at: mean overlap of the circuits when all have the same density, one a density of the split.
    """

    scored: Sets
    measured: Sets
    densities: tuple[float, ...]
    masks: tuple[Mask, ...]
    differences: Float[Tensor, "s s"]
    iou_at: tuple[float, ...]

    def _card(self) -> Card:
        return Card("Division", {
            "sets": few([f"{len(images)} images" for images in self.sets]), "densities": few(self.densities),
            "excess": f"{self.excess:.3f}", "IoU": f"{self.iou:.3f}",
        })  # fmt: skip

    @cached_property
    def sets(self) -> Sets:
        """The images of each set, ascending."""
        return tuple(torch.cat(parts).unique() for parts in zip(self.scored, self.measured, strict=True))

    @property
    def excesses(self) -> Float[Tensor, "s s"]:
        """How much more each circuit errs on each set than on its own."""
        return self.differences - self.differences.diagonal()[:, None]

    @property
    def excess(self) -> float:
        """How much more a circuit errs on another set than on its own, mean over ordered pairs."""
        n = len(self.measured)
        return float(self.excesses.sum() / (n * (n - 1)))

    @property
    def least_excess(self) -> float:
        """The same of the circuit that serves another set best."""
        return float(self.excesses[~torch.eye(len(self.measured), dtype=torch.bool)].min())

    @cached_property
    def iou(self) -> float:
        """Intersection over union of two sets' circuits, mean over pairs."""
        return _mean_iou(self.masks)

    @cached_property
    def iou_by_layer(self) -> dict[str, float]:
        """The same layer by layer; a layer that is empty in all is left out."""
        pairs = [a.iou_by_layer(b) for a, b in combinations(self.masks, 2)]
        means = {}
        for name in self.masks[0].kept:
            # a layer that is empty in both of a pair has no overlap
            values = [pair[name] for pair in pairs if name in pair]
            if values:
                means[name] = sum(values) / len(values)
        return means


@dataclass(frozen=True)
class Bench:
    """What is the same for all divisions of some images.

    Args:
        model: the user's module.
        readout: the target, each image read at its own place.
        images: the pictures.
        full: the full model's activations, and where they were read.
        each: gives the scores of any set of the images.
        densities: where to measure, descending, the first 1.
        tolerance: the relative difference up to which a circuit keeps its activations.
        known: differences that were measured before.
        biases: what becomes of filters without kernels.
        batch_size: pictures at a time.
    """

    model: nn.Module
    readout: Readout
    images: ImageSet
    full: Response
    each: ImageScores | SetScores
    densities: tuple[float, ...]
    tolerance: float
    known: Known
    biases: Biases = "masked"
    batch_size: int = 16

    @property
    def places(self) -> Int[Tensor, " n"]:
        """Where on the target's map each image is read, flat."""
        (places,) = (part for part in self.full.frozen if part is not None)
        return places

    def curves(
        self, scored: Sets, measured: Sets, progress: Progress | None = None, what: str = "curves"
    ) -> Float[Tensor, "d s s"]:
        """Returns the difference of every set's circuit on every set, at every density.

        Args:
            scored: the images of each set that its circuit is found on.
            measured: those that it is measured on.
            progress: called after every circuit.
            what: the word for it.
        """
        curves = torch.empty(len(self.densities), len(scored), len(scored), dtype=torch.float64)
        for s, own in enumerate(scored):
            for d in range(len(self.densities)):
                curves[d, s] = self._differences(own, d, measured)
                if progress is not None:
                    progress(what, s * len(self.densities) + d + 1, len(scored) * len(self.densities))
            # after every set, so that what is interrupted goes on at the next one
            self.known.save()
        return curves

    def divide(self, scored: Sets, measured: Sets) -> Division:
        """Returns a division of the images."""
        last, differences, masks = [], [], []
        for own, on in zip(scored, measured, strict=True):  # one after the other: scores of a set may take long
            # the sets as defaults: a closure would see those that the loop ends with
            def difference(d: int, own: Tensor = own, on: Tensor = on) -> float:
                return float(self._differences(own, d, (on,)))

            last.append(last_within(difference, len(self.densities), self.tolerance))
            differences.append(self._differences(own, last[-1], measured))
            scores = self.each.of(own)
            masks.append([scores.select(density=density) for density in self.densities])
        self.known.save()
        iou_at = tuple(_mean_iou(at) for at in zip(*masks, strict=True))
        kept = tuple(self.densities[d] for d in last)
        own_masks = tuple(some[d] for some, d in zip(masks, last, strict=True))
        return Division(scored, measured, kept, own_masks, torch.stack(differences), iou_at)

    def _differences(self, scored: Tensor, d: int, sets: Sets) -> Float[Tensor, " s"]:
        """How far the circuit of some images is off on each set: mean absolute change over mean absolute value."""
        if self.densities[d] == 1:
            return torch.zeros(len(sets), dtype=torch.float64)
        names = [digest(repr(self.densities[d]), scored, one) for one in sets]
        new = {name: one for name, one in zip(names, sets, strict=True) if name not in self.known}
        if new:
            self.known.add(dict(zip(new, self._measured(scored, self.densities[d], tuple(new.values())), strict=True)))
        return torch.tensor([self.known[name] for name in names], dtype=torch.float64)

    def _measured(self, scored: Tensor, density: float, sets: Sets) -> list[float]:
        wanted = torch.cat(sets)
        frozen = tuple(None if part is None else part[wanted] for part in self.full.frozen)
        # the user's own module: a circuit that runs on a few images only is not worth building smaller
        values = respond(
            self.model, self.readout, self.images.subset(wanted.tolist()),
            weights=self._weights(self.each.of(scored).select(density=density)), frozen=frozen,
            batch_size=self.batch_size,
        ).values.double()  # fmt: skip
        full = self.full.values.double()
        parts = zip(values.split([len(one) for one in sets]), sets, strict=True)
        return [relative_difference(part, full[one]) for part, one in parts]

    def _weights(self, mask: Mask) -> Mapping[str, Tensor]:
        if self.biases == "masked":  # what a circuit does, without asking what reaches what
            return masked_weights(self.model, self.readout.graph, mask)
        return Circuit(self.model, self.readout.target, mask, self.biases).weights


def bench(
    model: nn.Module,
    target: Target,
    images: ImageSet,
    places: Int[Tensor, " n"] | None,
    each: ImageScores | SetScores,
    densities: tuple[float, ...],
    tolerance: float,
    known: Known,
    biases: Biases = "masked",
    batch_size: int = 16,
) -> Bench:
    """Returns what divisions of some images are measured on.

    Args:
        model: a network in evaluation mode.
        target: a channel or direction of a layer.
        images: the pictures.
        places: the flat position of each image's map to read; its highest where None.
        each: gives the scores of any set of the images.
        densities: where to measure, descending, the first 1.
        tolerance: the relative difference up to which a circuit keeps its activations.
        known: differences that were measured before.
        biases: what becomes of filters without kernels.
        batch_size: pictures at a time.

    Raises:
        TargetError: the target is 0 on some images, so they do not excite it.
        ImageError: it is not finite.
    """
    readout = Readout(target.at("max"), trace(model, images[0].shape))
    frozen = None if places is None else (places,)
    full = respond(model, readout, images, frozen=frozen, batch_size=batch_size)
    if not bool(torch.isfinite(full.values).all()):
        raise ImageError(f"target {target} is not finite on some images; check the preprocessing and the weights")
    if not bool((full.values != 0).all()):
        silent = int((full.values == 0).sum())
        raise TargetError(f"target {target} is 0 on {silent} of {len(images)} images; take images that excite it")
    return Bench(model, readout, images, full, each, densities, tolerance, known, biases, batch_size)


def last_within(difference: Callable[[int], float], n: int, tolerance: float) -> int:
    """Returns the last of several densities at which the difference is within a tolerance, by bisection; the first is.

    Args:
        difference: of a density, by its number.
        n: how many densities there are.
        tolerance: the difference up to which a circuit keeps its activations.

    >>> last_within([0.0, 0.1, 0.2, 0.9].__getitem__, 4, 0.15)
    1
    """
    low, high = 0, n
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if difference(middle) < tolerance else (low, middle)
    return low


def _mean_iou(masks: Sequence[Mask]) -> float:
    pairs = [a.iou(b) for a, b in combinations(masks, 2)]
    return sum(pairs) / len(pairs)
