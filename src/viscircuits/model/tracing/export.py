"""The program of a model, by `torch.export`, made so that its outputs can be told.

``strict=False`` runs plain Python as it is. Two blank images are exported: some models refuse a single one, and values
play no part. In-place writes are made functional, because a write through a view is invisible otherwise. A replica of
the model is exported, never the user's own modules. Not here: what the program means (`viscircuits.model.trace`).
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from viscircuits.errors import ModelError, UnsupportedOperation
from viscircuits.model.guard.alone import exporting
from viscircuits.model.guard.quiet import unheard
from viscircuits.model.guard.replica import like, private
from viscircuits.model.output import named_leaves


class Exported(NamedTuple):
    """The program of a model.

    Attributes:
        program: as torch gives it.
        ways: where each tensor stands in what the model returns (`viscircuits.model.output`), in the program's order.
    """

    program: torch.export.ExportedProgram
    ways: list[str]


def export(model: nn.Module, shape: tuple[int, ...], *, any_batch: bool) -> Exported:
    """Returns the program of a model for two images, or for any number of them.

    Args:
        model: the user's module.
        shape: of one image, ``(c, h, w)``.
        any_batch: whether the number of images stays symbolic.

    Raises:
        UnsupportedOperation: the forward switches autocast, so that its numbers are not those of its weights.
    """
    example = _example(model, shape)
    ways: list[str] = []
    # torch logs what it cannot export before it raises it
    with exporting(example.device), unheard("torch"):
        with private(model, _copied(model)) as mine, _first_outputs_last(mine.module), _giving(mine.module, ways):
            sizes = _any_number(mine.module) if any_batch else None
            program = torch.export.export(mine.module, (example,), dynamic_shapes=sizes, strict=False)
        # the block becomes one operation with a program of its own, in which no layer would be seen
        if any("wrap_with_autocast" in str(node.target) for node in program.graph.nodes):
            raise UnsupportedOperation(
                "the model's forward switches torch.autocast on or off, so that its numbers are not "
                "those of its own weights; "
                "take autocast out of the forward (it belongs around training), or give the model in "
                "the precision you mean, "
                "as model.bfloat16()"
            )
        # without the tables of decompositions, convolutions, linear maps and norms stay what they are
        return Exported(program.run_decompositions({}), ways)


@contextmanager
def _giving(module: nn.Module, ways: list[str]) -> Iterator[None]:
    """While it lasts, a model gives a tuple of tensors, and tells where they were: an export takes no other objects."""
    own, before = module.forward, vars(module).get("forward")

    @wraps(own)  # the exporter, and `_any_number`, look at the signature
    def forward(*args: object, **kwargs: object) -> tuple[Tensor, ...]:
        output = own(*args, **kwargs)
        leaves = named_leaves(output)
        if not leaves:
            raise ModelError(
                f"no tensor was found in the {type(output).__name__} that the model returns; let it return tensors, "
                f"alone or in tuples, lists, dicts and dataclasses"
            )
        ways[:] = leaves
        return tuple(leaves.values())

    vars(module)["forward"] = forward
    try:
        yield
    finally:
        # a forward that somebody patched onto the object comes back; else the class's own shows again
        if before is None:
            del vars(module)["forward"]
        else:
            vars(module)["forward"] = before


@contextmanager
def _first_outputs_last(model: nn.Module) -> Iterator[None]:
    """While it lasts, a module with several outputs copies the first at its end.

    In a program the output of a module is the last tensor that was computed in it (`viscircuits.model.tracing.outputs`)
    and of several the first is meant.
    """

    def hook(module: nn.Module, inputs: object, output: object) -> object:
        # an object of a class that torch knows no parts of is one leaf, and stays as it is
        leaves, form = tree_flatten(output)
        if isinstance(leaves[0], Tensor) and any(isinstance(leaf, Tensor) for leaf in leaves[1:]):
            return tree_unflatten([leaves[0].clone(), *leaves[1:]], form)
        return None

    handles = [module.register_forward_hook(hook) for module in model.modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _copied(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the parameters and buffers that were made in inference mode, which torch.export does not take."""
    parameters = {name: nn.Parameter(p.clone()) for name, p in model.named_parameters() if p.is_inference()}
    return parameters | {name: buffer.clone() for name, buffer in model.named_buffers() if buffer.is_inference()}


def _any_number(model: nn.Module) -> tuple[object]:
    """What tells torch.export that the number of images is not fixed; a forward may take them as ``*args``."""
    first = next(iter(inspect.signature(model.forward).parameters.values()), None)
    images = {0: torch.export.Dim("n", min=1)}
    # torch wants the shapes of ``*args`` in a tuple of their own, in the place of the one parameter
    return ((images,),) if first is not None and first.kind is first.VAR_POSITIONAL else (images,)


def _example(model: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """Two blank images, on the model's device and in its floating type."""
    # the exporter runs on tensors without values, of which shape, type and device are all that counts
    own = like(model)
    return torch.zeros(2, *shape, dtype=own.dtype, device=own.device)
