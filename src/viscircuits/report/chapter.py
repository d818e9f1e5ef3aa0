"""One target's chapter of a report: how much survives, which circuit is shown, what it looks for, what excites it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import nn

from viscircuits.activations.exciting import Place, Unit, colours_of, pixels, ranked, seen
from viscircuits.canvas.html import bar, picture, table, vector
from viscircuits.canvas.markup import Html, element, joined
from viscircuits.canvas.page import interactive
from viscircuits.canvas.told import in_a_cell, number, percent, r_of
from viscircuits.circuit import Circuit
from viscircuits.data.images import ImageSet, Prepare
from viscircuits.diagram.extended import Diagram, diagram
from viscircuits.diagram.inset import Agreement, agreement
from viscircuits.diagram.legend import about_row
from viscircuits.diagram.pictures import Source, rendered
from viscircuits.plots.curve import preservation_curve
from viscircuits.plots.plate import blank
from viscircuits.report.headline import Numbers
from viscircuits.study.chosen import Row, called, chosen, circuit_of, measured, scores_of, titled
from viscircuits.study.folder import Study
from viscircuits.target import Loss, Target
from viscircuits.types import Progress

STRIP = 8
"""Pictures in a row."""

_SIDE, _STEPS = 128, 160
"""Of the target's own pictures, which are shown larger than a diagram's."""


@dataclass(frozen=True, eq=False)
class Chapter:
    """The story of one target.

    Args:
        study: where everything was measured.
        target: which of its targets.
        model, prepare: what it was measured on.
        images: pictures that were not scored on; without them, what needs them is left out.
        origin: where these come from, if the study does not know them.
        criterion, density, keep: which circuit is shown; see `viscircuits.study.chosen`.
        most: draw more edges than this as bundles.
        source: where pictures of filters come from.
        progress: called as the work goes on.
    """

    study: Study
    target: str
    model: nn.Module
    prepare: Prepare | None
    images: ImageSet | None
    origin: str
    criterion: str | None
    density: float | None
    keep: float
    most: int
    source: Source
    progress: Progress | None

    @cached_property
    def row(self) -> Row:
        """The measurement that is shown."""
        return chosen(self._candidates, self.density, self.keep)

    @cached_property
    def drawn(self) -> Diagram:
        """The diagram of the circuit that is shown."""
        return diagram(
            self._circuit, scores=scores_of(self.study, self.row), images=self.images, pictures=self.source,
            prepare=self.prepare, compared=self._agreement, most=self.most, cache=self.study.cache,
            progress=self.progress, about=about_row(self.study, self.row, self.images, self.origin),
        )  # fmt: skip

    def html(self) -> Html:
        """Returns the chapter."""
        parts = (
            element("h2", self.target), self._numbers.headline(), self._survival(), self._layers(),
            element("h3", "The circuit"), interactive(self.drawn.scene), self._build_up(), self._excitement(),
        )  # fmt: skip
        return element("article", *parts, id=anchor(self.target))

    # ---- what is shown ----

    @cached_property
    def _candidates(self) -> list[Row]:
        return measured(self.study, self.target, self.criterion)

    @cached_property
    def _rows(self) -> list[Row]:
        """Those of the criterion that is shown, the largest first."""
        shown = (self.row["criterion"], self.row["order"])
        return [row for row in self._candidates if (row["criterion"], row["order"]) == shown]

    @cached_property
    def _table(self) -> pl.DataFrame:
        return self.study.measurements().filter(pl.col("target") == self.target)

    @cached_property
    def _names(self) -> Mapping[str, str]:
        """What each criterion is called."""
        return called(self._table["criterion"])

    @cached_property
    def _circuits(self) -> list[Circuit]:
        """The circuits of these rows."""
        return [circuit_of(self.study, row, self.model) for row in self._rows]

    @property
    def _circuit(self) -> Circuit:
        return self._circuits[self._rows.index(self.row)]

    @cached_property
    def _agreement(self) -> Agreement | None:
        return None if self.images is None else agreement(self._circuit, self.images, progress=self.progress)

    @cached_property
    def _own_pictures(self) -> bool:
        """Whether the pictures are those that the study measured on."""
        return self.images is not None and self.images.hash == self.study.header.spec.held_out.hash

    @cached_property
    def _unit(self) -> Unit | None:
        """The target as something that can be rendered."""
        target = self._circuit.target
        if isinstance(target, Loss):
            return None
        plain = isinstance(target, Target) and target.channel is not None
        return (target.layer, target.channel) if plain else ("", 0)  # pyright: ignore

    # ---- its parts ----

    @cached_property
    def _numbers(self) -> Numbers:
        row = self.row
        shown = titled(self._names[row["criterion"]], row["order"])
        searched = f"the study by {shown}" if self.criterion else "the study"
        if row.get("sd_ratio") is None and self._own_pictures and self._agreement:  # the table is older than the column
            row = row | {"sd_ratio": self._agreement.preservation.sd_ratio}
        return Numbers(self._table, self._names, row, self.keep, searched if self.density is None else "")

    def _survival(self) -> Html:
        curve = vector(preservation_curve(self._table)._repr_svg_(), f"preservation against density, {self.target}")
        both = element("div", element("figure", curve), element("div", self._numbers.table()), cls="beside")
        return joined([element("h3", "How much survives"), both])

    def _layers(self) -> Html:
        """Effective structures of every layer, a column a circuit."""
        masks = [circuit.effective for circuit in self._circuits]
        rows = []
        for layer, relevant in masks[0].relevant.items():
            total = int(relevant.sum())
            counts = [int(mask.kept[layer].sum()) for mask in masks]
            cells = [bar((count / total) ** 0.5 if total else 0.0, f"{count:,}" if count else "") for count in counts]
            rows.append(([layer, f"{total:,}", *cells], False))
        head = ["layer", "relevant", *(percent(row["density"]) for row in self._rows)]
        note = (
            f"Effective {self.row['granularity']}s of {self._numbers.shown}'s circuits, "
            f"a column a density; "
            f"a bar's length is the root of their share of the relevant ones."
        )
        heading = element("h3", "What is left of every layer"), element("p", note, cls="note")
        return joined([*heading, table(head, rows, "layers")])

    def _build_up(self) -> Html:
        """The target's picture in the model and in circuits of shrinking size."""
        if self._unit is None or self.source == "none":
            return joined([])
        mask = self._circuit.mask
        whole = Circuit(self.model, self._circuit.target, replace(mask, kept=dict(mask.relevant)))
        live = [
            (row, circuit)
            for row, circuit in zip(self._rows, self._circuits, strict=True)
            if not row["disconnected"] and row["density"] < 1
        ]
        needed = next((i for i, (row, _) in enumerate(live) if row is self.row), 0)
        tiles = [self._tile(whole, [element("b", "the model")])]
        for row, circuit in _spaced(live, STRIP - 1, needed):
            kept = joined([element("b", percent(row["density"])), f", {r_of(row)}"])
            said = [kept, ", ".join(in_a_cell(row)[1]), f"{row['effective']:,} effective"]
            tiles.append(self._tile(circuit, said, "marked" if row is self.row else ""))
        note = "What the target looks for, in the model and in circuits of shrinking size: same start, same steps."
        heading = element("h3", "What it looks for"), element("p", note, cls="note")
        return joined([*heading, element("div", *tiles, cls="strip")])

    def _tile(self, circuit: Circuit, said: Sequence[str], cls: str = "") -> Html:
        assert self._unit is not None
        made = rendered(
            circuit, [self._unit], prepare=self.prepare, side=_SIDE, steps=_STEPS, cache=self.study.cache,
            progress=self.progress,
        )  # fmt: skip
        if blank(made[self._unit]):
            said = [*said, "found nothing that drives it"]
        words = joined([*filter(None, said)], element("br"))
        return element("figure", picture(made[self._unit], self.target), element("figcaption", words), cls=cls)

    def _excitement(self) -> Html:
        if self._agreement is None:
            return element("p", "The pictures it was measured on are not at hand, so none are shown.", cls="note")
        values = torch.from_numpy(self._agreement.full)
        shape = self._map_shape(values.shape[1])
        fresh = "Pictures that were not scored on" if self._own_pictures else "Pictures"
        parts = []
        for title, response, least in (
            ("What excites it most", "strongest", False),
            ("What excites it least", "weakest", True),
        ):
            shown = element(
                "div", *(self._stimulus(place) for place in ranked(values, shape, STRIP, least=least)), cls="strip"
            )
            framed = "; framed, and below: the piece of it that is seen there" if 'class="framed"' in shown else ""
            note = f"{fresh}, by the {response} response anywhere in them{framed}."
            parts += [element("h3", title), element("p", note, cls="note"), shown]
        return joined(parts)

    def _map_shape(self, positions: int) -> tuple[int, ...]:
        target = self._circuit.target
        shape = self._circuit.graph.output(target.layer).map_shape if isinstance(target, Target) else ()
        return shape if isinstance(target, Target) and target.position is None and shape else (positions,)

    def _stimulus(self, place: Place) -> Html:
        assert self.images is not None
        assert self._agreement is not None
        graph, unit = self._circuit.graph, self._unit
        image = colours_of(self.prepare, graph.input_shape[0]).pictures(self.images[place.image])
        box = seen(graph, unit, place.position) if unit and unit[0] and len(place.position) == 2 else None
        responses = self._agreement.circuit[place.image].reshape(self._map_shape(self._agreement.circuit.shape[1]))
        name = Path(self.images.names[place.image]).name
        answers = {"model": place.value, "circuit": float(responses[place.position])}
        said = [joined([f"{what} ", element("b", number(answer))]) for what, answer in answers.items()]
        words = element("figcaption", joined(said, element("br")))
        piece = [element("div", picture(pixels(image, box), f"piece of {name}"), cls="piece")] if box else []
        return element("figure", picture(pixels(image), name, box), *piece, words, title=name)


def anchor(target: str) -> str:
    """Returns the name of a chapter's place on the page."""
    return "target-" + "".join(c if c.isalnum() or c in "-_." else "_" for c in target)


def _spaced(items: Sequence[Any], count: int, needed: int) -> list[Any]:
    """At most ``count`` of the items, evenly over all of them; the needed one among them."""
    if len(items) <= count:
        return list(items)
    places = {round(i * (len(items) - 1) / (count - 1)) for i in range(count)}
    if needed not in places:
        places.remove(min(places - {0, len(items) - 1}, key=lambda place: abs(place - needed)))
        places.add(needed)
    return [items[place] for place in sorted(places)]
