"""Scores of any set of images by a criterion that looks at a set as a whole: found when the set is asked for.

Beside `viscircuits.subcircuits.per_image`, whose scores add up and are found once for all sets.
"""

from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache

import torch
from jaxtyping import Int
from torch import Tensor, nn

from viscircuits.card import Card, Shown
from viscircuits.data.images import ImageSet
from viscircuits.errors import TargetError
from viscircuits.execution.response import respond
from viscircuits.model.trace import trace
from viscircuits.readout import Readout
from viscircuits.saliency.registry import score
from viscircuits.scores import Scores
from viscircuits.target import Target
from viscircuits.types import Granularity, Progress


class SetScores(Shown):
    """What every relevant structure matters to a target on each set of images that is asked for.

    Args:
        model: a network in evaluation mode; it is left exactly as it was.
        target: a channel or direction of a layer, read at each image's highest place.
        images: the pictures.
        criterion: a name in `CRITERIA`.
        granularity, seed, batch_size: as in `score`.
        progress: called as sets are scored.
    """

    def __init__(
        self, model: nn.Module, target: Target, images: ImageSet, criterion: str, *, granularity: Granularity,
        seed: int, batch_size: int | None = None, progress: Progress | None = None,
    ) -> None:  # fmt: skip
        self.model, self.target, self.images, self.criterion = model, target.at("max"), images, criterion
        self.granularity: Granularity = granularity
        self.seed, self.batch_size, self.progress = seed, batch_size, progress

    def _card(self) -> Card:
        return Card("SetScores", {
            "criterion": self.criterion, "target": str(self.target), "images": f"{len(self.images):,}",
        })  # fmt: skip

    def of(self, images: Int[Tensor, " m"] | Sequence[int]) -> Scores:
        """Returns the scores of a set of the images, by index."""
        return self._last(tuple(torch.as_tensor(images).tolist()))

    @cached_property
    def _last(self) -> Callable[[tuple[int, ...]], Scores]:
        return lru_cache(1)(self._scores)  # set by set, each is asked for at many densities

    def _scores(self, images: tuple[int, ...]) -> Scores:
        some = self.images.subset(images)
        return score(
            self.model, self.target, some, self.criterion, granularity=self.granularity, seed=self.seed,
            batch_size=self.batch_size, progress=self.progress,
        )  # fmt: skip


def check_places(model: nn.Module, target: Target, images: ImageSet, places: Int[Tensor, " n"]) -> None:
    """Raises a `TargetError` unless each place is where the target is highest on its image.

    Args:
        model: a network in evaluation mode.
        target: a channel or direction of a layer.
        images: the pictures.
        places: a flat position of the map for each.
    """
    readout = Readout(target.at("max"), trace(model, images[0].shape))
    (highest,) = (part for part in respond(model, readout, images).frozen if part is not None)
    if not torch.equal(highest, places):
        raise TargetError(
            f"a criterion that scores a set as a whole reads {target} at each image's highest place; "
            f"{int((highest != places).sum())} of {len(places)} places are others; leave places out"
        )
