"""What a sweep asks: a product of targets, criteria and densities, checked as a whole before any work starts.

Convention: a criterion's text may end in ``:worst``, which asks for its control; limits hold for both orders.

Not here: how it is answered (`viscircuits.evaluate.measuring`), and what drives and stores it
(`viscircuits.evaluate.sweep`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from torch import nn

from viscircuits.bounds.arguments import check_fields
from viscircuits.bounds.ranges import within
from viscircuits.card import Card, Shown, few
from viscircuits.data.images import ImageSet
from viscircuits.errors import ImageError, MaskError, TargetError
from viscircuits.evaluate.measurement import Key
from viscircuits.execution.loop import judged
from viscircuits.model.trace import trace
from viscircuits.readout import bound
from viscircuits.saliency.registry import lookup
from viscircuits.target import AnyTarget
from viscircuits.types import GRANULARITIES, Biases, Granularity, Progress

PAPER_DENSITIES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.01, 0.005, 0.001)
"""The 13 levels of the paper (figures 2 and 3)."""

_CHOICES = {"granularity": GRANULARITIES, "normalise": (None, "minmax"), "biases": get_args(Biases)}


@dataclass(frozen=True, repr=False)
class Question(Shown):
    """The targets, criteria, densities, pictures and settings of a sweep; see `viscircuits.Sweep` for each."""

    model: nn.Module
    targets: Sequence[AnyTarget]
    scoring: ImageSet
    held_out: ImageSet
    criteria: Sequence[str] = ("actgrad", "random")
    densities: Sequence[float] = PAPER_DENSITIES
    granularity: Granularity = "kernel"
    normalise: Literal["minmax"] | None = None
    biases: Biases = "masked"
    seed: int = 0
    batch_size: int | None = None
    memory: int | None = None
    limits: dict[str, Sequence[float]] | None = None
    scoring_limits: dict[str, int] | None = None
    inside: bool = False
    progress: Progress | None = None

    def _card(self) -> Card:
        return Card(type(self).__name__, {
            "model": type(self.model).__name__, "targets": few(self.targets), "criteria": few(self.criteria),
            "densities": f"{few(self.densities)} of {self.granularity}s",
            "scored on": f"{len(self.scoring):,} images", "measured on": f"{len(self.held_out):,}",
            "biases": self.biases, "normalise": self.normalise, "seed": self.seed,
        })  # fmt: skip

    def __post_init__(self) -> None:
        check_fields(self)
        if not (len(self.targets) and len(self.criteria) and len(self.densities)):
            raise MaskError("a sweep needs at least one target, one criterion and one density")
        self._check_limits()
        self._check_product()
        self._check_targets()

    def _check_limits(self) -> None:
        for name in (*(self.limits or ()), *(self.scoring_limits or ())):  # they hold for both orders
            lookup(name)
        for name, some in (self.limits or {}).items():
            if other := [density for density in some if density not in self.densities]:
                raise MaskError(f"limits of {name!r}: {other[0]!r} is none of the densities, {list(self.densities)}")
        for most in (self.scoring_limits or {}).values():
            within("n", most)

    def _check_product(self) -> None:
        for criterion in self.criteria:
            name, _, control = criterion.partition(":")
            lookup(name)
            if control not in ("", "worst"):
                raise MaskError(f"unknown control {criterion!r}; the only one is '{name}:worst'")
        for density in self.densities:
            if not 0 < density <= 1:
                raise MaskError(f"density {density!r} is out of range; expected a fraction in (0, 1], such as 0.1")
        for option, known in _CHOICES.items():
            if getattr(self, option) not in known:
                raise MaskError(f"unknown {option} {getattr(self, option)!r}; expected one of {known}")

    def _check_targets(self) -> None:
        texts = [str(target) for target in self.targets]
        if twice := next((text for text in texts if texts.count(text) > 1), None):
            raise TargetError(f"two targets read {twice!r}: give each once; results are kept by this text")
        if self.scoring[0].shape != self.held_out[0].shape:
            raise ImageError(
                f"scoring pictures have shape {tuple(self.scoring[0].shape)}, held-out ones "
                f"{tuple(self.held_out[0].shape)}; prepare both alike"
            )
        # a name or a label that does not fit is told now: the last target's turn may come after days
        for target in self.targets:
            readout = bound(target, trace(self.model, self.scoring[0].shape))
            for images in (self.scoring, self.held_out):
                judged(images, self.model, [readout])

    def keys(self) -> list[Key]:
        """Returns the names of all measurements, each once: target by target, criterion by criterion."""
        every = (
            Key(str(target), criterion.partition(":")[0], criterion.partition(":")[2] or "best", float(density))
            for target in self.targets
            for criterion in self.criteria
            for density in self._densities(criterion)
        )
        # each once: the same criterion or density may be given twice, as 0.5 and .50 are
        return list(dict.fromkeys(every))

    def _densities(self, criterion: str) -> Sequence[float]:
        limited = (self.limits or {}).get(criterion.partition(":")[0])
        return [d for d in self.densities if limited is None or d in limited]

    def pictures(self, criterion: str) -> ImageSet:
        """Returns the pictures that a criterion scores on: all of them, or as many as its limit says."""
        limit = (self.scoring_limits or {}).get(criterion)
        if limit is None or limit >= len(self.scoring):
            return self.scoring
        return self.scoring.take(limit, self.seed)
