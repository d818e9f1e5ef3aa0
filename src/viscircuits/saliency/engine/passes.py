"""One pass over the images: show every relevant call of a kernel layer, with its gradient, to a formula.

A criterion hands over its formula and gets `Scores` back; what is here is plumbing: batches, hooks on activations,
frozen positions, checks. Gradients are taken for activations only (the weights take part as constants), so a pass costs
less than one of training, and the user's parameters never see a gradient.

Several targets share a pass: one forward run, one backward run a target, and a formula that gets the gradients of all
of them at once (axis ``t``), so that what does not depend on the target is computed once.

Two shapes of formula cover the field: numbers from one call and the gradients of its output (`Pass.sum_over_images`),
and the magnitudes of every image's weight gradient (`Pass.absolute_gradients`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor, nn

from viscircuits.data.images import ImageSet
from viscircuits.data.stream import Batch
from viscircuits.errors import ImageError, TargetError
from viscircuits.execution.loop import batches, judged
from viscircuits.execution.response import freeze, masked_weights, relevant_to_any
from viscircuits.mask import Mask, expand_relevant
from viscircuits.model.graph import NetGraph
from viscircuits.model.guard.replica import like, own_parameter
from viscircuits.model.instrument import keeping_copies, needed_filters, run
from viscircuits.model.trace import trace
from viscircuits.readout import Readout, bound
from viscircuits.saliency.engine.maps import compile_loops
from viscircuits.saliency.engine.plan import MEMORY
from viscircuits.saliency.engine.tape import Formula, GradientTape, NewTape, Tape
from viscircuits.scores import Scores
from viscircuits.target import AnyTarget
from viscircuits.types import Granularity, Progress


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
        memory: the limit in bytes, for criteria that keep more than sums.
    """

    model: nn.Module
    targets: Sequence[AnyTarget]
    images: ImageSet
    granularity: Granularity = "kernel"
    batch_size: int = 16
    progress: Progress | None = None
    memory: int = MEMORY
    graph: NetGraph = field(init=False, repr=False)
    readouts: tuple[Readout, ...] = field(init=False, repr=False)
    relevant: tuple[Mapping[str, Tensor], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        graph = trace(self.model, self.images[0].shape)
        readouts = tuple(bound(target, graph) for target in self.targets)
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
        scores = []
        for t, (target, relevant) in enumerate(zip(self.targets, self.relevant, strict=True)):
            own = {name: self._own(sums.get(name), t, array) for name, array in relevant.items()}
            count = len(self.images) if n_images is None else n_images
            scores.append(
                Scores(own, relevant, count, self.granularity, criterion, str(target), self.graph.input_shape)
            )
        return scores

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
        matter = set().union(*self.relevant)
        return [name for name in self.graph.layers if name in matter]

    def sum_over_images(
        self, criterion: str, formula: Formula, *, gradients: bool = True, mask: Mask | None = None
    ) -> list[Scores]:
        """Returns the formula's numbers, averaged over positions, summed over calls and images.

        Args:
            criterion: its name, for the scores and the progress.
            formula: what one call contributes.
            gradients: whether the formula needs them; without, nothing runs backwards and all targets share a sum.
            mask: measure in the masked network; in the full one where None.
        """
        if self.granularity == "kernel":
            layers, own = (self.graph.layers[n] for n in self.layers), like(self.model)
            compile_loops(layers, own, len(self.targets), self.progress)
        copy_outputs = self.granularity == "filter"  # only there the formula reads the output itself
        targets = len(self.targets) if gradients else 0
        layers = self.layers

        def tape(batch: Batch, copies: bool, sums: dict[str, Tensor]) -> Tape:
            return Tape(layers, targets, len(batch.images), copies, sums, formula, copy_outputs)

        return self.scores(criterion, self.run(criterion, tape, mask, by_image=False))

    def absolute_gradients(self, criterion: str, mask: Mask | None = None) -> dict[str, Float[Tensor, "t out in ..."]]:
        """Returns layer -> ``sum_n |df_n / dw|`` of every target; of the masked network, given a mask."""
        layers, targets = self.layers, len(self.targets)

        def tape(batch: Batch, copies: bool, sums: dict[str, Tensor]) -> Tape:
            return GradientTape(layers, targets, len(batch.images), copies, sums)

        return self.run(criterion, tape, mask, by_image=True)

    def run(self, criterion: str, new_tape: NewTape, mask: Mask | None, *, by_image: bool) -> dict[str, Tensor]:
        """Returns the sums of the tapes of all batches.

        Args:
            criterion: its name, for the progress.
            new_tape: makes the tape of a batch.
            mask: run the masked network; the full one where None.
            by_image: whether the tape tells images apart.
        """
        sums: dict[str, Tensor] = {}
        weights = masked_weights(self.model, self.graph, mask) if mask is not None else {}
        copies = False
        # one image at a time is right for any layout
        size = self.batch_size if not by_image or self.graph.images_lead(self.layers) else 1
        for batch in batches(self.images, self.model, self.graph, size, progress=self.progress, what=criterion):
            tape = self._batch(batch, new_tape, weights, copies, sums)
            copies, sums = tape.copies, tape.sums  # copies needed once are needed again
        return sums

    def _batch(
        self, batch: Batch, new_tape: NewTape, weights: Mapping[str, Tensor], copies: bool, sums: dict[str, Tensor]
    ) -> Tape:
        """Returns a tape whose sums are those given and the batch's."""
        if not copies:
            tape = new_tape(batch, False, sums)
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
        tape = new_tape(batch, True, sums)  # once more, with copies
        with keeping_copies():
            self._record(tape, batch, weights)
        return tape

    def _record(self, tape: Tape, batch: Batch, weights: Mapping[str, Tensor]) -> None:
        read = dict.fromkeys(layer for readout in self.readouts for layer in readout.layers)
        # what the targets fix in the full model is there in this very run, unless the weights are edited
        frozen = [freeze(self.model, readout, batch.images) if weights else None for readout in self.readouts]
        with torch.set_grad_enabled(tape.n_targets > 0):
            outputs = run(
                self.model, self.graph, batch.images, read, weights=weights, see=tape.see, filters=self._filters
            )
            for t, (readout, fixed) in enumerate(zip(self.readouts, frozen, strict=True)):
                fixed = readout.freeze(outputs) if fixed is None else fixed
                objective = tape.start(readout, outputs, fixed, batch)
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
