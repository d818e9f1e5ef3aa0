"""One way of dividing images into sets: the circuit of each set, and how far it serves the others."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from viscircuits.circuit import Biases, Circuit
from viscircuits.data.images import ImageSet
from viscircuits.errors import ImageError, TargetError
from viscircuits.mask import Mask
from viscircuits.model.trace import trace
from viscircuits.readout import Readout
from viscircuits.response import Response, masked_weights, respond
from viscircuits.scores import Scores
from viscircuits.subcircuits.per_image import ImageScores
from viscircuits.target import Target
from viscircuits.types import Progress

Sets = tuple[Int[Tensor, " _"], ...]
"""The images of each set, by index."""


@dataclass(frozen=True)
class Division:
    """Sets of images, and the circuit of each at the last density that keeps its own activations.

    Args:
        sets: the images of each set, by index.
        densities: of each set's circuit.
        masks: of each set's circuit.
        differences: circuit x set: the relative difference of one set's circuit on another.
        iou_at: mean overlap of the circuits when all have the same density, one a density of the split.
    """

    sets: Sets
    densities: tuple[float, ...]
    masks: tuple[Mask, ...]
    differences: Float[Tensor, "s s"]
    iou_at: tuple[float, ...]

    @property
    def excess(self) -> float:
        """How much more a circuit errs on another set than on its own, mean over ordered pairs."""
        n = len(self.sets)
        beyond = self.differences - self.differences.diagonal()[:, None]
        return float(beyond.sum() / (n * (n - 1)))

    @cached_property
    def iou(self) -> float:
        """Intersection over union of two sets' circuits, mean over pairs."""
        return _mean_iou(self.masks)

    @cached_property
    def iou_by_layer(self) -> dict[str, float]:
        """The same layer by layer; a layer that is empty in all is left out."""
        pairs = [a.iou_by_layer(b) for a, b in combinations(self.masks, 2)]
        values = {name: [pair[name] for pair in pairs if name in pair] for name in self.masks[0].kept}
        return {name: sum(some) / len(some) for name, some in values.items() if some}


@dataclass(frozen=True)
class Bench:
    """What is the same for all divisions of some images.

    Args:
        model: the user's module.
        readout: the target, each image read at its own place.
        images: the pictures.
        full: the full model's activations, and where they were read.
        each: the scores of every image.
        densities: where to measure, descending, the first 1.
        tolerance: the relative difference up to which a circuit keeps its activations.
        biases: what becomes of filters without kernels.
        batch_size: pictures at a time.
    """

    model: nn.Module
    readout: Readout
    images: ImageSet
    full: Response
    each: ImageScores
    densities: tuple[float, ...]
    tolerance: float
    biases: Biases = "masked"
    batch_size: int = 16

    def curves(self, sets: Sets, progress: Progress | None = None, what: str = "curves") -> Float[Tensor, "d s s"]:
        """Returns the difference of every set's circuit on every set, at every density."""
        curves = torch.empty(len(self.densities), len(sets), len(sets), dtype=torch.float64)
        for s, scores in enumerate(map(self.each.of, sets)):
            for d in range(len(self.densities)):
                curves[d, s] = self._differences(scores, d, sets)
                if progress is not None:
                    progress(what, s * len(self.densities) + d + 1, len(sets) * len(self.densities))
        return curves

    def divide(self, sets: Sets, curves: Float[Tensor, "d s s"] | None = None) -> Division:
        """Returns a division of the images; known curves save measuring."""
        scores = [self.each.of(one) for one in sets]
        last, rows = [], []
        for s, own in enumerate(sets):

            def difference(d: int, s: int = s, own: Tensor = own) -> float:
                known = self._differences(scores[s], d, (own,))[0] if curves is None else curves[d, s, s]
                return float(known)

            last.append(last_within(difference, len(self.densities), self.tolerance))
            rows.append(self._differences(scores[s], last[s], sets) if curves is None else curves[last[s], s])
        masks = tuple(one.select(density=self.densities[d]) for one, d in zip(scores, last, strict=True))
        iou_at = tuple(_mean_iou([one.select(density=density) for one in scores]) for density in self.densities)
        return Division(sets, tuple(self.densities[d] for d in last), masks, torch.stack(rows), iou_at)

    def _differences(self, scores: Scores, d: int, sets: Sets) -> Float[Tensor, " s"]:
        """The difference of one circuit on each set: mean absolute change over mean absolute value."""
        if self.densities[d] == 1:
            return torch.zeros(len(sets), dtype=torch.float64)
        wanted = torch.cat(sets)
        frozen = tuple(None if part is None else part[wanted] for part in self.full.frozen)
        # the user's own module: a circuit that runs on a few images only is not worth building smaller
        values = respond(
            self.model, self.readout, self.images.subset(wanted.tolist()),
            weights=self._weights(scores.select(density=self.densities[d])), frozen=frozen, batch_size=self.batch_size,
        ).values  # fmt: skip
        full = self.full.values.double()
        parts = values.double().split([len(one) for one in sets])
        return torch.stack(
            [(part - full[one]).abs().mean() / full[one].abs().mean() for part, one in zip(parts, sets, strict=True)]
        )

    def _weights(self, mask: Mask) -> Mapping[str, Tensor]:
        if self.biases == "masked":  # what a circuit does, without asking what reaches what
            return masked_weights(self.model, self.readout.graph, mask)
        return Circuit(self.model, self.readout.target, mask, self.biases).weights


def bench(
    model: nn.Module,
    target: Target,
    images: ImageSet,
    places: Int[Tensor, " n"] | None,
    each: ImageScores,
    densities: tuple[float, ...],
    tolerance: float,
    biases: Biases = "masked",
    batch_size: int = 16,
) -> Bench:
    """Returns what divisions of some images are measured on; see `Bench`.

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
    return Bench(model, readout, images, full, each, densities, tolerance, biases, batch_size)


def last_within(difference: Callable[[int], float], n: int, tolerance: float) -> int:
    """Returns the last of n densities at which the difference is within the tolerance, by bisection; the first is.

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
