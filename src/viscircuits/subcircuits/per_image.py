"""Scores of every single image, so that any set of images gets its scores by adding them up.

`Scores` are sums over images; kept apart, one pass serves all sets, their unions and every random split. Each image is
scored at one position of the target's map: its own highest one (circuit pruning, section 6.1), or a given one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from viscircuits.card import Card, Shown
from viscircuits.data.images import ImageSet
from viscircuits.errors import MaskError, TargetError
from viscircuits.mask import by_layer
from viscircuits.model.trace import trace
from viscircuits.saliency.registry import lookup, score
from viscircuits.scores import Scores
from viscircuits.target import Target
from viscircuits.types import Granularity, Progress


@dataclass(frozen=True, repr=False)
class ImageScores(Shown):
    """What every relevant structure matters to a target on each of some images.

    Args:
        one: the scores of the first image; the others are over the same structures.
        values: image x relevant structure, layers in order.
        normalise: whether the scores of a set are scaled within each layer (`Scores.minmax`).
    """

    one: Scores
    values: Float[Tensor, "n k"]
    normalise: Literal["minmax"] | None = None

    def _card(self) -> Card:
        images, structures = self.values.shape
        return Card("ImageScores", {
            "criterion": self.one.criterion, "target": self.one.target, "images": f"{images:,}",
            f"relevant {self.one.granularity}s": f"{structures:,}", "normalise": self.normalise,
        })  # fmt: skip

    def of(self, images: Int[Tensor, " m"] | Sequence[int]) -> Scores:
        """Returns the scores of a set of the images, by index."""
        rows = torch.as_tensor(images)
        sums = by_layer(self.values[rows].sum(0), self.one.relevant)
        scores = replace(self.one, sums=sums, n_images=self.one.n_images * len(rows))
        return scores.minmax() if self.normalise == "minmax" else scores


def score_each(
    model: nn.Module,
    target: Target,
    images: ImageSet,
    places: Int[Tensor, " n"] | None = None,
    criterion: str = "actgrad",
    *,
    granularity: Granularity = "kernel",
    normalise: Literal["minmax"] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> ImageScores:
    """Returns the scores of every image on its own; they take four bytes an image and relevant structure.

    Args:
        model: a network in evaluation mode; it is left exactly as it was.
        target: a channel or direction of a layer; where on its map is set by ``places``.
        images: the pictures.
        places: the flat position of each image's map to explain; its highest in the full model where None.
        criterion: a name in `CRITERIA` whose scores are sums over images: not force, not learned.
        granularity, normalise, seed: as in `score`.
        progress: called as the work goes on.
    """
    if (method := lookup(criterion)).needs_density or method.learned:
        raise MaskError(f"{criterion} scores a set as a whole, not image by image; take one such as actgrad or snip")
    positions = located(model, target, images, places)
    alike: list[Scores] = []
    for index, position in enumerate(positions):
        # one by one, because criteria add images up; all that is shared was traced once
        alone = images.subset([index])
        alike.append(score(model, target.at(position), alone, criterion, granularity=granularity, seed=seed))
        if progress is not None:
            progress(f"{criterion}, image by image", index + 1, len(images))
    rows = [_row(scores) for scores in alike]
    return ImageScores(replace(alike[0], target=str(target.at("max"))), torch.stack(rows), normalise)


def located(
    model: nn.Module, target: Target, images: ImageSet, places: Int[Tensor, " n"] | None
) -> Iterable[tuple[int, ...] | Literal["max"]]:
    """Returns where on the target's map each image is read; ``"max"`` where no places are given.

    Args:
        model: a network in evaluation mode.
        target: a channel or direction of a layer.
        images: the pictures.
        places: a flat position of the map for each; None for each one's highest.

    Raises:
        TargetError: the target has a position of its own, or a place is not on its map.
    """
    if target.position not in (None, "max"):
        raise TargetError(f"target {target} has one position for all images; drop it, or give places")
    if places is None:
        return ("max" for _ in range(len(images)))
    shape = trace(model, images[0].shape).output(target.layer).map_shape
    n_places = int(torch.tensor(shape).prod())
    if places.shape != (len(images),) or not bool(((places >= 0) & (places < n_places)).all()):
        raise TargetError(
            f"expected one place an image ({len(images)}), each from 0 to {n_places - 1} on a map of {shape}; got "
            f"{len(places)}, from {int(places.min())} to {int(places.max())}"
        )
    return [_position(place, shape) for place in places]


def _position(place: Tensor, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(i) for i in torch.unravel_index(place, shape))


def _row(scores: Scores) -> Float[Tensor, " k"]:
    """The scores of all relevant structures, layers in order."""
    return torch.cat([scores.sums[name][relevant] for name, relevant in scores.relevant.items()])
