"""Pages about one channel: its clusters, or its split, with the pictures that excite it cut in.

What was found and where the pictures are cut out (`viscircuits.report.gathering.Gallery`) comes in; the curves and the
layout are drawn by `viscircuits.plots`.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from viscircuits.canvas.told import percent
from viscircuits.plots.clusters import ACROSS, MOST, cluster_plate
from viscircuits.plots.plate import Plate, Rgb, Strip, colour_of
from viscircuits.plots.splits import split_page
from viscircuits.report.gathering import Gallery
from viscircuits.subcircuits.polysemantic import Polysemantic
from viscircuits.subcircuits.split import Split

SPLIT_ACROSS = 10
"""Pictures of a set of a split."""


def cluster_map(
    gallery: Gallery, clustering: Polysemantic, channel: int, flat: Float[Tensor, "n 2"], method: str = "pca"
) -> Plate:
    """Returns the page of one channel's clusters, with pictures of the largest ones.

    Args:
        gallery: the pictures that were searched.
        clustering: the clusters of its layer.
        channel: which.
        flat: where each of its top activations lies (`flat_map`).
        method: how the points were placed.
    """
    # the largest clusters come first, and a page holds so many rows
    shown = min(clustering.of(channel).n_clusters, MOST)
    rows = [_cluster(gallery, clustering, channel, number) for number in range(shown)]
    return cluster_plate(clustering, channel, flat, rows, len(gallery.images), method)


def _cluster(gallery: Gallery, clustering: Polysemantic, channel: int, number: int) -> Strip:
    top, labels = clustering.top, clustering.of(channel).labels.tolist()
    ranks = [rank for rank, label in enumerate(labels) if label == number]
    where = [(int(top.images[channel, rank]), top.position(channel, rank)) for rank in ranks[: 2 * ACROSS]]
    high, low = (float(top.values[channel, rank]) for rank in (ranks[0], ranks[-1]))
    return Strip(
        f"cluster {number}: {len(ranks)} pictures", f"activations {high:.3g} to {low:.3g}; the strongest are shown",
        gallery.cut(top.layer, channel, where), colour_of(number),
    )  # fmt: skip


def split_plate(
    division: Split, gallery: Gallery, names: Mapping[int, str] | None = None, renders: Sequence[Rgb] = ()
) -> Plate:
    """Returns the page of a split, with pictures of each set.

    Args:
        division: the split.
        gallery: the pictures that took part.
        names: what the sets are called; "set 0" and so on where not given.
        renders: what the model and each set's circuit look for (`renderings`).
    """
    words = {number: (names or {}).get(number, f"set {number}") for number in division.names}
    parts = division.division
    rows = []
    for s, (number, images) in enumerate(zip(division.names, parts.sets, strict=True)):
        density, off = parts.densities[s], float(parts.differences[s, s])
        note = f"its circuit keeps {percent(density)} of the kernels and is off by {off:.2f} on its own pictures"
        pieces = _strongest_pieces(division, gallery, images)
        rows.append(Strip(f"{words[number]}: {len(images)} pictures", note, pieces, colour_of(s)))
    if renders:
        pieces = _strongest_pieces(division, gallery, torch.arange(len(division.values)))
        rows.append(Strip("the whole model", "its strongest pictures of all sets", pieces))
    return split_page(division, words, rows, renders)


def _strongest_pieces(division: Split, gallery: Gallery, images: Int[Tensor, " m"]) -> list[Rgb]:
    """What the target sees in the pictures, of those given, that excite it most."""
    target = division.target
    best = images[division.values[images].argsort(descending=True, stable=True)][:SPLIT_ACROSS].tolist()
    shape = gallery.graph.output(target.layer).map_shape
    width = shape[-1] if len(shape) == 2 else 1
    # places are flat indices into the map; where there is none, a picture is shown whole
    positions = [divmod(int(division.places[i]), width) if len(shape) == 2 else () for i in best]
    return gallery.cut(target.layer, target.channel, list(zip(best, positions, strict=True)))
