"""Reconstruct: kernels kept so that, in each layer, what is removed cancels.

Source: our own. To second order, and with a layer's inputs taken as independent of the gradients behind it (the form of
K-FAC, Martens and Grosse 2015), removing the kernels ``R`` of a layer costs

    cost(R) = sum over pairs (f, i), (f', j) in R of  H[f, f'] * w[f, i]' C[i, j] w[f', j]

in squares of the target's response. ``C`` are the second moments of what the layer gets, nearly about the mean; ``H``
those of the target's gradient at what it puts out, without a part of what filters share (`MEAN`, `DIAGONAL`). This
is optimal brain surgery (Hassibi and Stork 1993) without surgery: what is kept keeps its weights.

In each layer the cheapest kernel goes, again and again, and the slopes of that cost curve's hull are the scores. They
are comparable between layers, so one threshold serves all, and kernels count when they lie on a path from the image to
the target. In rounds, the cost is measured again under ever smaller masks, with the moments of the full and of the
masked network pooled: gradients far from the full network are not the full network's.

What it cannot see: that one layer's choice spoils another's (of two copies of a branch it may keep half of each);
effects beyond second order; inputs and gradients that are large at the same places. The circuits' responses are too
small, the more so the sparser they are: nothing makes up for what is removed.

What was no better in trials: cross moments of the full and the masked inputs; weights by position; forward selection;
budgets from the target backwards; costs as shares of each layer's own, or their logarithms; moments of the masked
network alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from viscircuits.bounds.ranges import within
from viscircuits.errors import MaskError, TargetError
from viscircuits.mask import Mask, by_layer
from viscircuits.model.guard.replica import like
from viscircuits.saliency.engine.joint.blocks import by_filter, input_blocks, matrix_bytes
from viscircuits.saliency.engine.joint.elimination import Layer, eliminated
from viscircuits.saliency.engine.joint.moments import Moments, moments
from viscircuits.saliency.engine.joint.paths import Ranking
from viscircuits.saliency.engine.passes import Pass
from viscircuits.saliency.engine.plan import plan
from viscircuits.saliency.engine.rounds import schedule
from viscircuits.scores import Scores, kept_count

POSITIONS = 40
TOGETHER = 20_000
"""Places an image and layer, and in all images together at least: few images need more of each."""

MEAN = 0.1
"""Of the squared mean of what is removed, so much counts: a shift of the response is cheap, and not free."""

DIAGONAL = 0.3
"""What two filters' gradients share is believed less by so much: it is measured on few images."""

LEAST = 0.02
"""The density at which the rounds end, unless told otherwise."""


def reconstruct(
    job: Pass,
    *,
    rounds: int = 1,
    positions: int | None = None,
    mean: float = MEAN,
    block: int = 1,
    density: float | None = None,
    seed: int = 0,
    normalise: Literal["minmax"] | None = None,
) -> list[Scores]:
    """Returns, per target, one minus the rank over the number of kernels: of each size the first are the circuit.

    Args:
        job: the model, the targets, the pictures; of kernels.
        rounds: times that the cost is measured; after each all but the kernels of the next smaller mask are given up.
            The masks' sizes fall by equal factors (`viscircuits.saliency.engine.rounds.schedule`).
        positions: places at which moments are measured, an image and layer; `POSITIONS` where None, and more where
            there are few images (`TOGETHER`).
        mean: how much of the squared mean of what is removed counts, in [0, 1]: 0 where the response may shift, 1 where
            its size is what matters, as for pictures that all excite the target alike.
        block: kernels that go before the cost of the others follows; more are faster, and worse.
        density: where the rounds end, in (0, 1]; `LEAST` where None. Every density is served; below this one kernels
            stand in the order of the last round.
        seed: for positions, and for the signs of the response's positions.
        normalise: must be None: scaling each layer for itself would undo the ranking.

    Raises:
        MaskError: another granularity, a normalisation, or a number out of range.
        TargetError: on these pictures the response depends on no kernel.
    """
    if job.granularity != "kernel":
        raise MaskError(f"reconstruct scores kernels, not {job.granularity}s; leave granularity out, or take actgrad")
    if normalise is not None:
        raise MaskError("reconstruct ranks kernels across layers, and 'minmax' would undo that; leave normalise out")
    if positions is None:
        positions = max(POSITIONS, -(-TOGETHER // len(job.images)))
    for name, number in (("rounds", rounds), ("positions", positions), ("mean", mean), ("block", block)):
        within(name, number)
    options = _Options(rounds, positions, mean, block, seed)
    return [scores for one in job.each() for scores in _reconstruct(one, options, density or LEAST)]


@dataclass(frozen=True)
class _Options:
    rounds: int
    positions: int
    mean: float
    block: int
    seed: int


def _reconstruct(job: Pass, options: _Options, density: float) -> list[Scores]:
    (relevant,) = job.relevant
    job, blocks = _within_memory(job)
    count = sum(int(array.sum()) for array in relevant.values())
    sizes = schedule(kept_count(density, count), count, options.rounds)
    full: Mapping[str, Moments] = {}
    order, size = torch.arange(count), count  # the first `size` of the order are the mask so far
    for done, next_size in enumerate(sizes, start=1):
        label = "reconstruct" if options.rounds == 1 else f"reconstruct {done}/{options.rounds}"
        mask = _mask(job, order[:size]) if full else None
        found = moments(job, label, mask, positions=options.positions, seed=options.seed, blocks=blocks)
        full = full or _live(job, found)
        order = torch.cat([_best_first(job, full, found, order[:size], options), order[size:]])
        size = next_size
        del found  # before the next pass: there is memory for two sets of matrices
    ranks = torch.empty(count, dtype=torch.float64)  # single precision does not tell a hundred million ranks apart
    ranks[order] = 1 - torch.arange(count, dtype=torch.float64) / count
    sums = {name: array[None] for name, array in by_layer(ranks, relevant).items()}
    return [replace(scores, note=_note(job, blocks)) for scores in job.scores("reconstruct", sums, n_images=1)]


def _live(job: Pass, full: Mapping[str, Moments]) -> Mapping[str, Moments]:
    """The moments of the full network, some of whose gradients arrive somewhere."""
    if not any(bool(own.gradients.any()) for own in full.values()):
        raise TargetError(
            f"target {job.readouts[0].target} is the same whatever kernels do on these {len(job.images)} images; take "
            f"images that excite it"
        )
    return full


def _within_memory(job: Pass) -> tuple[Pass, dict[str, int]]:
    """The pass with as many pictures at a time as fit beside the matrices; into how many blocks layers' inputs go."""
    layers, itemsize = [job.graph.layers[name] for name in job.relevant[0]], max(4, like(job.model).dtype.itemsize)
    blocks = input_blocks(layers, job.memory, itemsize)
    fits = plan(job.readouts, memory=job.memory, beside=matrix_bytes(layers, blocks, itemsize))
    return replace(job, batch_size=min(job.batch_size, fits.batch_size)), blocks


def _note(job: Pass, blocks: Mapping[str, int]) -> str:
    """What was done in parts, of which a reader of the scores should know."""
    inputs = [f"inputs of {name} in {b} blocks" for name, b in blocks.items() if b > 1]
    filters = [f"filters of {name} one by one" for name in blocks if by_filter(job.graph.layers[name], blocks[name])]
    return "; ".join(inputs + filters)


def _mask(job: Pass, kept: Int[Tensor, " m"]) -> Mask:
    """The mask of some of the relevant kernels, given flat."""
    (relevant,) = job.relevant
    chosen = torch.zeros(sum(int(array.sum()) for array in relevant.values()), dtype=torch.bool)
    chosen[kept] = True
    return Mask(by_layer(chosen, relevant), relevant, job.granularity, job.graph.input_shape)


def _best_first(
    job: Pass, full: Mapping[str, Moments], found: Mapping[str, Moments], kept: Int[Tensor, " m"], options: _Options
) -> Int[Tensor, " m"]:
    """Some of the relevant kernels, flat, in the order in which they come into play as the threshold falls."""
    mask, slopes = _mask(job, kept), {}
    for done, (name, relevant) in enumerate(job.relevant[0].items(), start=1):
        here = full[name] if found is full else full[name].pooled(found[name])
        layer, removed = _layer(job, name, here, options.mean), relevant & ~mask.kept[name]
        parts = (
            layer.filters() if by_filter(job.graph.layers[name], layer.blocks_of_a_group) else [(layer, slice(None))]
        )
        slopes[name] = torch.cat([eliminated(part, removed[rows], block=options.block) for part, rows in parts])
        if job.progress is not None:
            job.progress("reconstruct: layers", done, len(job.relevant[0]))
    ranking = Ranking(job.readouts[0], mask.kept, slopes)
    return kept.sort().values[ranking.by_path()]


def _layer(job: Pass, name: str, measured: Moments, mean: float) -> Layer:
    layer, products = job.graph.layers[name], measured.gradients
    if not bool(torch.isfinite(products).all() and torch.isfinite(measured.inputs).all()):  # ranks would not show it
        raise MaskError(f"moments of layer {name!r} are not finite; look for overflow in the model's activations")
    shared = (1 - DIAGONAL) * products + DIAGONAL * products.diagonal().diag()
    weight = job.weight(name)[0].reshape(*layer.shape, -1)
    return Layer(weight.to(products), measured.covariance(mean), shared, job.relevant[0][name], layer.groups)
