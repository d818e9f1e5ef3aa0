"""A study folder: the one interface between the command line and other programs or people.

::

    study.json              what was asked, of which model and pictures, with which versions
    measurements.parquet    one row a circuit (see `viscircuits.study.measurements.SCHEMA`)
    scores/                 one safetensors file a target and criterion
    circuits/               one safetensors file a measurement: boolean masks under dotted layer names, a JSON header
    *.png, *.svg            pictures
    .rungs/                 how far a criterion that trains has come, until its scores are there

Everything is written atomically and nothing is a pickle. The same command on the same folder goes on where it stopped;
another command on it is refused, and so is the same one on other code of the model. A study may come from a stranger:
what it holds is checked when it is read, and neither reading nor writing follows a link that leads out of its folder,
which itself may be one.
"""

import json
import os
import re
import shlex
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import polars as pl
import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from torch import nn

from viscircuits import store, temporary
from viscircuits.bounds import checked
from viscircuits.circuit import KIND, Biases, Circuit
from viscircuits.data.images import ImageSet
from viscircuits.errors import StudyError, ViscircuitsError, closest
from viscircuits.header import IMAGE, shown
from viscircuits.scores import KIND as SCORES
from viscircuits.scores import Scores
from viscircuits.study import measurements
from viscircuits.target import target_from_json
from viscircuits.types import Granularity
from viscircuits.version import __version__

FORMAT = 1
"""Version of the folder; a folder of another one is refused."""

_HEADER = "study.json"

_LONGEST = 60
"""Characters of one part of a file name; most file systems take 255 in all."""


def _size(shape: tuple[int, ...]) -> tuple[int, ...]:
    if not IMAGE.holds(list(shape)):
        raise ValueError(f"expected {IMAGE.expected}, got {shown(shape)}")
    return shape


Count = Annotated[int, Field(ge=0, le=2**40)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Density = Annotated[float, Field(gt=0, le=1)]
Output = Annotated[int, Field(ge=0, le=2**31)]
Size = Annotated[tuple[int, ...], AfterValidator(_size)]


class Pictures(BaseModel):
    """Which pictures were used for one purpose, and how they were read."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    source: str = Field(description="folder, file or generator they came from")
    count: Count
    hash: str = Field(description="content hash of files, labels and preprocessing")
    classes: dict[str, Output] | None = Field(None, description="class folder -> the output that judges it, where said")
    white: Number | None = Field(None, description="the value that is white above 8 bits, where said")
    found: Count | None = Field(None, description="pictures that the source held, where fewer were used")

    @classmethod
    def of(
        cls, images: ImageSet, source: str, *, classes: dict[str, int] | None = None, white: float | None = None,
        found: int | None = None,
    ) -> "Pictures":  # fmt: skip
        """Returns the record of an image set."""
        return cls(source=source, count=len(images), hash=images.hash, classes=classes, white=white, found=found)


_WORDS = {"weights": True, "scoring": {"source", "found"}, "held_out": {"source", "found"}}
"""Where the same content comes from."""


class Spec(BaseModel):
    """What a study was asked to do; two studies with equal specs hold the same numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    model: str
    weights: str | None
    fingerprint: str = Field(description="content hash of the model's parameters and buffers")
    input_shape: Size = Field(description="(c, h, w) of the pictures")
    targets: tuple[str, ...] = Field(min_length=1)
    scoring: Pictures
    held_out: Pictures
    criteria: tuple[str, ...] = Field(min_length=1)
    densities: tuple[Density, ...] = Field(min_length=1)
    granularity: Granularity = "kernel"
    normalise: Literal["minmax"] | None = None
    biases: Biases = "masked"
    seed: int = Field(0, ge=-(2**63), lt=2**64)

    @property
    def subject(self) -> str:
        """What the study is of, for titles: its target, or how many there are."""
        return self.targets[0] if len(self.targets) == 1 else f"{len(self.targets)} targets"

    def differs(self, other: "Spec") -> list[str]:
        """Returns the fields in which other numbers are asked for; another path to the same content is the same."""
        mine, others = self.model_dump(exclude=_WORDS), other.model_dump(exclude=_WORDS)
        return [field for field in mine if mine[field] != others[field]]

    @property
    def hash(self) -> str:
        """What the study's table carries: equal where equal numbers are asked for, whatever things are called."""
        asked = self.model_dump(mode="json", exclude={**_WORDS, "model": True}, exclude_defaults=True)
        return store.digest(json.dumps(asked, sort_keys=True))


class Header(BaseModel):
    """The content of study.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    format: int
    viscircuits: str
    torch: str
    created: str
    command: str
    engine: str = Field("", description="what computed the maps of convolutions: numba, triton or torch")
    graph: str = Field("", description="content hash of the model's traced graph, where known")
    continued: tuple[str, ...] = Field(
        default=(), description="other versions of viscircuits and torch that went on with it"
    )
    spec: Spec

    @property
    def versions(self) -> str:
        """What it was begun with."""
        return _versions(self.viscircuits, self.torch)


@dataclass(frozen=True)
class Study:
    """A study folder that exists."""

    path: Path
    header: Header

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
        file = store.inside(folder, _HEADER)
        if there := file.exists():
            study = cls.open(folder)
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
            format=FORMAT, viscircuits=__version__, torch=torch.__version__,
            created=datetime.now(UTC).isoformat(timespec="seconds"), command=command,
            engine=engine, graph=graph, spec=spec,
        )  # fmt: skip
        study = cls(folder, header)
        study._claim()
        try:
            study._write(new=not there)
        except FileExistsError:  # another process was faster
            first = cls.open(folder)
            if different := first.header.spec.differs(spec):
                study.release()
                raise _another(folder, different) from None
            return first
        except BaseException:
            study.release()
            raise
        return study

    @classmethod
    @checked
    def open(cls, path: str | Path) -> "Study":
        """Returns the study in a folder; a `StudyError` says what is wrong with it."""
        folder = Path(path)
        file = store.inside(folder, _HEADER)
        if not os.path.lexists(file):
            raise StudyError(f"{str(folder)!r} is not a study folder: it has no {_HEADER}")
        value = store.read_json(file)
        if isinstance(value, dict) and value.get("format") != FORMAT:
            raise StudyError(
                f"{str(folder)!r} has format {shown(value.get('format'))}; this version reads format {FORMAT}"
            )
        try:  # as JSON, because there a list may be a tuple and yet true is no number
            return cls(folder, Header.model_validate_json(json.dumps(value), strict=True))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(
                part if part.replace("_", "").isalnum() else shown(part) for part in map(str, first["loc"])
            )
            raise StudyError(f"{str(file)!r} is damaged: {place}: {first['msg']}") from None

    def _begun(self) -> bool:
        """Whether anything is there beside the question."""
        return self.rungs.exists() or any(name != _HEADER for name, _ in self.files())

    def release(self) -> None:
        """Ends this process's claim to the folder."""
        temporary.release(self.path)

    def gone_on(self) -> None:
        """Records these versions of viscircuits and torch, and warns, if the study began with others."""
        own, header = _versions(__version__, torch.__version__), self.header
        if own == header.versions:
            return
        warnings.warn(
            f"{str(self.path)!r} was begun with {header.versions}, and this is {own}: its numbers may not all be of "
            f"one kind; study.json and the report say so",
            stacklevel=2,
        )
        if own not in header.continued:
            Study(self.path, header.model_copy(update={"continued": (*header.continued, own)}))._write()

    def _claim(self) -> None:
        temporary.claim(self.path)
        temporary.clear(self.path)

    def _check(self, graph: str) -> None:
        """Refuses other code of the model, unless another version of torch may have traced it otherwise."""
        began = self.header
        if not (graph and began.graph) or graph == began.graph:
            return
        if began.versions == _versions(__version__, torch.__version__):
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
        value = self.header.model_dump(mode="json")
        value = {k: v for k, v in value.items() if v or k not in ("graph", "continued")}  # older versions know neither
        store.write_json(self.file(_HEADER), value, new=new)

    @property
    def hash(self) -> str:
        """What tells the study's table from that of another."""
        return self.header.spec.hash

    @property
    def rungs(self) -> Path:
        """Where a criterion that trains keeps how far it has come."""
        return self.file(".rungs")

    @property
    def cache(self) -> Path | None:
        """Where rendered pictures are kept; nowhere in a study that this user cannot write to, as another's."""
        return self.file("pictures", "cache") if os.access(self.path, os.W_OK) else None

    @checked
    def file(self, *parts: str) -> Path:
        """Returns the path of a file of the study; a `StudyError` where a link leads out of its folder."""
        return store.inside(self.path, *parts)

    @property
    def measurements_path(self) -> Path:
        """Where the table of measurements stands."""
        return self.file("measurements.parquet")

    def measurements(self) -> pl.DataFrame:
        """Returns the table of measurements; a `StudyError` if there is none yet.

        Rows stand as the study was asked: by target, then by criterion, the best before the worst first, densities
        falling. Columns that are younger than the table are empty (see `viscircuits.study.measurements.read`).
        """
        if not os.path.lexists(self.measurements_path):
            again = f"run its command again: {typed(self.header.command)}"
            raise StudyError(f"study {str(self.path)!r} has no measurements yet; {again}")
        frame = measurements.read(self.measurements_path, self.header.viscircuits, self.hash).frame
        spec = self.header.spec
        asked = {"target": spec.targets, "criterion": [name.partition(":")[0] for name in spec.criteria]}
        places = [pl.col(name).replace_strict({n: given.index(n) for n in given}, default=len(given))
                  for name, given in asked.items()]  # fmt: skip
        return frame.sort(*places, "order", -pl.col("density"), maintain_order=True)

    @checked
    def add_circuit(self, circuit: Circuit, criterion: str, density: float) -> Path:
        """Writes a circuit and returns where."""
        path = self._circuit(str(circuit.target), criterion, density)
        circuit.save(path, study=self.hash)
        return path

    def holds(self, target: str, criterion: str, order: str, density: float) -> bool:
        """Returns whether a measured circuit is there, whole."""
        name = criterion if order == "best" else f"{criterion}-{order}"
        try:
            _, header = store.read_tensors(self._circuit(target, name, density), KIND)
            found = str(target_from_json(header["target"]))
        except ViscircuitsError:
            return False
        spec = self.header.spec
        if header.get("study", self.hash) != self.hash:  # older files do not say
            return False
        wanted = spec.fingerprint, spec.granularity, spec.biases, list(spec.input_shape), target
        return wanted == (*(header[name] for name in ("model", "granularity", "biases", "input_shape")), found)

    @checked
    def add_scores(self, scores: Scores) -> Path:
        """Writes scores and returns where."""
        path = self._scores(scores.target, scores.criterion, scores.density)
        scores.save(path, study=self.hash)
        return path

    def scores(self, target: str, criterion: str, density: float | None) -> Scores | None:
        """Returns scores of the study; None where they are missing, damaged or others."""
        try:
            tensors, header = store.read_tensors(self._scores(target, criterion, density), SCORES)
            found = Scores.from_file(tensors, header)
        except ViscircuitsError:
            return None
        spec = self.header.spec
        if header.get("study", self.hash) != self.hash:  # older files do not say
            return None
        wanted = target, criterion, density, spec.granularity, spec.input_shape
        return found if wanted == (found.target, found.criterion, found.density, found.granularity,
                                   found.input_shape) else None  # fmt: skip

    def _scores(self, target: str, criterion: str, density: float | None) -> Path:
        number = "" if density is None else _number(density)
        return self.file("scores", f"{slug(target, criterion, number)}.safetensors")

    def _circuit(self, target: str, criterion: str, density: float) -> Path:
        return self.file("circuits", f"{slug(target, criterion, _number(density))}.safetensors")

    def circuits(self) -> Sequence[Path]:
        """Returns the circuit files, sorted by name; what a link leads to elsewhere is none of them."""
        return sorted(f for f in (self.path / "circuits").glob("[!.]*.safetensors") if store.stays(self.path, f))

    @checked
    def circuit(self, model: nn.Module, target: str, criterion: str, density: float) -> Circuit:
        """Returns one of the study's circuits on its model."""
        path = self._circuit(target, criterion, density)
        if not path.is_file():
            stems = [p.stem for p in self.circuits()]
            raise StudyError(f"no circuit {path.stem!r} among the study's {len(stems)}{closest(path.stem, stems)}")
        return Circuit.load(path, model)

    def files(self) -> list[tuple[str, int]]:
        """Returns the study's files, relative and sorted, with their sizes in bytes; none that a link has elsewhere."""
        files = [f for f in self.path.rglob("[!.]*") if f.is_file() and store.stays(self.path, f)]
        files = [f for f in files if not any(name.startswith(".") for name in f.relative_to(self.path).parts)]
        return sorted((f.relative_to(self.path).as_posix(), f.stat().st_size) for f in files)


_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
"""Names that Windows keeps for devices, with any ending."""


def slug(*parts: str) -> str:
    """Returns parts as one file name; a part that is too long, or has other characters, is told apart by a hash.

    So is a name that would be a folder (``..``), hidden, empty or a device.
    """
    name = "__".join(_slug(part) for part in parts if part)
    if name and not name.startswith(".") and not name.endswith(".") and not _RESERVED.match(name):
        return name
    return f"_{name.strip('.')}-{store.digest(name)[:8]}"


def _slug(part: str) -> str:
    plain = part.replace("*", "x").replace("@", "-at-").replace(":", "-").replace(" ", "")
    safe = re.sub(r"[^\w.,+-]", "_", plain, flags=re.ASCII)
    return safe if safe == plain and len(safe) <= _LONGEST else f"{safe[:_LONGEST]}-{store.digest(part)[:8]}"


def _counts(file: Path) -> bool:
    """Whether a file is neither hidden nor a question that somebody asked meanwhile."""
    return file.name != _HEADER and not file.name.startswith(".")


def _versions(own: str, torchs: str) -> str:
    return f"viscircuits {own}, torch {torchs}"


def _another(folder: Path, different: Sequence[str]) -> StudyError:
    return StudyError(
        f"{str(folder)!r} holds another study (it differs in {', '.join(different)}; viscircuits inspect shows it); "
        f"choose another folder with --out, or delete this one"
    )


def _number(density: float) -> str:
    return f"{density:.12g}"


def typed(command: str) -> str:
    """Returns a command of ours as one can type it, with nothing in it that a shell would act on; "" for any other."""
    try:
        words = shlex.split("".join(one if one.isprintable() else " " for one in command))
    except ValueError:
        return ""
    return shlex.join(words) if words[:1] == ["viscircuits"] else ""
