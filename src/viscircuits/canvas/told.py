"""How the agreement of a circuit is told, on pages, in tables and in diagrams alike.

|r|, the papers' measure; where the circuit is inverted, r with its sign and that word; where its responses are weak,
which r says nothing of, their spread over the model's, the *sd ratio*.
"""

from collections.abc import Mapping
from math import isfinite
from typing import Any

RowOfTable = Mapping[str, Any]
"""A row of a table of measurements: column -> value; older tables lack some columns."""

WEAK = 0.5
"""Sd ratio below which it is told."""


def measure(pearson: float, signed: float | None, places: int = 3) -> str:
    """Returns ``|r| = 0.930``, or ``r = −0.163, inverted``.

    Args:
        pearson: |r|, in [0, 1].
        signed: r with its sign; None where a table is older than that column.
        places: digits after the point.
    """
    return _r(pearson, signed, places) + ", inverted" * inverted(signed)


def r_of(row: RowOfTable) -> str:
    """Returns ``|r| = 0.930``, or ``r = −0.163``, of a row of a table of measurements; `in_a_cell` has the remarks."""
    return _r(row["pearson"], row.get("pearson_signed"), 3)


def _r(pearson: float, signed: float | None, places: int) -> str:
    # the number has no sign of its own; a true minus is as wide as a digit, so that columns stand straight
    return f"r = −{pearson:.{places}f}" if inverted(signed) else f"|r| = {pearson:.{places}f}"


def beside(sd_ratio: float | None) -> str:
    """Returns what stands beside |r|: ``sd ratio 0.12``; nothing where it is not weak, or not known."""
    return f"sd ratio {spread(sd_ratio)}" if sd_ratio is not None and weak(sd_ratio) else ""


def in_words(row: RowOfTable) -> str:
    """Returns the agreement of a row of a table of measurements: ``|r| = 0.930, sd ratio 0.12``."""
    parts = (measure(row["pearson"], row.get("pearson_signed")), beside(row.get("sd_ratio")))
    return ", ".join(filter(None, parts))


def in_a_cell(row: RowOfTable) -> tuple[str, list[str]]:
    """Returns the number for a table's cell and what is remarked on it: ``("−0.163", ["inverted", "sd 0.02"])``."""
    if row["disconnected"]:
        return "0*", []
    turned, ratio = inverted(row.get("pearson_signed")), row.get("sd_ratio")
    small = ""
    if ratio is not None and weak(ratio):
        # a cell is narrow, and 0.00042 says no more than that hardly anything is left
        small = "sd <0.01" if 0 < ratio < 0.01 else f"sd {spread(ratio)}"
    return f"{'−' * turned}{row['pearson']:.3f}", [remark for remark in ("inverted" * turned, small) if remark]


def inverted(signed: float | None) -> bool:
    """Returns whether a circuit answers the other way round; not where that is unknown."""
    return signed is not None and signed < 0


def weak(sd_ratio: float | None) -> bool:
    """Returns whether responses are so much smaller than the model's that it is told; not where that is unknown."""
    return sd_ratio is not None and isfinite(sd_ratio) and sd_ratio < WEAK


def number(value: float) -> str:
    """Returns a response in three significant digits, without an exponent below a million."""
    # "g" alone would write 1.23e+03
    return f"{value:.3g}" if not 999.5 <= abs(value) < 1e6 else f"{value:,.0f}"


def spread(sd_ratio: float) -> str:
    """Returns an sd ratio in two significant digits."""
    return f"{sd_ratio:.2g}"


def percent(share: float) -> str:
    """Returns a share as a percentage of three significant digits."""
    return f"{100 * share:.3g} %"
