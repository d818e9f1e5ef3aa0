"""The circuit behind chosen stimuli: a hypothesis-driven subcircuit (paper 6.2), as sparse as its response allows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import nn

from viscircuits.card import Card, Shown, few
from viscircuits.circuit.circuit import Circuit
from viscircuits.errors import ImageError
from viscircuits.probes.stage import Stage, responses
from viscircuits.probes.stimulus import Stimulus
from viscircuits.saliency.registry import score
from viscircuits.scores import Scores
from viscircuits.target import Target
from viscircuits.types import Biases, Progress

DENSITIES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.15, 0.1, 0.07, 0.05, 0.03, 0.02, 0.01, 0.005)
"""Where the sparsest circuit is looked for."""

WITHIN = 0.15
"""How far a subcircuit may be off (paper 6.1)."""


@dataclass(frozen=True, repr=False)
class Overlap(Shown):
    """What two circuits of one size share.

    Attributes:
        iou: intersection over union, in [0, 1].
        chance: about what two random circuits of this size would share.
        count: how many structures each of them keeps.
        layers: the same layer by layer.
    """

    iou: float
    chance: float
    count: int
    layers: dict[str, float]

    def _card(self) -> Card:
        layers = few([f"{name} {iou:.2f}" for name, iou in self.layers.items()])
        return Card("Overlap", {
            "IoU": f"{self.iou:.3f}", "by chance": f"{self.chance:.3f}", "kept by each": f"{self.count:,}",
            "by layer": layers,
        })  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class Subcircuit(Shown):
    r"""A circuit found on a few stimuli.

    Args:
        stimuli: which.
        scores: on them.
        circuit: the sparsest that keeps the responses to them, at every density down to its own.
        difference: how far its responses to them are off: mean \|circuit - model\| over mean \|model - blank\|,
            where blank is what the model answers to the empty stage.
    """

    stimuli: tuple[Stimulus, ...]
    scores: Scores
    circuit: Circuit
    difference: float

    def _card(self) -> Card:
        mask = self.circuit.mask
        return Card("Subcircuit", {
            "target": self.circuit.target, "stimuli": few(self.stimuli, 1),
            "keeps": f"{mask.n_kept:,} of {mask.n_relevant:,} relevant {mask.granularity}s",
            "difference": f"{self.difference:.3f}",
        })  # fmt: skip

    @property
    def n_positive(self) -> int:
        """Number of structures that matter to the stimuli at all; the others are kept only to fill up a count."""
        return sum(int((sums > 0).sum()) for sums in self.scores.sums.values())

    def overlap(self, other: "Subcircuit", count: int | None = None) -> Overlap:
        """Returns the overlap of two when both keep ``count`` (as many as the larger), but nothing that scored zero.

        Structures that score zero are in one order in all scores, so that filling up with them would feign agreement.
        """
        most = max(self.circuit.mask.n_kept, other.circuit.mask.n_kept) if count is None else count
        count = min(most, self.n_positive, other.n_positive)
        mine, others = (part.scores.select(count=count) for part in (self, other))
        # two random choices of this size share count * count / relevant, and their union is the rest of both
        chance = count / (2 * self.scores.n_relevant - count)
        return Overlap(mine.iou(others), chance, count, mine.iou_by_layer(others))


def subcircuit(
    model: nn.Module,
    target: Target,
    stimuli: Sequence[Stimulus],
    stage: Stage,
    *,
    criterion: str = "actgrad",
    normalise: Literal["minmax"] | None = None,
    densities: Sequence[float] = DENSITIES,
    within: float = WITHIN,
    biases: Biases = "masked",
    seed: int = 0,
    progress: Progress | None = None,
) -> Subcircuit:
    """Returns the circuit that computes a target's responses to some stimuli.

    The densities are tried from the largest on, and the search ends at the first that fails, so that no circuit passes
    by chance; where all fail, the circuit is the whole network's.

    Args:
        model: a network in evaluation mode; it is left exactly as it was.
        target: a channel or direction at one position.
        stimuli: for instance that of a `Surface.peaks`.
        stage: where they are shown.
        criterion, normalise, seed: as for `viscircuits.score`; not force, which scores for one density.
        densities: fractions of the relevant kernels, in (0, 1].
        within: the difference that is still the same response.
        biases: of the circuit.
        progress: called as the work goes on.
    """
    empty = stimuli[0].at({"contrast": 0.0})
    # differences count from the empty stage, because pre-activations cross zero
    *full, blank = responses(model, target, [*stimuli, empty], stage).tolist()
    scale = sum(abs(value - blank) for value in full)
    if scale == 0:
        raise ImageError(f"target {target} answers these stimuli as it does the empty stage; choose another point")
    scores = score(model, target, stage.images(stimuli), criterion, normalise=normalise, seed=seed, progress=progress)
    # all kernels differ from the model in nothing, so there always is a circuit
    kept, off = Circuit(model, target, scores.select(density=1.0), biases), 0.0
    for density in sorted(densities, reverse=True):
        tried = Circuit(model, target, scores.select(density=density), biases)
        answers = responses(tried, target, stimuli, stage).tolist()
        difference = sum(abs(a - f) for a, f in zip(answers, full, strict=True)) / scale
        # not the sparsest of all that pass: further down one may pass by chance
        if difference > within:
            break
        kept, off = tried, difference
    return Subcircuit(tuple(stimuli), scores, kept, off)
