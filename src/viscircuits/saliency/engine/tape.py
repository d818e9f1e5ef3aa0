"""Tapes: what a batch leaves behind, seen call by call, becomes sums as the gradients arrive.

A tape is made for one batch. It records each relevant call of a kernel layer while the model runs, hooks the call's
output, and hands call and gradients to a formula as soon as those of all targets are there; then it lets go of the
call's input, so that memory falls while the gradients flow back.

Convention: gradients are the output's, never a parameter's; numbers of several targets stand along a first axis ``t``.

Not here: batches, masks and targets (`viscircuits.saliency.engine.passes`), single gradients (`gradients`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from viscircuits.data.stream import Batch
from viscircuits.errors import UnsupportedOperation
from viscircuits.model.calls import KernelCall
from viscircuits.model.instrument import check_differentiable
from viscircuits.readout import Frozen, Readout
from viscircuits.saliency.engine.gradients import absolute_gradients, stacked_gradients

Formula = Callable[[KernelCall, Sequence[Float[Tensor, "n ..."]]], Float[Tensor, "t out ..."]]
"""``(call, gradients of its output, one a target) -> one number a target and structure``, summed over images and
positions; a pass divides by the positions of one image. Without gradients, all are 1 and there is one ``t``."""


@dataclass(eq=False)
class _Held:
    """A recorded call, the state of its input then, and the gradients of its output that have arrived, by target."""

    call: KernelCall | None
    version: int
    gradients: dict[int, Tensor] = field(default_factory=dict)

    def take(self) -> tuple[KernelCall, dict[int, Tensor]]:
        """Returns the call and its gradients, and lets go of both: autograd's hooks outlive them."""
        call, gradients = self.call, self.gradients
        assert call is not None
        self.call, self.gradients = None, {}
        return call, gradients


class Tape:
    """Adds what one batch leaves behind to the formula's sums, as the gradients arrive."""

    def __init__(
        self, layers: Sequence[str], n_targets: int, n_images: int, copies: bool, sums: dict[str, Tensor],
        formula: Formula, copy_outputs: bool = False,
    ) -> None:  # fmt: skip
        self.layers, self.n_images, self.n_targets, self.formula = frozenset(layers), n_images, n_targets, formula
        self.copies, self.copy_outputs = copies, copy_outputs
        self.overwritten = False
        self.target = 0  # whose gradients are on their way
        self.waiting: set[_Held] = set()
        self.without_gradient: dict[str, None] = {}  # layers, in order of execution
        self.sums = sums

    def start(
        self, readout: Readout, outputs: Mapping[str, Tensor], frozen: Frozen, batch: Batch
    ) -> Float[Tensor, " n"]:
        """Returns the number an image that gradients start from.

        Args:
            readout: the target, bound to the graph.
            outputs: module -> its output for the batch.
            frozen: what the full model fixes for these images.
            batch: pictures and labels.
        """
        return readout.objective(outputs, frozen, batch.labels)

    def see(self, call: KernelCall) -> Tensor:
        """Records a call; returns its output, with a place in autograd's graph."""
        if call.layer.name not in self.layers:
            return call.output
        if not self.n_targets:
            self.add(call, [torch.ones_like(call.output)])
            return call.output
        output = call.output
        check_differentiable(call.layer.name)
        if not output.requires_grad:  # the first layers: a zero with a gradient gives them a place, at no memory
            output = output.add_(torch.zeros((), dtype=output.dtype, device=output.device, requires_grad=True))
        x = call.x.detach().clone() if self.copies else call.x.detach()
        kept = output.detach().clone() if self.copy_outputs else output.detach()  # an in-place activation may follow
        held = _Held(replace(call, x=x, weight=call.weight.detach(), output=kept), x._version)
        self.waiting.add(held)
        self.without_gradient[call.layer.name] = None
        output.register_hook(partial(self._arrived, held))
        return output

    def _arrived(self, held: _Held, gradient: Tensor) -> None:
        held.gradients[self.target] = gradient
        if held.call is not None:
            self.without_gradient.pop(held.call.layer.name, None)
        if len(held.gradients) == self.n_targets:
            self.waiting.remove(held)  # frees the input as soon as it has served
            self._finish(held)

    def _finish(self, held: _Held) -> None:
        call, gradients = held.take()
        if call.x._version != held.version:
            self.overwritten = True
            return
        blank = torch.zeros_like(call.output) if len(gradients) < self.n_targets else call.output
        self.add(call, [gradients.get(t, blank) for t in range(self.n_targets)])

    @torch.no_grad()
    def add(self, call: KernelCall, gradients: Sequence[Tensor]) -> None:
        """Adds what one call contributes."""
        positions = call.output.numel() // (call.output.shape[call.channel_axis] * self.n_images)
        self._put(self.sums, call, self.formula(call, gradients) / positions)

    def _put(self, sums: dict[str, Tensor], call: KernelCall, values: Float[Tensor, "t k ..."]) -> None:
        name, filters = call.layer.name, call.filters
        if filters is not None:
            blank = values.new_zeros(len(values), call.layer.out_channels, *values.shape[2:])
            values = blank.index_copy_(1, filters.to(values.device), values)
        values = values.to(torch.promote_types(values.dtype, torch.float32))  # half would swallow small terms
        sums[name] = sums[name].add_(values) if name in sums else values

    def close(self) -> None:
        """Adds the calls on which only some of the targets depend.

        Raises:
            UnsupportedOperation: none depends on any call of a layer that leads to them.
        """
        for layer in self.without_gradient:  # zeros would be a wrong number, and nobody would notice
            raise UnsupportedOperation(
                f"layer {layer!r} leads to the target, but no gradient comes back to it: the forward cuts it off "
                f"behind the layer (detach, .data, an index or a comparison made of its numbers); take that out, "
                f"or choose a criterion without gradients (magnitude, activation)"
            )
        for held in self.waiting:
            if held.gradients:
                self._finish(held)
        self.waiting.clear()


class GradientTape(Tape):
    """Sums of absolute weight gradients, image by image; a layer that runs twice adds its gradients before ``|.|``."""

    def __init__(
        self, layers: Sequence[str], n_targets: int, n_images: int, copies: bool, sums: dict[str, Tensor]
    ) -> None:
        super().__init__(layers, n_targets, n_images, copies, sums, no_formula)
        self.pending: dict[str, Tensor] = {}

    def add(self, call: KernelCall, gradients: Sequence[Tensor]) -> None:
        """Adds the magnitudes of a call's weight gradients, or keeps them until all calls of the layer are there."""
        layer, n = call.layer, self.n_images
        if layer.calls == 1:
            each = [layer.out_first(absolute_gradients(call, n, gradient)) for gradient in gradients]
            self._put(self.sums, call, torch.stack(each) if len(each) > 1 else each[0][None])
        else:  # (t, out, n, ...): the filters stand where `_put` expects them
            each = [layer.out_first_of_each(stacked_gradients(call, n, g)).transpose(0, 1) for g in gradients]
            self._put(self.pending, call, torch.stack(each))

    def close(self) -> None:
        """Adds what only some targets depend on, then the layers that ran several times."""
        super().close()
        for name, each in self.pending.items():
            magnitudes = each.abs().sum(2)
            self.sums[name] = self.sums[name].add_(magnitudes) if name in self.sums else magnitudes
        self.pending.clear()


def no_formula(call: KernelCall, gradients: Sequence[Tensor]) -> Tensor:
    """Stands in for the formula of tapes that add up something else."""
    raise AssertionError("this tape adds up something of its own")


NewTape = Callable[[Batch, bool, dict[str, Tensor]], "Tape"]
"""``(batch, whether to keep copies of inputs, sums to add to) -> tape``."""
