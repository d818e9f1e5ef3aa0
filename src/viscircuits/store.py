"""Files that are whole or absent: atomic writes, content hashes, safetensors with a JSON header.

Knows no domain word. Nothing here ever unpickles: tensors travel as safetensors, everything else as JSON or Parquet.
Whatever is wrong with a file that is read is a `StudyError` of one line, never another exception.
"""

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from viscircuits import temporary
from viscircuits.errors import StudyError, ViscircuitsError
from viscircuits.header import Kind, shown

T = TypeVar("T")

Json = None | bool | int | float | str | list[Any] | dict[str, Any]

HEADER = "viscircuits"
"""The key of the safetensors metadata under which our JSON header stands."""

DIGEST = "digest"
"""The field of a header that holds the digest of all the rest; older files lack it."""

LARGEST = 2**28
"""Bytes of the largest file that is read as a whole, as JSON and tables are."""

DEEPEST = 64
"""How many lists and objects may stand within one another in JSON."""

_AGAIN = "delete it and run again"


@contextmanager
def atomic(path: str | Path, *, new: bool = False) -> Iterator[Path]:
    """Yields a temporary path beside ``path`` that replaces it when the block ends well; an error leaves nothing.

    A process that is killed leaves the temporary file, for `viscircuits.temporary.clear`.

    Raises:
        FileExistsError: the file has to be ``new`` and is there; of several processes that make it one succeeds.
    """
    path = Path(path)
    if not path.name:
        raise StudyError(f"cannot write {str(path)!r}, which is no name of a file; give one")
    own = temporary.beside(path)
    try:
        mode = _create(path, own)
        yield own
        with own.open("rb+") as file:
            os.fsync(file.fileno())
        os.chmod(own, mode)  # some writers put a file of their own in its place, closed to others
        if new:
            _place(own, path)
        else:
            os.replace(own, path)
    except FileExistsError:
        raise
    except (OSError, safetensors.SafetensorError) as error:
        reason = getattr(error, "strerror", None) or _line(error)
        raise StudyError(
            f"cannot write {shown(str(path))} ({reason}); make room there, or choose another place"
        ) from None
    finally:
        with suppress(OSError):
            own.unlink()


def _place(own: Path, path: Path) -> None:
    """Gives a file a name that nothing has."""
    try:
        os.link(own, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        os.replace(own, path)


def _create(path: Path, own: Path) -> int:
    """Makes an empty file with the permissions of any new file, and returns these."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(own, flags, 0o666)  # the kernel applies the umask, which is the whole process's
    except OSError as error:
        raise StudyError(f"cannot write {str(path)!r} ({error.strerror}); choose another place") from None
    try:
        return stat.S_IMODE(os.fstat(handle).st_mode)
    finally:
        os.close(handle)


def inside(folder: str | Path, *parts: str) -> Path:
    """Returns the path of something in a folder.

    Raises:
        StudyError: it is not in the folder: ``..`` or a link leads out. The folder itself may be a link.
    """
    path = Path(folder, *parts)
    if not stays(folder, path):
        raise StudyError(f"{shown(str(path))} leads out of {str(folder)!r}; delete this link, or copy what it leads to")
    return path


def stays(folder: str | Path, path: str | Path) -> bool:
    """Returns whether a path, with all links followed, is in a folder."""
    try:
        root, real = os.path.realpath(folder), os.path.realpath(path)
        return os.path.commonpath([root, real]) == root
    except (OSError, ValueError):  # a name that no file can have; on Windows another drive
        return False


def write_json(path: str | Path, value: Json, *, new: bool = False) -> None:
    """Writes indented JSON with a final newline, atomically; ``new`` as in `atomic`."""
    with atomic(path, new=new) as own:
        own.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: str | Path) -> Json:
    """Returns the JSON value in a file; a missing or damaged file is a `StudyError` that names it."""
    try:
        return parsed(read_bytes(path).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise StudyError(
            f"{str(path)!r} is not valid JSON ({_line(error)}); delete it and run the command again"
        ) from None


def read_bytes(path: str | Path) -> bytes:
    """Returns the content of a regular file; anything else, or a file that is too large, is a `StudyError`."""
    _check_regular(Path(path))
    try:
        with Path(path).open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise StudyError(f"cannot read {str(path)!r} ({error.strerror})") from None
    if len(content) > LARGEST:
        raise StudyError(f"{str(path)!r} is larger than any such file, {LARGEST:,} bytes; {_AGAIN}")
    return content


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], header: Mapping[str, Json]) -> None:
    """Writes named tensors and a JSON header, with a digest of both, as one safetensors file, atomically."""
    flat = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    sealed = _text({**header, DIGEST: _digest(flat, header)})
    with atomic(path) as own:
        safetensors.torch.save_file(flat, own, metadata={HEADER: sealed})


def read_tensors(path: str | Path, kind: Kind | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Returns the tensors of a safetensors file and its JSON header, without the digest.

    Args:
        path: what `write_tensors` wrote.
        kind: what the file has to hold; of any kind where None.

    Raises:
        StudyError: no such file, of another kind or format, not whole, or with content that its kind cannot have.
    """
    path = Path(path)
    _check_regular(path)
    with parsing(path, "a whole safetensors file"):
        metadata, tensors = uninterrupted(lambda: _tensors(path))
    if HEADER not in metadata:
        raise StudyError(f"{str(path)!r} was not written by viscircuits (no {HEADER!r} header)")
    try:
        header = parsed(metadata[HEADER])
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"its header is not valid JSON ({_line(error)})") from None
    if not isinstance(header, dict) or len(metadata) > 1:
        raise damaged(path, f"expected one header, an object, got {shown(header)} and {len(metadata) - 1} more")
    found = header.pop(DIGEST, None)
    if kind is not None and (other := kind.foreign(header)):
        raise StudyError(f"{str(path)!r} {other}")
    if found is not None and found != _digest(tensors, header):
        raise damaged(path, "its content is not what its digest says")
    if kind is not None and (what := kind.wrong(header, tensors)):
        raise damaged(path, what)
    return tensors, header


def _tensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    with safetensors.safe_open(path, framework="pt") as file:
        return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)


def uninterrupted(read: Callable[[], T]) -> T:
    """Returns what a parser of another package reads; a Ctrl-C that it takes for an error of the file is one again.

    torch and safetensors forget an interrupt while they make a tensor. A file that is at fault is so again.
    """
    try:
        return read()
    except Exception:
        read()
        raise KeyboardInterrupt from None


def damaged(path: str | Path, what: str) -> StudyError:
    """Returns the error for a file whose content cannot be; ``what`` says in which way."""
    return StudyError(f"{str(path)!r} is damaged: {what}; {_AGAIN}")


@contextmanager
def parsing(
    path: str | Path, what: str, fix: str = _AGAIN, raised: type[ViscircuitsError] = StudyError
) -> Iterator[None]:
    """Turns whatever a parser of another package raises on a file into an error of ours that names the file.

    Args:
        path: the file.
        what: what the file is not, then.
        fix: what to do about it.
        raised: the error.
    """
    try:
        yield
    except BaseException as error:
        # a panic of compiled Rust is no Exception, and its class belongs to each package
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise raised(f"{str(path)!r} is not {what} ({_line(error)}); {fix}") from None


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


def _digest(tensors: Mapping[str, Tensor], header: Mapping[str, Json]) -> str:
    return digest(_text(header), *(part for name in sorted(tensors) for part in (name, tensors[name])))


def _text(header: Mapping[str, Json]) -> str:
    return json.dumps(header, ensure_ascii=False)


def _check_regular(path: Path) -> None:
    """Refuses what is no regular file: opening a pipe would wait, and a device never ends."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise StudyError(f"no file {str(path)!r}") from None
    except OSError as error:
        raise StudyError(f"cannot read {str(path)!r} ({error.strerror})") from None
    if not stat.S_ISREG(mode):
        raise StudyError(f"expected a file, but {str(path)!r} is a folder, a pipe or a device; delete it and run again")


def parsed(text: str) -> Json:
    """Returns the value of a JSON text.

    Raises:
        ValueError, RecursionError: it is none, or holds what no file of ours does: a key twice, texts that are no
            Unicode or with a zero in them, numbers or nesting without end.
    """
    value = json.loads(text, object_pairs_hook=_once)
    level: list[Any] = [value]
    for _ in range(DEEPEST):
        texts = [one for one in level if isinstance(one, str)]
        texts += [key for one in level if isinstance(one, dict) for key in one]
        if any("\0" in one for one in texts):
            raise ValueError("a text holds a zero character")
        for one in texts:
            one.encode()
        level = [below for one in level for below in _below(one)]
        if not level:
            return value
    raise ValueError(f"it is nested more than {DEEPEST} deep")


def _below(value: Json) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice in an object")
    return found


def _line(error: BaseException) -> str:
    """What an error of another package says, on one line."""
    text = " ".join(str(error).split())[:200]
    return "".join(c for c in text if c.isprintable()) or type(error).__name__
