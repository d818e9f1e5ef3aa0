"""What the circuits of several features have in common: a shared core, differences, overlaps, groups.

All of it is set algebra of masks (`viscircuits.mask`), so it needs no model. Circuits of different features have
different kernels to choose from; overlaps therefore count only kernels that are relevant to both. As circuits of a high
density overlap anyway, every overlap stands beside the one expected of circuits that choose as many kernels in each
layer at random.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from viscircuits import store
from viscircuits.card import Card, Shown, few
from viscircuits.errors import MaskError
from viscircuits.mask import Mask
from viscircuits.store.checks import TEXT, Fields, listed
from viscircuits.store.kinds import Array, Kind

FORMAT = 1
"""Version of the file; a file with another number is refused."""

WHOLE = ""
"""The name of all layers together."""


def shared_core(masks: Sequence[Mask], at_least: int | None = None) -> Mask:
    """Returns the structures that at least so many of the masks keep; all of them where None.

    Relevant is what is relevant to any.
    """
    needed = len(masks) if at_least is None else at_least
    if not masks or not 1 <= needed <= len(masks):
        raise MaskError(f"expected a number from 1 to the number of circuits, {len(masks)}; got {at_least}")
    union = masks[0]
    for mask in masks[1:]:
        union = union | mask
    counts = {name: torch.zeros(kept.shape, dtype=torch.int64) for name, kept in union.kept.items()}
    for mask in masks:
        for name, kept in mask.kept.items():
            counts[name] += kept
    kept = {name: count >= needed for name, count in counts.items()}
    return Mask(kept, union.relevant, union.granularity, union.input_shape)


@dataclass(frozen=True, repr=False)
class Difference(Shown):
    """Two circuits taken apart.

    Args:
        both: what both keep.
        first: what only the first keeps.
        second: what only the second keeps.
    """

    both: Mask
    first: Mask
    second: Mask

    def _card(self) -> Card:
        facts = {"in both": self.both.n_kept, "only in the first": self.first.n_kept}
        return Card("Difference", {**facts, "only in the second": self.second.n_kept, "IoU": f"{self.iou:.3f}"})

    @property
    def iou(self) -> float:
        """Intersection over union; two empty circuits agree fully."""
        union = self.both.n_kept + self.first.n_kept + self.second.n_kept
        return self.both.n_kept / union if union else 1.0

    @property
    def counts(self) -> dict[str, tuple[int, int, int]]:
        """Layer -> (in both, only in the first, only in the second)."""
        parts = (self.both, self.first, self.second)
        counts = {}
        for name in self.both.kept:
            both, first, second = (int(part.kept[name].sum()) for part in parts)
            counts[name] = (both, first, second)
        return counts


def difference(first: Mask, second: Mask) -> Difference:
    """Returns two circuits taken apart: what they share, and what each has alone."""
    return Difference(first & second, first - second, second - first)


@dataclass(frozen=True, repr=False)
class Overlaps(Shown):
    """How much the circuits of several features overlap, layer by layer and as a whole (`WHOLE`).

    Args:
        names: of the circuits.
        iou: layer -> circuit x circuit: intersection over union of what is kept among what is relevant to both; nan
            where neither keeps any of it, or nothing is relevant to both.
        chance: the same expected of circuits that keep as many structures in each layer, chosen at random: expected
            intersection over expected union.
    """

    names: tuple[str, ...]
    iou: Mapping[str, Float[Tensor, "k k"]]
    chance: Mapping[str, Float[Tensor, "k k"]]

    def _card(self) -> Card:
        overlap, by_chance = self.mean()
        return Card("Overlaps", {
            "circuits": f"{len(self.names):,} ({few(self.names)})", "mean IoU": f"{overlap:.3f}",
            "by chance": f"{by_chance:.3f}", "layers": f"{len(self.iou.keys() - {WHOLE}):,}",
        })  # fmt: skip

    def mean(self, layer: str = WHOLE) -> tuple[float, float]:
        """Returns the mean overlap over pairs, and that by chance; nan where no pair has one."""
        rows, columns = torch.triu_indices(len(self.names), len(self.names), 1)
        pairs = (array[layer][rows, columns] for array in (self.iou, self.chance))
        own, random = (values[~values.isnan()] for values in pairs)
        return float(own.mean()), float(random.mean())

    def linkage(self, layer: str = WHOLE) -> Float[Tensor, "joins 4"]:
        """Returns the average-linkage tree of the circuits: each row joins two groups at a distance of 1 - IoU.

        The form is scipy's: ``(one, other, distance, size)``, groups numbered from the number of circuits up. Circuits
        with no overlap to speak of (nan) are at distance 1.
        """
        from scipy.cluster.hierarchy import linkage
        from scipy.spatial.distance import squareform

        if len(self.names) < 2:
            raise MaskError("a tree needs at least two circuits")
        # the diagonal by hand: a circuit that is empty in a layer has no overlap even with itself
        distances = (1 - self.iou[layer].nan_to_num(0)).fill_diagonal_(0)
        return torch.from_numpy(linkage(squareform(distances.numpy()), "average", optimal_ordering=True))

    def order(self, layer: str = WHOLE) -> tuple[int, ...]:
        """Returns the circuits in the order of the tree's leaves: neighbours overlap."""
        from scipy.cluster.hierarchy import leaves_list

        return tuple(leaves_list(self.linkage(layer).numpy()).tolist())

    def groups(self, iou: float, layer: str = WHOLE) -> tuple[tuple[int, ...], ...]:
        """Returns the groups of circuits whose mean overlap is at least ``iou``, largest first."""
        from scipy.cluster.hierarchy import fcluster

        labels = fcluster(self.linkage(layer).numpy(), 1 - iou, "distance")
        groups = [tuple((torch.from_numpy(labels) == label).nonzero()[:, 0].tolist()) for label in sorted(set(labels))]
        return tuple(sorted(groups, key=lambda group: (-len(group), group)))

    def save(self, path: str | Path) -> None:
        """Writes the matrices as safetensors with a JSON header, atomically."""
        names: list[store.Json] = list(self.names)
        layers: list[store.Json] = list(self.iou)
        header: dict[str, store.Json] = {"names": names, "layers": layers}
        tensors = {f"iou/{name}": array for name, array in self.iou.items()}
        tensors |= {f"chance/{name}": array for name, array in self.chance.items()}
        store.save(path, _KIND, tensors, header)

    @classmethod
    def load(cls, path: str | Path) -> "Overlaps":
        """Returns matrices that `save` wrote; a `StudyError` for any other file."""
        tensors, header = store.load(path, _KIND)
        iou = {name: tensors[f"iou/{name}"] for name in header["layers"]}
        chance = {name: tensors[f"chance/{name}"] for name in header["layers"]}
        return cls(tuple(header["names"]), iou, chance)


def _arrays(fields: Fields, names: Iterable[str]) -> dict[str, Array]:
    k = len(fields["names"])
    array = Array((torch.float64,), (k, k), 0.0, 1 + 1e-9, nan=True)
    return {f"{what}/{layer}": array for layer in fields["layers"] for what in ("iou", "chance")}


_KIND = Kind(
    "overlaps",
    "a file of overlaps",
    {"names": listed(TEXT, 1, distinct=True), "layers": listed(TEXT, distinct=True)},
    _arrays,
    (FORMAT,),
)


def overlaps(masks: Mapping[str, Mask]) -> Overlaps:
    """Returns how much several circuits overlap, given by name."""
    if len({mask.granularity for mask in masks.values()}) != 1:
        raise MaskError(f"expected circuits of one granularity, got {[m.granularity for m in masks.values()]}")
    layers = list(dict.fromkeys(name for mask in masks.values() for name in mask.kept))
    parts = {name: _layer(list(masks.values()), name) for name in layers}
    # counts are added up before they are divided: a mean over layers would weigh small ones like large ones
    total = sum(parts.values(), torch.zeros(4, len(masks), len(masks), dtype=torch.float64))
    parts = {WHOLE: total, **parts}
    iou = {name: both / either for name, (both, either, _, _) in parts.items()}
    chance = {name: both / either for name, (_, _, both, either) in parts.items()}
    return Overlaps(tuple(masks), iou, chance)


def _layer(masks: Sequence[Mask], name: str) -> Float[Tensor, "four k k"]:
    """Intersection and union of every pair in a layer, then both as expected of random choices."""
    shape = next(mask.kept[name].shape for mask in masks if name in mask.kept)
    none = torch.zeros(shape, dtype=torch.bool)
    if any(mask.kept.get(name, none).shape != shape for mask in masks):
        raise MaskError(f"circuits of different networks: layer {name!r} has another shape in each")
    kept = torch.stack([mask.kept.get(name, none).flatten() for mask in masks]).double()
    relevant = torch.stack([mask.relevant.get(name, none).flatten() for mask in masks]).double()
    # in double precision products of zeros and ones count exactly, far beyond any number of kernels
    both, common = kept @ kept.T, relevant @ relevant.T
    mine = kept @ relevant.T  # [a, b]: what a keeps of what is relevant to b, and so to both
    expected = (mine * mine.T / common).nan_to_num(0)
    return torch.stack([both, mine + mine.T - both, expected, mine + mine.T - expected])
