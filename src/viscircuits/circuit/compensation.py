"""Compensation: what a circuit is given for what was removed. Never the default, and named wherever the circuit is.

*Means*: what removed structures put out on average, folded into parameters that are there anyway. A masked circuit lets
a removed kernel put out zero, which the network may never have seen. Compensated, it puts out its mean instead. A
filter's output is ``b + sum over c of k[c] * x[c]``; of this sum the removed part, on the full model's own inputs x,
has the mean over all images and positions

    m = mean(b + sum over all c of k[c] * x[c]) - mean(b + sum over kept c of k[c] * x[c]),

and ``b + m`` takes the place of ``b``. Of all constants m is the one with the least mean squared error of the filter's
output, as long as its kept inputs are those of the full model. A layer without a bias has m taken off the running mean
of the batch norm behind it, which subtracts it: ``(y + m - mu) / s = (y - (mu - m)) / s``. No other weight changes.

*Scales*: kept structures multiplied by positive numbers, which `viscircuits.saliency.gates.scales` trains; biases stay.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn

from viscircuits.data.images import ImageSet
from viscircuits.errors import UnsupportedOperation
from viscircuits.execution.loop import batches
from viscircuits.mask import Mask, stored_factor
from viscircuits.model import ops
from viscircuits.model.calls import KernelCall
from viscircuits.model.graph import KernelLayer, NetGraph
from viscircuits.model.guard.clean import clean
from viscircuits.model.guard.replica import at_rest, own_parameter
from viscircuits.model.instrument import run
from viscircuits.model.nodes import op_name
from viscircuits.readout import Readout
from viscircuits.types import Progress


@dataclass(frozen=True, eq=False)
class Means:
    """Mean contributions of what a mask removes.

    Args:
        mask: the mask; they hold for no other.
        shifts: layer -> number to add to the output of each filter.
        n_images: how many images they are the mean of.
    """

    mask: Mask
    shifts: Mapping[str, Float[Tensor, " out"]]
    n_images: int
    kind: ClassVar = "mean-compensated"

    def __repr__(self) -> str:
        return f"Means(of what is removed in {len(self.shifts)} layers, over {self.n_images:,} images)"

    def edits(self, model: nn.Module, graph: NetGraph) -> dict[str, Tensor]:
        """Returns the biases and running means, by name, that hold the shifts.

        Raises:
            UnsupportedOperation: a layer has neither a bias nor a batch norm of its own right behind it.
        """
        edits = {}
        for name, shift in self.shifts.items():
            parameter, sign = _place(graph, graph.layers[name])
            with at_rest(model):  # other threads of ours may have put edited tensors in its place
                value = (model.get_buffer(parameter) if sign < 0 else model.get_parameter(parameter)).detach()
                edits[parameter] = value + sign * shift.to(value)
        return edits


@dataclass(frozen=True, eq=False)
class Scales:
    """What kept structures are multiplied by.

    Args:
        mask: the mask; they hold for no other.
        scales: layer -> one number a structure, 0 where it is removed and 1 where none is relevant.
        n_images: how many images they were trained on.
    """

    mask: Mask
    scales: Mapping[str, Float[Tensor, "out ..."]]
    n_images: int
    kind: ClassVar = "rescaled"

    def __repr__(self) -> str:
        return f"Scales(of what is kept in {len(self.scales)} layers, trained on {self.n_images:,} images)"

    def edits(self, model: nn.Module, graph: NetGraph) -> dict[str, Tensor]:
        """Returns the scaled weights, by name."""
        edits = {}
        for name, values in self.scales.items():
            layer = graph.layers[name]
            weight = own_parameter(model, layer.weight)
            edits[layer.weight] = weight * stored_factor(layer, values, self.mask.granularity).to(weight)
        return edits


@clean
@torch.no_grad()
def means(
    model: nn.Module, readout: Readout, mask: Mask, images: ImageSet, *, batch_size: int = 16,
    progress: Progress | None = None,
) -> Means:  # fmt: skip
    """Returns the mean contributions of what a mask removes: over images, positions, and calls of a reused layer.

    Args:
        model: the user's module.
        readout: the target, bound to the model's graph.
        mask: what is kept.
        images: pictures of the mask's size; take those that were scored on.
        batch_size: pictures at a time.
        progress: called after every batch.
    """
    graph = readout.graph
    # layers that are kept whole have nothing to make up for
    factors = {n: f for n, f in mask.factors(graph).items() if not bool(f.all())}
    layers = [name for name in mask.kept if graph.layers[name].weight in factors]
    for name in layers:
        _place(graph, graph.layers[name])  # complains before the work starts
    sums = {name: torch.zeros(graph.layers[name].out_channels, dtype=torch.float64) for name in layers}
    counts = dict.fromkeys(layers, 0)

    def see(call: KernelCall) -> Tensor:
        name = call.layer.name
        if name in sums:
            # in double precision: one number is the sum over all places of all pictures
            values = removed_part(call, factors[call.layer.weight]).movedim(call.channel_axis, 0).flatten(1)
            sums[name] += values.double().sum(1).cpu()
            counts[name] += values.shape[1]
        return call.output

    for batch in batches(images, model, graph, batch_size, progress=progress, what="means"):
        run(model, graph, batch.images, readout.layers, see=see)
    return Means(mask, {name: sums[name] / counts[name] for name in layers}, len(images))


def removed_part(call: KernelCall, factor: Tensor) -> Tensor:
    """Returns what the removed kernels of a layer put out in a call of it; ``factor`` is 1 where they are kept."""
    # without the bias: that is put out by the masked network as well
    weight = call.weight * (~factor).to(device=call.weight.device, dtype=call.weight.dtype)
    return call.function(call.x, weight, None, **call.options)


def _place(graph: NetGraph, layer: KernelLayer) -> tuple[str, int]:
    """The parameter that takes a layer's shifts, and with which sign; nobody else may use it."""
    calls = [call for call, name in graph.kernel_calls.items() if name == layer.name]
    # a batch norm serves only where nothing else reads the layer's output or the norm's mean
    behind = [user for call in calls for user in call.users]
    for nodes, place, sign in ((calls, 2, 1), (behind, 3, -1)):
        if sign < 0 and not all(op_name(node) in ops.BATCH_NORMS and node.args[0] in calls for node in nodes):
            break
        names = {_parameter(graph, node, place) for node in nodes}
        (name,) = names if len(names) == 1 else (None,)
        if name is not None and not _users(graph, name) - set(nodes):
            return name, sign
    raise UnsupportedOperation(
        f"cannot compensate layer {layer.name!r}: it has neither a bias nor a batch norm right behind it that is its "
        f"own; leave the circuit as it is"
    )


def _parameter(graph: NetGraph, node: fx.Node, place: int) -> str | None:
    argument = node.args[place] if place < len(node.args) else None
    return graph.parameters.get(argument.name) if isinstance(argument, fx.Node) else None


def _users(graph: NetGraph, parameter: str) -> set[fx.Node]:
    return {user for node in graph.nodes if graph.parameters.get(node.name) == parameter for user in node.users}
