"""Which channels answer to images of several kinds: their most exciting images fall into clusters.

Source: circuit pruning, section 8.9, and VISCNN, section 4.2: the layer's population vectors at a channel's highest
activations, one an image, clustered with HDBSCAN. Where they fall into groups, the layer tells the groups apart and the
channel does not.

Differs: 1. only activations above zero count as exciting. 2. Channels are ranked: the papers looked at those that had
clusters. The clustering is that of the reference implementation, whose ``min_samples`` does not count the point itself;
scikit-learn's does.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from viscircuits import store
from viscircuits.activations.top import FIELDS, TopActivations, arrays, population
from viscircuits.bounds.arguments import checked
from viscircuits.card import Card, Shown, few
from viscircuits.data.images import ImageSet
from viscircuits.errors import ImageError, MaskError, ViscircuitsError
from viscircuits.store.checks import Fields, listed, whole
from viscircuits.store.kinds import INTS, Array, Kind
from viscircuits.types import Progress

FORMAT = 1
"""Version of the file; a file with another number is refused."""

NOISE = -1
"""The label of an activation in no cluster."""

MEMORY = 2**29
"""Bytes of population vectors held at a time."""


@dataclass(frozen=True, repr=False)
class Clusters(Shown):
    """How the top activations of one channel fall into groups.

    Args:
        channel: whose.
        labels: of each of the channel's top activations, in their order: the cluster, or `NOISE`; the largest cluster
            is 0.
        silhouette: mean silhouette of the clustered ones, in [-1, 1]; 0 without clusters.
    """

    channel: int
    labels: Int[Tensor, " n"]
    silhouette: float

    def _card(self) -> Card:
        return Card("Clusters", {
            "channel": self.channel, "clusters": f"{self.n_clusters} of {few(self.sizes)} activations",
            "in a cluster": f"{self.share:.0%} of {len(self.labels):,}", "silhouette": f"{self.silhouette:.3f}",
            "separation": f"{self.separation:.3f}",
        })  # fmt: skip

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of activations in each cluster, largest first."""
        return tuple(torch.bincount(self.labels[self.labels != NOISE]).tolist())

    @property
    def n_clusters(self) -> int:
        """Number of clusters: 0, or at least 2."""
        return len(self.sizes)

    @property
    def share(self) -> float:
        """Fraction of the top activations that are in a cluster, in [0, 1]."""
        return sum(self.sizes) / len(self.labels)

    @property
    def separation(self) -> float:
        """Silhouette times share: how well, and how much of, the activations split; 0 without clusters."""
        return self.silhouette * self.share


@dataclass(frozen=True, repr=False)
class Polysemantic(Shown):
    """The channels of a layer, the one whose exciting images split best first.

    Args:
        top: the activations that were clustered.
        channels: every channel's clusters, by descending separation, then by channel.
        min_cluster_size: the smallest group that counts.
    """

    top: TopActivations
    channels: tuple[Clusters, ...]
    min_cluster_size: int

    def _card(self) -> Card:
        best = [f"{one.channel} ({one.separation:.2f})" for one in self.channels[:4] if one.n_clusters]
        return Card("Polysemantic", {
            "layer": self.top.layer, "channels": f"{len(self.channels):,}, {self.top.n:,} activations each",
            "in clusters": sum(one.n_clusters > 0 for one in self.channels), "best separated": few(best),
            "least of a cluster": self.min_cluster_size, "images of hash": self.top.source,
        })  # fmt: skip

    def of(self, channel: int) -> Clusters:
        """Returns one channel's clusters."""
        return next(clusters for clusters in self.channels if clusters.channel == channel)

    def labelled(self, channel: int, images: ImageSet) -> tuple[ImageSet, tuple[int, ...], Int[Tensor, " n"]]:
        """Returns a channel's exciting images, each one's cluster, and its place on the map: what `split` takes."""
        chosen = self.top.images[channel].tolist()
        return images.subset(chosen), tuple(self.of(channel).labels.tolist()), self.top.places[channel]

    def save(self, path: str | Path) -> None:
        """Writes clusters and activations as safetensors with a JSON header, atomically."""
        order: list[store.Json] = [clusters.channel for clusters in self.channels]
        header: dict[str, store.Json] = {
            "layer": self.top.layer,
            "map_shape": list(self.top.map_shape),
            "source": self.top.source,
            "min_cluster_size": self.min_cluster_size,
            "order": order,
        }
        tensors = {name: getattr(self.top, name) for name in ("values", "images", "places")}
        tensors["labels"] = torch.stack([clusters.labels for clusters in self.channels])
        tensors["silhouettes"] = torch.tensor([clusters.silhouette for clusters in self.channels], dtype=torch.float64)
        store.save(path, _KIND, tensors, header)

    @classmethod
    def load(cls, path: str | Path) -> "Polysemantic":
        """Returns what `save` wrote; a `StudyError` for any other file."""
        tensors, header = store.load(path, _KIND)
        labels, silhouettes = tensors.pop("labels"), tensors.pop("silhouettes").tolist()
        top = TopActivations(header["layer"], tuple(header["map_shape"]), **tensors, source=header["source"])
        channels = map(Clusters, header["order"], labels, silhouettes)
        return cls(top, tuple(channels), header["min_cluster_size"])


def _arrays(fields: Fields, names: Iterable[str]) -> dict[str, Array]:
    return {
        **arrays(fields),
        "labels": Array(INTS, ("channels", "ranks"), float(NOISE)),
        "silhouettes": Array((torch.float64,), ("channels",), -1.0, 1.0),
    }


def _fits(fields: Fields, tensors: Mapping[str, Tensor]) -> str:
    channels, ranks = tensors["labels"].shape
    if sorted(fields["order"]) != list(range(channels)):
        return f"its order is none of {channels} channels"
    return "" if bool((tensors["labels"] < ranks).all()) else "a label is that of no cluster"


_KIND = Kind(
    "polysemantic channels",
    "a file of polysemantic channels",
    {**FIELDS, "min_cluster_size": whole(2), "order": listed(whole())},
    _arrays,
    (FORMAT,),
    _fits,
)


@checked
def polysemantic(
    model: nn.Module,
    top: TopActivations,
    images: ImageSet,
    *,
    min_cluster_size: int = 10,
    memory: int = MEMORY,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> Polysemantic:
    """Returns the channels of a layer, ranked by how well their most exciting images split.

    Args:
        model: the network that ``top`` was found in.
        top: the highest activations of the layer (`top_activations`); the paper takes 300 of 1.3 million images.
        images: the same pictures.
        min_cluster_size: the smallest group that counts, at least 2; the papers take 10 and 20.
        memory: bytes of population vectors held at a time; where a layer has more, the images are run several times.
        batch_size: pictures at a time; changes no result beyond rounding.
        progress: called as the work goes on.
    """
    if min_cluster_size < 2:
        raise MaskError(f"min_cluster_size {min_cluster_size} is out of range; a cluster has at least 2 images")
    if top.n < 2 * min_cluster_size:
        raise ImageError(
            f"{top.n} activations a channel cannot hold two clusters of {min_cluster_size}; take more images, more "
            f"activations a channel, or a smaller min_cluster_size"
        )
    # vectors of a few channels at a time: all of them would take ranks x channels x channels numbers
    block = max(1, memory // (4 * top.n * top.n_channels))
    ranked: list[Clusters] = []
    for start in range(0, top.n_channels, block):
        some = range(start, min(start + block, top.n_channels))
        vectors = population(model, top, images, some, batch_size=batch_size, progress=progress)
        for channel, own in zip(some, vectors, strict=True):
            ranked.append(cluster(own, top.values[channel] > 0, channel, min_cluster_size))
            if progress is not None:
                progress("clustering", channel + 1, top.n_channels)
    ranked.sort(key=lambda clusters: (-clusters.separation, clusters.channel))
    return Polysemantic(top, tuple(ranked), min_cluster_size)


def cluster(vectors: Float[Tensor, "n c"], exciting: Tensor, channel: int = 0, min_cluster_size: int = 10) -> Clusters:
    """Returns the groups of some population vectors; those not exciting are noise.

    Args:
        vectors: one a top activation.
        exciting: which of them count.
        channel: whose activations they are.
        min_cluster_size: the smallest group that counts.
    """
    labels = torch.full((len(vectors),), NOISE)
    points = vectors[exciting].double().numpy()
    if len(points) < 2 * min_cluster_size:
        return Clusters(channel, labels, 0.0)
    from sklearn.cluster import HDBSCAN
    from sklearn.metrics import silhouette_score

    # scikit-learn counts the point itself among min_samples, the reference implementation does not
    method = HDBSCAN(
        min_cluster_size=min_cluster_size, min_samples=min_cluster_size + 1, algorithm="kd_tree",
        copy=True,  # pyright: ignore[reportArgumentType] (scikit-learn's warning asks for it)
    )  # fmt: skip
    numbers = _by_size(method.fit_predict(points).tolist())
    labels[exciting] = numbers
    inside = numbers != NOISE
    if not bool(inside.any()):
        return Clusters(channel, labels, 0.0)
    return Clusters(channel, labels, float(silhouette_score(points[inside.numpy()], numbers[inside].numpy())))


def _by_size(labels: Sequence[int]) -> Int[Tensor, " n"]:
    """Clusters numbered by size, equal ones by their first member; whatever is in none is noise."""
    clusters = sorted(set(labels) - {NOISE}, key=lambda label: (-labels.count(label), labels.index(label)))
    # HDBSCAN numbers clusters as it finds them
    number = {label: i for i, label in enumerate(clusters)}
    return torch.tensor([number.get(label, NOISE) for label in labels])


@checked
def flat_map(vectors: Float[Tensor, "n c"], method: str = "pca", seed: int = 0) -> Float[Tensor, "n 2"]:
    """Returns two coordinates a vector, for a picture of how they lie.

    Args:
        vectors: population vectors of a channel's top activations.
        method: "pca" (the two directions of largest variance, each pointing to its largest coefficient), or "umap",
            which needs umap-learn.
        seed: of umap.
    """
    if method == "umap":
        return _umap(vectors, seed)
    if method != "pca":
        raise MaskError(f"unknown method {method!r}; expected 'pca' or 'umap'")
    centred = vectors.double() - vectors.double().mean(0)
    axes = torch.linalg.svd(centred, full_matrices=False).Vh[:2]
    # an axis of a decomposition may point either way; so maps would differ between machines
    signs = axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
    flat = (centred @ (axes * signs).T).to(vectors.dtype)
    return torch.nn.functional.pad(flat, (0, 2 - flat.shape[1]))


def _umap(vectors: Float[Tensor, "n c"], seed: int) -> Float[Tensor, "n 2"]:
    try:
        from umap import UMAP  # pyright: ignore[reportMissingImports] (an extra)
    except ImportError:
        raise ViscircuitsError(
            "method 'umap' needs umap-learn: pip install 'viscircuits[umap]', or take 'pca'"
        ) from None
    flat = UMAP(random_state=seed, n_jobs=1).fit_transform(vectors.numpy())
    return torch.from_numpy(flat).to(vectors.dtype)
