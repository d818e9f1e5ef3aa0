"""A folder of findings about features: what was asked, as JSON, beside tables and tensors.

::

    findings.json    what was asked, of which model and pictures, with which versions, and what came of it in short
    *.parquet        tables
    *.safetensors    tensors with a JSON header, in folders by kind
"""

import shlex
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import torch
from rich.text import Text
from torch import nn

from viscircuits import __version__, store
from viscircuits.cli.console import out
from viscircuits.cli.job import on_device
from viscircuits.data.images import ImageSet, Prepare
from viscircuits.errors import StudyError
from viscircuits.model import zoo
from viscircuits.model.fingerprint import fingerprint
from viscircuits.study import Pictures

FORMAT = 1
"""Version of the folder; a folder of another one is refused."""

HEADER = "findings.json"
"""The file that makes a folder one of findings."""


@dataclass(frozen=True)
class Findings:
    """A folder that a command writes into."""

    path: Path
    asked: Mapping[str, store.Json]

    @classmethod
    def create(cls, path: Path, kind: str, asked: Mapping[str, store.Json]) -> "Findings":
        """Returns the folder for what is asked: a new one, or one where the same was asked before.

        Raises:
            StudyError: the folder holds something else.
        """
        wanted = {"kind": kind, "format": FORMAT, **asked}
        if (path / HEADER).exists():
            found = store.read_json(path / HEADER)
            there = found.get("asked") if isinstance(found, dict) else None
            different = [key for key in wanted if not isinstance(there, dict) or there.get(key) != wanted[key]]
            if different:
                raise StudyError(
                    f"{str(path)!r} holds other findings (they differ in {', '.join(different)}); choose another "
                    f"folder with --out, or delete this one"
                )
        elif path.exists() and (not path.is_dir() or any(not f.name.startswith(".") for f in path.iterdir())):
            raise StudyError(f"{str(path)!r} exists and holds no findings; choose another folder with --out")
        return cls(path, wanted)

    def table(self, name: str, rows: Iterable[Mapping[str, object]]) -> None:
        """Writes a table."""
        with store.atomic(self.path / f"{name}.parquet") as temporary:
            pl.DataFrame(list(rows)).write_parquet(temporary)

    def finish(self, found: Mapping[str, store.Json]) -> None:
        """Writes the header, last of all, and prints where the folder stands."""
        header: dict[str, store.Json] = {
            "asked": dict(self.asked),
            "found": dict(found),
            "viscircuits": __version__,
            "torch": torch.__version__,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": " ".join(["viscircuits", *map(shlex.quote, sys.argv[1:])]),
        }
        store.write_json(self.path / HEADER, header)
        out.print(Text(str(self.path), style="bold"), soft_wrap=True)


@dataclass(frozen=True)
class Loaded:
    """A model with the pictures to show it."""

    model: nn.Module
    prepare: Prepare
    images: ImageSet
    asked: Mapping[str, store.Json]


def load(
    model: str, weights: str | None, images: Path, *, input_size: int | None, limit: int | None, seed: int,
    device: str, threads: int | None,
) -> Loaded:  # fmt: skip
    """Returns a model and pictures, as the command line names them."""
    network, prepare = zoo.load(model, weights, input_size=input_size)
    everything = ImageSet.from_files(images, prepare) if images.is_file() else ImageSet.from_folder(images, prepare)
    some = everything if limit is None or limit >= len(everything) else everything.take(limit, seed)
    asked: dict[str, store.Json] = {
        "model": model,
        "fingerprint": fingerprint(network),
        "input_shape": list(some[0].shape),
        "images": Pictures.of(some, str(images)).model_dump(mode="json"),
        "seed": seed,
    }
    return Loaded(on_device(network, device, threads), prepare, some, asked)
