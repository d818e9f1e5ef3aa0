"""Picture files that cannot be read: they are named all at once, or left out.

Finding one of them would otherwise cost a run each. Not here: why one cannot be read
(`viscircuits.data.reading.decoding`).
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from viscircuits.data.sources import Files, Source
from viscircuits.errors import ImageError

log = logging.getLogger(__name__)

_SHOWN = 5


def readable(source: Files) -> Files:
    """Returns the files without those that cannot be decoded, which the log names; decodes them all.

    Raises:
        ImageError: none of them can be decoded.
    """
    broken = source.damage(range(source.count))
    if not broken:
        return source
    if len(broken) == source.count:
        raise _error(broken, source.count, source.count)
    log.warning("skipped: %s", _listed(broken, source.count))
    # with the same whites, which have looked through the set already
    whole = tuple(path for path in source.paths if path not in broken)
    return Files(whole, source.prepare, source.whites)


def all_damage(source: Source, rows: Sequence[int]) -> ImageError:
    """Returns the error that names all of these rows that cannot be read, after the first of them was met."""
    assert isinstance(source, Files)  # no other source opens files
    return _error(source.damage(rows), len(rows), source.count)


def _listed(broken: dict[Path, str], total: int) -> str:
    """``2 of 10 pictures cannot be read: ...`` with the first few complaints."""
    shown = "; ".join(list(broken.values())[:_SHOWN])
    more = f"; and {len(broken) - _SHOWN} more" if len(broken) > _SHOWN else ""
    return f"{len(broken)} of {total} picture{'' if total == 1 else 's'} cannot be read: {shown}{more}"


def _error(broken: dict[Path, str], looked_at: int, total: int) -> ImageError:
    """The one error that lists all files found unreadable, and the fix, where not all were looked at."""
    skip = ', or leave them out: from_folder(..., unreadable="skip"), --skip-unreadable' if len(broken) < total else ""
    return ImageError(f"{_listed(broken, looked_at)}. Repair or remove them{skip}")
