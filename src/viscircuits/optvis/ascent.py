"""The loop: picture, random view, network, one step of Adam; many pictures at once, each as if it were alone."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from viscircuits.errors import TargetError
from viscircuits.optvis.diversity import likeness
from viscircuits.optvis.gradient import gradient
from viscircuits.optvis.network import Look, Network
from viscircuits.optvis.objective import Objective
from viscircuits.optvis.parameterisation import Parameterisation
from viscircuits.optvis.start import Start, alive, starts
from viscircuits.optvis.transforms import Transform, chain, view

LOST = "the gradient vanished on the way: nothing is left to follow (behind a ReLU? then take the layer before it)"


@dataclass(frozen=True)
class Peak:
    """What an ascent came to: the pictures, the objectives' values on them as they are, and what there is to say."""

    pictures: Float[Tensor, "n c h w"]
    values: Float[Tensor, " n"]
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Ascent:
    """Everything that stays the same while pictures climb.

    Args:
        network: what they are shown to.
        parameterisation: how they are written down, fitted to their shape.
        transforms: the random views.
        steps: steps of Adam.
        sign: 1 to raise the objectives, -1 to lower them.
        variants: pictures an objective; they stand next to each other.
        diversity: what it costs when they are all alike, as a fraction of the objective.
    """

    network: Network
    parameterisation: Parameterisation
    transforms: tuple[Transform, ...]
    steps: int
    sign: int = 1
    variants: int = 1
    diversity: float = 0.0

    @property
    def recipe(self) -> tuple[str, ...]:
        """All that its pictures depend on beside objective and seed, as texts."""
        company = f"{self.variants} {self.diversity}" if self.diversity else ""  # without it, each is as if alone
        shapes = f"{self.parameterisation.shape} {self.network.graph.input_shape}"
        own = f"{self.transforms} {self.steps} {self.sign} {company}"
        return self.network.recipe, self.parameterisation.recipe, shapes, own

    def climb(
        self, objectives: Sequence[Objective], seeds: Sequence[int], progress: Callable[[int], None] = lambda step: None
    ) -> Peak:
        """Returns where pictures get to, picture n by objective n from seed n; ``progress`` is told every step."""
        found = starts(self.network, self.parameterisation, objectives, seeds)
        followed = [start.objective for start in found]
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        parameters = torch.stack([start.parameters for start in found]).to(self.network.like).requires_grad_()
        adam = torch.optim.Adam([parameters], lr=self.parameterisation.learning_rate)
        for step in range(self.steps):
            matrices = chain(self.transforms, generators)
            parameters.grad = gradient(lambda m=matrices, s=step: -self._gain(parameters, followed, m, s), parameters)
            adam.step()
            progress(step + 1)
        return self._peak(parameters.detach(), objectives, found)

    def _gain(self, parameters: Tensor, objectives: Sequence[Objective], matrices: Tensor, step: int) -> Tensor:
        """What a step increases: every picture's objective, less what counts against the picture."""
        pictures = self.parameterisation.picture(parameters)
        look = self.network.look(view(pictures, matrices, self.network.size), objectives)
        for value, what in zip(look.values.tolist(), objectives, strict=True):
            if not math.isfinite(value):
                raise TargetError(f"{what} is {value} at step {step}; check the network's weights and colours")
        against = self.parameterisation.distance(pictures) + self._likeness(look, objectives)
        return (self.sign * look.values - look.values.detach().abs() * against).sum()

    def _likeness(self, look: Look, objectives: Sequence[Objective]) -> Float[Tensor, " n"]:
        if self.variants == 1 or self.diversity == 0:
            return torch.zeros_like(look.values)
        parts = []
        for first in range(0, len(objectives), self.variants):
            layer = objectives[first].layers(self.network.graph)[0]
            parts.append(likeness(look.outputs[layer][first : first + self.variants]))
        return self.diversity * torch.cat(parts).to(look.values)

    def _peak(self, parameters: Tensor, objectives: Sequence[Objective], found: Sequence[Start]) -> Peak:
        ends = [Start(end, start.objective, start.note) for end, start in zip(parameters, found, strict=True)]
        followed = alive(self.network, self.parameterisation, ends).tolist()
        notes = tuple(end.note or ("" if ok else LOST) for end, ok in zip(ends, followed, strict=True))
        with torch.no_grad():
            pictures = self.parameterisation.picture(parameters)
            values = self.network.look(pictures, objectives).values
        return Peak(pictures.cpu().float(), values.cpu(), notes)
