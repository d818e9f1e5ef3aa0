"""What a study's files of tensors have to hold to be its own; any other is as good as missing, and is made anew.

Not here: whether a file is whole and of its kind (`viscircuits.store.tensors`), and where it stands.
"""

from typing import TYPE_CHECKING

from viscircuits import store
from viscircuits.circuit.file import KIND as CIRCUIT
from viscircuits.circuit.stored_target import target_from_json
from viscircuits.errors import ViscircuitsError
from viscircuits.scores import KIND as SCORES
from viscircuits.scores import Scores
from viscircuits.study import names

if TYPE_CHECKING:
    from viscircuits.study.folder import Study


def holds(study: "Study", target: str, criterion: str, density: float) -> bool:
    """Returns whether a study has a circuit of its own, whole.

    Args:
        study: the folder.
        target: as text.
        criterion: with its options; ``-worst`` at its end for the control of that order.
        density: kept over relevant structures, in (0, 1].
    """
    try:
        file = study.file(names.CIRCUITS, names.circuit_name(target, criterion, density))
        _, header = store.load(file, CIRCUIT)
        text = str(target_from_json(header["target"]))
    except ViscircuitsError:
        return False
    spec = study.header.spec
    if header.get("study", study.hash) != study.hash:  # older files do not say
        return False
    # a file may have been put under this name by hand, and a folder may be an older one of the same name
    wanted = spec.fingerprint, spec.granularity, spec.biases, list(spec.input_shape), target
    return wanted == (*(header[name] for name in ("model", "granularity", "biases", "input_shape")), text)


def scores(study: "Study", target: str, criterion: str, density: float | None) -> Scores | None:
    """Returns scores of a study; None where they are missing, damaged or others.

    Args:
        study: the folder.
        target: as text.
        criterion: with its options.
        density: the one that they were made for, in (0, 1]; None where they are for all.
    """
    try:
        file = study.file(names.SCORES, names.scores_name(target, criterion, density))
        tensors, header = store.load(file, SCORES)
        own = Scores.from_file(tensors, header)
    except ViscircuitsError:
        return None
    spec = study.header.spec
    if header.get("study", study.hash) != study.hash:  # older files do not say
        return None
    wanted = target, criterion, density, spec.granularity, spec.input_shape
    return own if wanted == (own.target, own.criterion, own.density, own.granularity, own.input_shape) else None
