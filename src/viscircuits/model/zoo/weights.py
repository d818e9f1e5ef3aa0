"""Reads a weight file, without ever executing it, and says why it does not fit a model.

Not here: which models there are, and downloads (`viscircuits.model.zoo.zoo`).
"""

import pickle
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from viscircuits import store
from viscircuits.bounds.places import what_is
from viscircuits.errors import ModelError
from viscircuits.model.guard.quiet import quiet

State = Mapping[str, Tensor]

_NESTS = (
    "state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "weights", "params",
    "checkpoint", "averaged_model", "swa_state_dict", "state_dict_ema", "model_ema", "ema_model", "params_ema", "ema",
    "shadow",
)  # fmt: skip
"""Under what name trainers keep the weights, those of the model itself before averages of them."""

_COUNTERS = {
    "n_averaged", "epoch", "step", "global_step", "iteration", "num_updates", "decay", "total_ops", "total_params",
    "num_batches_tracked",
}  # fmt: skip
"""Last parts of names under which trainers and profilers count."""
_DEEPEST = 4
"""How many prefixes may stand before a name, one before the other."""
_SHOWN = 4
_SLACK = 2**24
"""Bytes that an archive may unpack to beyond twice its size: a small one of zeros is no bomb."""


def read(path: str | Path) -> tuple[dict[str, Tensor], list[str]]:
    """Returns the state dict in a safetensors file or in one of ``torch.save``, and what else the checkpoint holds.

    Raises:
        ModelError: no such file, a damaged one, or one that holds something else.
    """
    path = Path(path)
    if not path.is_file():
        if kind := what_is(path):
            raise ModelError(f"expected a weight file, but {str(path)!r} is {kind}")
        raise ModelError(f"no weight file {str(path)!r}")
    if not path.stat().st_size:  # not even opened: what the system makes up as it is read may have no end
        raise ModelError(f"{str(path)!r} is not a whole weight file (EOFError: it is empty); {_FIX}")
    for ending, what in _FOREIGN.items():
        if path.name.lower().endswith(ending):
            raise ModelError(
                f"{str(path)!r} holds {what}; expected a state dict, as torch.save(model.state_dict(), path) "
                f"makes, or safetensors"
            )
    value = _safetensors(path) if path.suffix == ".safetensors" else _torch(path)
    return _state(value, path)


def _state(value: object, path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """The state dict in what a file holds, however deep it lies, and the names of what stands beside it."""
    beside: list[str] = []
    while isinstance(value, Mapping):
        nest = next((nest for nest in _NESTS if isinstance(value.get(nest), Mapping) and value[nest]), None)
        if nest is None:
            break
        beside += [str(key) for key in value if key != nest]
        value = value[nest]
    if isinstance(value, Mapping) and any(isinstance(v, Tensor) for v in value.values()):
        plain = [k for k, v in value.items() if k == "_metadata" or v is None or isinstance(v, int | float | str)]
        beside += [str(key) for key in plain if key != "_metadata"]
        value = {name: tensor for name, tensor in value.items() if name not in plain}
    if not isinstance(value, Mapping) or not value or not all(isinstance(v, Tensor) for v in value.values()):
        raise ModelError(f"expected a state dict (names and tensors) in {str(path)!r}, got {_foreign(value)}")
    return {str(name): tensor for name, tensor in value.items()}, beside


def _foreign(value: object) -> str:
    """What a file holds that is no state dict, and how to get at one inside."""
    if not isinstance(value, Mapping):
        return f"a {type(value).__name__}"
    inner = next((key for key, part in value.items() if isinstance(part, Mapping)), None)
    fix = "" if inner is None else f"; save what you mean by itself, as torch.save(torch.load(path)[{inner!r}], other)"
    return f"the keys {_few(value)}{fix}"


def _safetensors(path: Path) -> object:
    with store.parsing(path, "a whole safetensors file", "copy or download it again", ModelError):
        return store.uninterrupted(lambda: safetensors.torch.load_file(path))


def _torch(path: Path) -> object:
    if (size := _unpacked(path)) > 2 * path.stat().st_size + _SLACK:
        raise ModelError(f"{str(path)!r} unpacks to {size / 2**30:.1f} GB; save it uncompressed, as torch.save does")
    if (what := described(path)) != _WEIGHTS:
        way, call = ("torch.export.load(path)", "") if "torch.export" in what else ("torch.jit.load(path)", "()")
        raise ModelError(f"{str(path)!r} is {what}; give its weights: torch.save({way}.state_dict{call}, other)")
    try:
        with quiet():  # torch warns of old or foreign files before it refuses them
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        kinds = re.findall(r"GLOBAL ([\w.]+)", str(error))
        raise ModelError(
            f"{str(path)!r} is not a state dict: it holds Python objects ({kinds[0] if kinds else 'unknown'}) or is "
            "damaged, and nothing in it was run; make the file with torch.save(model.state_dict(), path)"
        ) from None
    except Exception as error:  # on damaged bytes torch raises almost anything
        first = str(error).split(". ")[0]
        raise ModelError(
            f"{str(path)!r} is not a whole weight file ({type(error).__name__}: {first or 'it is empty'}); {_FIX}"
        ) from None


_FIX = "copy it again, or make it with torch.save(model.state_dict(), path)"

_FOREIGN = {
    ".npz": "arrays of numpy", ".npy": "an array of numpy", ".onnx": "a network of ONNX", ".h5": "weights of Keras",
    ".keras": "a network of Keras", ".pb": "a network of TensorFlow", ".tflite": "a network of TensorFlow Lite",
    ".ckpt.index": "weights of TensorFlow", ".msgpack": "weights of Flax", ".gguf": "weights of GGML",
}  # fmt: skip
"""What files of other programs hold, by the end of their names."""

_WEIGHTS = "a file of weights, or of something else"


def described(path: Path) -> str:
    """Returns in words what a file is, as far as the names in its archive say: it may hold a program, not weights."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.partition("/")[2] for name in archive.namelist()]
    except (zipfile.BadZipFile, NotImplementedError, OSError):
        return _WEIGHTS
    if any(name.startswith("code/") for name in names):
        return "a TorchScript archive (torch.jit.save), not a file of weights"
    if any(name == "archive_format" or name.endswith("models/model.json") for name in names):
        return "a program of torch.export (a .pt2 file), not a file of weights"
    return _WEIGHTS


def _unpacked(path: Path) -> int:
    """The bytes that a zip archive says it holds, which a small file can say to be any; 0 for other files."""
    try:
        with zipfile.ZipFile(path) as archive:
            return sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError, OSError):  # `torch.load` says what is wrong
        return 0


def fitted(given: State, wanted: State) -> dict[str, Tensor]:
    """Returns the weights under the model's own names.

    Without what stands before all of them or, where other things are in the file too, before those that the model has:
    DataParallel's or compile's prefix, that of the attribute under which a trainer keeps its model. Its counters are
    left out.
    """
    own = {n: tensor for n, tensor in given.items() if n in wanted or n.rpartition(".")[2] not in _COUNTERS}
    state = own
    for _ in range(_DEEPEST):
        prefix = _prefix(state, wanted)
        if not prefix:
            break
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    if wanted.keys().isdisjoint(state):  # weights of something else: told by the names in the file
        state = own
    # torchvision's DenseNet files are older than its DenseNet
    old = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\.")
    return {old.sub(r"\1\2.", name): tensor for name, tensor in state.items()}


def _prefix(state: State, wanted: State) -> str:
    """What stands before the names in a file; nothing where some of them are the model's as they are."""
    if not wanted or any(name in wanted for name in state):
        return ""
    first = next(iter(wanted))
    prefixes = {name.removesuffix(first) for name in state if name.endswith("." + first)}
    # files older than the batch counters of norms lack them
    names = [name for name in wanted if not name.endswith("num_batches_tracked")]
    whole: list[str] = []
    for prefix in sorted(prefixes, key=lambda prefix: (len(prefix), prefix)):
        if all(prefix + name in state for name in names):
            whole.append(prefix)
    if len(whole) == 1:
        return whole[0]
    if whole:
        raise ModelError(
            f"the weights stand in the file {len(whole)} times, under {', '.join(map(repr, whole))}; save the ones you "
            f"mean by themselves, without {whole[0]!r} before their names"
        )
    # none fits as a whole; what stands before all names is taken away, so that the misfit is told in the model's own
    common = {name.partition(".")[0] + "." if "." in name else "" for name in state}
    prefix = common.pop() if len(common) == 1 else ""
    return "" if all(name.startswith(prefix) for name in wanted) else prefix


def dropped(given: State, state: State) -> list[str]:
    """Returns the names in a file of what was not taken from it."""
    taken = {id(tensor) for tensor in state.values()}
    return [name for name, tensor in given.items() if id(tensor) not in taken]


def misfit(given: State, wanted: State) -> str:
    """Returns what keeps the weights from fitting, the first few names of each kind; empty when they fit."""
    missing = [name for name in wanted if name not in given and not name.endswith("num_batches_tracked")]
    extra = [name for name in given if name not in wanted]
    shapes = [
        f"{name}: file {list(given[name].shape)}, model {list(wanted[name].shape)}"
        for name in wanted
        if name in given and given[name].shape != wanted[name].shape
    ]
    parts = ((missing, "missing"), (extra, "unexpected"), (shapes, "of another shape"))
    return "; ".join(f"{len(names)} {kind} ({_few(names)})" for names, kind in parts if names)


def unlike(given: State, wanted: State) -> str:
    """Returns which weights are of a kind that another cannot take without being changed; empty where none is."""
    for name, tensor in given.items():
        own = wanted.get(name)
        if own is not None and own.is_floating_point() and not tensor.is_floating_point():
            kind = "complex" if tensor.is_complex() else "whole"
            return f"its {name} holds {kind} numbers ({tensor.dtype}), the model's {own.dtype}; save it in that type"
    return ""


def classes_to_fit(given: State, wanted: State, classes: int) -> int | None:
    """Returns the number of classes with which a model would take the weights, or None if it never would.

    Args:
        given: the weights in the file.
        wanted: the state dict of the model.
        classes: the number of classes with which that was made.
    """
    other = {name for name in wanted if name in given and given[name].shape != wanted[name].shape}
    heads = {name: given[name].shape[:1].numel() for name in other if wanted[name].shape[:1] == (classes,)}
    resized = {name: wanted[name].new_empty(n, *wanted[name].shape[1:]) for name, n in heads.items()}
    return None if misfit(given, {**wanted, **resized}) else next(iter(heads.values()), classes)


def _few(names: Iterable[object]) -> str:
    names = [str(name) for name in names]
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
