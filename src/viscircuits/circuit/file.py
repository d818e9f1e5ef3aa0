"""The file of a circuit: its mask, target and compensation as safetensors with a JSON header; never the model.

Convention: a layer's array of kept structures has the layer's own name; what belongs to a compensation stands under
`SHIFT` or `SCALE`. Only a compensated circuit has the newer format, so that older versions read all others.

Not here: whether a file fits a model, which takes the model (`Circuit.load`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch
from jaxtyping import Float
from torch import Tensor

from viscircuits import store
from viscircuits.circuit.compensation import Means, Scales
from viscircuits.circuit.stored_target import JSON, target_to_json
from viscircuits.errors import StudyError
from viscircuits.mask import Mask, axes_of
from viscircuits.model.graph import NetGraph
from viscircuits.store.checks import IMAGE, TEXT, Fields, maybe, one_of, record, whole
from viscircuits.store.kinds import BOOLS, FLOATS, Array, Kind
from viscircuits.target import AnyTarget
from viscircuits.types import GRANULARITIES, Biases

FORMAT = 1
COMPENSATED = 2
"""Versions of the circuit file, without and with compensation; a file with another number is refused."""

SHIFT, SCALE = "shift/", "scale/"
"""What stands before a layer's name where a file holds its mean contributions, or its scales."""

_PREFIXES = {"mean": SHIFT, "scales": SCALE}


@dataclass(frozen=True)
class StoredCircuit:
    """What a circuit file holds.

    Args:
        header: its fields, as `KIND` has them.
        mask: what is kept, of everything: what is relevant only the model knows.
        additions: layer -> the mean contributions or scales of a compensation; empty where there is none.
    """

    header: Fields
    mask: Mask
    additions: Mapping[str, Float[Tensor, "out ..."]]


def save(
    path: str | Path,
    mask: Mask,
    target: AnyTarget,
    biases: Biases,
    compensation: Means | Scales | None,
    *,
    model: str,
    study: str = "",
) -> None:
    """Writes a circuit, atomically.

    Args:
        path: the file.
        mask: what is kept.
        target: what the circuit computes.
        biases: what becomes of filters without kernels.
        compensation: what stands in for what was removed, or None.
        model: the fingerprint of the model's weights.
        study: the hash of the study that the circuit belongs to; empty for none.
    """
    header: dict[str, store.Json] = {
        "model": model,
        "target": target_to_json(target),
        "biases": biases,
        "granularity": mask.granularity,
        "input_shape": list(mask.input_shape),
        "kept": mask.n_kept,
        "relevant": mask.n_relevant,
        "zero_scores": mask.zero_scores,
        **({"study": study} if study else {}),
    }
    tensors = dict(mask.kept)
    if compensation is not None:
        match compensation:
            case Means(shifts=values):
                kind = "mean"
            case Scales(scales=values):
                kind = "scales"
        header["compensation"] = {"kind": kind, "n_images": compensation.n_images}
        tensors |= {_PREFIXES[kind] + name: value for name, value in values.items()}
    store.save(path, KIND, tensors, header, version=FORMAT if compensation is None else COMPENSATED)


def load(path: str | Path) -> StoredCircuit:
    """Returns what a circuit file holds; a `StudyError` for any other file."""
    tensors, header = store.load(path, KIND)
    additions = {name.partition("/")[2]: t for name, t in tensors.items() if name.startswith((SHIFT, SCALE))}
    kept = {name: t for name, t in tensors.items() if not name.startswith((SHIFT, SCALE))}
    everything = {name: torch.ones_like(array) for name, array in kept.items()}
    mask = Mask(kept, everything, header["granularity"], tuple(header["input_shape"]), header["zero_scores"])
    return StoredCircuit(header, mask, additions)


def compensation_in(stored: StoredCircuit, mask: Mask, graph: NetGraph) -> Means | Scales | None:
    """Returns the compensation that a file holds, for the circuit's own mask; None where it holds none.

    Args:
        stored: the content of the file.
        mask: that of the circuit that was made of it: what is kept of what is relevant.
        graph: that of the model.

    Raises:
        StudyError: a newer version's kind, or arrays that do not fit the network.
    """
    if stored.header["format"] != COMPENSATED:
        return None
    fields = stored.header["compensation"]
    make = {"mean": Means, "scales": Scales}.get(fields["kind"])
    if make is None:
        raise StudyError(f"the circuit has a compensation that this version does not know: {fields['kind']!r}")
    granularity = "filter" if make is Means else mask.granularity
    for name, array in stored.additions.items():
        layer = graph.layers.get(name)
        if layer is None or tuple(array.shape) != layer.structure_shape(granularity):
            raise StudyError(f"the circuit was made on another network: its compensation of {name!r} does not fit")
    return make(mask, stored.additions, fields["n_images"])


def _arrays(fields: Fields, names: Iterable[str]) -> dict[str, Array]:
    arrays = {}
    for name in names:
        layer = name.removeprefix(SHIFT).removeprefix(SCALE)
        axes = axes_of(layer, "filter" if name.startswith(SHIFT) else fields["granularity"])
        arrays[name] = Array(BOOLS if layer == name else FLOATS, axes)
    return arrays


def _fits(fields: Fields, tensors: Mapping[str, Tensor]) -> str:
    kind = fields.get("compensation", {"kind": None})["kind"]
    others = [prefix for known, prefix in _PREFIXES.items() if known != kind]
    strange = any(name.startswith(prefix) for name in tensors for prefix in others)
    # of a kind that a newer version made nothing is known, not even what its arrays are called
    if (kind is not None) != (fields["format"] == COMPENSATED) or (strange and kind in (None, *_PREFIXES)):
        return "its compensation does not fit its format"
    return ""


KIND = Kind(
    "circuit",
    "a circuit file",
    {
        "model": TEXT,
        "target": JSON,
        "biases": one_of(*get_args(Biases)),
        "granularity": one_of(*GRANULARITIES),
        "input_shape": IMAGE,
        "kept": whole(),
        "relevant": whole(),
        "zero_scores": whole(),
        "compensation": maybe(record(kind=TEXT, n_images=whole(1))),
        "study": maybe(TEXT),
    },
    _arrays,
    (FORMAT, COMPENSATED),
    _fits,
)
"""What a circuit file holds, for whoever reads one."""
