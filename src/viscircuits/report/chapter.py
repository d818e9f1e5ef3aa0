"""One target's chapter of a report: how much survives, which circuit is shown, what it looks for, what excites it.

A chapter is written from `viscircuits.report.exhibition.Exhibition`; how that comes about is not its business.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from viscircuits.canvas.html import bar, picture, table, vector
from viscircuits.canvas.markup import Html, element, joined
from viscircuits.canvas.told import in_a_cell, number, percent, r_of
from viscircuits.plots.curve import preservation_curve
from viscircuits.plots.plate import blank
from viscircuits.report.exhibition import Exhibit, Exhibition, Portrait
from viscircuits.report.headline import Numbers
from viscircuits.study.chosen import titled


@dataclass(frozen=True, eq=False)
class Chapter:
    """The story of one target.

    Args:
        exhibition: all that is shown.
        keep: the |r| that is enough.
        criterion: the one that circuits were searched by; None for all.
        density: the one that was asked for; None where the smallest that keeps enough was searched.
    """

    exhibition: Exhibition
    keep: float
    criterion: str | None
    density: float | None

    def html(self) -> Html:
        """Returns the chapter."""
        shown = self.exhibition
        parts = (
            element("h2", shown.title), self._numbers.headline(), self._survival(), self._layers(),
            self._heading("The circuit"), shown.drawn.part(), self._inside(), self._build_up(), self._excitement(),
        )  # fmt: skip
        return element("article", *parts, id=anchor(shown.target))

    def _heading(self, title: str) -> Html:
        """The heading of a part, which the contents lead to."""
        return element("h3", title, id=f"{anchor(self.exhibition.target)}-{title.lower().replace(' ', '-')}")

    @cached_property
    def _numbers(self) -> Numbers:
        shown, row = self.exhibition, self.exhibition.row
        name = titled(shown.names[row["criterion"]], row["order"])
        searched = f"the study by {name}" if self.criterion else "the study"
        if row.get("sd_ratio") is None and shown.sd_ratio is not None:
            # the table is older than the column, and the pictures at hand are those that it was measured on
            row = row | {"sd_ratio": shown.sd_ratio}
        return Numbers(shown.table, shown.names, row, self.keep, searched if self.density is None else "")

    def _survival(self) -> Html:
        curve = preservation_curve(self.exhibition.table).themed()
        image = vector(curve, f"preservation against density, {self.exhibition.target}")
        both = element("div", element("figure", image), element("div", self._numbers.table()), cls="beside")
        return joined([self._heading("How much survives"), both])

    def _layers(self) -> Html:
        """Effective structures of every layer, a column a circuit."""
        masks = self.exhibition.masks
        rows = []
        for layer, relevant in masks[0].relevant.items():
            total = int(relevant.sum())
            counts = [int(mask.kept[layer].sum()) for mask in masks]
            # a root, because most layers of a small circuit keep so little that a straight bar would be invisible
            cells = [bar((count / total) ** 0.5 if total else 0.0, f"{count:,}" if count else "") for count in counts]
            rows.append(([layer, f"{total:,}", *cells], False))
        head = ["layer", "relevant", *(percent(row["density"]) for row in self.exhibition.rows)]
        note = (
            f"Effective {self.exhibition.row['granularity']}s of {self._numbers.shown}'s circuits, "
            f"a column a density; "
            f"a bar's length is the root of their share of the relevant ones."
        )
        heading = self._heading("What is left of every layer"), element("p", note, cls="note")
        return joined([*heading, table(head, rows, "layers")])

    def _inside(self) -> Html:
        """How far the filters of every layer agree with the model's."""
        inside = self.exhibition.inside
        if inside is None or inside.layers.is_empty():
            return joined([])
        rows = []
        for row in inside.layers.iter_rows(named=True):
            median = bar(max(row["within"], 0.0), f"{row['within']:.2f}")
            rows.append(([row["layer"], f"{row['filters']:,}", median, row["role"]], False))
        note = (
            f"How far each filter of the circuit puts out what it puts out in the model: r within positions, before "
            f"the activation, on {inside.n_images:,} pictures; the median over a layer's filters. A circuit can answer "
            f"rightly and get there in another way. Agreement mostly falls with depth."
        )
        heading = self._heading("Agreement inside"), element("p", note, cls="note")
        return joined([*heading, table(["layer", "filters", "median r", ""], rows)])

    def _build_up(self) -> Html:
        """The target's picture in the model and in circuits of shrinking size."""
        if not self.exhibition.portraits:
            return joined([])
        tiles = [self._tile(portrait) for portrait in self.exhibition.portraits]
        note = "What the target looks for, in the model and in circuits of shrinking size: same start, same steps."
        heading = self._heading("What it looks for"), element("p", note, cls="note")
        return joined([*heading, element("div", *tiles, cls="strip")])

    def _tile(self, portrait: Portrait) -> Html:
        row = portrait.row
        if row is None:
            lines = [element("b", "the model")]
        else:
            kept = joined([element("b", percent(row["density"])), f", {r_of(row)}"])
            # what is remarked on the number stands on a line of its own; without a remark the line is left out
            lines = [kept, ", ".join(in_a_cell(row)[1]), f"{row['effective']:,} effective"]
        if blank(portrait.picture):
            lines = [*lines, "found nothing that drives it"]
        words = joined([*filter(None, lines)], element("br"))
        image = picture(portrait.picture, self.exhibition.target)
        marked = "marked" if row is self.exhibition.row else ""
        return element("figure", image, element("figcaption", words), cls=marked)

    def _excitement(self) -> Html:
        shown = self.exhibition
        if shown.strongest is None or shown.weakest is None:
            return element("p", "The pictures it was measured on are not at hand, so none are shown.", cls="note")
        most = self._strip("What excites it most", "strongest", shown.strongest)
        least = self._strip("What excites it least", "weakest", shown.weakest)
        return joined([*most, *least])

    def _strip(self, title: str, response: str, exhibits: Sequence[Exhibit]) -> list[Html]:
        fresh = "Pictures that were not scored on" if self.exhibition.own_pictures else "Pictures"
        strip = element("div", *map(_exhibit, exhibits), cls="strip")
        # fields of view can be as large as the picture; then no frame is drawn, and none is spoken of
        boxed = any(exhibit.box for exhibit in exhibits)
        framed = "; framed, and below: the piece of it that is seen there" if boxed else ""
        note = f"{fresh}, by the {response} response anywhere in them{framed}."
        return [self._heading(title), element("p", note, cls="note"), strip]


def _exhibit(exhibit: Exhibit) -> Html:
    responses = {"model": exhibit.model, "circuit": exhibit.circuit}
    lines = [joined([f"{what} ", element("b", number(response))]) for what, response in responses.items()]
    words = element("figcaption", joined(lines, element("br")))
    piece = []
    if exhibit.piece is not None:
        piece = [element("div", picture(exhibit.piece, f"piece of {exhibit.name}"), cls="piece")]
    image = picture(exhibit.picture, exhibit.name, exhibit.box)
    return element("figure", image, *piece, words, title=exhibit.name)


def anchor(target: str) -> str:
    """Returns the name of a chapter's place on the page."""
    return "target-" + "".join(c if c.isalnum() or c in "-_." else "_" for c in target)
