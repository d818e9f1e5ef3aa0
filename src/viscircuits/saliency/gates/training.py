"""Training gates for one target: fewer and fewer open, binary at every rung, each rung inside the one before.

A *rung* is a number of structures to keep. Going down to it the sum of the gates falls, evenly in its logarithm; then
the temperature falls round by round, and the binary mask of the largest logits is measured on pictures that are not
trained on, until that gets no better. What is shut at a rung stays shut, so the masks are nested.

Convention: everything about gates is one flat vector over the relevant structures (`viscircuits.saliency.gates.gates`).
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from viscircuits.activations.agreement import constant
from viscircuits.data.images import ImageSet
from viscircuits.execution.loop import batches
from viscircuits.execution.response import Response, respond
from viscircuits.model.guard.replica import like
from viscircuits.model.instrument import keeping_copies, needed_filters, run
from viscircuits.saliency.engine.passes import Pass
from viscircuits.saliency.gates.gates import Gates, best, soft_top, soft_top_gradient

Disagreement = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``(responses of the circuit, of the full model, of the full model to all pictures) -> a number``; 0 where they agree.

The last sets the scale: a step's few pictures may leave the target silent.
"""

FEW_POSITIONS = 16
"""A target with fewer positions is trained on `MANY` pictures a step, any other on `SOME`."""
SOME, MANY = 8, 32

FAINT = 1e-6
"""A share of the full response's standard deviation below which the other is as good as constant."""

SPREAD = 0.3
"""Standard deviation of the first logits, which follow the start's ranking."""
WARM, COOL = 0.2, 0.1
"""Temperature at the very beginning and from half the structures on."""
RATE = 0.1
"""Largest usual step of a logit."""
MEMORY = (0.97, 0.99)
"""Adam's decay of the mean gradient and of its square."""
DAMPING = 0.2
"""Gradients below this share of their root mean square move a logit less; keeps rounding from moving any."""
ROUNDS = (2, 4)
"""Fewest and most rounds at a rung."""


def correlation_loss(
    circuit: Float[Tensor, "n p"], full: Float[Tensor, "n p"], every: Float[Tensor, "m p"]
) -> Float[Tensor, ""]:
    """Returns ``1 - r`` over all positions; 1 where a response is constant.

    A response whose standard deviation is below `FAINT` times that of ``every`` counts as if it varied so much.

    Args:
        circuit: the responses under the gates.
        full: the full model's, to the same pictures.
        every: the full model's, to all pictures.
    """
    # norms are bounded from below and nothing is added to them: r of ordinary responses stays exact, and one that is
    # silent on these pictures still has a gradient
    a, b, c = (values.flatten() - values.mean() for values in (circuit, full, every))
    least = (FAINT * c.norm() * (len(a) / len(c)) ** 0.5).clamp_min(torch.finfo(c.dtype).tiny)
    return 1 - (a / a.norm().maximum(least)) @ (b / b.norm().maximum(least))


def difference_loss(
    circuit: Float[Tensor, "n p"], full: Float[Tensor, "n p"], every: Float[Tensor, "m p"]
) -> Float[Tensor, ""]:
    """Returns the mean of ``|circuit - full|`` over the mean of ``|every|``.

    Args:
        circuit: the responses under the gates.
        full: the full model's, to the same pictures.
        every: the full model's, to all pictures.
    """
    return (circuit - full).abs().mean() / every.abs().mean().clamp_min(torch.finfo(every.dtype).tiny)


LOSSES: dict[str, Disagreement] = {"correlation": correlation_loss, "difference": difference_loss}
"""What is trained for, by name."""


@dataclass
class Standing:
    """Where a training stands: all that is needed to go on."""

    logits: Float[Tensor, " m"]
    alive: Bool[Tensor, " m"]
    mean: Float[Tensor, " m"] = field(init=False)
    square: Float[Tensor, " m"] = field(init=False)
    step: int = 0

    def __post_init__(self) -> None:
        self.mean, self.square = torch.zeros_like(self.logits), torch.zeros_like(self.logits)


@dataclass(frozen=True, eq=False)
class Training:
    """What stays the same while gates are trained for the one target of a pass.

    Args:
        job: the model, the target, the pictures to train on.
        held: pictures that masks are measured on.
        gates: where the gates act.
        loss: a name in `LOSSES`.
        steps: for every halving of what is kept; a round takes a third of them.
        seed: for the order of the pictures.
    """

    job: Pass
    held: ImageSet
    gates: Gates
    loss: str
    steps: int
    seed: int
    _full: tuple[Response, Response] = field(init=False, repr=False)
    _mutable: list[bool] = field(init=False, repr=False, default_factory=list)

    def __post_init__(self) -> None:
        (readout,) = self.job.readouts
        full = tuple(
            respond(self.job.model, readout, images, batch_size=self.job.batch_size)
            for images in (self.job.images, self.held)
        )
        object.__setattr__(self, "_full", full)

    @property
    def device(self) -> torch.device:
        """Where the gates live: with the model."""
        return like(self.job.model).device

    def longest(self, above: int, k: int) -> int:
        """Returns the most steps that a rung can take."""
        return self._down(above, k) + ROUNDS[1] * self._round

    def _down(self, above: int, k: int) -> int:
        return max(1, round(self.steps * math.log2(above / k)))

    @property
    def _round(self) -> int:
        return max(1, self.steps // 3)

    def rung(self, state: Standing, above: int, k: int, tick: Callable[[], None]) -> tuple[Bool[Tensor, " m"], float]:
        """Returns the best mask of ``k`` structures and its worth, having trained the state down from ``above``.

        Args:
            state: where the training stands; it is brought to where the rung ends.
            above: how many structures are open at the rung before.
            k: how many are kept at this one.
            tick: called after every step.
        """
        down = self._down(above, k)
        for s in range(1, down + 1):
            # it cools over the first `steps`, which lead down to half of the structures, and then stays
            warmth = (WARM / COOL) ** max(0.0, 1 - state.step / self.steps)
            self._step(state, above * (k / above) ** (s / down), COOL * warmth, RATE)
            tick()
        peak: tuple[Bool[Tensor, " m"], float] | None = None
        for turn in range(1, ROUNDS[1] + 1):
            for _ in range(self._round):
                self._step(state, float(k), COOL / 2**turn, RATE / 2**turn)
                tick()
            # a logit that is shut may have been large once, and must not come back
            mask = best(state.logits.masked_fill(~state.alive, -math.inf), k)
            worth = self.worth(mask)
            better = peak is None or worth > peak[1]
            peak = (mask, worth) if better or peak is None else peak
            if turn >= ROUNDS[0] and not better:
                break
        assert peak is not None
        return peak

    def worth(self, gates: Shaped[Tensor, " m"]) -> float:
        """Returns how well gates (or a mask) keep the response on the held pictures: |r|, or minus the difference."""
        (readout,), full = self.job.readouts, self._full[1]
        weights = self.gates.weights(gates.to(like(self.job.model).dtype))
        circuit = respond(
            self.job.model, readout, self.held, weights=weights, frozen=full.frozen, batch_size=self.job.batch_size
        )
        got, wanted = circuit.values.double(), full.values.double()
        if self.loss == "difference":
            return -float(difference_loss(got, wanted, wanted))
        if constant(got):  # the correlation of what rounding leaves is any number
            return 0.0
        return abs(1 - float(correlation_loss(got, wanted, wanted)))

    def _step(self, state: Standing, k: float, temperature: float, rate: float) -> None:
        """One step of Adam on the logits of what is alive, under gates that sum to ``k``."""
        alive = state.alive
        # where all that is alive is open there is nothing to choose, and no threshold gives such a sum
        open_gates = soft_top(state.logits[alive], k, temperature) if k < int(alive.sum()) else None
        values = torch.zeros_like(state.logits)
        values[alive] = 1.0 if open_gates is None else open_gates
        gradient = torch.zeros_like(values)
        if open_gates is not None:
            gradient[alive] = soft_top_gradient(open_gates, self.gradient(values, state.step)[alive], temperature)
        state.step += 1
        (a, b), t = MEMORY, state.step
        state.mean = a * state.mean + (1 - a) * gradient
        state.square = b * state.square + (1 - b) * gradient**2
        # the sums start at zero: without these divisors the first steps would be far too small
        size = (state.square / (1 - b**t)).sqrt()
        floor = DAMPING * size.square().mean().sqrt() + torch.finfo(size.dtype).tiny
        state.logits = state.logits - rate * (state.mean / (1 - a**t)) / (size + floor)

    def gradient(self, values: Float[Tensor, " m"], step: int) -> Float[Tensor, " m"]:
        """Returns the gradient of the loss of one step's pictures with respect to the gates."""
        rows = self._rows(step)
        values = values.detach().requires_grad_()
        # the caller may have switched gradients off; weights are constants here, so only the gates get one
        with torch.enable_grad(), self._writable():
            try:
                (gradient,) = torch.autograd.grad(self._batch_loss(values, rows), values)
            except RuntimeError as error:
                if self._mutable or "modified by an inplace operation" not in str(error):
                    raise
                self._mutable.append(True)  # the model writes over what gradients need: keep copies from now on
                return self.gradient(values, step)
        return gradient

    def _writable(self) -> AbstractContextManager[object]:
        return keeping_copies() if self._mutable else nullcontext()

    def _batch_loss(self, values: Float[Tensor, " m"], rows: Sequence[int]) -> Tensor:
        (readout,), full = self.job.readouts, self._full[0]
        filters = needed_filters(readout.graph, readout.relevant_kernels)
        weights = self.gates.weights(values)
        parts = []  # r is of all pictures of the step, so their responses are joined before the loss is taken
        for batch in batches(self.job.images.subset(rows), self.job.model, readout.graph, self.job.batch_size):
            here = rows[batch.start : batch.start + len(batch.images)]
            # what the full model fixes was found once, in the order of the whole set
            frozen = tuple(None if part is None else part[list(here)] for part in full.frozen)
            outputs = run(self.job.model, readout.graph, batch.images, readout.layers, weights=weights, filters=filters)
            parts.append(readout.response(outputs, frozen, batch.labels))
        circuit = torch.cat(parts)
        every = full.values.to(circuit)
        return LOSSES[self.loss](circuit, every[list(rows)], every)

    def _rows(self, step: int) -> list[int]:
        """Which pictures a step takes: the set in random order, over and over, each time in another."""
        n = len(self.job.images)
        positions = self._full[0].values.shape[1]
        size = min(n, SOME if positions >= FEW_POSITIONS else MANY)
        turn, place = divmod(step, n // size)
        # by the step's number alone, so that a training that goes on takes the pictures it would have taken; the large
        # prime keeps the turns of one seed apart from those of the next
        order = torch.randperm(n, generator=torch.Generator().manual_seed(self.seed * 1_000_003 + turn))
        return sorted(order[place * size : (place + 1) * size].tolist())


def first_logits(start: Float[Tensor, " m"]) -> Float[Tensor, " m"]:
    """Returns logits in the order of the start's scores, as if drawn from a normal distribution of `SPREAD`."""
    m = len(start)
    order = torch.sort(start, descending=True, stable=True).indices
    # the middle of each of m equal parts: at 0 and 1 the quantile is infinite
    shares = 1 - (torch.arange(m, dtype=torch.float64) + 0.5) / m
    logits = torch.empty(m, dtype=torch.float64)
    logits[order] = SPREAD * torch.special.ndtri(shares)
    return logits
