"""From trained masks to one ranking that is nowhere worse than its start.

A ladder goes down rung by rung. At each the better of two masks is taken on pictures that are not trained on: the
learned one, and the start's own, where that lies inside what the rung before has kept.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from viscircuits import store
from viscircuits.errors import StudyError
from viscircuits.saliency.gates.gates import best
from viscircuits.saliency.gates.training import Standing, Training, first_logits
from viscircuits.store.checks import Fields, listed, number, whole
from viscircuits.store.kinds import BOOLS, FLOATS, Array, Kind
from viscircuits.types import Progress

Starts = Mapping[str, Float[Tensor, " m"]]
"""Criterion -> its score of every structure."""


@dataclass
class Ladder:
    """The way down, from the best of some starts.

    Args:
        training: of the gates.
        counts: structures kept at the rungs, falling.
        start: score of every structure, whose ranking is the start.
        worths: how good the start is at every rung.
        file: where the finished rungs are kept, or None.
        progress: told about every step.
    """

    training: Training
    counts: Sequence[int]
    start: Float[Tensor, " m"]
    worths: Sequence[float]
    file: Path | None = None
    progress: Progress | None = None

    def ranking(self) -> Float[Tensor, " m"]:
        """Returns every structure's rank, as a number in (0, 1] that falls with it, after going down the ladder."""
        masks: list[Tensor] = []
        worths: list[float] = []
        logits = first_logits(self.start).to(self.training.device)
        state = Standing(logits, torch.ones_like(logits, dtype=torch.bool))
        if self.file is not None and self.file.exists():
            masks, worths = self._kept(self.file, state)
        sizes = [len(self.start), *self.counts]
        spans = [self.training.longest(a, b) for a, b in zip(sizes, self.counts, strict=False)]
        for i in range(len(masks), len(self.counts)):
            mask, worth = self._rung(state, i, sum(spans[:i]), sum(spans))
            masks.append(mask)
            worths.append(worth)
            state.alive = mask  # what is shut here stays shut, or the masks would not be nested
            if self.file is not None:
                _save(self.file, state, masks, worths)
        if self.progress is not None:
            self.progress("learned", sum(spans), sum(spans))  # rounds that were not needed count as done
        # ranks in place of scores: the two are compared with each other, and a score has no upper end
        start = falling(self.start)
        ranking = nested(masks, state.logits.cpu(), start)
        return never_worse(ranking, start, self.counts, worths, self.worths, self.worth)

    def _kept(self, file: Path, state: Standing) -> tuple[list[Tensor], list[float]]:
        """What a file holds, and nothing, with a warning, where it is damaged."""
        try:
            return _load(file, state, self.counts)
        except StudyError:
            # a cache: without it the work is done once more, which is no reason to end it
            warnings.warn(f"{str(file)!r} is damaged; its rungs are trained again", stacklevel=2)
            return [], []

    def worth(self, mask: Bool[Tensor, " m"]) -> float:
        """Returns how good a mask is on the held pictures."""
        return self.training.worth(mask.to(self.training.device))

    def _rung(self, state: Standing, i: int, done: int, total: int) -> tuple[Bool[Tensor, " m"], float]:
        above = self.counts[i - 1] if i else len(self.start)

        def tick() -> None:
            nonlocal done
            done += 1
            if self.progress is not None:
                self.progress("learned", done, total)

        mask, worth = self.training.rung(state, above, self.counts[i], tick)
        # the start's mask may have a structure that an earlier rung shut; then it is no choice any more
        own = best(self.start, self.counts[i]).to(mask.device)
        inside = not bool((own & ~state.alive).any())
        return (own, self.worths[i]) if inside and self.worths[i] > worth else (mask, worth)


def falling(values: Float[Tensor, " m"]) -> Float[Tensor, " m"]:
    """Returns ``1 - rank / m`` by value, the largest first; ties keep their order."""
    m = len(values)
    order = torch.sort(values, descending=True, stable=True).indices
    # in float32 the ranks of more than 2**24 structures would coincide
    ranks = torch.empty(m, dtype=torch.float64)
    ranks[order] = 1 - torch.arange(m, dtype=torch.float64) / m
    return ranks


def nested(
    masks: Sequence[Bool[Tensor, " m"]], logits: Float[Tensor, " m"], start: Float[Tensor, " m"]
) -> Float[Tensor, " m"]:
    """Returns the ranking that selects each of some masks, every one inside the one before.

    Within what two masks differ in the order is that of the logits; outside the first it is the start's.

    Args:
        masks: the largest first.
        logits: one number a structure, by which those of one rung are ordered.
        start: one number in (0, 1] a structure, as `falling` gives it.
    """
    depth = torch.zeros(len(start))
    for mask in masks:
        depth += mask.cpu()
    within = torch.where(depth > 0, falling(logits), start)
    # half of a number in (0, 1] never lifts a structure over one that stayed a rung longer
    return falling(depth.double() + within / 2)


def never_worse(
    ranking: Float[Tensor, " m"],
    start: Float[Tensor, " m"],
    counts: Sequence[int],
    worths: Sequence[float],
    start_worths: Sequence[float],
    worth: Callable[[Tensor], float],
) -> Float[Tensor, " m"]:
    """Returns a ranking that is at least as good as the start at every count.

    Where the ranking is worse at some count, the start's mask there and all smaller ones take their place, and larger
    ones get what that mask lacks; these are measured again, and so on upwards.

    Args:
        ranking: one number in (0, 1] a structure.
        start: the same of the start.
        counts: structures kept at the rungs, falling.
        worths: how good the ranking is at each.
        start_worths: how good the start is at each.
        worth: measures a mask on the held pictures.
    """
    worths = list(worths)
    while failing := [i for i, (own, other) in enumerate(zip(worths, start_worths, strict=True)) if own < other]:
        i = failing[
            0
        ]  # the largest that fails; its smaller ones are the start's too from here on, so each is seen once
        inside = best(start, counts[i])
        # 1 puts what is inside above all else, and leaves the order of each part as it is
        ranking = falling(torch.where(inside, 1 + start, ranking))
        worths[i:] = start_worths[i:]
        worths[:i] = [worth(best(ranking, k)) for k in counts[:i]]
    return ranking


def _save(path: Path, state: Standing, masks: Sequence[Tensor], worths: Sequence[float]) -> None:
    tensors = {"logits": state.logits, "mean": state.mean, "square": state.square, "masks": torch.stack(list(masks))}
    store.save(path, _kind(len(state.logits)), tensors, {"step": state.step, "worths": list(worths)})


def _load(path: Path, state: Standing, counts: Sequence[int]) -> tuple[list[Tensor], list[float]]:
    """Brings a state to where it was when the file was written; returns the masks and their worths."""
    tensors, header = store.load(path, _kind(len(state.logits)))
    sizes = tensors["masks"].sum(1).tolist()
    # the digest says that the file is whole, not that it is of this ladder
    if sizes != list(counts[: len(sizes)]):
        raise store.damaged(path, f"expected masks of {list(counts)} structures, got {sizes}")
    device = state.logits.device
    state.logits, state.mean, state.square = (tensors[name].to(device) for name in ("logits", "mean", "square"))
    state.step = header["step"]
    masks = list(tensors["masks"].to(device))
    state.alive = masks[-1]
    return masks, list(map(float, header["worths"]))


def _kind(m: int) -> Kind:
    """What a file holds of a training of so many gates."""

    def arrays(fields: Fields, names: Iterable[str]) -> dict[str, Array]:
        own = {name: Array(FLOATS, (m,)) for name in ("logits", "mean", "square")}
        return {**own, "masks": Array(BOOLS, (len(fields["worths"]), m))}

    return Kind("training", "a training file", {"step": whole(), "worths": listed(number(), 1)}, arrays, (None,))
