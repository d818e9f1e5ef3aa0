"""Which places of a tensor are asked for, and asking an operation itself what it reads.

A *demand* has one entry an axis of a tensor: the indices asked for along it. So it is a block, not necessarily a
contiguous one: dilated convolutions, shuffles and shifted windows leave gaps.

Two ways to find what an operation reads without a rule for it are here. Operations that only move or interpolate are
asked for their own adjoint (`moved`). One that nobody knows is probed with NaN, and what was found is tested by
changing everything else (`probed`); where that is not conclusive it is an `UnsupportedOperation`.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, fx

from viscircuits.errors import UnsupportedOperation
from viscircuits.model.flow.moving import form_free
from viscircuits.model.flow.wires import any_but, recording
from viscircuits.model.graph import NetGraph
from viscircuits.model.nodes import Value, concrete, filled, function, op_name, origin, shape_of


class Places(NamedTuple):
    """Indices along one axis, which may lie beyond its ends; ``mixed`` if only because an operation reads all."""

    at: frozenset[int]
    mixed: bool = False


Demand = tuple[Places, ...]
"""One entry an axis of a tensor, the image axis included."""


@dataclass(frozen=True)
class Call:
    """One operation, and what is asked of one of its outputs."""

    graph: NetGraph
    node: fx.Node
    item: int
    demand: Demand
    inputs: tuple[fx.Node, ...]  # the tensors among its inputs whose values depend on the image

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the output asked for."""
        return shape_of(self.node, self.item)


Requests = Iterator[tuple[fx.Node, Demand]]
"""What an operation asks of its inputs."""


def inside(places: Places, size: int) -> Places:
    """Returns the places that an axis of some size has."""
    known = all(0 <= i < size for i in places.at)
    return places if known else Places(frozenset(i for i in places.at if 0 <= i < size), places.mixed)


def everything(size: int) -> Places:
    """Returns all places of an axis, as an operation that mixes them asks for."""
    return Places(frozenset(range(size)), mixed=True)


def unsupported(node: fx.Node, why: str) -> UnsupportedOperation:
    """Returns the error that says which operation cannot be followed, where it stands, and why."""
    return UnsupportedOperation(
        f"no receptive field through {op_name(node)!r} ({origin(node)}): {why}. Ask for a layer before it, or replace "
        f"it by an equal standard operation"
    )


def moved(call: Call) -> Requests:
    """What a linear operation reads (moving, interpolating): where its adjoint at random positive numbers is not 0."""
    draw = torch.Generator().manual_seed(0)
    with recording():
        values = {n: torch.zeros(shape_of(n), dtype=torch.float64).requires_grad_() for n in _floating(call)}
        output = _run(call, values)
        weight = torch.rand(output.shape, generator=draw, dtype=torch.float64) + 0.5
        # positive weights, so that several requests for one place cannot cancel
        request = weight * _block(call.demand, output.shape)
        grads = torch.autograd.grad(output, list(values.values()), request, allow_unused=True)
    for source, grad in zip(values, grads, strict=True):
        if grad is not None:
            reads = [frozenset(any_but(grad, axis).nonzero().flatten().tolist()) for axis in range(grad.ndim)]
            mixed = any(places.mixed for places in call.demand)
            yield source, tuple(Places(at, mixed and len(at) == n) for at, n in zip(reads, grad.shape, strict=True))


def probed(call: Call) -> Requests:
    """What an operation without a rule reads: the block where NaN shows in what is asked for; the rest must not matter.

    An axis counts as mixed if all of it is read though less than all of the output was asked for.
    """
    if len(call.inputs) != 1:
        raise unsupported(call.node, "it has no rule, and joins several activations")
    source = _floating(call)[0]
    draw = torch.Generator().manual_seed(0)
    sample = torch.randn(shape_of(source), generator=draw, dtype=torch.float64)
    block = _block(call.demand, call.shape) > 0
    if not bool(block.any()):
        return

    def answer(x: Tensor) -> Tensor:
        return _run(call, {source: x})[block]

    # a comparison, or a maximum that skips NaN, would hide what is read
    if not bool(answer(torch.full_like(sample, torch.nan)).isnan().all()):
        raise unsupported(call.node, "it has no rule, and NaN does not pass through it")
    reads = [_between(answer, sample, axis) for axis in range(sample.ndim)]
    read = _block([Places(at) for at in reads], sample.shape) > 0
    # several scales, because an operation may look at values (a threshold, a sort) only where they are large or small
    for scale in (0.1, 1, 10, 100):
        other = torch.randn(sample.shape, generator=draw, dtype=torch.float64) * scale
        if not torch.equal(answer(torch.where(read, sample, other)), answer(sample)):
            raise unsupported(call.node, "it has no rule, and what it reads depends on values")
    part = any(p.mixed or len(inside(p, n).at) < n for p, n in zip(call.demand[1:], call.shape[1:], strict=True))
    yield source, tuple(Places(at, part and len(at) == n) for at, n in zip(reads, sample.shape, strict=True))


def _between(answer: Callable[[Tensor], Tensor], sample: Tensor, axis: int) -> frozenset[int]:
    """From the first to the last place along an axis where NaN shows in what is asked for."""

    def shows(start: int, length: int) -> bool:
        x = sample.clone()
        x.narrow(axis, start, length).fill_(torch.nan)
        return bool(answer(x).isnan().any())

    # NaN in more places shows all the more, so both ends can be found by halving instead of place by place
    size = sample.shape[axis]
    first = bisect_left(range(1, size), True, key=lambda length: shows(0, length))
    after = bisect_left(range(1, size), True, key=lambda length: shows(size - length, length))
    return frozenset(range(first, size - after))


def _floating(call: Call) -> list[fx.Node]:
    for source in call.inputs:
        value = source.meta["val"]
        if not isinstance(value, Tensor) or not value.is_floating_point():
            raise unsupported(call.node, "an index, a choice or a complex number depends on the image")
    return list(call.inputs)


def _run(call: Call, values: dict[fx.Node, Tensor]) -> Tensor:
    """The operation's output, in double precision on the CPU, when its inputs hold some values."""

    def value(node: fx.Node) -> Value:
        if node in values:
            return values[node]
        known = node.meta["val"]
        if not isinstance(known, Tensor):
            return concrete([known])[0]
        if node.op == "placeholder":
            constant = call.graph.constants.get(node.name)
            held = torch.zeros(concrete(known.shape)) if constant is None else constant.cpu()
        else:
            # what depends on no image, or on its size alone, has to be right: it may be a table of places
            args, kwargs = filled(node, value)
            held = function(node)(*args, **form_free(kwargs))
        return held.double() if held.is_floating_point() else held

    args, kwargs = filled(call.node, value)
    try:
        output = function(call.node)(*args, **form_free(kwargs))
    except (RuntimeError, IndexError, TypeError) as error:
        raise unsupported(call.node, f"it cannot be tried alone: {str(error)[:200]}") from error
    return output[call.item] if isinstance(output, tuple | list) else output


def _block(demand: Sequence[Places], shape: Sequence[int]) -> Tensor:
    """One where a demand stands, zero elsewhere."""
    block = torch.ones(tuple(shape), dtype=torch.float64)
    for axis, (places, size) in enumerate(zip(demand, shape, strict=True)):
        along = torch.zeros(size, dtype=torch.float64)
        along[sorted(inside(places, size).at)] = 1
        block *= along.view([-1 if i == axis else 1 for i in range(len(shape))])
    return block
