"""A study folder: the one interface between the command line and other programs or people.

::

    study.json              what was asked, of which model and pictures, with which versions
    measurements.parquet    one row a circuit (see `viscircuits.measurements.SCHEMA`)
    scores/                 one safetensors file a target and criterion
    circuits/               one safetensors file a measurement: boolean masks under dotted layer names, a JSON header
    *.png, *.svg            pictures

Everything is written atomically and nothing is a pickle. The same command on the same folder goes on where it stopped;
another command on it is refused. A study may come from a stranger: what it holds is checked when it is read, and
neither reading nor writing follows a link that leads out of its folder, which itself may be one.
"""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import polars as pl
import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from torch import nn

from viscircuits import __version__, measurements, store
from viscircuits.bounds import checked
from viscircuits.circuit import Biases, Circuit
from viscircuits.data.images import ImageSet
from viscircuits.errors import StudyError, closest
from viscircuits.header import IMAGE, shown
from viscircuits.scores import Scores
from viscircuits.types import Granularity

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

    def differs(self, other: "Spec") -> list[str]:
        """Returns the fields in which other numbers are asked for; another path to the same content is the same."""
        words = {"weights": True, "scoring": {"source", "found"}, "held_out": {"source", "found"}}
        mine, others = self.model_dump(exclude=words), other.model_dump(exclude=words)
        return [field for field in mine if mine[field] != others[field]]


class Header(BaseModel):
    """The content of study.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    format: int
    viscircuits: str
    torch: str
    created: str
    command: str
    engine: str = Field("", description="what computed the maps of convolutions: numba, triton or torch")
    spec: Spec


@dataclass(frozen=True)
class Study:
    """A study folder that exists."""

    path: Path
    header: Header

    @classmethod
    @checked
    def create(cls, path: str | Path, spec: Spec, *, command: str = "", engine: str = "") -> "Study":
        """Returns the study in a folder: a new one, or the one already there if it was asked for the same.

        Raises:
            StudyError: the folder holds another study, or something else.
        """
        folder = Path(path)
        file = store.inside(folder, _HEADER)
        if file.exists():
            study = cls.open(folder)
            different = study.header.spec.differs(spec)
            if not different:
                return study
            if any(name != _HEADER for name, _ in study.files()):  # nothing already computed is lost
                raise StudyError(
                    f"{str(folder)!r} holds another study (it differs in {', '.join(different)}; viscircuits inspect "
                    f"shows it); choose another folder with --out, or delete this one"
                )
        elif folder.exists() and (not folder.is_dir() or any(not f.name.startswith(".") for f in folder.iterdir())):
            raise StudyError(f"{str(folder)!r} exists and is not a study; choose another folder with --out")
        header = Header(
            format=FORMAT, viscircuits=__version__, torch=torch.__version__,
            created=datetime.now(UTC).isoformat(timespec="seconds"), command=command,
            engine=engine, spec=spec,
        )  # fmt: skip
        store.write_json(file, header.model_dump(mode="json"))
        return cls(folder, header)

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
        falling. Columns that are younger than the table are empty (see `viscircuits.measurements.read`).
        """
        if not os.path.lexists(self.measurements_path):
            again = f"run its command again: {self.header.command}"
            raise StudyError(f"study {str(self.path)!r} has no measurements yet; {again}")
        frame = measurements.read(self.measurements_path, self.header.viscircuits).frame
        spec = self.header.spec
        asked = {"target": spec.targets, "criterion": [name.partition(":")[0] for name in spec.criteria]}
        places = [pl.col(name).replace_strict({n: given.index(n) for n in given}, default=len(given))
                  for name, given in asked.items()]  # fmt: skip
        return frame.sort(*places, "order", -pl.col("density"), maintain_order=True)

    @checked
    def add_circuit(self, circuit: Circuit, criterion: str, density: float) -> Path:
        """Writes a circuit and returns where."""
        path = self.file("circuits", f"{slug(str(circuit.target), criterion, _number(density))}.safetensors")
        circuit.save(path)
        return path

    @checked
    def add_scores(self, scores: Scores) -> Path:
        """Writes scores and returns where."""
        density = "" if scores.density is None else _number(scores.density)
        path = self.file("scores", f"{slug(scores.target, scores.criterion, density)}.safetensors")
        scores.save(path)
        return path

    def circuits(self) -> Sequence[Path]:
        """Returns the circuit files, sorted by name; what a link leads to elsewhere is none of them."""
        return sorted(f for f in (self.path / "circuits").glob("[!.]*.safetensors") if store.stays(self.path, f))

    @checked
    def circuit(self, model: nn.Module, target: str, criterion: str, density: float) -> Circuit:
        """Returns one of the study's circuits on its model."""
        path = self.file("circuits", f"{slug(target, criterion, _number(density))}.safetensors")
        if not path.is_file():
            stems = [p.stem for p in self.circuits()]
            raise StudyError(f"no circuit {path.stem!r} among the study's {len(stems)}{closest(path.stem, stems)}")
        return Circuit.load(path, model)

    def files(self) -> list[tuple[str, int]]:
        """Returns the study's files, relative and sorted, with their sizes in bytes; none that a link has elsewhere."""
        files = [f for f in self.path.rglob("[!.]*") if f.is_file() and store.stays(self.path, f)]
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


def _number(density: float) -> str:
    return f"{density:.12g}"
