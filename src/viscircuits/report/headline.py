"""A circuit in numbers: what a chapter says first of the circuit that is shown, and the table of all measurements."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import polars as pl

from viscircuits.canvas import told
from viscircuits.canvas.html import table
from viscircuits.canvas.markup import Html, element, joined
from viscircuits.canvas.told import percent
from viscircuits.study.chosen import CONTROL, Entry, asked_as, is_control, is_trained, series_of, titled

_ROUNDING = 1e-6

_FAR = 0.1
"""How much lower |r| within positions is where it is remarked on."""


@dataclass(frozen=True, eq=False)
class Numbers:
    """The measurements of one target, and which of them is shown.

    Args:
        measured: the target's measurements, in the order of `Study.measurements`.
        names: criterion -> what it is called.
        row: the measurement that is shown.
        keep: the |r| that is enough.
        searched: where the row was searched for, in words; "" where a density was given.
    """

    measured: pl.DataFrame
    names: Mapping[str, str]
    row: Entry
    keep: float
    searched: str

    @cached_property
    def mapped(self) -> bool:
        """Whether |r| within positions was measured and is another number, as it is where responses are maps."""
        if "pearson_within" not in self.measured.columns:
            return False
        within = self.measured["pearson_within"]
        # tables that were written before the column have nulls in it, and single positions give nan
        known = within.is_not_null() & within.is_finite()
        return bool(known.all() and ((within - self.measured["pearson"]).abs() > _ROUNDING).any())

    @property
    def shown(self) -> str:
        """What the criterion that is shown is called."""
        return titled(self.names[self.row["criterion"]], self.row["order"])

    def headline(self) -> Html:
        """Returns the first paragraph: what is kept, how well, and what |r| does not show."""
        row = self.row
        kept = f"{row['kept']:,} of {row['relevant']:,} relevant {row['granularity']}s"
        how = "at random" if row["criterion"] == CONTROL else f"by {self.shown}"
        within = f" ({row['pearson_within']:.3f} within positions)" if self.mapped else ""
        weak = told.beside(row.get("sd_ratio"))
        # with a density given, nothing was searched for, and so nothing was not found
        none = row["pearson"] < self.keep and self.searched
        words = [
            f"No circuit of {self.searched} keeps |r| ≥ {self.keep:g}. The best: " if none else "",
            element("b", kept), f" ({percent(row['density'])}), chosen {how}, keep it with ",
            element("b", _measure(row)), within, *([", ", element("b", weak), ","] if weak else []),
            f" on {row['n_held_out']:,} pictures that were not scored on; {row['effective']:,} of them lie on a path "
            "from image to target.",
        ]  # fmt: skip
        return element("p", joined([joined(words), *self._remarks(), *self._beside_random()], " "), cls="lead")

    def _remarks(self) -> list[str]:
        """What |r| does not show of the circuit."""
        row, remarks = self.row, []
        if is_control(asked_as(row["criterion"], row["order"])):
            remarks.append("This circuit is a control.")
        if self.mapped and row["pearson_within"] < min(self.keep, row["pearson"]) - _FAR:
            remarks.append("Much of this agreement is a map that all pictures share, such as a bright border.")
        if told.weak(row.get("sd_ratio")) and not row["disconnected"]:
            spread = told.spread(row["sd_ratio"])
            remarks.append(f"Its responses spread only {spread} times as far as the model's, which |r| does not see.")
        if is_trained(row["criterion"]) and row["order"] == "best":
            remarks.append(
                "Gates were trained for this response, so r alone is no evidence that the network computes it this way "
                "(“Which criterion, and when” in the documentation, docs/criteria.md, says why)."
            )
        return remarks

    def _beside_random(self) -> list[Html]:
        if self.row["criterion"] == CONTROL:
            return []
        # of the same density, because a random circuit of another size is no control of this one
        same = (pl.col("density") == self.row["density"]) & (pl.col("criterion") == CONTROL)
        controls = self.measured.filter(same, pl.col("order") == "best").to_dicts()
        weak = [f", {told.beside(row.get('sd_ratio'))}" for row in controls if told.beside(row.get("sd_ratio"))]
        what = f"As many random {self.row['granularity']}s"
        return [joined([f"{what}: ", _measure(row), *weak, "."]) for row in controls[:1]]

    def table(self) -> Html:
        """Returns every measurement: a row a density, a column a criterion; the row that is shown is marked."""
        series = series_of(self.measured)
        values = {(r["criterion"], r["order"], r["density"]): r for r in self.measured.to_dicts()}
        own = (self.row["criterion"], self.row["order"])
        head = ["density", "kept", "effective", *["within"] * self.mapped]
        head += [titled(self.names[criterion], order) for criterion, order in series]
        rows = []
        for density in sorted(set(self.measured["density"]), reverse=True):
            cells = [values.get((*one, density)) for one in series]
            numbers = self._numbers(values.get((*own, density)), next(filter(None, cells)))
            rows.append((numbers + list(map(_cell, cells)), density == self.row["density"]))
        return joined([table(head, rows), element("p", self._note(), cls="note")])

    def _numbers(self, own: Entry | None, any_row: Entry) -> list[str]:
        """The first cells of a row: what is kept at its density, and the numbers of the criterion that is shown."""
        effective = f"{own['effective']:,}" if own else ""
        within = [f"{own['pearson_within']:.3f}" if own else ""] * self.mapped
        return [percent(any_row["density"]), f"{any_row['kept']:,}", effective, *within]

    def _note(self) -> str:
        shown, rows = self.shown, self.measured.to_dicts()
        notes = [
            f"|Pearson r| with the full model. Effective, of {shown}: {self.row['granularity']}s on a path from "
            "image to target. 0*: no path leads from the image to the target."
        ]
        if any(told.inverted(row.get("pearson_signed")) for row in rows):
            notes.append("Inverted: r is negative.")
        if any(told.weak(row.get("sd_ratio")) and not row["disconnected"] for row in rows):
            notes.append(
                f"Sd: the standard deviation of the circuit's responses over that of the model's, where it is below "
                f"{told.WEAK:g}."
            )
        if self.mapped:
            notes.append(
                f"Within, of {shown}: |r| after each position's mean over the pictures is subtracted. It is far below "
                f"|r| where a circuit keeps little more than a map that all pictures share, such as a bright border."
            )
        return " ".join(notes)


def _measure(row: Entry) -> Html:
    return element("span", told.measure(row["pearson"], row.get("pearson_signed")), cls="whole")


def _cell(row: Entry | None) -> Html:
    number, remarks = told.in_a_cell(row) if row else ("", [])
    return joined([number, *(element("small", remark) for remark in remarks)])
