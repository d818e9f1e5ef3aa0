"""Folders of findings about features, in a study's folder: what was asked, as JSON, beside tables, tensors, pictures.

::

    STUDY/findings/NAME/findings.json    what was asked, of which model and pictures, with which versions; what came
                                         of it in short, null until all is there
    STUDY/findings/NAME/section.json     its section of the report, as data: texts, tables, names of pictures
    STUDY/findings/NAME/*                tables (Parquet), tensors (safetensors with a JSON header), pictures

The study's folder may hold measurements of circuits (``study.json``) or nothing else. The same command on the same
folder goes on where it stopped; another question of the same name is refused. Links that lead out of the study's folder
are refused too: nothing is read or written through them.
"""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from viscircuits import store
from viscircuits.card import Card, Shown
from viscircuits.errors import StudyError
from viscircuits.store import temporary
from viscircuits.store.checks import TEXT, Check, Fields, maybe, wrong
from viscircuits.study.folder import Study
from viscircuits.study.names import FINDINGS, HEADER, OLD_SECTION, STUDY, TOP, is_hidden
from viscircuits.study.section import Section, Table
from viscircuits.study.spec import torch_version, versions_now
from viscircuits.version import __version__

FORMAT = 1
"""Version of the folder; a folder of another one is refused."""


@dataclass(frozen=True, repr=False)
class Findings(Shown):
    """A folder that a command writes into.

    Attributes:
        path: of the folder.
        asked: the question: its kind, its format, and whatever decides what is found.
    """

    path: Path
    asked: Mapping[str, store.Json]

    def _card(self) -> Card:
        return Card("Findings", {"folder": self.path, **self.asked})

    @classmethod
    def create(cls, study: Path, name: str, kind: str, asked: Mapping[str, store.Json]) -> "Findings":
        """Returns the folder for what is asked: a new one, or one where the same was asked before.

        This process then claims the folder, until it has finished. What killed processes left in the study is removed.

        Args:
            study: the study's folder, new or not.
            name: of the folder of findings.
            kind: of question.
            asked: whatever decides what is found, the model's ``fingerprint`` among it.

        Raises:
            StudyError: the study's folder is something else, or of another model; the folder holds other findings.
        """
        _usable(study, str(asked["fingerprint"]))
        path = store.inside(study, FINDINGS, name)
        question: dict[str, store.Json] = {"kind": kind, "format": FORMAT, **asked}
        file = store.inside(study, FINDINGS, name, HEADER)
        temporary.clear(study)
        there = _header(file) if file.exists() else None
        # claimed before it is compared: of two processes that look at once, each then sees the other's claim
        temporary.claim(path)
        if there is not None:
            if not (different := _differences(there, question)):
                return cls(path, question)
            if there.get("found") is not None or _worked_on(path) or temporary.is_claimed(path):
                temporary.release(path)
                raise _others(path, different)
            shutil.rmtree(path / TOP, ignore_errors=True)  # a question that came to nothing makes way
        try:
            store.write_json(file, {"asked": question, "found": None}, new=there is None)
        except FileExistsError:  # another process was faster
            if different := _differences(_header(file), question):
                temporary.release(path)
                raise _others(path, different) from None
        except BaseException:
            # Ctrl-C too: a claim that stays would keep others out as long as this process lives
            temporary.release(path)
            raise
        return cls(path, question)

    @property
    def study(self) -> Path:
        """The study's folder."""
        return self.path.parent.parent

    def file(self, *parts: str) -> Path:
        """Returns the path of a file of the findings; a `StudyError` where a link leads out of the study's folder."""
        return store.inside(self.study, FINDINGS, self.path.name, *parts)

    def table(self, name: str, rows: Iterable[Mapping[str, object]]) -> None:
        """Writes a table."""
        with store.atomic(self.file(f"{name}.parquet")) as own:
            pl.DataFrame(list(rows)).write_parquet(own)

    def finish(
        self, found: Mapping[str, store.Json], title: str, lead: str, *, command: str, note: str = "",
        pictures: Mapping[str, Path] = {}, tables: Sequence[Table] = (),
    ) -> None:  # fmt: skip
        """Writes the section of the report and, last of all, the header; ends this process's claim.

        Args:
            found: what came of it, in short.
            title: of the section.
            lead: what was found, in a sentence or two.
            command: the one that found it.
            note: how to read it.
            pictures: what each shows -> a picture that was saved in this folder.
            tables: of each what it shows, the heads of columns, the rows.
        """
        facts = {"command": command, **self._facts(), "made with": versions_now()}
        names = {shows: file.relative_to(self.path).as_posix() for shows, file in pictures.items()}
        Section(title, lead, note, names, tables, facts).save(self.path)
        self.file(OLD_SECTION).unlink(missing_ok=True)  # of an older version, which a report leaves out
        header: dict[str, store.Json] = {
            "asked": dict(self.asked),
            "found": dict(found),
            "viscircuits": __version__,
            "torch": torch_version(),
            "created": datetime.now(UTC).isoformat(timespec="microseconds"),
            "command": command,
        }
        # last, because a header in which something was found says that all is there
        store.write_json(self.file(HEADER), header)
        temporary.release(self.path)

    def _facts(self) -> dict[str, str]:
        facts = {"model": f"{self.asked['model']}, fingerprint {self.asked['fingerprint']}"}
        images = self.asked.get("images")
        if isinstance(images, dict) and images:
            facts["pictures"] = f"{images['count']:,} of {images['source']}"
        return facts


_WORD = maybe(TEXT)
_FIELDS = {
    "asked": Check("an object", lambda value: isinstance(value, dict)),
    "found": Check("an object, or null until all is there", lambda value: value is None or isinstance(value, dict)),
    "viscircuits": _WORD, "torch": _WORD, "created": _WORD, "command": _WORD,
}  # fmt: skip


def _header(file: Path) -> Fields:
    header = store.read_json(file)
    if not isinstance(header, dict) or wrong(_FIELDS, header):
        raise store.damaged(file, wrong(_FIELDS, header))
    return header


def _differences(there: Fields, question: Mapping[str, store.Json]) -> list[str]:
    return [key for key in question if _content(there["asked"].get(key)) != _content(question[key])]


def _content(answer: store.Json) -> store.Json:
    """What is asked without where it came from: another path to the same pictures is the same."""
    return {k: v for k, v in answer.items() if k != "source"} if isinstance(answer, dict) else answer


def _others(path: Path, different: Sequence[str]) -> StudyError:
    return StudyError(
        f"{str(path)!r} holds other findings (they differ in {', '.join(different)}); choose another folder with "
        f"--out, or delete this one"
    )


def _worked_on(path: Path) -> bool:
    """Whether a folder holds more than the question and top activations."""
    # those alone do not count: they are made first of all, before it shows whether there is anything to find
    return any(file.name not in (HEADER, TOP) and not is_hidden(file.name) for file in path.iterdir())


def _usable(study: Path, network: str) -> None:
    """Checks that findings about a network may stand in a study's folder."""
    if (study / STUDY).exists():
        if Study.open(study).header.spec.fingerprint != network:
            raise StudyError(f"{str(study)!r} is a study of another model or other weights; choose another with --out")
    elif study.exists() and not (study / FINDINGS).is_dir() and (not study.is_dir() or _holds_something(study)):
        raise StudyError(f"{str(study)!r} exists and is not a study; choose another folder with --out")


def _holds_something(folder: Path) -> bool:
    return any(not is_hidden(file.name) for file in folder.iterdir())
