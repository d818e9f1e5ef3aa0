"""The best circuit there is, by trying them all, in networks small enough for that.

A criterion may keep little of a target because it chose badly, or because no circuit of that size keeps more. The
optimum tells the two apart. Planted cases are *cut down* first, to the channels that their parts use; what is left is
still the written circuit, with its decoys, copies and crosstalk.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import reduce
from itertools import combinations, islice

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.func import vmap

from viscircuits.card import Card, Shown, few
from viscircuits.data.images import ImageSet
from viscircuits.errors import MaskError, ModelError
from viscircuits.mask import Mask, expand_relevant
from viscircuits.model.guard.clean import clean
from viscircuits.model.guard.replica import private
from viscircuits.model.trace import trace
from viscircuits.planted.cases import Planted
from viscircuits.readout import Readout
from viscircuits.target import Target
from viscircuits.types import Progress

MOST = 1_000_000
"""Subsets that are looked at before it is refused; of these only connected ones are run."""

_AT_ONCE, _RUN = 4096, 128


@dataclass(frozen=True, repr=False)
class Optimum(Shown):
    """The best circuits of at most 1, 2, ... kernels.

    Attributes:
        masks: a best one of at most so many kernels, the smallest and first of equals; of a size from 1 up.
        pearson: its |r| with the full model on the pictures searched on; 0 where no circuit is connected.
        n_run: how many circuits were run.
    """

    masks: tuple[Mask, ...]
    pearson: tuple[float, ...]
    n_run: int

    def _card(self) -> Card:
        best = few([f"{r:.3f}" for r in self.pearson], 8)
        return Card("Optimum", {"|r| by size, from 1": best, "circuits run": f"{self.n_run:,}"})


@clean
@torch.no_grad()
def optimum(
    model: nn.Module, target: Target, images: ImageSet, size: int, *, progress: Progress | None = None
) -> Optimum:
    """Returns the best masked circuits of up to ``size`` kernels: the highest |r| over all images and positions.

    All subsets of the relevant kernels, but for two kinds that cannot win: disconnected ones count as 0, and a kernel
    with no path to the target changes nothing, so that a smaller subset does the same.

    Args:
        model: a `nn.Sequential` of convolutions and activations.
        target: a channel of its last convolution.
        images: pictures on which circuits are compared; measure criteria on the same.
        size: the largest number of kernels.
        progress: called with how many subsets are done.

    Raises:
        ModelError: another kind of network.
        MaskError: more than `MOST` subsets, or more kernels asked for than there are.
    """
    search = _Search(model, target, images)
    n = len(search.places)
    total = sum(math.comb(n, k) for k in range(1, size + 1))
    if not 1 <= size <= n or total > MOST:
        raise MaskError(
            f"expected from 1 to {n} kernels and at most {MOST:,} subsets; {size} of {n} kernels make {total:,}: cut "
            f"the network down, or ask for fewer"
        )
    # the empty circuit is where every size starts from: it stays where none is connected
    best, masks, done, n_run = 0.0, [torch.zeros(n, dtype=torch.bool)], 0, 0
    highest = []
    for k in range(1, size + 1):
        # at most k kernels: a smaller circuit stays the best one until a larger one is better than by rounding
        subset = masks[-1]
        every = combinations(range(n), k)
        while some := list(islice(every, _AT_ONCE)):
            kept = torch.zeros(len(some), n, dtype=torch.bool).scatter_(1, torch.tensor(some), True)
            subsets = search.connected(kept)
            for part in subsets.split(_RUN):
                r = search.pearson(part)
                if len(r) and float(r.max()) > best + 1e-9:
                    best, subset = float(r.max()), part[int(r.argmax())]
            done, n_run = done + len(some), n_run + len(subsets)
            if progress is not None:
                progress("subsets", done, total)
        masks.append(subset)
        highest.append(best)
    return Optimum(tuple(search.mask(subset) for subset in masks[1:]), tuple(highest), n_run)


class _Search:
    """The relevant kernels of a chain of convolutions, in one row, and what subsets of them do."""

    def __init__(self, model: nn.Module, target: Target, images: ImageSet) -> None:
        self.convs = {name: m for name, m in model.named_children() if isinstance(m, nn.Conv2d)}
        if not isinstance(model, nn.Sequential) or target.layer != next(reversed(self.convs), ""):
            raise ModelError("expected a Sequential of convolutions, with a channel of the last one as the target")
        self.model, self.shape = model, tuple(images[0].shape)
        graph = trace(model, self.shape)
        self.relevant = expand_relevant(graph, Readout(target, graph).relevant_kernels, "kernel")
        self.places = [(name, *i) for name, array in self.relevant.items() for i in array.nonzero().tolist()]
        self.channel = target.channel
        self.images = torch.stack(list(images))  # pyright: ignore[reportArgumentType]
        self.full = _centred(model(self.images)[:, self.channel].flatten()[None])

    def kernels(self, subsets: Bool[Tensor, "m k"]) -> Iterator[tuple[str, Bool[Tensor, "m out in"]]]:
        """Yields every layer's kept kernels."""
        start = 0
        for name, relevant in self.relevant.items():
            kept = torch.zeros(len(subsets), *relevant.shape, dtype=torch.bool)
            count = int(relevant.sum())
            kept[:, relevant] = subsets[:, start : start + count]
            start += count
            yield name, kept

    def mask(self, subset: Bool[Tensor, " k"]) -> Mask:
        kept = {name: array[0] for name, array in self.kernels(subset[None])}
        return Mask(kept, self.relevant, "kernel", self.shape)

    def connected(self, subsets: Bool[Tensor, "m k"]) -> Bool[Tensor, "l k"]:
        """Returns the subsets with a path from the image in which every kernel has a path to the target."""
        layers = dict(self.kernels(subsets))
        names = list(self.convs)
        good = torch.ones(len(subsets), dtype=torch.bool)
        reaching = torch.zeros(len(subsets), self.convs[names[-1]].out_channels, dtype=torch.bool)
        reaching[:, self.channel] = True
        for name in reversed(names):
            kept = layers[name]
            good &= ~(kept & ~reaching[:, :, None]).flatten(1).any(1)
            reaching = (kept & reaching[:, :, None]).any(1)
        alive = torch.ones(len(subsets), self.shape[0], dtype=torch.bool)
        for name in names:
            alive = (layers[name] & alive[:, None]).any(2)
        return subsets[good & alive[:, self.channel]]

    def pearson(self, subsets: Bool[Tensor, "m k"]) -> Float[Tensor, " m"]:
        """Returns |r| of the masked network with the full one; 0 where it is constant."""
        if not len(subsets):
            return torch.empty(0)
        weights = {}
        for name, kept in self.kernels(subsets):
            # what is not relevant stays: it changes nothing, and all circuits have it in common
            keep = kept | ~self.relevant[name]
            weights[f"{name}.weight"] = self.convs[name].weight.detach() * keep[..., None, None]

        def run(weights: dict[str, Tensor]) -> Tensor:
            with private(self.model, weights) as mine:
                return mine.run(self.images)[:, self.channel].flatten()

        values = vmap(run)(weights)
        # bias alone gives the same everywhere but for rounding, whose correlation would be noise
        constant = values.amax(1) - values.amin(1) <= 1e-6 * values.abs().amax(1)
        own = _centred(values)
        r = (own * self.full).sum(1).abs() / (own.norm(dim=1) * self.full.norm()).clamp(min=1e-300)
        return torch.where(constant, 0, r).clamp(max=1)


def cut_down(case: Planted) -> Planted:
    """Returns a planted case with only the channels and colours that its circuits and parts use."""
    used = reduce(Mask.__or__, [*case.alternatives, *case.parts.values()])
    names = list(used.kept)
    channels = [used.kept[names[0]].any(0).nonzero()[:, 0], *(used.kept[n].any(1).nonzero()[:, 0] for n in names)]
    model = nn.Sequential()
    for name, module in case.model.named_children():
        model.add_module(name, module)
        if name in names:
            inside, out = channels[names.index(name)], channels[names.index(name) + 1]
            model.set_submodule(name, _narrowed(module, inside, out))
    target = replace(case.target, channel=int((channels[-1] == case.target.channel).nonzero()[0, 0]))
    images, held_out = (_colours(some, channels[0]) for some in (case.images, case.held_out))
    graph = trace(model.eval(), tuple(images[0].shape))
    relevant = expand_relevant(graph, Readout(target, graph).relevant_kernels, "kernel")

    def narrow(mask: Mask) -> Mask:
        kept = {n: mask.kept[n][channels[i + 1]][:, channels[i]] for i, n in enumerate(names)}
        return Mask(kept, relevant, "kernel", graph.input_shape)

    parts = {name: narrow(part) for name, part in case.parts.items()}
    return Planted(case.name, model, target, images, held_out, tuple(map(narrow, case.alternatives)), parts)


def _narrowed(module: nn.Module, inside: Int[Tensor, " i"], out: Int[Tensor, " o"]) -> nn.Conv2d:
    assert isinstance(module, nn.Conv2d)
    assert module.bias is not None
    small = nn.Conv2d(len(inside), len(out), 3, padding=1, device="meta").to_empty(device="cpu")
    small.load_state_dict({"weight": module.weight[out][:, inside], "bias": module.bias[out]})
    return small


def _colours(images: ImageSet, channels: Int[Tensor, " c"]) -> ImageSet:
    few = ImageSet.from_tensors(torch.stack([image[channels] for image in images]), images.labels)  # pyright: ignore
    return few if images.labels is None else few.labelled(images.labels, images.class_names)


def _centred(values: Float[Tensor, "m v"]) -> Float[Tensor, "m v"]:
    values = values.double()
    return values - values.mean(1, keepdim=True)
