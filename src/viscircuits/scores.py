"""One number a structure, and the exact selection of the best of them.

`Scores` hold sums over images, and how many images. Arithmetic (``tiger - overall``, ``0.7 * a + 0.3 * b``) acts on
per-image means, because sums would be swamped by the larger set. Selection is by rank, never by comparison with a
threshold: ties are broken by layer order, then by flat index, so the same scores give the same circuit everywhere.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from viscircuits import store
from viscircuits.bounds.arguments import check_study, checked
from viscircuits.card import Card, Shown, sized
from viscircuits.errors import MaskError
from viscircuits.mask import Mask, axes_of, by_layer
from viscircuits.model.guard.clean import clean
from viscircuits.store.checks import FLAG, FRACTION, IMAGE, TEXT, Fields, listed, maybe, one_of, optional, whole
from viscircuits.store.kinds import BOOLS, FLOATS, Array, Kind
from viscircuits.types import GRANULARITIES, Granularity

FORMAT = 1
"""Version of the scores file; a file with another number is refused."""

RELEVANT = "relevant/"
"""Prefix of the arrays that say what is relevant, beside the scores of the same layer."""


@dataclass(frozen=True, repr=False)
class Scores(Shown):
    """How much every relevant structure matters to a target.

    Args:
        sums: layer -> score summed over images (0 where a structure is not relevant), in order of execution.
        relevant: layer -> True where a structure has a path to the target; same shapes.
        n_images: number of images summed over; 1 for criteria that look at none, ranks, and results of arithmetic.
        granularity: what one entry stands for.
        criterion: name of the criterion.
        target: text form of the target.
        input_shape: ``(c, h, w)`` of the images.
        density: the only density at which these scores may be selected (FORCE), or None.
        contrast: whether this is a difference; then negative entries count as nothing.
        note: what was done otherwise than the criterion says, because memory was short; empty mostly.
    """

    sums: Mapping[str, Float[Tensor, "..."]]
    relevant: Mapping[str, Bool[Tensor, "..."]]
    n_images: int
    granularity: Granularity
    criterion: str
    target: str
    input_shape: tuple[int, ...]
    density: float | None = None
    contrast: bool = False
    note: str = ""

    def __post_init__(self) -> None:
        # nan would sort anywhere, and differently on each device
        bad = [name for name, array in self.sums.items() if not bool(torch.isfinite(array).all())]
        if bad:
            raise MaskError(f"scores of layer {bad[0]!r} are not finite; look for overflow in the model's activations")

    def _card(self) -> Card:
        every = "any" if self.density is None else f"{self.density:g} alone"
        return Card("Scores", {
            "criterion": self.criterion, "target": self.target, "images": f"{self.n_images:,}",
            f"relevant {self.granularity}s": f"{self.n_relevant:,} in {len(self.sums):,} layers",
            "selects at density": every, "image": sized(self.input_shape),
            "contrast": "what scores below zero counts as nothing" if self.contrast else None,
            "note": self.note or None,
        })  # fmt: skip

    @property
    def means(self) -> dict[str, Float[Tensor, "..."]]:
        """Layer -> score per image."""
        return {name: array / self.n_images for name, array in self.sums.items()}

    @property
    def n_relevant(self) -> int:
        """Number of relevant structures."""
        return sum(int(array.count_nonzero()) for array in self.relevant.values())

    def minmax(self) -> "Scores":
        """Returns the scores scaled to [0, 1] within each layer, over relevant entries (paper 8.5).

        A layer whose relevant entries are all equal becomes all 1. In a contrast, where zero means something, negative
        entries become 0 and the others are divided by the layer's maximum.
        """
        return replace(self._map(_over_maximum if self.contrast else _minmax), n_images=1)

    @checked
    @clean
    def select(
        self,
        *,
        density: float | None = None,
        count: int | None = None,
        cumulative: float | None = None,
        order: Literal["best", "worst"] = "best",
    ) -> Mask:
        """Returns the mask of exactly the best structures.

        Args:
            density: fraction of the relevant structures to keep, in (0, 1]; ``max(1, round(density * relevant))``.
            count: or how many to keep.
            cumulative: or the share of the total score to keep, in (0, 1]; the smallest number that reaches it.
            order: ``"worst"`` takes the lowest scores instead: a control of the same size.

        Raises:
            MaskError: not exactly one of the three given, or out of range; an unknown order; more than the positive
                entries of a contrast; another density than the one these scores were made for.
        """
        if order not in ("best", "worst"):
            raise MaskError(f"unknown order {order!r}; expected 'best' or 'worst'")
        ranked = self._ranked(order)
        k = self._size(ranked, density, count, cumulative)
        positive = int((ranked.values > 0).sum())
        if self.contrast and order == "best" and k > positive:
            raise MaskError(f"asked for {k} structures, but only {positive} score above zero in this contrast")
        best = torch.zeros(len(ranked.values), dtype=torch.bool)
        best[ranked.order[:k]] = True
        zeros = int((ranked.values[ranked.order[:k]] == 0).sum())
        return Mask(by_layer(best, self.relevant), self.relevant, self.granularity, self.input_shape, zeros)

    @checked
    def save(self, path: str | Path, *, study: str = "") -> None:
        """Writes the scores as safetensors with a JSON header, atomically; ``study`` is the hash of theirs."""
        check_study(study)
        header: dict[str, store.Json] = {
            "layers": list(self.sums),
            "n_images": self.n_images,
            "granularity": self.granularity,
            "criterion": self.criterion,
            "target": self.target,
            "input_shape": list(self.input_shape),
            "density": self.density,
            "contrast": self.contrast,
            **({"note": self.note} if self.note else {}),
            **({"study": study} if study else {}),
        }
        tensors = {name: array for name, array in self.sums.items()}
        tensors |= {RELEVANT + name: array for name, array in self.relevant.items()}
        store.save(path, KIND, tensors, header)

    @classmethod
    @checked
    def load(cls, path: str | Path) -> "Scores":
        """Returns scores that `save` wrote; a `StudyError` for any other file."""
        return cls.from_file(*store.load(path, KIND))

    @classmethod
    def from_file(cls, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> "Scores":
        """Returns the scores in what was read of a file of `KIND`."""
        fields = {k: v for k, v in header.items() if k not in ("kind", "format", "layers", "study")}
        sums = {name: tensors[name] for name in header["layers"]}
        relevant = {name: tensors[RELEVANT + name] for name in header["layers"]}
        density = None if fields["density"] is None else float(fields["density"])
        return cls(sums, relevant, **fields | {"input_shape": tuple(fields["input_shape"]), "density": density})

    def __add__(self, other: "Scores") -> "Scores":
        return self._combine(other, torch.add, contrast=self.contrast or other.contrast)

    def __sub__(self, other: "Scores") -> "Scores":
        return self._combine(other, torch.sub, contrast=True)

    def __mul__(self, weight: float) -> "Scores":
        # a negative weight turns the order round, and zero means something from then on
        scaled = {name: weight * mean for name, mean in self.means.items()}
        return replace(self, sums=scaled, n_images=1, contrast=self.contrast or weight < 0)

    __rmul__ = __mul__

    def _combine(self, other: "Scores", operation: Callable[[Tensor, Tensor], Tensor], *, contrast: bool) -> "Scores":
        if self.granularity != other.granularity or self.target != other.target:
            raise MaskError(
                f"scores combine only for one target and granularity: got {self.target!r} ({self.granularity}) and "
                f"{other.target!r} ({other.granularity})"
            )
        if {n: a.shape for n, a in self.sums.items()} != {n: a.shape for n, a in other.sums.items()}:
            raise MaskError("scores combine only for one network: the layers, or their shapes, differ")
        if self.density != other.density:
            raise MaskError(
                f"scores made for one density combine only with their like: got {self.density} and {other.density}"
            )
        # of sums the one over more pictures would decide alone
        mine, theirs = self.means, other.means
        sums = {name: operation(mine[name], theirs[name]) for name in self.sums}
        name = self.criterion if self.criterion == other.criterion else f"{self.criterion}, {other.criterion}"
        return replace(self, sums=sums, n_images=1, criterion=name, contrast=contrast)

    def _map(self, transform: Callable[[Tensor], Tensor]) -> "Scores":
        sums = {}
        # of relevant entries alone: the zeros of all others would be every layer's minimum
        for name, relevant in self.relevant.items():
            sums[name] = torch.zeros_like(self.sums[name])
            sums[name][relevant] = transform(self.sums[name][relevant])
        return replace(self, sums=sums)

    def _ranked(self, order: str) -> "_Ranked":
        values = torch.cat([self.sums[name][relevant] for name, relevant in self.relevant.items()])
        if self.contrast:
            values = values.clamp(min=0)
        # stable: of equal scores the first in order of execution is kept, on every machine
        return _Ranked(values, torch.sort(values, descending=order == "best", stable=True).indices)

    def _size(self, ranked: "_Ranked", density: float | None, count: int | None, cumulative: float | None) -> int:
        if sum(v is not None for v in (density, count, cumulative)) != 1:
            raise MaskError(
                f"give exactly one of density, count and cumulative; got {density=}, {count=}, {cumulative=}"
            )
        if self.density is not None and density != self.density:
            raise MaskError(
                f"{self.criterion} scores were made for density {self.density:g} and select at no other; score again "
                f"at the density you want"
            )
        total = len(ranked.values)
        if count is not None:
            if not 1 <= count <= total:
                raise MaskError(f"count {count} is out of range: the target has {total} relevant {self.granularity}s")
            return count
        share = density if density is not None else cumulative
        assert share is not None
        if not 0 < share <= 1:
            name = "density" if density is not None else "cumulative"
            raise MaskError(f"{name} {share!r} is out of range; expected a fraction in (0, 1], such as 0.1")
        if density is not None:
            return kept_count(density, total)
        # in double precision: over a million small terms a float32 sum stops growing
        mass = ranked.values[ranked.order].double().cumsum(0)
        return min(total, int((mass < share * mass[-1]).sum()) + 1)


def _arrays(fields: Fields, names: Iterable[str]) -> dict[str, Array]:
    arrays = {}
    for name in fields["layers"]:
        axes = axes_of(name, fields["granularity"])
        arrays |= {name: Array(FLOATS, axes), RELEVANT + name: Array(BOOLS, axes)}
    return arrays


KIND = Kind(
    "scores",
    "a scores file",
    {
        "layers": listed(TEXT, distinct=True),
        "n_images": whole(1),
        "granularity": one_of(*GRANULARITIES),
        "criterion": TEXT,
        "target": TEXT,
        "input_shape": IMAGE,
        "density": optional(FRACTION),
        "contrast": FLAG,
        "note": maybe(TEXT),
        "study": maybe(TEXT),
    },
    _arrays,
    (FORMAT,),
)


@dataclass(frozen=True)
class _Ranked:
    values: Tensor
    order: Tensor


def kept_count(density: float, relevant: int) -> int:
    """Returns how many structures a density keeps: ``max(1, round(density * relevant))``, halves to even."""
    # an empty circuit is no circuit, however small the density
    return max(1, round(density * relevant))


def _over_maximum(values: Tensor) -> Tensor:
    positive = values.clamp(min=0)
    return positive / positive.max() if bool((positive > 0).any()) else positive


def _minmax(values: Tensor) -> Tensor:
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if bool(high > low) else torch.ones_like(values)
