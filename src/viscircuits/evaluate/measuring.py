"""How a question is answered: in groups of targets, whose scores share passes and whose circuits share first layers.

What is computed together decides rounding. So everything is computed in the groups of a sweep of which nothing is done,
and a group that lacks one measurement is measured as a whole: a resumed sweep has the rows of an undisturbed one.

Not here: what is asked (`viscircuits.evaluate.question`), and where measurements go (`viscircuits.evaluate.sweep`).
"""

import shutil
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

from viscircuits.circuit.circuit import Circuit
from viscircuits.evaluate.inside import inside, medians
from viscircuits.evaluate.measurement import Folder, Key, Measurement, Row
from viscircuits.evaluate.preservation import Preservation, Reference
from viscircuits.evaluate.question import Question
from viscircuits.execution.response import respond_full
from viscircuits.execution.together import AT_ONCE, respond_all
from viscircuits.mask import Mask
from viscircuits.model.trace import trace
from viscircuits.readout import Readout, bound
from viscircuits.saliency.engine.fused import TOGETHER
from viscircuits.saliency.engine.plan import in_passes, plan
from viscircuits.saliency.registry import lookup, needs_density, score_all
from viscircuits.scores import Scores
from viscircuits.target import AnyTarget
from viscircuits.types import Progress

Readouts = Mapping[AnyTarget, Readout]
"""Targets whose responses are kept at a time, each bound to the graph."""


@dataclass(frozen=True)
class Measuring:
    """The measurements of a question that are missing.

    Args:
        question: what to measure.
        missing: the names of those that are wanted.
        folder: keeps scores, and is looked in for them first; None for none.
    """

    question: Question
    missing: Set[Key]
    folder: Folder | None = None

    def measurements(self) -> Iterator[Measurement]:
        """Yields every missing measurement; both orders of one criterion come together."""
        self._warn_of_overlap()
        keys = self.question.keys()
        total, count = len(keys), len(keys) - len(self.missing)

        def still(what: str, done: int, of: int) -> None:  # between batches: it may end the call
            if self.question.progress is not None:
                self.question.progress("circuits", count, total)

        lacking = {key.target for key in self.missing}
        by_scores: dict[tuple[str, str], list[Key]] = {}
        for key in keys:
            by_scores.setdefault((key.target, key.criterion), []).append(key)
        groups = [some for some in in_groups(self.question.targets) if not lacking.isdisjoint(map(str, some))]
        for targets in groups[1:]:  # a dead one is better told now than after hours
            self._references(self._bound(targets), still)
        for targets in groups:
            # held while the group is measured, so that every pass and circuit of it finds these readouts
            group = self._bound(targets)
            references, passes = self._references(group, still), self._passes(group)
            for criterion in dict.fromkeys(key.criterion for key in keys):
                own = {target: by_scores[str(target), criterion] for target in targets}
                for target, scores, some in self._scored(criterion, own, passes):
                    for measurement in self._measured(target, some, scores, references[target], still):
                        yield measurement
                        count += 1
                        if self.question.progress is not None:
                            self.question.progress("circuits", count, total)

    def _bound(self, targets: Sequence[AnyTarget]) -> Readouts:
        graph = trace(self.question.model, self.question.scoring[0].shape)
        return {target: bound(target, graph) for target in targets}

    def _passes(self, group: Readouts) -> list[list[AnyTarget]]:
        """Those of some targets that are scored together."""
        passes: list[list[AnyTarget]] = []
        memory, batch_size = self.question.memory, self.question.batch_size
        for readouts, _ in in_passes(list(group.values()), memory=memory, batch_size=batch_size):
            passes.append([readout.target for readout in readouts])
        return passes

    def _scored(
        self, criterion: str, keys: Mapping[AnyTarget, list[Key]], passes: Sequence[Sequence[AnyTarget]]
    ) -> Iterator[tuple[AnyTarget, Scores, list[Key]]]:
        """Targets with their scores and all that is measured from these, where any of it is missing."""
        densities = sorted({key.density for own in keys.values() for key in own}, reverse=True)
        # the largest first, in the order of an undisturbed sweep; one round of scoring serves all where it can
        for density in densities if needs_density(criterion) else [None]:
            wanted = {target: _at(density, own) for target, own in keys.items()}
            for together in passes:
                if all(self.missing.isdisjoint(wanted[target]) for target in together):
                    continue
                scores = self._scores(criterion, density, together)
                yield from ((target, one, wanted[target]) for target, one in zip(together, scores, strict=True))

    def _scores(self, criterion: str, density: float | None, targets: Sequence[AnyTarget]) -> list[Scores]:
        """The scores of targets that share a pass: those that a folder keeps, or new ones, which it then keeps."""
        question, folder = self.question, self.folder
        if folder is not None:
            stored = [folder.scores(str(target), criterion, density) for target in targets]
            whole = [scores for scores in stored if scores is not None]
            # scored again all together where one is lost: the others' last digits depend on the company
            if len(whole) == len(targets):
                return whole
        new = list(score_all(
            question.model, targets, question.pictures(criterion), criterion, granularity=question.granularity,
            normalise=question.normalise, density=density, seed=question.seed, batch_size=question.batch_size,
            memory=question.memory, resume=None if folder is None else folder.rungs, progress=question.progress,
        ))  # fmt: skip
        if folder is not None:
            for scores in new:
                folder.add_scores(scores)
            # the rungs have served once the scores are on disk, and not a moment earlier
            shutil.rmtree(folder.rungs, ignore_errors=True)
        return new

    def _references(self, group: Readouts, progress: Progress) -> dict[AnyTarget, Reference]:
        readouts = list(group.values())
        size = self._batch_size(readouts[0])
        model, images = self.question.model, self.question.held_out
        responses = respond_full(model, readouts, images, batch_size=size, progress=progress)
        return {target: Reference(r, str(target)) for target, r in zip(group, responses, strict=True)}

    def _batch_size(self, readout: Readout) -> int:
        return plan([readout], memory=self.question.memory, batch_size=self.question.batch_size).batch_size

    def _measured(
        self, target: AnyTarget, keys: Sequence[Key], scores: Scores, full: Reference, progress: Progress
    ) -> Iterator[Measurement]:
        """The missing circuits of some scores, measured some densities at a time in one pass over the pictures."""
        question = self.question
        # in the same chunks whatever is missing: who shares first layers with whom decides the last digits
        for start in range(0, len(keys), AT_ONCE):
            some = keys[start : start + AT_ONCE]
            if self.missing.isdisjoint(some):
                continue
            began = time.perf_counter()
            circuits = [Circuit(question.model, target, _mask(scores, key), question.biases) for key in some]
            size, frozen = self._batch_size(circuits[0].readout), full.response.frozen
            executions = [circuit.execution for circuit in circuits]
            values = respond_all(executions, question.held_out, frozen=frozen, batch_size=size, progress=progress)
            seconds = (time.perf_counter() - began) / len(some)
            for key, circuit, own in zip(some, circuits, values, strict=True):
                if key in self.missing:  # the others were run for their company, and their rows stay as they are
                    kept = full.compare(own, disconnected=circuit.disconnected)
                    row = self._row(key, circuit, kept, self._n_scoring(key, scores), seconds)
                    yield Measurement(key, {**row, **self._inside(circuit, size, progress)}, circuit, scores)

    def _n_scoring(self, key: Key, scores: Scores) -> int:
        """Pictures scored on; ranks say nothing of them, because an order is no sum over pictures."""
        return len(self.question.pictures(key.criterion)) if lookup(key.criterion).ranks else scores.n_images

    def _inside(self, circuit: Circuit, batch_size: int, progress: Progress) -> Row:
        every = worst = None
        if self.question.inside:
            every, worst = medians(
                inside(circuit, self.question.held_out, batch_size=batch_size, progress=progress)
            )  # fmt: skip
        return {"inside": every, "inside_worst": worst}

    def _row(self, key: Key, circuit: Circuit, kept: Preservation, n_scoring: int, seconds: float) -> Row:
        return {
            **key._asdict(),
            "sparsity": 1 - key.density,
            "kept": circuit.mask.n_kept,
            "relevant": circuit.mask.n_relevant,
            "effective": circuit.effective.n_kept,
            "effective_density": circuit.effective_density,
            "disconnected": circuit.disconnected,
            "zero_scores": circuit.mask.zero_scores,
            "pearson": kept.pearson,
            "pearson_within": kept.pearson_within,
            "pearson_signed": kept.signed,
            "spearman": kept.spearman,
            "relative_difference": kept.relative_difference,
            "sd_ratio": kept.sd_ratio,
            "reason": kept.reason,
            "granularity": self.question.granularity,
            "biases": self.question.biases,
            "n_scoring": n_scoring,
            "n_held_out": kept.n_images,
            "seed": self.question.seed,
            "seconds": seconds,
        }

    def _warn_of_overlap(self) -> None:
        scored = set(self.question.scoring.hashes)
        held_out = self.question.held_out
        shared = sum(one in scored for one in held_out.hashes)  # a copy counts as often as it stands there
        if shared:
            warnings.warn(
                f"{shared} of the {len(held_out)} pictures to measure on were also scored on; the measured "
                f"preservation is too high",
                stacklevel=3,
            )


def in_groups(targets: Sequence[AnyTarget]) -> list[Sequence[AnyTarget]]:
    """Returns the targets whose responses are kept at a time."""
    return [targets[start : start + TOGETHER] for start in range(0, len(targets), TOGETHER)]


def _mask(scores: Scores, key: Key) -> Mask:
    return scores.select(density=key.density, order="worst" if key.order == "worst" else "best")


def _at(density: float | None, keys: Sequence[Key]) -> list[Key]:
    """Those of some keys that scores made for a density serve; all of them where they serve any."""
    return [key for key in keys if density in (None, key.density)]
