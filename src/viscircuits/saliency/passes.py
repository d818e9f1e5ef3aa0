"""One pass over the images: show every relevant call of a kernel layer, with its gradient, to a formula.

A criterion hands over its formula and gets `Scores` back; what is here is plumbing: batches, hooks on activations,
frozen positions, checks. Gradients are taken for activations only (the weights take part as constants), so a pass costs
less than one of training, and the user's parameters never see a gradient.

Two shapes of formula cover the field: numbers from one call and the gradient of its output (`Pass.sum_over_images`),
and the magnitudes of every image's weight gradient (`Pass.absolute_gradients`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from viscircuits.data.images import Batch, ImageSet
from viscircuits.errors import ImageError, TargetError
from viscircuits.mask import Mask, expand_relevant
from viscircuits.model.graph import NetGraph
from viscircuits.model.instrument import KernelCall, run
from viscircuits.model.trace import concrete, trace
from viscircuits.readout import Frozen, Readout
from viscircuits.response import freeze, masked_weights, to_model
from viscircuits.saliency.gradients import absolute_gradients, stacked_gradients
from viscircuits.scores import Scores
from viscircuits.target import AnyTarget
from viscircuits.types import Granularity

Progress = Callable[[str, int, int], None]
"""Called with (what, done, total) as a job goes on."""

Formula = Callable[[KernelCall, Tensor | None], Tensor]
"""``(call, gradient of its output) -> one number a structure``, summed over images and positions; a pass divides by
the positions of one image."""


@dataclass(frozen=True)
class Pass:
    """Everything that stays the same while one target is scored.

    Args:
        model: the user's module.
        target: what is explained.
        images: the pictures to score on.
        granularity: what one score stands for.
        batch_size: pictures at a time; never changes a score beyond rounding.
        progress: told about every batch.
    """

    model: nn.Module
    target: AnyTarget
    images: ImageSet
    granularity: Granularity = "kernel"
    batch_size: int = 16
    progress: Progress | None = None
    graph: NetGraph = field(init=False, repr=False)
    readout: Readout = field(init=False, repr=False)
    relevant: Mapping[str, Tensor] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        graph = trace(self.model, self.images[0].shape)
        readout = Readout(self.target, graph)
        relevant = expand_relevant(graph, readout.relevant_kernels, self.granularity)
        if not relevant:
            raise TargetError(f"no kernel leads from the images to target {self.target}")
        object.__setattr__(self, "graph", graph)
        object.__setattr__(self, "readout", readout)
        object.__setattr__(self, "relevant", relevant)

    def scores(self, criterion: str, sums: Mapping[str, Tensor], n_images: int | None = None) -> Scores:
        """Returns the sums as `Scores` of this target, zero where nothing is relevant or nothing arrived."""
        arrays = {
            name: sums[name].detach().cpu() * relevant if name in sums else torch.zeros(relevant.shape)
            for name, relevant in self.relevant.items()
        }
        n = len(self.images) if n_images is None else n_images
        return Scores(arrays, self.relevant, n, self.granularity, criterion, str(self.target), self.graph.input_shape)

    def weight(self, layer: str) -> Tensor:
        """Returns the model's own weight of a kernel layer, axes ``(out, in/g, *kernel)``."""
        kernel_layer = self.graph.layers[layer]
        return kernel_layer.out_first(self.model.get_parameter(kernel_layer.weight).detach())

    def sum_over_images(self, criterion: str, formula: Formula, *, gradients: bool = True) -> Scores:
        """Returns the formula's numbers, averaged over positions, summed over calls and images."""
        copy_outputs = self.granularity == "filter"
        sums = self._run(criterion, lambda n, c: _Tape(self.relevant, n, c, formula, gradients, copy_outputs))
        return self.scores(criterion, sums)

    def absolute_gradients(self, criterion: str, mask: Mask | None = None) -> dict[str, Tensor]:
        """Returns layer -> ``sum_n |df_n / dw|``, ``(out, in/g, *kernel)``; of the masked network, given a mask."""
        size = self.batch_size if self._images_lead() else 1
        return self._run(criterion, lambda n, c: _GradientTape(self.relevant, n, c), mask, size)

    def _images_lead(self) -> bool:
        """Whether the first axis of every layer's input is the images: not behind window partitions, or tokens first.

        One image at a time is right for any layout.
        """
        inputs = [node.all_input_nodes[0] for node, name in self.graph.kernel_calls.items() if name in self.relevant]
        return all(concrete(node.meta["val"].shape[:1]) == (2,) for node in inputs)  # traced with two images

    def _run(
        self, criterion: str, new_tape: "NewTape", mask: Mask | None = None, batch_size: int | None = None
    ) -> dict[str, Tensor]:
        sums: dict[str, Tensor] = {}
        weights = masked_weights(self.model, self.graph, mask) if mask is not None else {}
        copies = False
        for batch in self.images.batches(batch_size or self.batch_size):
            tape = self._batch(batch, new_tape, weights, copies)
            copies = tape.copies  # needed once, needed again
            for name, values in tape.finished().items():
                values = values.to(torch.promote_types(values.dtype, torch.float32))  # half would swallow small terms
                sums[name] = sums[name].add_(values) if name in sums else values
            if self.progress is not None:
                self.progress(criterion, batch.start + len(batch.images), len(self.images))
        return sums

    def _batch(self, batch: Batch, new_tape: "NewTape", weights: Mapping[str, Tensor], copies: bool) -> "_Tape":
        images, labels = to_model(batch, self.model, self.graph)
        frozen = freeze(self.model, self.readout, images)
        if not copies:
            tape = new_tape(len(images), False)
            try:
                self._record(tape, images, labels, frozen, weights)
                if not tape.overwritten:
                    return tape
            except RuntimeError as error:
                if "modified by an inplace operation" not in str(error):
                    raise
        # an in-place operation of the model wrote over something that the gradients need: once more, with copies
        tape = new_tape(len(images), True)
        with torch.autograd.graph.allow_mutation_on_saved_tensors():
            self._record(tape, images, labels, frozen, weights)
        return tape

    def _record(
        self, tape: "_Tape", images: Tensor, labels: Tensor | None, frozen: Frozen, weights: Mapping[str, Tensor]
    ) -> None:
        with torch.set_grad_enabled(tape.gradients):
            # a clone, because the model may write over its pictures, and they may be needed once more
            outputs = run(self.model, self.graph, images.clone(), self.readout.layers, weights=weights, see=tape.see)
            objective = self.readout.objective(outputs, frozen, labels)
            if not bool(torch.isfinite(objective).all()):
                raise ImageError(
                    f"target {self.target} is not finite on some images; check the preprocessing and the weights"
                )
            if objective.requires_grad:
                objective.sum().backward()


NewTape = Callable[[int, bool], "_Tape"]
"""``(number of images, whether to keep copies of inputs) -> tape``."""


class _Tape:
    """What one batch leaves behind: the formula's sums, collected as the gradients arrive."""

    def __init__(
        self,
        relevant: Mapping[str, Tensor],
        n_images: int,
        copies: bool,
        formula: Formula,
        gradients: bool = True,
        copy_outputs: bool = False,
    ) -> None:
        self.relevant, self.n_images, self.formula, self.gradients = relevant, n_images, formula, gradients
        self.copies, self.copy_outputs = copies, copy_outputs
        self.overwritten = False
        self.sums: dict[str, Tensor] = {}

    def see(self, call: KernelCall) -> Tensor:
        """Records a call; returns its output, with a place in autograd's graph."""
        if call.layer.name not in self.relevant:
            return call.output
        if not self.gradients:
            self.add(call, None)
            return call.output
        output = call.output
        if not output.requires_grad:  # the first layers: a zero with a gradient gives them a place, at no memory
            output = output.add_(torch.zeros((), dtype=output.dtype, device=output.device, requires_grad=True))
        x = call.x.detach().clone() if self.copies else call.x.detach()
        kept = output.detach().clone() if self.copy_outputs else output.detach()  # an in-place activation may follow
        held = [KernelCall(call.layer, x, call.weight.detach(), kept, call.options, call.function)]
        output.register_hook(partial(self._arrived, held, x._version))
        return output

    def _arrived(self, held: list[KernelCall], version: int, grad: Tensor) -> None:
        call = held.pop()  # frees the input as soon as it has served
        if call.x._version != version:
            self.overwritten = True
        else:
            self.add(call, grad)

    @torch.no_grad()
    def add(self, call: KernelCall, grad: Tensor | None) -> None:
        """Adds what one call contributes."""
        positions = call.output.numel() // (call.layer.out_channels * self.n_images)
        values, name = self.formula(call, grad) / positions, call.layer.name
        self.sums[name] = self.sums[name].add_(values) if name in self.sums else values

    def finished(self) -> dict[str, Tensor]:
        """Returns layer -> the batch's sums."""
        return self.sums


class _GradientTape(_Tape):
    """Sums of absolute weight gradients, image by image; a layer that runs twice adds its gradients before ``|.|``."""

    def __init__(self, relevant: Mapping[str, Tensor], n_images: int, copies: bool) -> None:
        super().__init__(relevant, n_images, copies, _no_formula)
        self.pending: dict[str, Tensor] = {}

    @torch.no_grad()
    def add(self, call: KernelCall, grad: Tensor | None) -> None:
        assert grad is not None
        layer, n = call.layer, self.n_images
        if layer.calls == 1:
            self.sums[layer.name] = layer.out_first(absolute_gradients(call, n, grad))
        else:
            each = layer.out_first_of_each(stacked_gradients(call, n, grad))
            self.pending[layer.name] = self.pending[layer.name] + each if layer.name in self.pending else each

    def finished(self) -> dict[str, Tensor]:
        return self.sums | {name: each.abs().sum(0) for name, each in self.pending.items()}


def _no_formula(call: KernelCall, grad: Tensor | None) -> Tensor:
    raise AssertionError("a gradient tape has its own")
