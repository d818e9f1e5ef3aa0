"""What people hand over as a model and is none that can be followed: compiled, scripted, exported, wrapped, unfinished.

Each is named in one line, with what to give in its place.
"""

import torch
from torch import fx, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import is_lazy

from viscircuits.errors import ModelError
from viscircuits.model.small.program import Program

_WRAPPERS = ("DistributedDataParallel", "FullyShardedDataParallel")


def check_plain(model: object) -> None:
    """Raises a `ModelError` that says what to give, where a model is no module of plain Python."""
    if isinstance(model, torch.export.ExportedProgram):
        raise ModelError(_EXPORTED)
    if not isinstance(model, nn.Module):
        raise ModelError(f"expected a torch module as model, got a {type(model).__name__}")
    if isinstance(model, torch.jit.ScriptModule):
        raise ModelError(
            "the model is TorchScript (torch.jit), of which nothing inside can be reached; give the original module, "
            "the nn.Module it was made from, with its weights: original.load_state_dict(model.state_dict())"
        )
    for name, module in model.named_modules():
        _check(name, module)
    for name, parameter in model.named_parameters():
        if is_lazy(parameter):
            continue  # of a lazy layer behind the target
        if parameter.is_meta:
            raise ModelError(f"weight {name!r} is on the meta device and has no values; load the weights first")
        if parameter.layout != torch.strided or parameter.is_complex():
            kind = "complex" if parameter.is_complex() else f"of the layout {parameter.layout}"
            raise ModelError(f"weight {name!r} is {kind}; expected dense real numbers, as parameter.to_dense() gives")


def _check(name: str, module: nn.Module) -> None:
    where = f"module {name!r}" if name else "the model"
    kind = type(module).__name__
    inner = f"model.{name}." if name else "model."
    if kind == "OptimizedModule":
        raise ModelError(
            f"{where} was compiled by torch.compile; give the module that it was made from ({inner}_orig_mod)"
            + (f": model.{name} = model.{name}._orig_mod" if name else "")
        )
    if kind in _WRAPPERS:
        raise ModelError(f"{where} is wrapped in {kind}; give the module inside ({inner}module)")
    if isinstance(module, fx.GraphModule) and "train" in vars(module) and "eval" in vars(module):
        raise ModelError(_EXPORTED)
    if isinstance(module, Program):
        raise ModelError(
            f"{where} is what circuit.extract() makes: a list of operations, without layers to follow; give the "
            f"network that the circuit was found in (circuit.model)"
        )
    tensors = (*module._parameters.values(), *module._buffers.values())
    if isinstance(module, LazyModuleMixin) and any(t is not None and is_lazy(t) for t in tensors):
        raise ModelError(f"{where} is a lazy layer ({kind}) that has no weights yet; run model(images) once before")


_EXPORTED = (
    "the model comes from torch.export (a .pt2 file), which has no modules of its own to name; give the original "
    "module, the Python module it was exported from, with its weights"
)
