"""Files that are whole or absent: atomic writes, content hashes, safetensors with a JSON header.

Knows no domain word. Nothing here ever unpickles: tensors travel as safetensors, everything else as JSON or Parquet.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from viscircuits.errors import StudyError

Json = None | bool | int | float | str | list[Any] | dict[str, Any]

HEADER = "viscircuits"
"""The key of the safetensors metadata under which our JSON header stands."""


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside ``path`` that replaces it when the block ends well; an error leaves nothing."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}."[:64], suffix=path.suffix)
    except OSError as error:
        raise StudyError(f"cannot write {str(path)!r} ({error.strerror}); choose another place") from None
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path: str | Path, value: Json) -> None:
    """Writes indented JSON with a final newline, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: str | Path) -> Json:
    """Returns the JSON value in a file; a missing or damaged file is a `StudyError` that names it."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StudyError(f"no file {str(path)!r}") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise StudyError(f"{str(path)!r} is not valid JSON ({error}); delete it and run the command again") from None
    except OSError as error:
        raise StudyError(f"cannot read {str(path)!r} ({error.strerror})") from None


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], header: Json) -> None:
    """Writes named tensors and a JSON header as one safetensors file, atomically."""
    flat = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic(path) as temporary:
        safetensors.torch.save_file(flat, temporary, metadata={HEADER: json.dumps(header, ensure_ascii=False)})


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], Json]:
    """Returns the tensors of a safetensors file and its JSON header; anything else is a `StudyError` that names it."""
    path = Path(path)
    if not path.is_file():
        raise StudyError(f"no file {str(path)!r}")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (safetensors.SafetensorError, OSError) as error:
        raise StudyError(f"{str(path)!r} is not a whole safetensors file ({error}); delete it and run again") from None
    if HEADER not in metadata:
        raise StudyError(f"{str(path)!r} was not written by viscircuits (no {HEADER!r} header)")
    return tensors, json.loads(metadata[HEADER])


def described(header: Json) -> str:
    """Returns ``", but KIND of format N"`` for the header of a file that is not what was asked for."""
    return f", but {header.get('kind')} of format {header.get('format')}" if isinstance(header, dict) else ""


def digest(*parts: bytes | str | Tensor) -> str:
    """Returns the first 16 hex digits of a SHA-256 over the parts, in order; tensors count with dtype and shape."""
    sha = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            sha.update(f"{part.dtype}{tuple(part.shape)}".encode())
            flat = part.detach().cpu().contiguous().view(-1)
            part = flat.view(torch.uint8).numpy().tobytes()  # bytes, because numpy has no bfloat16
        data = part.encode() if isinstance(part, str) else part
        sha.update(len(data).to_bytes(8, "little"))
        sha.update(data)
    return sha.hexdigest()[:16]
