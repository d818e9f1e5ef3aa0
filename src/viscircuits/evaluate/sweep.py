"""Sweeps: densities x criteria x targets, each circuit measured on pictures it was not scored on.

A sweep is a stream of measurements. Whoever drives it can store each as it comes and skip what is done, so that an
interrupted sweep goes on where it stopped.
"""

import shutil
import time
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, get_args, runtime_checkable

import polars as pl
from torch import nn

from viscircuits.bounds import check_fields, checked, within
from viscircuits.circuit import Biases, Circuit
from viscircuits.data.images import ImageSet
from viscircuits.errors import ImageError, MaskError, StudyError, TargetError
from viscircuits.evaluate.preservation import Preservation, Reference
from viscircuits.execution.response import judged, respond_full
from viscircuits.execution.together import AT_ONCE, respond_all
from viscircuits.model.trace import trace
from viscircuits.readout import Readout
from viscircuits.saliency.engine.fused import TOGETHER
from viscircuits.saliency.engine.plan import Plan, plan
from viscircuits.saliency.registry import in_passes, lookup, needs_density, score_all
from viscircuits.scores import Scores
from viscircuits.study.measurements import SCHEMA, read, write
from viscircuits.target import AnyTarget
from viscircuits.types import GRANULARITIES, Granularity, Progress

PAPER_DENSITIES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.01, 0.005, 0.001)
"""The 13 levels of the paper (figures 2 and 3)."""

Row = dict[str, str | float | int | bool | None]
"""One line of the table: column -> value."""


class Key(NamedTuple):
    """What names one measurement within a sweep."""

    target: str
    criterion: str
    order: str
    density: float


@runtime_checkable  # so that types can be checked in tests
class Folder(Protocol):
    """What keeps a sweep's scores and circuits beside its table; `viscircuits.study.folder.Study` is one."""

    @property
    def hash(self) -> str:
        """What tells its table from that of another sweep."""
        ...

    @property
    def rungs(self) -> Path:
        """Where a criterion that takes long keeps how far it has come."""
        ...

    def scores(self, target: str, criterion: str, density: float | None) -> Scores | None:
        """Returns scores that are there, whole, and nothing otherwise."""
        ...

    def add_scores(self, scores: Scores) -> object:
        """Keeps scores."""
        ...

    def holds(self, target: str, criterion: str, order: str, density: float) -> bool:
        """Returns whether a circuit is there, whole."""
        ...


@dataclass(frozen=True)
class Measurement:
    """One circuit and its numbers, as a flat row."""

    key: Key
    row: Row
    circuit: Circuit
    scores: Scores


@dataclass(frozen=True)
class Sweep:
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
        progress: called as the work goes on, with "circuits" or a criterion, how many are done, and of how many.
    """

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
    progress: Progress | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if not (len(self.targets) and len(self.criteria) and len(self.densities)):
            raise MaskError("a sweep needs at least one target, one criterion and one density")
        for name in (*(self.limits or ()), *(self.scoring_limits or ())):  # they hold for both orders
            lookup(name)
        for name, some in (self.limits or {}).items():
            if other := [density for density in some if density not in self.densities]:
                raise MaskError(f"limits of {name!r}: {other[0]!r} is none of the densities, {list(self.densities)}")
        for most in (self.scoring_limits or {}).values():
            within("n", most)
        for criterion in self.criteria:
            name, _, control = criterion.partition(":")
            lookup(name)
            if control not in ("", "worst"):
                raise MaskError(f"unknown control {criterion!r}; the only one is '{name}:worst'")
        for density in self.densities:
            if not 0 < density <= 1:
                raise MaskError(f"density {density!r} is out of range; expected a fraction in (0, 1], such as 0.1")
        for option, known in _OPTIONS.items():
            if getattr(self, option) not in known:
                raise MaskError(f"unknown {option} {getattr(self, option)!r}; expected one of {known}")
        texts = [str(target) for target in self.targets]
        if twice := next((text for text in texts if texts.count(text) > 1), None):
            raise TargetError(f"two targets read {twice!r}: give each once; results are kept by this text")
        if self.scoring[0].shape != self.held_out[0].shape:
            raise ImageError(
                f"scoring pictures have shape {tuple(self.scoring[0].shape)}, held-out ones "
                f"{tuple(self.held_out[0].shape)}; prepare both alike"
            )
        for target in self.targets:
            readout = Readout(target, trace(self.model, self.scoring[0].shape))
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
        return list(dict.fromkeys(every))

    def plans(self, memory: int) -> list[Plan] | None:
        """Returns how its targets would be scored within a memory limit; None where that is too little."""
        try:
            return [one for group in self._groups() for _, one in in_passes(self._readouts(group), memory=memory)]
        except ImageError:
            return None

    @checked
    def measurements(self, done: Collection[Key] = (), folder: Folder | None = None) -> Iterator[Measurement]:
        """Yields every measurement that is not done yet; both orders of one criterion come together.

        What is computed together (targets that share a pass, circuits that share their first layers) decides rounding.
        So it is computed in the groups of a sweep of which nothing is done, and a group that lacks one is as a whole.

        Args:
            done: what is not wanted.
            folder: keeps scores, and takes them from there where they are.

        Raises:
            TargetError: a target is dead on the pictures to measure on.
        """
        self._warn_of_overlap()
        keys = self.keys()
        missing = set(keys) - set(done)
        total, count = len(keys), len(keys) - len(missing)

        def still(what: str, done: int, of: int) -> None:  # between batches: it may end the call
            if self.progress is not None:
                self.progress("circuits", count, total)

        lacking = {key.target for key in missing}
        every: dict[tuple[str, str], list[Key]] = {}
        for key in keys:
            every.setdefault((key.target, key.criterion), []).append(key)
        groups = [group for group in self._groups() if not lacking.isdisjoint(map(str, group))]
        for group in groups[1:]:  # a dead one is better told now than after hours
            self._references(group, still)
        for group in groups:
            references, passes = self._references(group, still), self._passes(group)
            for criterion in dict.fromkeys(key.criterion for key in keys):
                own = {target: every[str(target), criterion] for target in group}
                for target, scores, some in self._scored(criterion, own, passes, missing, folder):
                    for measurement in self._measured(target, some, missing, scores, references[target], still):
                        yield measurement
                        count += 1
                        if self.progress is not None:
                            self.progress("circuits", count, total)

    def _densities(self, criterion: str) -> Sequence[float]:
        limited = (self.limits or {}).get(criterion.partition(":")[0])
        return [d for d in self.densities if limited is None or d in limited]

    def _groups(self) -> list[Sequence[AnyTarget]]:
        """Targets whose responses are kept at a time."""
        return [self.targets[start : start + TOGETHER] for start in range(0, len(self.targets), TOGETHER)]

    def _readouts(self, targets: Sequence[AnyTarget]) -> list[Readout]:
        return [Readout(target, trace(self.model, self.scoring[0].shape)) for target in targets]

    def _passes(self, targets: Sequence[AnyTarget]) -> list[list[AnyTarget]]:
        """Those of some targets that are scored together."""
        passes = in_passes(self._readouts(targets), memory=self.memory, batch_size=self.batch_size)
        return [[readout.target for readout in some] for some, _ in passes]

    def _scored(
        self, criterion: str, keys: Mapping[AnyTarget, list[Key]], passes: Sequence[Sequence[AnyTarget]],
        missing: Set[Key], folder: Folder | None,
    ) -> Iterator[tuple[AnyTarget, Scores, list[Key]]]:  # fmt: skip
        """Targets with their scores and all that is measured from these, where any of it is missing."""
        densities = sorted({key.density for own in keys.values() for key in own}, reverse=True)
        for density in densities if needs_density(criterion) else [None]:
            some = {target: [k for k in own if density in (None, k.density)] for target, own in keys.items()}
            for together in passes:
                if all(missing.isdisjoint(some[target]) for target in together):
                    continue
                found = self._scores(criterion, density, together, folder)
                yield from ((target, scores, some[target]) for target, scores in zip(together, found, strict=True))

    def _scores(
        self, criterion: str, density: float | None, targets: Sequence[AnyTarget], folder: Folder | None
    ) -> list[Scores]:
        """The scores of targets that share a pass: those that a folder keeps, or new ones, which it then keeps."""
        if folder is not None:
            kept = [folder.scores(str(target), criterion, density) for target in targets]
            found = [scores for scores in kept if scores is not None]
            if len(found) == len(targets):
                return found
        limit = (self.scoring_limits or {}).get(criterion)
        images = self.scoring if limit is None or limit >= len(self.scoring) else self.scoring.take(limit, self.seed)
        new = list(score_all(
            self.model, targets, images, criterion, granularity=self.granularity, normalise=self.normalise,
            density=density, seed=self.seed, batch_size=self.batch_size, memory=self.memory,
            resume=None if folder is None else folder.rungs, progress=self.progress,
        ))  # fmt: skip
        if folder is not None:
            for scores in new:
                folder.add_scores(scores)
            shutil.rmtree(folder.rungs, ignore_errors=True)
        return new

    def _references(self, targets: Sequence[AnyTarget], progress: Progress) -> dict[AnyTarget, Reference]:
        graph = trace(self.model, self.held_out[0].shape)
        readouts = [Readout(target, graph) for target in targets]
        size = plan(readouts[:1], memory=self.memory, batch_size=self.batch_size).batch_size
        responses = respond_full(self.model, readouts, self.held_out, batch_size=size, progress=progress)
        return {target: Reference(r, str(target)) for target, r in zip(targets, responses, strict=True)}

    def _measured(
        self, target: AnyTarget, keys: Sequence[Key], missing: Set[Key], scores: Scores, full: Reference,
        progress: Progress,
    ) -> Iterator[Measurement]:  # fmt: skip
        """The missing circuits of some scores, measured some densities at a time in one pass over the pictures."""
        for start in range(0, len(keys), AT_ONCE):
            some = keys[start : start + AT_ONCE]
            if missing.isdisjoint(some):
                continue
            began = time.perf_counter()
            masks = [scores.select(density=k.density, order="worst" if k.order == "worst" else "best") for k in some]
            circuits = [Circuit(self.model, target, mask, self.biases) for mask in masks]
            size = plan([circuits[0].readout], memory=self.memory, batch_size=self.batch_size).batch_size
            frozen = full.response.frozen
            values = respond_all(
                [c.execution for c in circuits], self.held_out, frozen=frozen, batch_size=size, progress=progress
            )
            seconds = (time.perf_counter() - began) / len(some)
            for key, circuit, own in zip(some, circuits, values, strict=True):
                if key not in missing:
                    continue
                kept = full.compare(own, disconnected=circuit.disconnected)
                yield Measurement(key, self._row(key, circuit, kept, scores.n_images, seconds), circuit, scores)

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
            "granularity": self.granularity,
            "biases": self.biases,
            "n_scoring": n_scoring,
            "n_held_out": kept.n_images,
            "seed": self.seed,
            "seconds": seconds,
        }

    def _warn_of_overlap(self) -> None:
        scored = set(self.scoring.hashes)
        shared = sum(one in scored for one in self.held_out.hashes)  # a copy counts as often as it stands there
        if shared:
            warnings.warn(
                f"{shared} of the {len(self.held_out)} pictures to measure on were also scored on; the measured "
                f"preservation is too high",
                stacklevel=3,
            )


_OPTIONS = {"granularity": GRANULARITIES, "normalise": (None, "minmax"), "biases": get_args(Biases)}


def table(rows: Iterable[Row]) -> pl.DataFrame:
    """Returns measurements as a tidy table, one row a circuit."""
    return pl.DataFrame(list(rows), schema=SCHEMA)


def read_table(path: str | Path) -> pl.DataFrame:
    """Returns a table that `sweep` wrote; a `StudyError` for any other file (see `study.measurements.read`)."""
    return read(path).frame


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
    """
    path = Path(checkpoint) if checkpoint is not None else None
    study = "" if folder is None else folder.hash
    before = _before(job, path, study) if path is not None and path.exists() else table([])
    rows: dict[Key, Row] = {Key(*(row[name] for name in Key._fields)): row for row in before.iter_rows(named=True)}
    written = time.monotonic()
    try:
        for measurement in job.measurements(_done(rows, folder), folder):
            if each is not None:
                each(measurement)
            rows.setdefault(measurement.key, measurement.row)
            if path is not None and time.monotonic() - written > 1:
                write(path, table(rows.values()), study)
                written = time.monotonic()
    finally:
        if path is not None and len(rows) > len(before):
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
    whole = {one for one in set(scores.values()) if folder.scores(*one) is not None}
    return [key for key in rows if scores[key] in whole and folder.holds(*key)]


def _before(job: Sweep, path: Path, study: str) -> pl.DataFrame:
    """The rows that a file holds already; one whose columns would be lost with the next row is refused."""
    found = read(path, study=study)
    if found.left_out and set(job.keys()) - set(map(Key._make, found.frame.select(Key._fields).rows())):
        raise StudyError(
            f"{str(path)!r} was written by a newer version, and what it holds besides would be lost; go on with that "
            f"version, or take another folder"
        )
    return found.frame
