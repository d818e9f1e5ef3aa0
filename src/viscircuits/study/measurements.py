"""The table of measurements: its columns, what can stand in them, and the Parquet file that holds it.

Before its footer, where no reader of Parquet looks, the file holds one line: the version that wrote it, a digest of
all the rest, and the hash of the study that it belongs to. Tables without this line, or with one that names no study,
are older or were written otherwise; they are read too.
"""

import hashlib
import io
import math
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, get_args

import polars as pl

from viscircuits import store
from viscircuits.errors import StudyError
from viscircuits.store.checks import shown
from viscircuits.types import GRANULARITIES, Biases
from viscircuits.version import __version__

SCHEMA: dict[str, type[pl.DataType]] = {
    "target": pl.String, "criterion": pl.String, "order": pl.String, "density": pl.Float64, "sparsity": pl.Float64,
    "kept": pl.Int64, "relevant": pl.Int64, "effective": pl.Int64, "effective_density": pl.Float64,
    "disconnected": pl.Boolean, "zero_scores": pl.Int64, "pearson": pl.Float64, "pearson_within": pl.Float64,
    "pearson_signed": pl.Float64, "spearman": pl.Float64, "relative_difference": pl.Float64, "sd_ratio": pl.Float64,
    "inside": pl.Float64, "inside_worst": pl.Float64,
    "reason": pl.String, "granularity": pl.String, "biases": pl.String, "n_scoring": pl.Int64, "n_held_out": pl.Int64,
    "seed": pl.Int64, "seconds": pl.Float64,
}  # fmt: skip
"""The columns of a table of measurements."""

YOUNGER = ("sd_ratio", "inside", "inside_worst")
"""Columns that older tables lack; there they are empty."""

KEY = ("target", "criterion", "order", "density")
"""The columns that name a measurement; no two rows have the same."""

MOST = 2_000_000
"""Rows of the largest table that is read."""

_COUNTS = ("kept", "relevant", "effective", "zero_scores", "n_scoring", "n_held_out")
_RANGES = {
    **dict.fromkeys(("density", "sparsity", "effective_density", "pearson", "pearson_within"), (0, 1)),
    **dict.fromkeys(("pearson_signed", "spearman", "inside", "inside_worst"), (-1, 1)),
    **dict.fromkeys((*_COUNTS, "relative_difference", "sd_ratio", "seconds"), (0, math.inf)),
}
_WORDS = {"order": ("best", "worst"), "granularity": GRANULARITIES, "biases": get_args(Biases)}
_EMPTY = (*YOUNGER, "reason")
_NAN = ("pearson_within",)
_ROUNDING = 1e-6
"""How far over the end of its range a number may be: correlations are sums, and come out as 1.0000000002."""

_LINE = re.compile(rb"\nviscircuits ([\w.+!-]{1,40}) ([0-9a-f]{64})(?: ([0-9a-f]{16}))?\n")


class Read(NamedTuple):
    """A table as it was read, and the columns of a newer version that were left out."""

    frame: pl.DataFrame
    left_out: tuple[str, ...]


def write(path: str | Path, frame: pl.DataFrame, study: str = "") -> None:
    """Writes a table, atomically.

    Args:
        path: the file.
        frame: the table.
        study: the hash of its study, if it has one.
    """
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    content = buffer.getvalue()
    # a file of Parquet ends with its footer, the footer's length in four bytes, and PAR1; what stands before the
    # footer is found by offsets that the footer holds, so that a line between is never read
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    ending = f" {study}" if study else ""
    line = f"\nviscircuits {__version__} {_digest(content, __version__ + ending)}{ending}\n".encode()
    with store.atomic(path) as own:
        own.write_bytes(content[:footer] + line + content[footer:])


def read(path: str | Path, version: str = __version__, study: str = "") -> Read:
    """Returns the table in a file; columns that are younger than it are empty.

    Columns that this version does not know are left out, with a warning, where a newer version wrote the file.

    Args:
        path: the file.
        version: the one that wrote it, as far as is known; what the file itself says counts more.
        study: the hash of the study that it has to belong to, where the file says to which it does.

    Raises:
        StudyError: no such file; not whole; other columns; values that no measurement has; rows of another study.
    """
    content, version, other_study = _opened(path, version)
    if study and other_study not in ("", study):
        raise StudyError(
            f"{str(path)!r} holds the rows of another study (of hash {other_study}, expected {study}); put the "
            f"study's own table there, or delete this one and run again"
        )
    # the columns first: of a table with others nothing is read, however large they are
    with store.parsing(path, "a whole Parquet file"):
        schema = pl.read_parquet_schema(io.BytesIO(content))
    left_out = tuple(name for name in schema if name not in SCHEMA)
    missing = [name for name in SCHEMA if name not in schema and name not in YOUNGER]
    other = [name for name, dtype in SCHEMA.items() if name in schema and schema[name] != dtype]
    if missing or other or (left_out and not _newer(version)):
        raise StudyError(
            f"{str(path)!r} is not a table of measurements of this version ({_differences(missing, other, left_out)}); "
            f"delete it and run again"
        )
    if left_out:
        warnings.warn(
            f"{str(path)!r} was written by viscircuits {version}, and this is {__version__}: left out "
            f"{_columns(left_out)}",
            stacklevel=3,
        )
    with store.parsing(path, "a whole Parquet file"):
        frame = pl.read_parquet(io.BytesIO(content), columns=[n for n in SCHEMA if n in schema], n_rows=MOST + 1)
    frame = frame.with_columns(pl.lit(None, SCHEMA[name]).alias(name) for name in YOUNGER if name not in schema)
    if what := _odd(frame):
        raise store.damaged(path, what)
    return Read(frame.select(*SCHEMA), left_out)


def ordered(frame: pl.DataFrame, targets: Sequence[str], criteria: Sequence[str]) -> pl.DataFrame:
    """Returns rows by target, then by criterion, the best before the worst first, densities falling.

    Args:
        frame: a table of measurements.
        targets: in the order wanted; others stand behind them.
        criteria: likewise.
    """
    places: list[pl.Expr] = []
    for column, names in (("target", targets), ("criterion", criteria)):
        numbers = {name: names.index(name) for name in names}  # of a name that was asked twice the first place
        places.append(pl.col(column).replace_strict(numbers, default=len(names)))
    return frame.sort(*places, "order", -pl.col("density"), maintain_order=True)


def _opened(path: str | Path, version: str) -> tuple[bytes, str, str]:
    """The Parquet file without the line of ours, the version that wrote it, and the hash of its study."""
    content = store.read_bytes(path)
    lines = list(_LINE.finditer(content))
    if not lines:
        return content, version, ""
    line = lines[-1]
    content = content[: line.start()] + content[line.end() :]
    version = line[1].decode("ascii")
    study = (line[3] or b"").decode("ascii")
    if line[2].decode("ascii") != _digest(content, f"{version} {study}".rstrip()):
        raise store.damaged(path, "its content is not what its digest says")
    return content, version, study


def _digest(content: bytes, words: str) -> str:
    return hashlib.sha256(words.encode() + b"\n" + content).hexdigest()


def _newer(version: str) -> bool:
    """Whether a version is later than this one."""
    return _numbers(version) > _numbers(__version__)


def _numbers(version: str) -> list[int]:
    """The first three numbers of a version; what a file says may be longer than any number is to Python."""
    return [int(number) for number in re.findall(r"\d{1,9}", version)[:3]]


def _odd(frame: pl.DataFrame) -> str:
    """What in a table cannot be, in words; empty where all can."""
    if len(frame) > MOST:
        return f"it has more than {MOST:,} rows"
    if fault := next((what for name in SCHEMA if (what := _odd_in(frame[name]))), ""):
        return fault
    # kept apart from the ranges: 0 is in that of a share, but a circuit of nothing is none
    if bool((frame["density"] <= 0).any()):
        return "column 'density' holds 0"
    if bool(((frame["kept"] > frame["relevant"]) | (frame["effective"] > frame["kept"])).any()):
        return "a circuit keeps more than there is"
    return "two rows are of the same circuit" if bool(frame.select(KEY).is_duplicated().any()) else ""


def _odd_in(column: pl.Series) -> str:
    name, values = column.name, column.drop_nulls()
    if len(values) < len(column) and name not in _EMPTY:
        return f"column {name!r} has empty cells"
    odd = values.filter(~values.is_in(_WORDS[name])) if name in _WORDS else values.clear()
    if values.dtype.is_float():
        odd = values.filter(values.is_infinite() if name in _NAN else ~values.is_finite())
        values = values.drop_nans()
    if name in _RANGES:
        least, most = _RANGES[name]
        odd = odd.append(values.filter((values < least - _ROUNDING) | (values > most + _ROUNDING)))
    return f"column {name!r} holds {shown(odd[0])}" if len(odd) else ""


def _differences(missing: list[str], other: list[str], left_out: tuple[str, ...]) -> str:
    faults = (("no", missing), ("another type of", other), ("unknown", left_out))
    return "; ".join(f"{what} {_columns(names)}" for what, names in faults if names)


def _columns(names: list[str] | tuple[str, ...]) -> str:
    return f"column{'s' * (len(names) > 1)} {', '.join(map(shown, names[:4]))}" + (", ..." if len(names) > 4 else "")
