"""Contact sheets: rows of pictures with a title each, one or two rows side by side.

What stands in the rows is cut out by `viscircuits.report.gathering`; here it is only laid out.
"""

from collections.abc import Sequence

from viscircuits.plots.plate import Plate, Strip

ACROSS = 6
"""Pictures in a row, where two rows stand side by side; a row of its own takes twice as many."""

_SIDE, _ROW, _LEFT = 0.82, 1.35, 0.3


def all_ranked(n: int, total: int) -> str:
    """Returns that as many activations are asked for as there are pictures, or more, where it is so; else ""."""
    return f"{total:,} of {total:,}: all of them, ranked" if n >= total else ""


def contact_sheet(rows: Sequence[Strip], title: str, note: str = "") -> Plate:
    """Returns a page with a row of pictures for each channel, two channels side by side where there is room.

    Args:
        rows: the pictures of each channel.
        title: what stands above.
        note: one line below the title.
    """
    most = max((len(row.pictures) for row in rows), default=1)
    wide = most * (_SIDE + 0.06) + _LEFT
    columns = 2 if most <= ACROSS else 1
    # rounded up: an odd row stands alone in the last line
    lines = -(-len(rows) // columns)
    plate = Plate(max(wide * columns + _LEFT, 7), 0.85 + lines * _ROW)
    plate.text(_LEFT, 0.18, title, size=13, weight="bold")
    plate.text(_LEFT, 0.45, note, size=9, colour="#5c6570")
    for number, row in enumerate(rows):
        plate.strip(row, _LEFT + (number // lines) * wide, 0.8 + (number % lines) * _ROW, _SIDE)
    return plate
