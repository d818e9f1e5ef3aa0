"""The tables that commands print of studies; imported when a command runs, not for its help."""

from collections.abc import Sequence

import polars as pl
from rich.text import Text

from viscircuits.canvas.told import WEAK, RowOfTable, in_a_cell, inverted
from viscircuits.cli.console import out, print_table
from viscircuits.study.chosen import series_of, titled
from viscircuits.study.folder import Study
from viscircuits.study.names import CURVE


def print_study(study: Study) -> None:
    """Prints the table of a study and where it stands."""
    frame = study.measurements()
    targets = frame["target"].n_unique()
    title = f"|Pearson r| with the full model, {study.header.spec.subject}" + (", median" if targets > 1 else "")
    series = series_of(frame)
    names = ["density", "kept", *(titled(criterion, order) for criterion, order in series)]
    rows = [_row(frame, density, series) for density in _densities(frame)]
    print_table(title, [(name, name in ("density", "kept")) for name in names], rows)
    print_notes([cell for row in rows for cell in row[2:]], targets)
    curve = f", {CURVE}.png" if (study.path / f"{CURVE}.png").is_file() else "; not finished, run its command again"
    line = Text.assemble((str(study.path), "bold"), f": table, {len(study.circuits())} circuits{curve}")
    out.print(line, soft_wrap=True)  # a path that is cut cannot be copied


def _densities(frame: pl.DataFrame) -> list[float]:
    return sorted(frame["density"].unique(), reverse=True)


def _row(frame: pl.DataFrame, density: float, series: list[tuple[str, str]]) -> list[str]:
    here = frame.filter(pl.col("density") == density)
    kept = sorted(set(here["kept"]))
    cells = [f"{density:g}", f"{kept[0]:,}" + (f" to {kept[-1]:,}" if len(kept) > 1 else "")]
    for criterion, order in series:
        cells.append(_cell(here.filter(pl.col("criterion") == criterion, pl.col("order") == order)))
    return cells


def _cell(rows: pl.DataFrame) -> str:
    """One circuit's agreement; of several the medians, and how many of them are inverted."""
    if len(rows) == 1:
        return told_in_a_cell(rows.to_dicts()[0])
    if rows.is_empty() or rows["disconnected"].all():
        return "" if rows.is_empty() else "0*"
    turned = sum(map(inverted, rows["pearson_signed"]))
    middle = {"pearson": rows["pearson"].median(), "sd_ratio": rows["sd_ratio"].median(), "disconnected": False}
    number, weak = in_a_cell(middle)
    return _with(number, [*[f"({turned} inverted)"] * bool(turned), *weak])


def told_in_a_cell(row: RowOfTable) -> str:
    """Returns a circuit's agreement for a cell of a printed table: ``0.930``, ``-0.163 inverted sd 0.02``."""
    number, remarks = in_a_cell(row)
    return _with(number.replace("−", "-"), remarks)  # not every terminal can print a minus sign


def _with(number: str, remarks: Sequence[str]) -> str:
    return " ".join([f"{number:>6}", *remarks])  # numbers stand in a column, whatever follows


def print_notes(cells: Sequence[str], targets: int = 1) -> None:
    """Prints what the remarks in a table's cells mean, where there are any."""
    several = f", of so many of the {targets} targets" if targets > 1 else ""
    meanings = {
        "0*": " no path leads from the image to the target",
        "inverted": f": r is negative{several}",
        "sd": f": standard deviation of the responses over the model's, where below {WEAK:g}",
    }
    for word, meaning in meanings.items():
        if any(word in cell for cell in cells):
            out.print(word + meaning, style="dim", soft_wrap=True)
