"""Where stimuli are shown: a picture of one grey with a box in it, the receptive field of the position that is read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from viscircuits.arrays import Images
from viscircuits.circuit.circuit import Circuit
from viscircuits.data.images import ImageSet
from viscircuits.data.stream import Batch
from viscircuits.errors import ImageError, TargetError
from viscircuits.execution.response import Rows
from viscircuits.mask import Mask, expand_relevant
from viscircuits.model.field.receptive_field import Area, paste, receptive_field
from viscircuits.model.guard.clean import clean
from viscircuits.model.trace import trace
from viscircuits.probes.drawing import draw
from viscircuits.probes.stimulus import Stimulus
from viscircuits.readout import Readout
from viscircuits.target import Target, indices
from viscircuits.types import Progress


@dataclass(frozen=True)
class Stage:
    """A place for stimuli in a network's pictures.

    Args:
        shape: ``(c, h, w)`` of the pictures.
        box: where stimuli go; they are drawn to fit it.
        mean: a channel, of pictures in [0, 1]; pictures are shown as ``(picture - mean) / std``, as the network wants.
        std: likewise.
        ground: the grey of everything else.
    """

    shape: tuple[int, int, int]
    box: Area
    mean: tuple[float, ...]
    std: tuple[float, ...]
    ground: float = 0.5

    def __post_init__(self) -> None:
        if not len(self.mean) == len(self.std) == self.shape[0]:
            raise ImageError(
                f"expected {self.shape[0]} means and deviations, one a channel; got {len(self.mean)}, {len(self.std)}"
            )
        if self.box.empty:
            raise ImageError("the receptive field is empty: no pixel matters to what is read")

    @classmethod
    def of(
        cls, model: nn.Module, target: Target, shape: Sequence[int], *, mean: Sequence[float], std: Sequence[float],
        ground: float = 0.5,
    ) -> "Stage":  # fmt: skip
        """Returns the stage of a target at one position: the part of its receptive field that is in the picture.

        Args:
            model: a network in evaluation mode.
            target: a channel or direction of a layer; at the centre of its map where it has no position.
            shape: ``(c, h, w)`` of the pictures.
            mean: a channel, of pictures in [0, 1].
            std: likewise.
            ground: the grey around the stimuli, in [0, 1].

        Raises:
            TargetError: the target's position depends on the picture.
            ImageError: no pixel matters to it.
        """
        graph = trace(model, shape)
        sizes = graph.output(target.layer).map_shape
        if target.position not in (None, "center") and not isinstance(target.position, tuple):
            raise TargetError(f"target {target} has no fixed position to place stimuli at; take @center or @y,x")
        centre = indices("center", sizes)
        position = target.position if isinstance(target.position, tuple) else centre
        box = receptive_field(graph, target.layer, position, channel=target.channel, visible=True)
        channels, height, width = graph.input_shape
        return cls((channels, height, width), box, tuple(mean), tuple(std), ground)

    def drawn(self, stimuli: Sequence[Stimulus]) -> Images:
        """Returns the pictures in [0, 1]."""
        shown = [draw(s, self.box.size, channels=self.shape[0], ground=self.ground) for s in stimuli]
        return paste(torch.stack(shown), self.box, torch.full(self.shape, self.ground))

    def prepared(self, stimuli: Sequence[Stimulus]) -> Images:
        """Returns the pictures as the network takes them."""
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (self.drawn(stimuli) - mean) / std

    def images(self, stimuli: Sequence[Stimulus]) -> ImageSet:
        """Returns the pictures as a set, to score on."""
        return ImageSet.from_tensors(self.prepared(stimuli), names=map(str, stimuli))

    def batches(self, stimuli: Sequence[Stimulus], size: int, progress: Progress | None, what: str) -> Iterator[Images]:
        """Yields prepared pictures; no more than a batch of them is ever held.

        Args:
            stimuli: what to show.
            size: pictures at a time.
            progress: called after every batch.
            what: the word for it.
        """
        for start in range(0, len(stimuli), size):
            yield self.prepared(stimuli[start : start + size])
            if progress is not None:
                progress(what, min(start + size, len(stimuli)), len(stimuli))


@clean
@torch.no_grad()
def responses(
    network: nn.Module | Circuit, target: Target, stimuli: Sequence[Stimulus], stage: Stage,
    *, batch_size: int = 32, progress: Progress | None = None,
) -> Float[Tensor, " n"]:  # fmt: skip
    """Returns one number a stimulus: what the target answers, in a model or in a circuit.

    Args:
        network: a model, or a circuit; a circuit of the same target, whatever its own position is.
        target: a channel or direction of a layer, at the position that the stage was made for.
        stimuli: what to show.
        stage: where.
        batch_size: pictures at a time; changes no result beyond rounding.
        progress: called as the work goes on.
    """
    model = network.model if isinstance(network, Circuit) else network
    readout = Readout(target, trace(model, stage.shape))
    if target.position is None and readout.graph.output(target.layer).map_shape:
        raise TargetError(f"target {target} is a map; a probe reads one number: take @center or @y,x")
    if isinstance(network, Circuit):
        _same_target(network, target)
        # the same kernels, read at this position: the circuit may have been found for another one
        circuit = Circuit(model, target, network.mask, network.biases, network.compensation)
    else:  # all of the model, but no more of each picture than the position sees
        relevant = expand_relevant(readout.graph, readout.relevant_kernels, "kernel")
        circuit = Circuit(model, target, Mask(relevant, relevant, "kernel", stage.shape))
    shown = stage.batches(stimuli, batch_size, progress, "probes")
    rows = Rows(len(stimuli))
    for pictures in shown:
        rows.add(circuit.execution.respond_to(Batch(pictures, None, 0))[:, 0])
    return rows.tensor


def _same_target(circuit: Circuit, target: Target) -> None:
    # how a map is reduced matters to scores alone, and what is read here is one number
    own = circuit.target
    if not isinstance(own, Target) or own.at(None) != replace(target, position=None, reduction=own.reduction):
        raise TargetError(f"the circuit computes {own}, not {target}; probe it at its own target, or find another one")
