"""The table of a sweep: one row a circuit, tidy, in the columns of `viscircuits.study.measurements`.

Not here: the file and its checks (`viscircuits.study.measurements`), which every reader of a study shares.
"""

from collections.abc import Collection, Iterable
from pathlib import Path

import polars as pl

from viscircuits.errors import StudyError
from viscircuits.evaluate.measurement import Key, Row
from viscircuits.study.measurements import SCHEMA, read


def table(rows: Iterable[Row]) -> pl.DataFrame:
    """Returns measurements as a tidy table, one row a circuit."""
    return pl.DataFrame(list(rows), schema=SCHEMA)


def read_table(path: str | Path) -> pl.DataFrame:
    """Returns a table that `sweep` wrote; a `StudyError` for any other file (see `study.measurements.read`)."""
    return read(path).frame


def rows_of(path: Path, study: str, wanted: Collection[Key]) -> dict[Key, Row]:
    """Returns the rows that a checkpoint holds already, by key; none where there is no file.

    Args:
        path: the checkpoint.
        study: the hash of the study that it has to belong to; empty for none.
        wanted: all that is going to be in it.

    Raises:
        StudyError: a newer version wrote columns that would be lost with the next row.
    """
    if not path.exists():
        return {}
    content = read(path, study=study)
    keys = map(Key._make, content.frame.select(Key._fields).rows())
    rows: dict[Key, Row] = dict(zip(keys, content.frame.iter_rows(named=True), strict=True))
    # a table that is complete is only read, so nothing can be lost
    if content.left_out and set(wanted) - rows.keys():
        raise StudyError(
            f"{str(path)!r} was written by a newer version, and what it holds besides would be lost; go on with that "
            f"version, or take another folder"
        )
    return rows
