"""One pass over the images: show every relevant call of a kernel layer, with its gradient, to a formula.

A criterion hands over its formula and gets `Scores` back; what is here is plumbing: batches, hooks on activations,
frozen positions, checks. Gradients are taken for activations only (the weights take part as constants), so a pass costs
less than one of training, and the user's parameters never see a gradient.

Several targets share a pass: one forward run, one backward run a target, and a formula that gets the gradients of all
of them at once (axis ``t``), so that what does not depend on the target is computed once.

Two shapes of formula cover the field: numbers from one call and the gradients of its output (`Pass.sum_over_images`),
and the magnitudes of every image's weight gradient (`Pass.absolute_gradients`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from viscircuits.data.images import Batch, ImageSet
from viscircuits.errors import ImageError, TargetError, UnsupportedOperation
from viscircuits.execution.loop import batches, judged
from viscircuits.execution.response import freeze, masked_weights, relevant_to_any
from viscircuits.mask import Mask, expand_relevant
from viscircuits.model.graph import NetGraph
from viscircuits.model.guard.replica import own_parameter
from viscircuits.model.instrument import KernelCall, check_differentiable, keeping_copies, needed_filters, run
from viscircuits.model.ops import concrete
from viscircuits.model.trace import trace
from viscircuits.readout import Readout
from viscircuits.saliency.engine.gradients import absolute_gradients, stacked_gradients
from viscircuits.saliency.engine.maps import compile_loops
from viscircuits.scores import Scores
from viscircuits.target import AnyTarget
from viscircuits.types import Granularity, Progress

Formula = Callable[[KernelCall, Sequence[Float[Tensor, "n ..."]]], Float[Tensor, "t out ..."]]
"""``(call, gradients of its output, one a target) -> one number a target and structure``, summed over images and
positions; a pass divides by the positions of one image. Without gradients, all are 1 and there is one ``t``."""


@dataclass(frozen=True)
class Pass:
    """Everything that stays the same while some targets are scored together.

    Args:
        model: the user's module.
        targets: what is explained.
        images: the pictures to score on.
        granularity: what one score stands for.
        batch_size: pictures at a time; never changes a score beyond rounding.
        progress: told about every batch.
    """

    model: nn.Module
    targets: Sequence[AnyTarget]
    images: ImageSet
    granularity: Granularity = "kernel"
    batch_size: int = 16
    progress: Progress | None = None
    graph: NetGraph = field(init=False, repr=False)
    readouts: tuple[Readout, ...] = field(init=False, repr=False)
    relevant: tuple[Mapping[str, Tensor], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        graph = trace(self.model, self.images[0].shape)
        readouts = tuple(Readout(target, graph) for target in self.targets)
        relevant = tuple(expand_relevant(graph, r.relevant_kernels, self.granularity) for r in readouts)
        for target, structures in zip(self.targets, relevant, strict=True):
            if not structures:
                raise TargetError(f"no kernel leads from the images to target {target}")
        object.__setattr__(self, "images", judged(self.images, self.model, readouts))
        object.__setattr__(self, "graph", graph)
        object.__setattr__(self, "readouts", readouts)
        object.__setattr__(self, "relevant", relevant)

    def each(self) -> Iterator["Pass"]:
        """Yields a pass of its own for every target, for criteria with nothing to share."""
        for target in self.targets:
            yield replace(self, targets=(target,))

    def scores(self, criterion: str, sums: Mapping[str, Tensor], n_images: int | None = None) -> list[Scores]:
        """Returns the sums as `Scores`, one a target, zero where nothing is relevant or nothing arrived.

        Args:
            criterion: its name.
            sums: layer -> numbers ``(t, out, ...)``, with one ``t`` where all targets have the same.
            n_images: pictures summed over; all of them unless said.
        """
        return [
            Scores(
                {name: self._own(sums.get(name), t, array) for name, array in relevant.items()}, relevant,
                len(self.images) if n_images is None else n_images, self.granularity, criterion, str(target),
                self.graph.input_shape,
            )
            for t, (target, relevant) in enumerate(zip(self.targets, self.relevant, strict=True))
        ]  # fmt: skip

    def _own(self, sums: Tensor | None, t: int, relevant: Tensor) -> Tensor:
        if sums is None:
            return torch.zeros(relevant.shape)
        return sums[t if len(sums) > 1 else 0].detach().cpu() * relevant

    def weight(self, layer: str) -> Float[Tensor, "t out in ..."]:
        """Returns the model's own weight of a kernel layer, with one ``t``: the same for every target."""
        kernel_layer = self.graph.layers[layer]
        return kernel_layer.out_first(own_parameter(self.model, kernel_layer.weight))[None]

    @property
    def layers(self) -> list[str]:
        """The kernel layers that matter to any of the targets, in order of execution."""
        return [name for name in self.graph.layers if any(name in relevant for relevant in self.relevant)]

    def sum_over_images(
        self, criterion: str, formula: Formula, *, gradients: bool = True, mask: Mask | None = None
    ) -> list[Scores]:
        """Returns the formula's numbers, averaged over positions, summed over calls and images; masked if asked."""
        if self.granularity == "kernel":
            like = next(self.model.parameters())
            compile_loops((self.graph.layers[n] for n in self.layers), like, len(self.targets), self.progress)
        copy_outputs = self.granularity == "filter"
        targets = len(self.targets) if gradients else 0
        sums = self._run(criterion, lambda n, c, s: _Tape(self.layers, targets, n, c, s, formula, copy_outputs), mask)
        return self.scores(criterion, sums)

    def absolute_gradients(self, criterion: str, mask: Mask | None = None) -> dict[str, Float[Tensor, "t out in ..."]]:
        """Returns layer -> ``sum_n |df_n / dw|`` of every target; of the masked network, given a mask."""
        size = self.batch_size if self._images_lead() else 1
        targets = len(self.targets)
        return self._run(criterion, lambda n, c, s: _GradientTape(self.layers, targets, n, c, s), mask, size)

    def _images_lead(self) -> bool:
        """Whether the first axis of every layer's input is the images: not behind window partitions, or tokens first.

        One image at a time is right for any layout.
        """
        layers = set(self.layers)
        inputs = [node.all_input_nodes[0] for node, name in self.graph.kernel_calls.items() if name in layers]
        return all(concrete(node.meta["val"].shape[:1]) == (2,) for node in inputs)  # traced with two images

    def _run(
        self, criterion: str, new_tape: "NewTape", mask: Mask | None = None, batch_size: int | None = None
    ) -> dict[str, Tensor]:
        sums: dict[str, Tensor] = {}
        weights = masked_weights(self.model, self.graph, mask) if mask is not None else {}
        copies = False
        size = batch_size or self.batch_size
        for batch in batches(self.images, self.model, self.graph, size, progress=self.progress, what=criterion):
            tape = self._batch(batch, new_tape, weights, copies, sums)
            copies, sums = tape.copies, tape.sums  # copies needed once are needed again
        return sums

    def _batch(
        self, batch: Batch, new_tape: "NewTape", weights: Mapping[str, Tensor], copies: bool, sums: dict[str, Tensor]
    ) -> "_Tape":
        """Returns a tape whose sums are those given and the batch's."""
        if not copies:
            tape = new_tape(len(batch.images), False, sums)
            try:
                self._record(tape, batch, weights)
                if not tape.overwritten:
                    return tape
            except RuntimeError as error:
                if "modified by an inplace operation" not in str(error):
                    raise
            # an in-place operation of the model wrote over something that the gradients need, or over the pictures;
            # what happens to one batch happens to all, so that no sums of others are lost
            assert batch.start == 0
            sums = {}
            n = len(batch.images)
            (batch,) = batches(self.images.subset(range(n)), self.model, self.graph, n)
        tape = new_tape(len(batch.images), True, sums)  # once more, with copies
        with keeping_copies():
            self._record(tape, batch, weights)
        return tape

    def _record(self, tape: "_Tape", batch: Batch, weights: Mapping[str, Tensor]) -> None:
        read = dict.fromkeys(layer for readout in self.readouts for layer in readout.layers)
        # what the targets fix in the full model is there in this very run, unless the weights are edited
        frozen = [freeze(self.model, readout, batch.images) if weights else None for readout in self.readouts]
        with torch.set_grad_enabled(tape.n_targets > 0):
            outputs = run(
                self.model, self.graph, batch.images, read, weights=weights, see=tape.see, filters=self._filters
            )
            for t, (readout, fixed) in enumerate(zip(self.readouts, frozen, strict=True)):
                fixed = readout.freeze(outputs) if fixed is None else fixed
                objective = readout.objective(outputs, fixed, batch.labels)
                if not bool(torch.isfinite(objective).all()):
                    raise ImageError(
                        f"target {readout.target} is not finite on some images; check the preprocessing and the weights"
                    )
                if objective.requires_grad:
                    tape.target = t
                    objective.sum().backward(retain_graph=t + 1 < len(self.readouts))
        tape.close()

    @cached_property
    def _filters(self) -> dict[str, Tensor]:
        return needed_filters(self.graph, relevant_to_any(self.readouts))


NewTape = Callable[[int, bool, dict[str, Tensor]], "_Tape"]
"""``(number of images, whether to keep copies of inputs, sums to add to) -> tape``."""


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


class _Tape:
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


class _GradientTape(_Tape):
    """Sums of absolute weight gradients, image by image; a layer that runs twice adds its gradients before ``|.|``."""

    def __init__(
        self, layers: Sequence[str], n_targets: int, n_images: int, copies: bool, sums: dict[str, Tensor]
    ) -> None:
        super().__init__(layers, n_targets, n_images, copies, sums, _no_formula)
        self.pending: dict[str, Tensor] = {}

    def add(self, call: KernelCall, gradients: Sequence[Tensor]) -> None:
        layer, n = call.layer, self.n_images
        if layer.calls == 1:
            each = [layer.out_first(absolute_gradients(call, n, gradient)) for gradient in gradients]
            self._put(self.sums, call, torch.stack(each) if len(each) > 1 else each[0][None])
        else:  # (t, out, n, ...): the filters stand where `_put` expects them
            each = [layer.out_first_of_each(stacked_gradients(call, n, g)).transpose(0, 1) for g in gradients]
            self._put(self.pending, call, torch.stack(each))

    def close(self) -> None:
        super().close()
        for name, each in self.pending.items():
            magnitudes = each.abs().sum(2)
            self.sums[name] = self.sums[name].add_(magnitudes) if name in self.sums else magnitudes
        self.pending.clear()


def _no_formula(call: KernelCall, gradients: Sequence[Tensor]) -> Tensor:
    raise AssertionError("a gradient tape has its own")
