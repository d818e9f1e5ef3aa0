"""How the pictures that excite a channel fall into groups: a map of the layer's answers, and the groups' pictures."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from viscircuits.plots.plate import FAINT, MUTED, Plate, Strip, colour_of
from viscircuits.plots.sheets import all_ranked
from viscircuits.plots.style import drawing
from viscircuits.subcircuits.polysemantic import NOISE, Polysemantic

ACROSS = 8
"""Pictures of a cluster."""

MOST = 4
"""Clusters whose pictures are shown."""

_MAP, _SIDE, _ROW = 3.9, 0.82, 1.36


def cluster_plate(
    clustering: Polysemantic,
    channel: int,
    flat: Float[Tensor, "n 2"],
    rows: Sequence[Strip],
    n_images: int,
    method: str = "pca",
) -> Plate:
    """Returns a page of one channel: its exciting pictures as points, coloured by cluster, and the clusters' pictures.

    Args:
        clustering: the clusters of its layer.
        channel: which.
        flat: where each of its top activations lies (`flat_map`).
        rows: the pictures of its clusters, the largest cluster first.
        n_images: how many pictures were searched.
        method: how the points were placed.
    """
    clusters, top = clustering.of(channel), clustering.top
    labels = clusters.labels.tolist()
    # with few clusters there is room for twice as many pictures of each
    lines = 2 if len(rows) <= 2 else 1
    high = _ROW + (lines - 1) * (_SIDE + 0.06)
    plate = Plate(0.4 + _MAP + 0.35 + ACROSS * (_SIDE + 0.06) + 0.1, max(_MAP + 1.35, 0.95 + len(rows) * high))
    plate.text(0.3, 0.18, f"{top.layer}:{channel}", size=13, weight="bold")
    whole = all_ranked(top.n, n_images)
    said = (
        f"its {top.n} most exciting pictures{f' ({whole})' if whole else ''}: {clusters.share:.0%} in "
        f"{clusters.n_clusters} clusters, silhouette {clusters.silhouette:.2f}"
    )
    plate.text(0.3, 0.45, said, size=9, colour=MUTED)
    _points(plate, labels, flat)
    said = f"each point: the whole layer's answer to one picture ({method.upper()})"
    plate.text(0.3, 0.9 + _MAP, said, size=8.5, colour=MUTED)
    for number, row in enumerate(rows):
        plate.strip(row, 0.3 + _MAP + 0.4, 0.82 + number * high, _SIDE, across=ACROSS, lines=lines)
    return plate


@drawing
def _points(plate: Plate, labels: Sequence[int], flat: Float[Tensor, "n 2"]) -> None:
    axes = plate.axes(0.3, 0.8, _MAP, _MAP)
    for number in sorted(set(labels)):  # those in no cluster first, below the others
        own = flat[[i for i, label in enumerate(labels) if label == number]]
        axes.scatter(
            own[:, 0].tolist(), own[:, 1].tolist(), s=14 if number == NOISE else 26, c=colour_of(number),
            edgecolors="white", linewidths=0.5, zorder=2 + number,
        )  # fmt: skip
    axes.set(xticks=[], yticks=[])
    axes.margins(0.05)
    # no ticks: directions of a projection have no unit, and only distances mean something
    axes.set_facecolor("#fafbfc")
    for spine in axes.spines.values():
        spine.set(visible=True, color=FAINT)
