"""Sweeps: densities x criteria x targets, each circuit measured on pictures it was not scored on.

A sweep is a stream of measurements. Whoever drives it can store each as it comes and skip what is done, so that an
interrupted sweep goes on where it stopped.

Not here: what is asked and its checks (`question`), how it is measured (`measuring`), the table (`table`).
"""

import shutil
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from viscircuits.bounds.arguments import checked
from viscircuits.errors import ImageError
from viscircuits.evaluate.measurement import Folder, Key, Measurement
from viscircuits.evaluate.measuring import Measuring, in_groups
from viscircuits.evaluate.question import Question
from viscircuits.evaluate.table import rows_of, table
from viscircuits.model.trace import trace
from viscircuits.readout import bound
from viscircuits.saliency.engine.plan import Plan, in_passes
from viscircuits.saliency.registry import needs_density
from viscircuits.study.measurements import write

_PAUSE = 1
"""Seconds between two times that a checkpoint is written: each writes the whole table."""


@dataclass(frozen=True, repr=False)
class Sweep(Question):
    """A product of targets, criteria and densities on one model and one pair of image sets.

    Args:
        model: a network in evaluation mode.
        targets: what to explain.
        scoring: pictures for the scores.
        held_out: pictures for the measurements; sharing any with ``scoring`` warns.
        criteria: names; ``"actgrad:worst"`` keeps the worst structures of a criterion first, as a control.
        densities: fractions of the relevant structures to keep, in (0, 1].
        granularity, normalise, biases, seed, batch_size, memory: as in `score` and `Circuit`.
        limits: criterion -> the only ones of ``densities`` at which it, or its control, is run (where it costs a lot).
        scoring_limits: criterion -> how many of the scoring pictures it sees at most, drawn by the seed.
        inside: whether to look into each circuit (`viscircuits.inside`; two more passes over ``held_out`` a circuit):
            the column ``inside`` is the median over its filters, ``inside_worst`` that of the layer where it is least.
        progress: called as the work goes on, with "circuits" or a criterion, how many are done, and of how many.
    """

    def plans(self, memory: int) -> list[Plan] | None:
        """Returns how its targets would be scored within a memory limit; None where that is too little."""
        plans: list[Plan] = []
        graph = trace(self.model, self.scoring[0].shape)
        try:
            for targets in in_groups(self.targets):
                readouts = [bound(target, graph) for target in targets]
                plans += [one for _, one in in_passes(readouts, memory=memory)]
        except ImageError:
            return None
        return plans

    @checked
    def measurements(self, done: Collection[Key] = (), folder: Folder | None = None) -> Iterator[Measurement]:
        """Returns a stream of every measurement that is not done yet; both orders of one criterion come together.

        What is computed together (targets that share a pass, circuits that share their first layers) decides rounding.
        So it is computed in the groups of a sweep of which nothing is done, and a group that lacks one is as a whole.

        Args:
            done: what is not wanted.
            folder: keeps scores, and takes them from there where they are.

        Raises:
            TargetError: a target is dead on the pictures to measure on.
        """
        return Measuring(self, set(self.keys()) - set(done), folder).measurements()


@checked
def sweep(
    job: Sweep,
    checkpoint: str | Path | None = None,
    each: Callable[[Measurement], None] | None = None,
    folder: Folder | None = None,
) -> pl.DataFrame:
    """Returns the table of a sweep, one row a circuit.

    However often it was stopped, the rows are those of a sweep that was not, but for the seconds that it took.

    Args:
        job: what to measure.
        checkpoint: a Parquet file that holds the rows done so far and is rewritten as they come (at most once a
            second, and at the end or at an interruption); rows it already has are not measured again. It knows targets,
            criteria and densities, not the model or the pictures: one file a job (`Study` keeps them apart).
        each: called with every new measurement, to store its circuit.
        folder: keeps scores; what it has lost of scores and circuits is made again, and the rows stay.

    Raises:
        StudyError: the checkpoint is of a newer version and would lose what only that knows.
    """
    path = Path(checkpoint) if checkpoint is not None else None
    study = "" if folder is None else folder.hash
    rows = {} if path is None else rows_of(path, study, job.keys())
    before = len(rows)
    written = time.monotonic()
    try:
        for measurement in job.measurements(_done(rows, folder), folder):
            # the circuit first: a row whose circuit is not on disk would never be measured again
            if each is not None:
                each(measurement)
            rows.setdefault(measurement.key, measurement.row)
            if path is not None and time.monotonic() - written > _PAUSE:
                write(path, table(rows.values()), study)
                written = time.monotonic()
    finally:
        # also after an interruption: what was measured since the last writing is not lost
        if path is not None and len(rows) > before:
            write(path, table(rows.values()), study)
    if folder is not None:
        shutil.rmtree(folder.rungs, ignore_errors=True)
    wanted = job.keys()
    return table(rows[key] for key in wanted if key in rows)


def _done(rows: Collection[Key], folder: Folder | None) -> Collection[Key]:
    """The measurements of which nothing is missing, neither the row nor what a folder keeps."""
    if folder is None:
        return rows
    scores = {key: (key.target, key.criterion, key.density if needs_density(key.criterion) else None) for key in rows}
    # scores serve many circuits, and reading a file of them is slow, so each is looked at once
    whole = {one for one in set(scores.values()) if folder.scores(*one) is not None}
    return [key for key in rows if scores[key] in whole and folder.holds(*key)]
