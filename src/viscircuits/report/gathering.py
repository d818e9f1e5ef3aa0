"""What reports show that only running the network, or cutting up pictures, tells.

The one file of `viscircuits.report` that runs a model: the exhibition of a chapter, and the pictures on the pages of
findings. It returns data. How chapters read is said in `viscircuits.report.chapter`, and how pages of findings are laid
out in `viscircuits.report.plates` and `viscircuits.plots`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch import nn

from viscircuits.activations.exciting import Place, Unit, colours_of, pixels, ranked, seen
from viscircuits.activations.top import TopActivations
from viscircuits.circuit.circuit import Circuit
from viscircuits.data.images import ImageSet, Prepare
from viscircuits.diagram.extended import diagram
from viscircuits.diagram.gathering import PictureSource, agreement, rendered
from viscircuits.diagram.inset import Agreement
from viscircuits.diagram.legend import about_row
from viscircuits.evaluate.inside import inside, layers
from viscircuits.mask import Mask
from viscircuits.model.graph import NetGraph
from viscircuits.model.zoo import zoo
from viscircuits.plots.plate import Rgb, Strip
from viscircuits.plots.sheets import ACROSS
from viscircuits.probes.detectors import Detectors
from viscircuits.probes.stage import Stage
from viscircuits.report.exhibition import Exhibit, Exhibition, Inside, Portrait
from viscircuits.study.chosen import Entry, called, chosen, circuit_of, measured, scores_of
from viscircuits.study.folder import Study
from viscircuits.subcircuits.split import Split
from viscircuits.target import Loss, Target
from viscircuits.types import Progress

STRIP = 8
"""Pictures in a row of a chapter."""

LOOKED = 100
"""Pictures that agreement inside is measured on, at most."""

SHOWN = 12
"""Channels of a layer on a contact sheet, unless told otherwise."""

_SIDE, _STEPS = 128, 160
"""Of the target's own pictures and of a split's, which are shown larger than a diagram's."""

Item = TypeVar("Item")


@dataclass(frozen=True, eq=False)
class Gathering:
    """With what, and how, the exhibition of chapters is gathered.

    Args:
        study: where everything was measured.
        model, prepare: what it was measured on.
        images: pictures that were not scored on; without them, what needs them is left out.
        origin: where these come from, if the study does not know them.
        criterion, density, keep: which circuit is shown; see `viscircuits.study.chosen`.
        most: draw more edges than this as bundles.
        source: where pictures of filters come from.
        progress: called as the work goes on.
    """

    study: Study
    model: nn.Module
    prepare: Prepare | None
    images: ImageSet | None
    origin: str
    criterion: str | None
    density: float | None
    keep: float
    most: int
    source: PictureSource
    progress: Progress | None

    def exhibition(self, target: str) -> Exhibition:
        """Returns what the chapter of a target shows."""
        study = self.study
        candidates = measured(study, target, self.criterion)
        row = chosen(candidates, self.density, self.keep)
        series = (row["criterion"], row["order"])
        rows = [other for other in candidates if (other["criterion"], other["order"]) == series]
        circuits = [circuit_of(study, one, self.model) for one in rows]
        # the same for the diagram and for the pictures below: reading all pictures takes longest
        circuit = circuits[rows.index(row)]
        compared = None if self.images is None else agreement(circuit, self.images, progress=self.progress)
        drawn = diagram(
            circuit, scores=scores_of(study, row), images=self.images, pictures=self.source, prepare=self.prepare,
            compared=compared, most=self.most, cache=study.cache, progress=self.progress,
            about=about_row(study, row, self.images, self.origin),
        )  # fmt: skip
        table = study.measurements()
        table = table.filter(table["target"] == target)
        # by content, not by folder: pictures may have been moved since, or others put in their place
        own_pictures = self.images is not None and self.images.hash == study.header.spec.held_out.hash
        return Exhibition(
            target, study.header.spec.titled(target), table, called(table["criterion"]), rows, row,
            [one.effective for one in circuits], drawn, self._portraits(row, rows, circuits),
            self._exhibits(circuit, compared, least=False), self._exhibits(circuit, compared, least=True),
            own_pictures, self._inside(circuit),
            compared.preservation.sd_ratio if own_pictures and compared is not None else None,
        )  # fmt: skip

    def _inside(self, circuit: Circuit) -> Inside | None:
        if self.images is None or len(self.images) < 2:
            return None
        some = self.images.take(min(LOOKED, len(self.images)))
        return Inside(layers(inside(circuit, some, progress=self.progress)), len(some))

    def _portraits(self, row: Entry, rows: Sequence[Entry], circuits: Sequence[Circuit]) -> list[Portrait]:
        """The target's picture in the model and in circuits of shrinking size."""
        circuit = circuits[rows.index(row)]
        unit = _unit_of(circuit)
        if unit is None or self.source == "none":
            return []
        mask = circuit.mask
        whole = Circuit(self.model, circuit.target, replace(mask, kept=dict(mask.relevant)))
        live = [
            (one, smaller)
            for one, smaller in zip(rows, circuits, strict=True)
            # a disconnected circuit answers alike to everything, and the whole model is drawn anyhow
            if not one["disconnected"] and one["density"] < 1
        ]
        # of many circuits a few are drawn, and the one that the chapter is about has to be among them
        needed = next((i for i, (one, _) in enumerate(live) if one is row), 0)
        return [
            Portrait(one, self._rendered(smaller, unit))
            for one, smaller in [(None, whole), *_spaced(live, STRIP - 1, needed)]
        ]

    def _rendered(self, circuit: Circuit, unit: Unit) -> Rgb:
        return rendered(
            circuit, [unit], prepare=self.prepare, side=_SIDE, steps=_STEPS, cache=self.study.cache,
            progress=self.progress,
        )[unit]  # fmt: skip

    def _exhibits(self, circuit: Circuit, compared: Agreement | None, *, least: bool) -> list[Exhibit] | None:
        """The pictures with the strongest responses anywhere in them, or the weakest."""
        if compared is None:
            return None
        values = torch.from_numpy(compared.full)
        places = ranked(values, _map_shape(circuit, values.shape[1]), STRIP, least=least)
        return [self._exhibit(circuit, compared, place) for place in places]

    def _exhibit(self, circuit: Circuit, compared: Agreement, place: Place) -> Exhibit:
        assert self.images is not None
        graph, unit = circuit.graph, _unit_of(circuit)
        image = colours_of(self.prepare, graph.input_shape[0]).pictures(self.images[place.image])
        box = seen(graph, unit, place.position) if unit and unit[0] and len(place.position) == 2 else None
        responses = compared.circuit[place.image].reshape(_map_shape(circuit, compared.circuit.shape[1]))
        return Exhibit(
            Path(self.images.names[place.image]).name, pixels(image), box, None if box is None else pixels(image, box),
            place.value, float(responses[place.position]),
        )  # fmt: skip


def is_foreign(name: str) -> bool:
    """Returns whether a study's name for its model is code from elsewhere, which the user has to name."""
    return zoo.is_foreign(name)


def _unit_of(circuit: Circuit) -> Unit | None:
    """The target as something that can be rendered; a loss cannot."""
    target = circuit.target
    if isinstance(target, Loss):
        return None
    # "" is how `rendered` is asked for a target that is no single channel
    return (target.layer, target.channel) if isinstance(target, Target) and target.channel is not None else ("", 0)


def _map_shape(circuit: Circuit, positions: int) -> tuple[int, ...]:
    """The shape of the map of responses; where the target is no whole map, its positions in one axis."""
    target = circuit.target
    if not isinstance(target, Target) or target.position is not None:
        return (positions,)
    return circuit.graph.output(target.layer).map_shape or (positions,)


def _spaced(items: Sequence[Item], count: int, needed: int) -> list[Item]:
    """At most ``count`` of the items, evenly over all of them; the needed one among them."""
    if len(items) <= count:
        return list(items)
    places = {round(i * (len(items) - 1) / (count - 1)) for i in range(count)}
    if needed not in places:
        # the ends stay: they show the largest and the smallest circuit
        places.remove(min(places - {0, len(items) - 1}, key=lambda place: abs(place - needed)))
        places.add(needed)
    return [items[place] for place in sorted(places)]


class Gallery(NamedTuple):
    """What pictures are cut out with: the traced network, the pictures, and what prepared them."""

    graph: NetGraph
    images: ImageSet
    prepare: Prepare | None

    def cut(self, layer: str, channel: int | None, where: Sequence[tuple[int, tuple[int, ...]]]) -> list[Rgb]:
        """Returns what a channel sees at some places; the whole image where it sees all of it.

        Args:
            layer: the layer.
            channel: whose receptive field; None for what has none, and sees the whole image.
            where: (image, position on the map) of every piece.
        """
        colours = colours_of(self.prepare, self.graph.input_shape[0])
        pieces = []
        for image, position in where:
            # vectors have no place, and directions no field of their own: then the whole image is what is seen
            box = seen(self.graph, (layer, channel), position) if len(position) == 2 and channel is not None else None
            pieces.append(pixels(colours.pictures(self.images[image]), box))
        return pieces


def liveliest(top: TopActivations, count: int = SHOWN) -> list[int]:
    """Returns the channels with the highest activations, by number."""
    return sorted(torch.sort(top.values[:, 0], descending=True, stable=True).indices[:count].tolist())


def per_row(top: TopActivations) -> int:
    """Returns how many pictures of a channel are drawn: all where they fit into a row, else the strongest."""
    return top.n if top.n <= 2 * ACROSS else ACROSS


def strips(gallery: Gallery, top: TopActivations, channels: Sequence[int], across: int = ACROSS) -> list[Strip]:
    """Returns a row of pictures for each channel, of its highest activations that are above zero.

    Args:
        gallery: the pictures that were searched.
        top: the highest activations of a layer.
        channels: which.
        across: pictures in a row.
    """
    rows = []
    for channel in channels:
        # below zero nothing excites: such a picture is merely the least bad of a small set
        ranks = [rank for rank in range(min(across, top.n)) if float(top.values[channel, rank]) > 0]
        where = [(int(top.images[channel, rank]), top.position(channel, rank)) for rank in ranks]
        note = f"{float(top.values[channel, 0]):.3g} to {float(top.values[channel, max(ranks, default=0)]):.3g}"
        rows.append(Strip(f"{top.layer or 'logit'}:{channel}", note, gallery.cut(top.layer, channel, where)))
    return rows


def renderings(
    division: Split, prepare: Prepare | None = None, *, cache: Path | None = None, progress: Progress | None = None
) -> list[Rgb]:
    """Returns what the target looks for in the model, then in each set's circuit: same seed, same steps.

    Args:
        division: the split.
        prepare: what prepared its pictures; it tells the colours (ImageNet's by default).
        cache: a folder that keeps rendered pictures.
        progress: called as the work goes on.
    """
    target = division.target
    if target.channel is None:
        return []
    mask = division.division.masks[0]
    whole = Circuit(division.model, target, Mask(mask.relevant, mask.relevant, mask.granularity, mask.input_shape))
    unit = (target.layer, target.channel)
    return [
        rendered(circuit, [unit], prepare=prepare, side=_SIDE, steps=_STEPS, cache=cache, progress=progress)[unit]
        for circuit in (whole, *division.circuits)
    ]


def stimuli_strips(
    preferences: Detectors, family: str, stage: Stage, channels: Sequence[int], across: int = 8
) -> list[Strip]:
    """Returns a row for each channel: the stimuli of a family that it answers most, and of each other family the best.

    Args:
        preferences: the answers of a layer.
        family: the first of each row, as many as there is room for.
        stage: where the stimuli were shown.
        channels: which.
        across: pictures in a row.
    """
    rows = []
    by_channel = {one.channel: one for one in preferences.ranked(family)}
    others = [name for name in preferences.families if name != family]
    for channel in channels:
        answers = preferences.answers[family][channel]
        order = answers.argsort(descending=True, stable=True)[: across - len(others)].tolist()
        stimuli = [preferences.families[family][i] for i in order]
        stimuli += [preferences.best(channel, name) for name in others]
        drawn = stage.drawn(stimuli)[:, :, *stage.box.slices]
        best = answers[order].tolist()
        note = f"{family} {best[0]:.3g} to {best[-1]:.3g}; then the best of {', '.join(others)}"
        title = f"{preferences.layer}:{channel}, index {by_channel[channel].index:.2f}"
        rows.append(Strip(title, note, [pixels(picture) for picture in drawn]))
    return rows
