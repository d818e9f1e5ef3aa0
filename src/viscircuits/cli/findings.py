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

import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import torch
from rich.text import Text
from torch import nn

from viscircuits import store, temporary
from viscircuits.cli.console import out
from viscircuits.data.images import ImageSet, Prepare
from viscircuits.errors import StudyError
from viscircuits.header import TEXT, Check, maybe, wrong
from viscircuits.model.fingerprint import fingerprint
from viscircuits.model.trace import trace
from viscircuits.model.zoo import zoo
from viscircuits.plots.sheets import Scene
from viscircuits.report.findings import FOLDER, HEADER, OLD_SECTION, write_findings
from viscircuits.report.section import Section, Table
from viscircuits.runs.job import on_device
from viscircuits.study.folder import Pictures, Study, slug
from viscircuits.version import __version__

FORMAT = 1
"""Version of the folder; a folder of another one is refused."""

TOP = "top"
"""Where top activations are kept in a folder."""


@dataclass(frozen=True)
class Findings:
    """A folder that a command writes into."""

    path: Path
    asked: Mapping[str, store.Json]

    @classmethod
    def create(cls, study: Path, name: str, kind: str, asked: Mapping[str, store.Json]) -> "Findings":
        """Returns the folder for what is asked: a new one, or one where the same was asked before.

        This process then claims the folder, until it has finished. What killed processes left in the study is removed.

        Raises:
            StudyError: the study's folder is something else, or of another model; the folder holds other findings.
        """
        _usable(study, str(asked["fingerprint"]))
        path = store.inside(study, FOLDER, name)
        wanted: dict[str, store.Json] = {"kind": kind, "format": FORMAT, **asked}
        file = store.inside(study, FOLDER, name, HEADER)
        temporary.clear(study)
        there = _asked_before(file) if file.exists() else None
        temporary.claim(path)
        if there is not None:
            if not (different := _differences(there, wanted)):
                return cls(path, wanted)
            if there.get("found") is not None or _worked_on(path) or temporary.is_claimed(path):
                temporary.release(path)
                raise _others(path, different)
            shutil.rmtree(path / TOP, ignore_errors=True)  # a question that came to nothing makes way
        try:
            store.write_json(file, {"asked": wanted, "found": None}, new=there is None)
        except FileExistsError:  # another process was faster
            if different := _differences(_asked_before(file), wanted):
                temporary.release(path)
                raise _others(path, different) from None
        except BaseException:
            temporary.release(path)
            raise
        return cls(path, wanted)

    def file(self, *parts: str) -> Path:
        """Returns the path of a file of the findings; a `StudyError` where a link leads out of the study's folder."""
        return store.inside(self.path.parent.parent, FOLDER, self.path.name, *parts)

    def table(self, name: str, rows: Iterable[Mapping[str, object]]) -> None:
        """Writes a table."""
        with store.atomic(self.file(f"{name}.parquet")) as own:
            pl.DataFrame(list(rows)).write_parquet(own)

    def finish(
        self, found: Mapping[str, store.Json], title: str, lead: str, *, note: str = "",
        pictures: Mapping[str, Path] = {}, tables: Sequence[Table] = (),
    ) -> None:  # fmt: skip
        """Writes the section of the report and, last of all, the header; prints where they stand.

        Args:
            found: what came of it, in short.
            title, lead, note, tables: of the section; see `viscircuits.report.section.Section`.
            pictures: what each shows -> a picture that was saved in this folder.
        """
        command = " ".join(["viscircuits", *map(shlex.quote, sys.argv[1:])])
        facts = {
            "command": command,
            **self._facts(),
            "made with": f"viscircuits {__version__}, torch {torch.__version__}",
        }
        names = {said: file.relative_to(self.path).as_posix() for said, file in pictures.items()}
        Section(title, lead, note, names, tables, facts).save(self.path)
        self.file(OLD_SECTION).unlink(missing_ok=True)  # of an older version, which a report leaves out
        header: dict[str, store.Json] = {
            "asked": dict(self.asked),
            "found": dict(found),
            "viscircuits": __version__,
            "torch": torch.__version__,
            "created": datetime.now(UTC).isoformat(timespec="microseconds"),
            "command": command,
        }
        store.write_json(self.file(HEADER), header)
        temporary.release(self.path)
        study = self.path.parent.parent
        out.print(Text(str(self.path), style="bold"), soft_wrap=True)
        if not (study / "study.json").exists():
            out.print(Text(str(write_findings(study))), soft_wrap=True)

    def _facts(self) -> dict[str, str]:
        images: Any = self.asked.get("images")
        facts = {"model": f"{self.asked['model']}, fingerprint {self.asked['fingerprint']}"}
        return facts | ({"pictures": f"{images['count']:,} of {images['source']}"} if images else {})


_WORD = maybe(TEXT)
_HEADER = {
    "asked": Check("an object", lambda value: isinstance(value, dict)),
    "found": Check("an object, or null until all is there", lambda value: value is None or isinstance(value, dict)),
    "viscircuits": _WORD, "torch": _WORD, "created": _WORD, "command": _WORD,
}  # fmt: skip


def _asked_before(file: Path) -> Any:
    header = store.read_json(file)
    if what := wrong(_HEADER, header):
        raise store.damaged(file, what)
    return header


def _differences(there: Any, wanted: Mapping[str, store.Json]) -> list[str]:
    return [key for key in wanted if _same(there["asked"].get(key)) != _same(wanted[key])]


def _others(path: Path, different: Sequence[str]) -> StudyError:
    return StudyError(
        f"{str(path)!r} holds other findings (they differ in {', '.join(different)}); choose another folder with "
        f"--out, or delete this one"
    )


def _worked_on(path: Path) -> bool:
    """Whether a folder holds more than the question and top activations."""
    return any(file.name not in (HEADER, TOP) and not file.name.startswith(".") for file in path.iterdir())


def _usable(study: Path, network: str) -> None:
    """Checks that findings about a network may stand in a study's folder."""
    if (study / "study.json").exists():
        if Study.open(study).header.spec.fingerprint != network:
            raise StudyError(f"{str(study)!r} is a study of another model or other weights; choose another with --out")
    elif study.exists() and not (study / FOLDER).is_dir() and (not study.is_dir() or _holds_something(study)):
        raise StudyError(f"{str(study)!r} exists and is not a study; choose another folder with --out")


def _holds_something(folder: Path) -> bool:
    return any(not file.name.startswith(".") for file in folder.iterdir())


def _same(asked: Any) -> Any:
    """What is asked without where it came from: another path to the same pictures is the same."""
    return {k: v for k, v in asked.items() if k != "source"} if isinstance(asked, dict) else asked


def study_of(out: Path | None, model: str) -> Path:
    """Returns the study's folder: the given one, or that of the model."""
    return out or Path("studies") / slug(model.replace("/", "-"))


@dataclass(frozen=True)
class Loaded:
    """A model with the pictures to show it."""

    model: nn.Module
    prepare: Prepare
    images: ImageSet
    asked: Mapping[str, store.Json]

    def scene(self, images: ImageSet | None = None) -> Scene:
        """Returns what pictures are cut out with; of these pictures, or of all."""
        return Scene(trace(self.model, self.images[0].shape), images or self.images, self.prepare)


def load(
    model: str, weights: str | None, images: Sequence[Path], *, input_size: int | None, limit: int | None, seed: int,
    device: str, white: float | None = None,
) -> Loaded:  # fmt: skip
    """Returns a model and pictures, as the command line names them."""
    network, prepare = zoo.load(model, weights, input_size=input_size)
    everything = _read(images, prepare, white)
    some = everything if limit is None or limit >= len(everything) else everything.take(limit, seed)
    asked: dict[str, store.Json] = {
        "model": model,
        "fingerprint": fingerprint(network),
        "input_shape": list(some[0].shape),
        "images": Pictures.of(some, ", ".join(map(str, images)), white=white).model_dump(
            mode="json", exclude_none=True
        ),
        "seed": seed,
    }
    return Loaded(on_device(network, device), prepare, some, asked)


def _read(paths: Sequence[Path], prepare: Prepare, white: float | None) -> ImageSet:
    """The pictures of a folder with its classes, or those of several folders and files together, without."""
    if len(paths) == 1 and not paths[0].is_file():
        return ImageSet.from_folder(paths[0], prepare, white=white)
    files: list[Path] = []
    for path in paths:
        files += [path] if path.is_file() else [path / name for name in ImageSet.from_folder(path, prepare).names]
    return ImageSet.from_files(files, prepare, white=white)
