"""What a study was asked to do, and the head of its folder: the content of ``study.json``, field by field.

A file may come from a stranger, so that every field has a type and a range, and no field more is taken. Not here: where
the file stands (`viscircuits.study.folder`), and how a sweep becomes a question (`viscircuits.runs.spec`).
"""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from viscircuits.card import Card, Shown, few
from viscircuits.errors import StudyError
from viscircuits.store.checks import IMAGE, shown
from viscircuits.store.digests import digest
from viscircuits.store.document import Json
from viscircuits.types import Biases, Granularity
from viscircuits.version import __version__

if TYPE_CHECKING:
    from viscircuits.data.images import ImageSet

FORMAT = 1
"""Version of the folder; a folder of another one is refused."""


def _size(shape: tuple[int, ...]) -> tuple[int, ...]:
    if not IMAGE.holds(list(shape)):
        raise ValueError(f"expected {IMAGE.expected}, got {shown(shape)}")
    return shape


Count = Annotated[int, Field(ge=0, le=2**40)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Density = Annotated[float, Field(gt=0, le=1)]
Judge = Annotated[int, Field(ge=0, le=2**31)]
"""Number of the output that judges a class."""

Size = Annotated[tuple[int, ...], AfterValidator(_size)]


class Pictures(BaseModel):
    """Which pictures were used for one purpose, and how they were read."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    source: str = Field(description="folder, file or generator they came from")
    count: Count
    hash: str = Field(description="content hash of files, labels and preprocessing")
    classes: dict[str, Judge] | None = Field(None, description="class folder -> the output that judges it, where said")
    white: Finite | None = Field(None, description="the value that is white above 8 bits, where said")
    found: Count | None = Field(None, description="pictures that the source held, where fewer were used")

    @classmethod
    def of(
        cls, images: "ImageSet", source: str, *, classes: dict[str, int] | None = None, white: float | None = None,
        found: int | None = None,
    ) -> "Pictures":  # fmt: skip
        """Returns the record of an image set.

        Args:
            images: the pictures.
            source: where they came from, in the user's words.
            classes: class folder -> number of the output that judges it, where said.
            white: the value that is white in pictures of more than 8 bits, where said.
            found: pictures that the source held, where fewer were used.
        """
        return cls(source=source, count=len(images), hash=images.hash, classes=classes, white=white, found=found)


# The same content may come from elsewhere: a folder that was moved, weights under another name. Nothing of this counts
# when two questions are compared.
_WORDS = {"weights": True, "labels": True, "scoring": {"source", "found"}, "held_out": {"source", "found"}}


class Spec(Shown, BaseModel):
    """What a study was asked to do; two studies with equal specs hold the same numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    model: str
    weights: str | None
    fingerprint: str = Field(description="content hash of the model's parameters and buffers")
    input_shape: Size = Field(description="(c, h, w) of the pictures")
    targets: tuple[str, ...] = Field(min_length=1)
    labels: dict[str, str] = Field({}, description="target -> name of the class that it reads, where the weights say")
    scoring: Pictures
    held_out: Pictures
    criteria: tuple[str, ...] = Field(min_length=1)
    densities: tuple[Density, ...] = Field(min_length=1)
    granularity: Granularity = "kernel"
    normalise: Literal["minmax"] | None = None
    biases: Biases = "masked"
    seed: int = Field(0, ge=-(2**63), lt=2**64)
    inside: bool = Field(False, description="whether circuits are looked into, filter by filter")

    def in_short(self) -> dict[str, object]:
        """Returns what a card says of it."""
        return {
            "model": self.model, "weights": self.weights,
            "targets": few([self.titled(target) for target in self.targets]), "criteria": few(self.criteria),
            "densities": f"{few(self.densities)} of {self.granularity}s",
            "scored on": f"{self.scoring.count:,} images", "measured on": f"{self.held_out.count:,} images",
        }  # fmt: skip

    def _card(self) -> Card:
        facts = {"biases": self.biases, "normalise": self.normalise, "seed": self.seed, "hash": self.hash}
        return Card("Spec", {**self.in_short(), **facts})

    @property
    def subject(self) -> str:
        """What the study is of, for titles: its target, or how many there are."""
        return self.titled(self.targets[0]) if len(self.targets) == 1 else f"{len(self.targets)} targets"

    def titled(self, target: str) -> str:
        """Returns a target with the name of its class beside it, where that is known: ``logit:281 (tabby)``."""
        return f"{target} ({self.labels[target]})" if target in self.labels else target

    def differs(self, other: "Spec") -> list[str]:
        """Returns the fields in which other numbers are asked for; another path to the same content is the same."""
        mine, others = self.model_dump(exclude=_WORDS), other.model_dump(exclude=_WORDS)
        return [field for field in mine if mine[field] != others[field]]

    @property
    def hash(self) -> str:
        """What the study's table carries: equal where equal numbers are asked for, whatever things are called."""
        # without defaults, so that a field which a later version adds leaves the hashes of older studies as they are
        fields = self.model_dump(mode="json", exclude={**_WORDS, "model": True}, exclude_defaults=True)
        return digest(json.dumps(fields, sort_keys=True))


class Header(Shown, BaseModel):
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

    def _card(self) -> Card:
        facts = {"created": self.created, "with": self.versions, "then with": few(self.continued)}
        return Card("Header", {**self.spec.in_short(), **facts, "command": self.command})

    @property
    def versions(self) -> str:
        """What it was begun with."""
        return versions(self.viscircuits, self.torch)

    @classmethod
    def of(cls, value: Json, file: Path) -> "Header":
        """Returns the header that the content of a file describes.

        Raises:
            StudyError: it is of another format, or says something that cannot be.
        """
        if isinstance(value, dict) and value.get("format") != FORMAT:
            raise StudyError(
                f"{str(file.parent)!r} has format {shown(value.get('format'))}; this version reads format {FORMAT}"
            )
        try:  # as JSON, because there a list may be a tuple and yet true is no number
            return cls.model_validate_json(json.dumps(value), strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            parts = [str(part) for part in first["loc"]]
            # a name of a class folder stands in the place too, and may hold anything
            place = ".".join(part if part.replace("_", "").isalnum() else shown(part) for part in parts)
            raise StudyError(f"{str(file)!r} is damaged: {place}: {first['msg']}") from None

    def content(self) -> Mapping[str, Json]:
        """Returns the fields to write."""
        value = self.model_dump(mode="json")
        return {k: v for k, v in value.items() if v or k not in ("graph", "continued")}  # older versions know neither


def versions(own: str, torchs: str) -> str:
    """Returns in words with which versions of viscircuits and torch something was made."""
    return f"viscircuits {own}, torch {torchs}"


def torch_version() -> str:
    """Returns torch's version as it calls itself, which is what older studies recorded."""
    import torch  # here, because a study is read without it

    return torch.__version__


def versions_now() -> str:
    """Returns in words with which versions this process works."""
    return versions(__version__, torch_version())


def typed(command: str) -> str:
    """Returns a command of ours as one can type it, with nothing in it that a shell would act on; "" for any other."""
    try:
        words = shlex.split("".join(one if one.isprintable() else " " for one in command))
    except ValueError:  # a quote that does not end
        return ""
    return shlex.join(words) if words[:1] == ["viscircuits"] else ""
