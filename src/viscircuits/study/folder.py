"""A study folder: the one interface between the command line and other programs or people.

Everything is written atomically and nothing is a pickle. The same command on the same folder goes on where it stopped;
another command on it is refused, and so is the same one on other code of the model. A study may come from a stranger:
what it holds is checked when it is read, and neither reading nor writing follows a link that leads out of its folder,
which itself may be one. What stands where is said in `viscircuits.study.names`.

A study is opened, and its table read, without torch; circuits and scores bring it with them.
"""

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from viscircuits import store
from viscircuits.bounds.arguments import checked, checked_with
from viscircuits.card import Card, Shown
from viscircuits.errors import StudyError, closest
from viscircuits.store import temporary
from viscircuits.study import measurements, names
from viscircuits.study.card import card
from viscircuits.study.spec import FORMAT, Header, Spec, torch_version, typed, versions_now
from viscircuits.version import __version__

if TYPE_CHECKING:
    from torch import nn

    from viscircuits.circuit.circuit import Circuit
    from viscircuits.scores import Scores


def _types() -> Mapping[str, object]:
    """What annotations here name, for `checked_with`: whoever calls with one of these has loaded torch."""
    from torch import nn

    from viscircuits.circuit.circuit import Circuit
    from viscircuits.scores import Scores

    return {"nn": nn, "Circuit": Circuit, "Scores": Scores}


@dataclass(frozen=True, repr=False)
class Study(Shown):
    """A study folder that exists."""

    path: Path
    header: Header

    def _card(self) -> Card:
        return card(self.path, self.header)

    @classmethod
    @checked
    def create(cls, path: str | Path, spec: Spec, *, command: str = "", engine: str = "", graph: str = "") -> "Study":
        """Returns the study in a folder: a new one, or the one already there if it was asked for the same.

        This process then claims the folder, until `release`: meanwhile no other question takes its place. What killed
        processes left there is removed.

        Args:
            path: the folder.
            spec: what is asked.
            command: the command that asks.
            engine: what computes the maps of convolutions.
            graph: the hash of the model's traced graph.

        Raises:
            StudyError: the folder holds another study, or something else; the model's code is another.
        """
        folder = Path(path)
        file = store.inside(folder, names.STUDY)
        if there := file.exists():
            study = cls.open(folder)
            # claimed before it is compared: of two processes that look at once, each then sees the other's claim
            study._claim()
            if not (different := study.header.spec.differs(spec)):
                study._check(graph)
                return study
            if study._begun() or temporary.is_claimed(folder):  # two that replace it at once may both be refused
                study.release()
                raise _another(folder, different)  # nothing already computed is lost
        elif folder.exists() and (not folder.is_dir() or any(map(_counts, folder.iterdir()))):
            raise StudyError(f"{str(folder)!r} exists and is not a study; choose another folder with --out")
        header = Header(
            format=FORMAT, viscircuits=__version__, torch=torch_version(),
            created=datetime.now(UTC).isoformat(timespec="seconds"), command=command,
            engine=engine, graph=graph, spec=spec,
        )  # fmt: skip
        study = cls(folder, header)
        study._claim()
        try:
            # new: between the look above and this line another process may have written its question
            study._write(new=not there)
        except FileExistsError:
            first = cls.open(folder)
            if different := first.header.spec.differs(spec):
                study.release()
                raise _another(folder, different) from None
            return first
        except BaseException:
            # Ctrl-C too: a claim that stays would keep others out as long as this process lives
            study.release()
            raise
        return study

    @classmethod
    @checked
    def open(cls, path: str | Path) -> "Study":
        """Returns the study in a folder; a `StudyError` says what is wrong with it."""
        folder = Path(path)
        file = store.inside(folder, names.STUDY)
        if not os.path.lexists(file):  # a link to nowhere is there, and is told to be damaged
            raise StudyError(f"{str(folder)!r} is not a study folder: it has no {names.STUDY}")
        return cls(folder, Header.of(store.read_json(file), file))

    def _begun(self) -> bool:
        """Whether anything is there beside the question."""
        # rungs are hidden and no result, but may hold hours of work
        return self.rungs.exists() or any(name != names.STUDY for name, _ in self.files())

    def release(self) -> None:
        """Ends this process's claim to the folder."""
        temporary.release(self.path)

    def gone_on(self) -> None:
        """Records these versions of viscircuits and torch, and warns, if the study began with others."""
        own, header = versions_now(), self.header
        if own == header.versions:
            return
        warnings.warn(
            f"{str(self.path)!r} was begun with {header.versions}, and this is {own}: its numbers may not all be of "
            f"one kind; study.json and the report say so",
            stacklevel=2,
        )
        if own not in header.continued:
            # `self` keeps the header it was opened with: it says what this process knew when it began
            Study(self.path, header.model_copy(update={"continued": (*header.continued, own)}))._write()

    def _claim(self) -> None:
        temporary.claim(self.path)
        temporary.clear(self.path)  # of gone processes alone, so that another's work here goes on

    def _check(self, graph: str) -> None:
        """Refuses other code of the model, unless another version of torch may have traced it otherwise."""
        began = self.header
        if not (graph and began.graph) or graph == began.graph:
            return
        if began.versions == versions_now():
            self.release()
            raise StudyError(
                f"the model in {str(self.path)!r} computes something else than when the study was begun (its weights "
                f"are the same, its traced graph is {graph} and was {began.graph}); put its code back, or choose "
                f"another folder with --out"
            )
        warnings.warn(
            f"the model in {str(self.path)!r} was traced otherwise with {began.versions}: the same weights, another "
            f"graph; check that its code is the same",
            stacklevel=3,
        )

    def _write(self, *, new: bool = False) -> None:
        store.write_json(self.file(names.STUDY), dict(self.header.content()), new=new)

    @property
    def hash(self) -> str:
        """What tells the study's table from that of another."""
        return self.header.spec.hash

    @property
    def rungs(self) -> Path:
        """Where a criterion that trains keeps how far it has come."""
        return self.file(names.RUNGS)

    @property
    def cache(self) -> Path | None:
        """Where rendered pictures are kept; nowhere in a study that this user cannot write to, as another's."""
        return self.file(*names.PICTURES) if os.access(self.path, os.W_OK) else None

    @checked
    def file(self, *parts: str) -> Path:
        """Returns the path of a file of the study; a `StudyError` where a link leads out of its folder."""
        return store.inside(self.path, *parts)

    @property
    def measurements_path(self) -> Path:
        """Where the table of measurements stands."""
        return self.file(names.MEASUREMENTS)

    def measurements(self) -> pl.DataFrame:
        """Returns the table of measurements; a `StudyError` if there is none yet.

        Rows stand as the study was asked: by target, then by criterion, the best before the worst first, densities
        falling. Columns that are younger than the table are empty (see `viscircuits.study.measurements.read`).
        """
        # lexists: a link to nowhere is not a table that is still to come, and is told when it is read
        if not os.path.lexists(self.measurements_path):
            again = f"run its command again: {typed(self.header.command)}"
            raise StudyError(f"study {str(self.path)!r} has no measurements yet; {again}")
        frame = measurements.read(self.measurements_path, self.header.viscircuits, self.hash).frame
        spec = self.header.spec
        return measurements.ordered(frame, spec.targets, [name.partition(":")[0] for name in spec.criteria])

    @checked_with(_types)
    def add_circuit(self, circuit: "Circuit", criterion: str, density: float, model_hash: str = "") -> Path:
        """Writes a circuit and returns where.

        Args:
            circuit: what was found.
            criterion: what it was found by, with its order where that is not the best first.
            density: kept over relevant structures, in (0, 1].
            model_hash: the fingerprint of the circuit's model, where it is known; it is found otherwise.
        """
        path = self.file(names.CIRCUITS, names.circuit_name(str(circuit.target), criterion, density))
        circuit.save(path, study=self.hash, model_hash=model_hash)
        return path

    def holds(self, target: str, criterion: str, order: str, density: float) -> bool:
        """Returns whether a measured circuit is there, whole.

        Args:
            target: as text.
            criterion: with its options.
            order: ``"best"`` or ``"worst"``.
            density: kept over relevant structures, in (0, 1].
        """
        from viscircuits.study import contents

        return contents.holds(self, target, names.ordered(criterion, order), density)

    @checked_with(_types)
    def add_scores(self, scores: "Scores") -> Path:
        """Writes scores and returns where."""
        path = self.file(names.SCORES, names.scores_name(scores.target, scores.criterion, scores.density))
        scores.save(path, study=self.hash)
        return path

    def scores(self, target: str, criterion: str, density: float | None) -> "Scores | None":
        """Returns scores of the study; None where they are missing, damaged or others.

        Args:
            target: as text.
            criterion: with its options.
            density: the one that they were made for, in (0, 1]; None where they are for all.
        """
        from viscircuits.study import contents

        return contents.scores(self, target, criterion, density)

    def circuits(self) -> Sequence[Path]:
        """Returns the circuit files, sorted by name; what a link leads to elsewhere is none of them."""
        every = (self.path / names.CIRCUITS).glob("[!.]*.safetensors")
        return sorted(file for file in every if store.stays(self.path, file))

    @checked_with(_types)
    def circuit(self, model: "nn.Module", target: str, criterion: str, density: float) -> "Circuit":
        """Returns one of the study's circuits on its model.

        Args:
            model: the one that the study was made on.
            target: as text.
            criterion: with its options; ``-worst`` at its end for the control of that order.
            density: one of the study's.

        Raises:
            StudyError: the study has no such circuit, or it was made on another model.
        """
        from viscircuits.circuit.circuit import Circuit

        path = self.file(names.CIRCUITS, names.circuit_name(target, criterion, density))
        if not path.is_file():
            stems = [p.stem for p in self.circuits()]
            raise StudyError(f"no circuit {path.stem!r} among the study's {len(stems)}{closest(path.stem, stems)}")
        return Circuit.load(path, model)

    def files(self) -> list[tuple[str, int]]:
        """Returns the study's files, relative and sorted, with their sizes in bytes; none that a link has elsewhere."""
        files: list[tuple[str, int]] = []
        for file in self.path.rglob("[!.]*"):
            place = file.relative_to(self.path)
            if file.is_file() and store.stays(self.path, file) and not any(map(names.is_hidden, place.parts)):
                files.append((place.as_posix(), file.stat().st_size))
        return sorted(files)


def _counts(file: Path) -> bool:
    """Whether a file is neither hidden nor a question that somebody asked meanwhile."""
    return file.name != names.STUDY and not names.is_hidden(file.name)


def _another(folder: Path, different: Sequence[str]) -> StudyError:
    return StudyError(
        f"{str(folder)!r} holds another study (it differs in {', '.join(different)}; viscircuits inspect shows it); "
        f"choose another folder with --out, or delete this one"
    )
