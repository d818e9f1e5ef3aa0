"""Safetensors files of a kind and a format: tensors, a JSON header, and a digest over both. Nothing ever unpickles.

`save` writes what a `Kind` says and `load` is the one way to read it again. Headers begin with ``kind`` and ``format``;
older files have no digest and still open.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from viscircuits.errors import StudyError
from viscircuits.store.checks import Fields, shown
from viscircuits.store.digests import digest
from viscircuits.store.document import Json, parsed
from viscircuits.store.files import atomic, check_regular, damaged, one_line, parsing, uninterrupted
from viscircuits.store.kinds import Kind

HEADER = "viscircuits"
"""The key of the safetensors metadata under which our JSON header stands."""

DIGEST = "digest"
"""The field of a header that holds the digest of all the rest; older files lack it."""


def save(
    path: str | Path,
    kind: Kind,
    tensors: Mapping[str, Tensor],
    fields: Mapping[str, Json],
    *,
    version: int | None = None,
) -> None:
    """Writes a file of a kind, atomically.

    Args:
        path: the file.
        kind: what it is.
        tensors: by name; of any shapes that the kind has.
        fields: of the header, beside the name and the format of the kind.
        version: the format; where None the first of the kind's.
    """
    written = kind.formats[0] if version is None else version
    head: dict[str, Json] = {"kind": kind.name} if written is None else {"kind": kind.name, "format": written}
    write_tensors(path, tensors, head | dict(fields))


def load(path: str | Path, kind: Kind) -> tuple[dict[str, Tensor], Fields]:
    """Returns the tensors of a file of a kind and its header, without the digest.

    Raises:
        StudyError: no such file, of another kind or format, not whole, or with content that its kind cannot have.
    """
    path = Path(path)
    tensors, header, seal = _opened(path)
    # kind and format first: a file of a newer format is told to be that, not to be damaged
    if other := kind.foreign(header):
        raise StudyError(f"{str(path)!r} {other}")
    _check_seal(path, tensors, header, seal)
    if fault := kind.wrong(header, tensors):
        raise damaged(path, fault)
    return tensors, header


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], header: Mapping[str, Json]) -> None:
    """Writes named tensors and a JSON header, with a digest of both, as one safetensors file, atomically.

    Args:
        path: the file.
        tensors: by name, of any shapes.
        header: what stands beside them.
    """
    # safetensors takes contiguous tensors only
    flat = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    sealed = _text({**header, DIGEST: _digest(flat, header)})
    with atomic(path) as own:
        safetensors.torch.save_file(flat, own, metadata={HEADER: sealed})


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], Fields]:
    """Returns the tensors of a file of any kind and its header, without the digest; what they hold is not checked.

    Raises:
        StudyError: no such file, or not whole.
    """
    path = Path(path)
    tensors, header, seal = _opened(path)
    _check_seal(path, tensors, header, seal)
    return tensors, header


def _opened(path: Path) -> tuple[dict[str, Tensor], dict[str, Json], Json]:
    """Tensors, header without its digest, digest; nothing of them is checked but that they are there."""
    check_regular(path)
    with parsing(path, "a whole safetensors file"):
        metadata, tensors = uninterrupted(lambda: _parts(path))
    if HEADER not in metadata:
        raise StudyError(f"{str(path)!r} was not written by viscircuits (no {HEADER!r} header)")
    try:
        header = parsed(metadata[HEADER])
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"its header is not valid JSON ({one_line(error)})") from None
    if not isinstance(header, dict) or len(metadata) > 1:
        raise damaged(path, f"expected one header, an object, got {shown(header)} and {len(metadata) - 1} more")
    seal = header.pop(DIGEST, None)
    return tensors, header, seal


def _parts(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    with safetensors.safe_open(path, framework="pt") as file:
        names = file.keys()
        return file.metadata() or {}, {name: file.get_tensor(name) for name in names}


def _check_seal(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Json], seal: Json) -> None:
    if seal is not None and seal != _digest(tensors, header):
        raise damaged(path, "its content is not what its digest says")


def _digest(tensors: Mapping[str, Tensor], header: Mapping[str, Json]) -> str:
    parts: list[str | Tensor] = [_text(header)]
    for name in sorted(tensors):  # a file keeps its tensors in an order of its own
        parts += [name, tensors[name]]
    return digest(*parts)


def _text(header: Mapping[str, Json]) -> str:
    return json.dumps(header, ensure_ascii=False)
