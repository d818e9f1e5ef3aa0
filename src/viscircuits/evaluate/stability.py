"""Stability: whether a criterion finds the same circuit again, on other images and with another seed."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from torch import Tensor, nn

from viscircuits.bounds.arguments import checked
from viscircuits.card import Card, Shown
from viscircuits.data.images import ImageSet, as_images
from viscircuits.errors import ImageError, MaskError
from viscircuits.mask import Mask
from viscircuits.saliency.registry import score
from viscircuits.target import AnyTarget
from viscircuits.types import Granularity, Progress


@dataclass(frozen=True, repr=False)
class Stability(Shown):
    """Intersections over union of circuits of one target that were found several times.

    Attributes:
        halves: of the two circuits found on disjoint halves of the images; one number a split.
        seeds: of every two circuits found on all images with different seeds; all 1 for a criterion that draws none.
        chance: expected of two random circuits of this density d, ``d / (2 - d)``: expected intersection over expected
            union.
        chance_by_layer: the same where both keep as many structures in each layer as the circuits on halves do.
        density: of the circuits.
    """

    halves: tuple[float, ...]
    seeds: tuple[float, ...]
    chance: float
    chance_by_layer: float
    density: float

    def _card(self) -> Card:
        return Card("Stability", {
            "overlap on other images": f"{_mean(self.halves):.3f}, mean of {len(self.halves)}",
            "with other seeds": f"{_mean(self.seeds):.3f}, mean of {len(self.seeds)}",
            "by chance": f"{self.chance:.3f}", "by chance in each layer": f"{self.chance_by_layer:.3f}",
            "density": f"{self.density:.4g}",
        })  # fmt: skip


@checked
def stability(
    model: nn.Module,
    target: AnyTarget | str,
    images: ImageSet | Tensor,
    *,
    density: float,
    criterion: str = "actgrad",
    repeats: int = 3,
    granularity: Granularity = "kernel",
    seed: int = 0,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> Stability:
    """Returns how far circuits of a target agree when found on other images and with other seeds.

    Args:
        model, target, images, criterion, granularity, batch_size: as for `score`; at least two images.
        density: of the circuits, in (0, 1].
        repeats: how many splits into halves, and how many seeds.
        seed: the first of the seeds, of splits and of the criterion.
        progress: called with how many of all circuits are found.

    Raises:
        ImageError: a single image.
        MaskError: fewer than two repeats.
    """
    images = as_images(images)
    if len(images) < 2:
        raise ImageError("stability needs at least two images, one for each half; got one")
    if repeats < 2:
        raise MaskError(f"expected at least 2 repeats, got {repeats}: seeds are compared in pairs")
    done = 0

    def found(part: ImageSet, own: int) -> Mask:
        nonlocal done
        scores = score(
            model, target, part, criterion, granularity=granularity, density=density, seed=own, batch_size=batch_size
        )
        done += 1
        if progress is not None:
            progress("circuits", done, 3 * repeats)
        return scores.select(density=density)

    splits = [images.split(0.5, seed=seed + i) for i in range(repeats)]
    halves = [(found(one, seed), found(other, seed)) for one, other in splits]
    again = [found(images, seed + i) for i in range(repeats)]
    d = again[0].density  # not that which was asked for: the count is a whole number
    by_layer = [chance_iou(one, other) for one, other in halves]
    return Stability(
        tuple(one.iou(other) for one, other in halves),
        tuple(one.iou(other) for one, other in combinations(again, 2)),
        d / (2 - d), _mean(by_layer), d,
    )  # fmt: skip


def chance_iou(one: Mask, other: Mask) -> float:
    """Returns expected intersection over expected union of random masks with the counts by layer of these two."""
    expected = sum(k * other.counts[name][0] / n for name, (k, n) in one.counts.items() if n)
    union = one.n_kept + other.n_kept - expected
    # two empty masks agree fully, as in Mask.iou
    return expected / union if union else 1.0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
