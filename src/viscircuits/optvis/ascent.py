"""The loop: picture, random view, network, one step of Adam; many pictures at once, each as if it were alone.

Variants of one objective can be driven apart (`likeness`); then they are each other's company. How a picture is written
down is in `viscircuits.optvis.parameterisation`, and where it starts in `viscircuits.optvis.start`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from viscircuits.errors import TargetError
from viscircuits.optvis.gradient import gradient
from viscircuits.optvis.network import Look, Network
from viscircuits.optvis.objective import Objective
from viscircuits.optvis.parameterisation import Parameterisation
from viscircuits.optvis.start import Start, alive, starts
from viscircuits.optvis.transforms import Transform, chain, view

LOST = "the gradient vanished on the way: nothing is left to follow (behind a ReLU? then take the layer before it)"


@dataclass(frozen=True)
class Summit:
    """Where an ascent came to.

    Attributes:
        pictures: in [0, 1].
        values: what each objective is worth on its picture as it is, without transforms.
        notes: what there is to say about each; mostly empty.
    """

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
    ) -> Summit:
        """Returns where pictures get to.

        Args:
            objectives: one a picture.
            seeds: one a picture, of its start and its views.
            progress: told the number of every step that is done.
        """
        begun = starts(self.network, self.parameterisation, objectives, seeds)
        # not always those asked for: a start behind a dead ReLU follows what goes into it
        followed = [start.objective for start in begun]
        # a generator a picture, so that its views do not depend on its company in the batch
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        parameters = torch.stack([start.parameters for start in begun]).to(self.network.like).requires_grad_()
        adam = torch.optim.Adam([parameters], lr=self.parameterisation.learning_rate)
        for step in range(self.steps):
            matrices = chain(self.transforms, generators)
            # the loop's variables as defaults: the number may be computed a second time, after an error
            parameters.grad = gradient(lambda m=matrices, s=step: -self._gain(parameters, followed, m, s), parameters)
            adam.step()
            progress(step + 1)
        return self._peak(parameters.detach(), objectives, begun)

    def _gain(self, parameters: Tensor, objectives: Sequence[Objective], matrices: Tensor, step: int) -> Tensor:
        """What a step increases: every picture's objective, less what counts against the picture."""
        pictures = self.parameterisation.picture(parameters)
        look = self.network.look(view(pictures, matrices, self.network.size), objectives)
        for value, what in zip(look.values.tolist(), objectives, strict=True):
            if not math.isfinite(value):
                raise TargetError(f"{what} is {value} at step {step}; check the network's weights and colours")
        # what counts against a picture is a fraction of its own value, whose scale differs from channel to channel;
        # detached, because the value is to be raised by the picture and not by what it is held against
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

    def _peak(self, parameters: Tensor, objectives: Sequence[Objective], begun: Sequence[Start]) -> Summit:
        ends = [Start(end, start.objective, start.note) for end, start in zip(parameters, begun, strict=True)]
        followed = alive(self.network, self.parameterisation, ends).tolist()
        notes = tuple(end.note or ("" if ok else LOST) for end, ok in zip(ends, followed, strict=True))
        # without transforms, in which every picture would be seen a little differently each time
        with torch.no_grad():
            pictures = self.parameterisation.picture(parameters)
            values = self.network.look(pictures, objectives).values
        return Summit(pictures.cpu().float(), values.cpu(), notes)


def likeness(outputs: Float[Tensor, "k c ..."]) -> Float[Tensor, " k"]:
    """Returns the mean cosine of each picture's Gram matrix with those of the others, in [-1, 1].

    The Gram matrix ``A A^T`` of a layer's output (channels x positions) says which channels respond together, wherever
    they do: the texture of a picture, not its layout.

    Source: Olah et al. (2017), diversity.
    """
    maps = outputs.flatten(2) if outputs.ndim > 2 else outputs[:, :, None]
    grams = torch.nn.functional.normalize((maps @ maps.transpose(1, 2)).flatten(1), dim=1, eps=1e-12)
    # a sum over all but itself, without k x k products
    return (grams * (grams.sum(0) - grams)).sum(1) / max(len(outputs) - 1, 1)
