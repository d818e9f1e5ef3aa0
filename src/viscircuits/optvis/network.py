"""The network that is looked into: a model or a circuit, its graph for one picture size, and the colours it wants."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from viscircuits.data.colours import Colours
from viscircuits.model.calls import KernelCall
from viscircuits.model.fingerprint import fingerprint
from viscircuits.model.graph import NetGraph
from viscircuits.model.guard.replica import like
from viscircuits.model.instrument import run
from viscircuits.optvis.objective import KernelMap, Objective, Seen
from viscircuits.store import digest


@dataclass(frozen=True)
class Look:
    """What came of showing pictures: one value a picture, and the outputs of the modules that were read."""

    values: Float[Tensor, " n"]
    outputs: Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Network:
    """Somebody's module with edited weights, never changed.

    Args:
        model: the user's module, in evaluation mode.
        graph: its graph for the size that it sees.
        weights: parameters in place of the model's own, by name (a circuit's).
        colours: how it wants its pictures.
    """

    model: nn.Module
    graph: NetGraph
    weights: Mapping[str, Tensor]
    colours: Colours

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of what it sees."""
        return self.graph.input_shape[1], self.graph.input_shape[2]

    @property
    def like(self) -> Tensor:
        """An empty tensor of the device, and at least single precision of the type, that it computes in."""
        own = like(self.model)
        return own.to(torch.promote_types(own.dtype, torch.float32))

    def answers(
        self,
        pictures: Float[Tensor, "n c h w"],
        layers: Iterable[str],
        see: Callable[[KernelCall], Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Returns the outputs of modules for pictures.

        Args:
            pictures: in [0, 1], of any size in the right proportion.
            layers: the modules that are read.
            see: shown every call of a kernel layer, and returns what goes on in place of its output.
        """
        own = like(self.model)
        if tuple(pictures.shape[2:]) != self.size:
            pictures = torch.nn.functional.interpolate(pictures, self.size, mode="bilinear", antialias=True)
        prepared = self.colours.prepared(pictures).to(device=own.device, dtype=own.dtype)
        # in the layout that the trial found fastest; another one would be converted in every layer
        prepared = prepared.contiguous(memory_format=self.graph.memory_format)
        return run(self.model, self.graph, prepared, layers, weights=self.weights, see=see)

    def look(self, pictures: Float[Tensor, "n c h w"], objectives: Sequence[Objective]) -> Look:
        """Returns what objective n makes of picture n."""
        layers = {layer for objective in objectives for layer in objective.layers(self.graph)}
        maps = [_empty(objective.kernels) for objective in objectives]

        def see(call: KernelCall) -> Tensor:
            for row, wanted in enumerate(maps):
                for kernel, seen in wanted.items():
                    if kernel.layer == call.layer.name:
                        seen.append(kernel.map(call, row))
            return call.output

        # looking at calls costs time, so only where a kernel's own map is wanted
        outputs = self.answers(pictures, layers, see if any(maps) else None)
        rows = {layer: output.split(1) for layer, output in outputs.items()}
        values = []
        for n, objective in enumerate(objectives):
            own = {layer: row[n] for layer, row in rows.items()}
            values.append(objective.value(Seen(self.graph, own, maps[n])))
        return Look(torch.stack(values).to(pictures), outputs)

    @property
    def recipe(self) -> str:
        """A hash of all that decides what it computes: weights, edits, operations, colours."""
        edits = [digest(name, tensor) for name, tensor in sorted(self.weights.items())]
        # two models of equal weights may still compute different things
        operations = [f"{node.target} {node.args} {node.kwargs}" for node in self.graph.nodes]
        return digest(fingerprint(self.model), *edits, *operations, repr(self.colours), str(self.like.device.type))


def _empty(kernels: Iterable[KernelMap]) -> dict[KernelMap, list[Tensor]]:
    return {kernel: [] for kernel in kernels}
