"""An execution as a module that stands alone: its last step reads the target off the smaller network's outputs."""

from torch import Tensor, nn

from viscircuits.errors import UnsupportedOperation
from viscircuits.execution.execution import Execution
from viscircuits.model.graph import outline
from viscircuits.model.small.shrink import Shrunk
from viscircuits.readout import Readout
from viscircuits.target import AnyTarget, Loss


def extract(execution: Execution) -> Shrunk:
    """Returns the standalone module; see `Circuit.extract`.

    Raises:
        UnsupportedOperation: the target is a loss (it needs labels) or reads each image's arg-max.
    """
    readout = execution.readout
    if isinstance(readout.target, Loss) or readout.needs_freezing():
        raise UnsupportedOperation(
            f"target {readout.target} cannot stand alone: it needs labels or the full model's arg-max"
        )
    return execution.shrunk(Head(readout))


class Head(nn.Module):
    """From module outputs to the target's response."""

    def __init__(self, readout: Readout) -> None:
        super().__init__()
        outputs = {name: readout.graph.output(name) for name in readout.layers}
        places = {name: (output.shape, output.channel_axis) for name, output in outputs.items()}
        # a graph of the outputs alone: the whole one holds the user's module
        self._outline = readout.target, readout.graph.input_shape, places
        self._readout = _outlined(*self._outline)

    def forward(self, outputs: dict[str, Tensor]) -> Tensor:
        """Returns the response, ``[n, p]``."""
        return self._readout.response(outputs, (None,) * len(self._readout.terms))

    def __getstate__(self) -> dict[str, object]:  # graphs do not pickle
        return {name: value for name, value in self.__dict__.items() if name != "_readout"}

    def __setstate__(self, state: dict[str, object]) -> None:
        super().__setstate__(state)
        self._readout = _outlined(*self._outline)


def _outlined(target: AnyTarget, shape: tuple[int, ...], outputs: dict[str, tuple[tuple[int, ...], int]]) -> Readout:
    return Readout(target, outline(shape, outputs))
