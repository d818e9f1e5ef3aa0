"""Contact sheets: the pictures that excite channels most, cut to what each of them sees."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from viscircuits.activations.exciting import colours_of, pixels, seen
from viscircuits.activations.top import TopActivations
from viscircuits.data.images import ImageSet, Prepare
from viscircuits.model.graph import NetGraph
from viscircuits.plots.plate import Pixels, Plate, Strip

SHOWN = 12
"""Channels of a layer on a sheet, unless told otherwise."""

ACROSS = 6
"""Pictures in a row, where two rows stand side by side; a row of its own takes twice as many."""

_SIDE, _ROW, _LEFT = 0.82, 1.35, 0.3


class Scene(NamedTuple):
    """What is needed to cut out pictures: the traced network, the pictures, and what prepared them."""

    graph: NetGraph
    images: ImageSet
    prepare: Prepare | None

    def cut(self, layer: str, channel: int | None, where: Sequence[tuple[int, tuple[int, ...]]]) -> list[Pixels]:
        """Returns what a channel sees at (image, position); the whole image where it sees all of it."""
        colours = colours_of(self.prepare, self.graph.input_shape[0])
        found = []
        for image, position in where:
            box = seen(self.graph, (layer, channel), position) if len(position) == 2 and channel is not None else None
            found.append(pixels(colours.pictures(self.images[image]), box))
        return found


def all_ranked(n: int, total: int) -> str:
    """Returns that as many activations are asked for as there are pictures, or more, where it is so; else ""."""
    return f"{total:,} of {total:,}: all of them, ranked" if n >= total else ""


def per_row(top: TopActivations) -> int:
    """Returns how many pictures of a channel are drawn: all where they fit into a row, else the strongest."""
    return top.n if top.n <= 2 * ACROSS else ACROSS


def strips(scene: Scene, top: TopActivations, channels: Sequence[int], across: int = ACROSS) -> list[Strip]:
    """Returns a row of pictures for each channel, of its highest activations that are above zero."""
    made = []
    for channel in channels:
        ranks = [rank for rank in range(min(across, top.n)) if float(top.values[channel, rank]) > 0]
        where = [(int(top.images[channel, rank]), top.position(channel, rank)) for rank in ranks]
        said = f"{float(top.values[channel, 0]):.3g} to {float(top.values[channel, max(ranks, default=0)]):.3g}"
        made.append(Strip(f"{top.layer or 'logit'}:{channel}", said, scene.cut(top.layer, channel, where)))
    return made


def liveliest(top: TopActivations, count: int = SHOWN) -> list[int]:
    """Returns the channels with the highest activations, by number."""
    return sorted(torch.sort(top.values[:, 0], descending=True, stable=True).indices[:count].tolist())


def contact_sheet(rows: Sequence[Strip], title: str, note: str = "") -> Plate:
    """Returns a page with a row of pictures for each channel, two channels side by side where there is room."""
    most = max((len(row.pictures) for row in rows), default=1)
    wide = most * (_SIDE + 0.06) + _LEFT
    columns = 2 if most <= ACROSS else 1
    lines = -(-len(rows) // columns)
    plate = Plate(max(wide * columns + _LEFT, 7), 0.85 + lines * _ROW)
    plate.text(_LEFT, 0.18, title, size=13, weight="bold")
    plate.text(_LEFT, 0.45, note, size=9, colour="#5c6570")
    for number, row in enumerate(rows):
        plate.strip(row, _LEFT + (number // lines) * wide, 0.8 + (number % lines) * _ROW, _SIDE)
    return plate
