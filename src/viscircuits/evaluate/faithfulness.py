"""Faithfulness both ways: a circuit alone, and the model without it; what each kept structure is worth; intervals.

A circuit may keep a response that the rest of the network can make as well. *Alone* asks whether the circuit suffices:
everything else is removed. *Without* asks whether it is needed: the circuit is removed and everything else stays (the
complement of the mask among what is relevant). Both are |r| with the full model's responses, over the same images. A
faithful circuit has a high curve alone and a low one without; random circuits that keep as many structures in each
layer are the control.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from viscircuits.bounds.arguments import checked
from viscircuits.card import Card, Shown, few
from viscircuits.circuit.circuit import Circuit
from viscircuits.data.images import ImageSet, as_images
from viscircuits.errors import MaskError
from viscircuits.evaluate.interval import Interval, bootstrap
from viscircuits.evaluate.preservation import Preservation, Reference, reference
from viscircuits.execution.together import AT_ONCE, respond_all
from viscircuits.mask import Mask
from viscircuits.model.guard.clean import clean
from viscircuits.store.checks import shown
from viscircuits.types import Progress

_CURVES = ("alone", "without", "random_alone", "random_without")


@dataclass(frozen=True, repr=False)
class Faithful(Shown):
    """One circuit both ways.

    Attributes:
        density: kept over relevant structures.
        alone, without: the circuit by itself; the model with the circuit removed.
        alone_interval, without_interval: bootstrap intervals of their |r| over images.
        random_alone, random_without: |r| of the control: mean over random circuits with the same counts by layer.
    """

    density: float
    alone: Preservation
    without: Preservation
    alone_interval: Interval
    without_interval: Interval
    random_alone: float
    random_without: float

    def _card(self) -> Card:
        one, other = self.alone_interval, self.without_interval
        return Card("Faithful", {
            "density": f"{self.density:.4g}",
            "|r| alone": f"{self.alone.pearson:.3f} ({one.low:.3f} to {one.high:.3f})",
            "|r| of the model without it": f"{self.without.pearson:.3f} ({other.low:.3f} to {other.high:.3f})",
            "random alone": f"{self.random_alone:.3f}", "random without": f"{self.random_without:.3f}",
        })  # fmt: skip


@dataclass(frozen=True, repr=False)
class Faithfulness(Shown):
    """Circuits of one target at several densities, both ways.

    Args:
        target: text form of the target.
        granularity: what densities count.
        points: one a circuit, densities rising.
        n_random: how many random circuits stand behind each point of the control.
        kind: what the circuits are besides their masks (see `Circuit.kind`).
    """

    target: str
    granularity: str
    points: tuple[Faithful, ...]
    n_random: int
    kind: str

    def _card(self) -> Card:
        densities = [f"{point.density:.4g}" for point in self.points]
        return Card("Faithfulness", {
            "target": self.target, "circuits": f"{len(densities):,}, {self.kind}",
            f"densities in {self.granularity}s": few(densities, 8),
            "|r| alone": few([f"{r:.3f}" for r in self.curve("alone")], 8),
            "|r| without": few([f"{r:.3f}" for r in self.curve("without")], 8),
            "random circuits a point": self.n_random,
        })  # fmt: skip

    @checked
    def curve(self, name: str) -> list[float]:
        """Returns |r| by density of "alone", "without", "random_alone" or "random_without"."""
        if name not in _CURVES:
            raise MaskError(f"unknown curve {shown(name)}; expected one of {', '.join(_CURVES)}")
        values = [getattr(point, name) for point in self.points]
        return [value.pearson if isinstance(value, Preservation) else value for value in values]

    @checked
    def area(self, name: str) -> float:
        """Returns the normalised area under a curve, in [0, 1]: its mean over the logarithm of the density.

        ``sum over neighbours of (y[i] + y[i + 1]) / 2 * ln(d[i + 1] / d[i])``, over ``ln(d[last] / d[first])``; the
        trapezoid rule. One point is its own mean. Only areas over the same densities compare.
        """
        # over the logarithm, because densities are asked for by halves and tenths, not in equal steps
        y, d = self.curve(name), [point.density for point in self.points]
        if d[0] == d[-1]:
            return y[0]
        parts = [(y[i] + y[i + 1]) / 2 * math.log(d[i + 1] / d[i]) for i in range(len(d) - 1)]
        return sum(parts) / math.log(d[-1] / d[0])


@checked
def faithfulness(
    circuits: Sequence[Circuit],
    images: ImageSet | Tensor,
    *,
    n_random: int = 3,
    resamples: int = 1000,
    seed: int = 0,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> Faithfulness:
    """Returns how faithful circuits are, both ways, beside random circuits of the same size.

    Args:
        circuits: circuits of one model and target, of any densities above 0.
        images: pictures that were not scored on.
        n_random: random circuits for the control of each.
        resamples: for the intervals (see `bootstrap`).
        seed: of random circuits and resamples.
        batch_size: pictures at a time.
        progress: called with how many of all circuits are measured.

    Raises:
        MaskError: no circuit, circuits of several targets, or an empty one.
    """
    images = as_images(images)
    if len({(id(c.model), str(c.target), c.mask.granularity, c.kind) for c in circuits}) != 1:
        raise MaskError("expected circuits of one model, target, granularity and kind; measure each by itself")
    if not all(c.mask.n_kept for c in circuits):
        raise MaskError("expected circuits that keep something, got an empty one")
    ordered = sorted(circuits, key=lambda circuit: circuit.mask.density)
    full = reference(ordered[0], images, batch_size=batch_size)
    tried: list[Circuit] = []
    for circuit in ordered:
        # controls have the circuit's counts in each layer: a random one over all layers is often disconnected
        drawn = [random_like(circuit.mask, seed + i) for i in range(n_random)]
        alone = [circuit, *(_masked(circuit, mask) for mask in drawn)]
        tried += [*alone, *(_masked(circuit, ~c.mask) for c in alone)]
    measured = _measured(tried, images, full, batch_size, progress)
    step = 2 * (n_random + 1)
    points = []
    for start, circuit in zip(range(0, len(tried), step), ordered, strict=True):
        alone, without = (measured[start + i : start + i + n_random + 1] for i in (0, n_random + 1))
        points.append(
            Faithful(
                circuit.mask.density, alone[0][1], without[0][1],
                bootstrap(full.response.values, alone[0][0], resamples=resamples, seed=seed),
                bootstrap(full.response.values, without[0][0], resamples=resamples, seed=seed),
                _mean([kept.pearson for _, kept in alone[1:]]), _mean([kept.pearson for _, kept in without[1:]]),
            )
        )  # fmt: skip
    first = ordered[0]
    return Faithfulness(str(first.target), first.mask.granularity, tuple(points), n_random, first.kind)


@dataclass(frozen=True, repr=False)
class Minimality(Shown):
    """What every kept structure of a circuit is worth by itself.

    Attributes:
        pearson: |r| of the circuit.
        structures: ``(layer, index)`` of what was left out, one at a time; as many as were tried.
        damage: |r| lost by leaving each out; below zero where the circuit is better without it.
        n_kept: how many structures the circuit keeps.
    """

    pearson: float
    structures: tuple[tuple[str, tuple[int, ...]], ...]
    damage: tuple[float, ...]
    n_kept: int

    def _card(self) -> Card:
        worst = max(range(len(self.damage)), key=self.damage.__getitem__)
        layer, index = self.structures[worst]
        return Card("Minimality", {
            "|r|": f"{self.pearson:.4f}", "tried": f"{len(self.damage):,} of {self.n_kept:,} kept structures",
            "needless": f"{self.needless():.0%}",
            "worth most": f"{layer} {list(index)}, {self.damage[worst]:.4f} of |r|",
        })  # fmt: skip

    @checked
    def needless(self, tolerance: float = 0.001) -> float:
        """Returns the share of the tried structures that cost at most ``tolerance`` of |r| when left out."""
        return sum(damage <= tolerance for damage in self.damage) / len(self.damage)


@checked
@clean
def minimality(
    circuit: Circuit,
    images: ImageSet | Tensor,
    *,
    at_most: int = 200,
    seed: int = 0,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> Minimality:
    """Returns the leave-one-out damage of the structures that a circuit keeps.

    Args:
        circuit: a small circuit; every structure costs one run of it.
        images: pictures that were not scored on.
        at_most: how many structures to try, drawn by the seed where the circuit keeps more.
        seed: of that draw.
        batch_size: pictures at a time.
        progress: called with how many circuits are measured.

    Raises:
        MaskError: the circuit keeps nothing, or is compensated, which holds for its own mask alone.
    """
    images = as_images(images)
    if circuit.compensation is not None or not circuit.mask.n_kept:
        raise MaskError(f"expected a circuit that keeps something and is not compensated, got a {circuit.kind} circuit "
                        f"of {circuit.mask.n_kept} {circuit.mask.granularity}s")  # fmt: skip
    kept = [(name, tuple(i)) for name, array in circuit.mask.kept.items() for i in array.nonzero().tolist()]
    order = torch.randperm(len(kept), generator=torch.Generator().manual_seed(seed))[:at_most].sort().values
    structures = [kept[i] for i in order.tolist()]
    full = reference(circuit, images, batch_size=batch_size)
    tried = [circuit, *(_masked(circuit, _left_out(circuit.mask, *one)) for one in structures)]
    whole, *rest = (kept.pearson for _, kept in _measured(tried, images, full, batch_size, progress))
    return Minimality(whole, tuple(structures), tuple(whole - r for r in rest), len(kept))


def random_like(mask: Mask, seed: int) -> Mask:
    """Returns a random mask that keeps as many of the relevant structures of each layer."""
    generator = torch.Generator().manual_seed(seed)
    kept = {}
    for name, relevant in mask.relevant.items():
        places = relevant.flatten().nonzero()[:, 0]
        count = int(mask.kept[name].sum())
        drawn = places[torch.randperm(len(places), generator=generator)[:count]]
        kept[name] = torch.zeros(relevant.numel(), dtype=torch.bool).index_fill(0, drawn, True).view(relevant.shape)
    return replace(mask, kept=kept, zero_scores=0)


def _masked(circuit: Circuit, mask: Mask) -> Circuit:
    """A circuit of another mask; compensated, where the first is, is not carried over."""
    # means and scales were made for one mask, and would be wrong for any other
    return replace(circuit, mask=mask, compensation=None)


def _left_out(mask: Mask, layer: str, index: tuple[int, ...]) -> Mask:
    kept = mask.kept[layer].clone()
    kept[index] = False
    return replace(mask, kept={**mask.kept, layer: kept}, zero_scores=0)


def _measured(
    circuits: Sequence[Circuit],
    images: ImageSet,
    full: Reference,
    batch_size: int,
    progress: Callable[[str, int, int], None] | None,
) -> list[tuple[Tensor, Preservation]]:
    pairs: list[tuple[Tensor, Preservation]] = []
    for start in range(0, len(circuits), AT_ONCE):
        some = circuits[start : start + AT_ONCE]

        def still(what: str, done: int, total: int, ready: int = len(pairs)) -> None:  # it may end the call
            if progress is not None:
                progress("circuits", ready, len(circuits))

        frozen = full.response.frozen
        values = respond_all(
            [one.execution for one in some], images, frozen=frozen, batch_size=batch_size, progress=still
        )
        pairs += [(v, full.compare(v, disconnected=c.disconnected)) for c, v in zip(some, values, strict=True)]
        if progress is not None:
            progress("circuits", len(pairs), len(circuits))
    return pairs


def _mean(values: Sequence[float]) -> float:
    # without controls there is nothing to compare with, which 0 would hide
    return sum(values) / len(values) if values else math.nan
