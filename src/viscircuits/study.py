"""A study folder: the one interface between the command line and other programs or people.

::

    study.json              what was asked, of which model and pictures, with which versions
    measurements.parquet    one row a circuit (see `viscircuits.evaluate.sweep.SCHEMA`)
    scores/                 one safetensors file a target and criterion
    circuits/               one safetensors file a measurement: boolean masks under dotted layer names, a JSON header
    *.png, *.svg            pictures

Everything is written atomically and nothing is a pickle. The same command on the same folder goes on where it stopped;
another command on it is refused.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import polars as pl
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import nn

from viscircuits import __version__, store
from viscircuits.circuit import Biases, Circuit
from viscircuits.data.images import ImageSet
from viscircuits.errors import StudyError, closest
from viscircuits.scores import Scores
from viscircuits.types import Granularity

FORMAT = 1
"""Version of the folder; a folder of another one is refused."""

_LONGEST = 60
"""Characters of one part of a file name; most file systems take 255 in all."""


class Pictures(BaseModel):
    """Which pictures were used for one purpose, and how they were read."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    source: str = Field(description="folder, file or generator they came from")
    count: int
    hash: str = Field(description="content hash of files, labels and preprocessing")
    classes: dict[str, int] | None = Field(None, description="class folder -> the output that judges it, where said")
    white: float | None = Field(None, description="the value that is white above 8 bits, where said")
    found: int | None = Field(None, description="pictures that the source held, where fewer were used")

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
    input_shape: tuple[int, ...]
    targets: tuple[str, ...]
    scoring: Pictures
    held_out: Pictures
    criteria: tuple[str, ...]
    densities: tuple[float, ...]
    granularity: Granularity = "kernel"
    normalise: Literal["minmax"] | None = None
    biases: Biases = "masked"
    seed: int = 0

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
    def create(cls, path: str | Path, spec: Spec, *, command: str = "", engine: str = "") -> "Study":
        """Returns the study in a folder: a new one, or the one already there if it was asked for the same.

        Raises:
            StudyError: the folder holds another study, or something else.
        """
        folder = Path(path)
        if (folder / "study.json").exists():
            study = cls.open(folder)
            different = study.header.spec.differs(spec)
            if not different:
                return study
            if any(name != "study.json" for name, _ in study.files()):  # nothing already computed is lost
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
        store.write_json(folder / "study.json", header.model_dump(mode="json"))
        return cls(folder, header)

    @classmethod
    def open(cls, path: str | Path) -> "Study":
        """Returns the study in a folder; a `StudyError` says what is wrong with it."""
        folder = Path(path)
        if not (folder / "study.json").is_file():
            raise StudyError(f"{str(folder)!r} is not a study folder: it has no study.json")
        value = store.read_json(folder / "study.json")
        if isinstance(value, dict) and value.get("format") != FORMAT:
            raise StudyError(f"{str(folder)!r} has format {value.get('format')}; this version reads format {FORMAT}")
        try:
            return cls(folder, Header.model_validate(value))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise StudyError(f"{str(folder / 'study.json')!r} is damaged: {place}: {first['msg']}") from None

    @property
    def measurements_path(self) -> Path:
        """Where the table of measurements stands."""
        return self.path / "measurements.parquet"

    def measurements(self) -> pl.DataFrame:
        """Returns the table of measurements; a `StudyError` if there is none yet.

        Rows stand as the study was asked: by target, then by criterion, the best before the worst first, densities
        falling. Columns that are younger than the table are empty.
        """
        if not self.measurements_path.is_file():
            again = f"run its command again: {self.header.command}"
            raise StudyError(f"study {str(self.path)!r} has no measurements yet; {again}")
        try:
            frame = pl.read_parquet(self.measurements_path, glob=False)  # a folder's name may hold brackets
        except (pl.exceptions.PolarsError, OSError) as error:
            raise StudyError(f"{str(self.measurements_path)!r} is damaged ({error}); delete it and run again") from None
        if not {"target", "criterion", "order", "density"} <= set(frame.columns):
            return frame
        if "sd_ratio" not in frame.columns:
            frame = frame.with_columns(sd_ratio=pl.lit(None, pl.Float64))
        spec = self.header.spec
        asked = {"target": spec.targets, "criterion": [name.partition(":")[0] for name in spec.criteria]}
        places = [pl.col(name).replace_strict({n: given.index(n) for n in given}, default=len(given))
                  for name, given in asked.items()]  # fmt: skip
        return frame.sort(*places, "order", -pl.col("density"), maintain_order=True)

    def add_circuit(self, circuit: Circuit, criterion: str, density: float) -> Path:
        """Writes a circuit and returns where."""
        path = self.path / "circuits" / f"{slug(str(circuit.target), criterion, _number(density))}.safetensors"
        circuit.save(path)
        return path

    def add_scores(self, scores: Scores) -> Path:
        """Writes scores and returns where."""
        density = "" if scores.density is None else _number(scores.density)
        path = self.path / "scores" / f"{slug(scores.target, scores.criterion, density)}.safetensors"
        scores.save(path)
        return path

    def circuits(self) -> Sequence[Path]:
        """Returns the circuit files, sorted by name."""
        return sorted((self.path / "circuits").glob("[!.]*.safetensors"))

    def circuit(self, model: nn.Module, target: str, criterion: str, density: float) -> Circuit:
        """Returns one of the study's circuits on its model."""
        path = self.path / "circuits" / f"{slug(target, criterion, _number(density))}.safetensors"
        if not path.is_file():
            stems = [p.stem for p in self.circuits()]
            raise StudyError(f"no circuit {path.stem!r} among the study's {len(stems)}{closest(path.stem, stems)}")
        return Circuit.load(path, model)

    def files(self) -> list[tuple[str, int]]:
        """Returns the study's files, relative and sorted, with their sizes in bytes."""
        files = [f for f in self.path.rglob("*") if f.is_file() and not f.name.startswith(".")]
        return sorted((f.relative_to(self.path).as_posix(), f.stat().st_size) for f in files)


def slug(*parts: str) -> str:
    """Returns parts as one file name; a part that is too long, or has other characters, is told apart by a hash."""
    return "__".join(_slug(part) for part in parts if part)


def _slug(part: str) -> str:
    plain = part.replace("*", "x").replace("@", "-at-").replace(":", "-").replace(" ", "")
    safe = re.sub(r"[^\w.,+-]", "_", plain, flags=re.ASCII)
    return safe if safe == plain and len(safe) <= _LONGEST else f"{safe[:_LONGEST]}-{store.digest(part)[:8]}"


def _number(density: float) -> str:
    return f"{density:.12g}"
