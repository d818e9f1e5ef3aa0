"""Files that are whole or absent: atomic writing, careful reading, paths that stay in a folder.

Convention: whatever is wrong with a file that is read is a `StudyError` of one line, never another exception. Nothing
here imports torch or knows a format; JSON is read in `viscircuits.store.document`, tensors in
`viscircuits.store.tensors`.
"""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import safetensors

from viscircuits.errors import StudyError, ViscircuitsError
from viscircuits.store import temporary
from viscircuits.store.checks import shown

T = TypeVar("T")

LARGEST = 2**28
"""Bytes of the largest file that is read as a whole, as JSON and tables are."""

_AGAIN = "delete it and run again"


@contextmanager
def atomic(path: str | Path, *, new: bool = False) -> Iterator[Path]:
    """Yields a temporary path beside ``path`` that replaces it when the block ends well; an error leaves nothing.

    A process that is killed leaves the temporary file, for `viscircuits.store.temporary.clear`.

    Raises:
        FileExistsError: the file has to be ``new`` and is there; of several processes that make it one succeeds.
        StudyError: nothing can be written there.
    """
    path = Path(path)
    if not path.name:
        raise StudyError(f"cannot write {str(path)!r}, which is no name of a file; give one")
    own = temporary.beside(path)
    try:
        mode = _create(path, own)
        yield own
        # without this a power cut may leave the new name on a file whose bytes never reached the disk
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
        reason = getattr(error, "strerror", None) or one_line(error)
        raise StudyError(
            f"cannot write {shown(str(path))} ({reason}); make room there, or choose another place"
        ) from None
    finally:
        with suppress(OSError):
            own.unlink()


def _place(own: Path, path: Path) -> None:
    """Gives a file a name that nothing has."""
    try:
        # a link fails where the name is taken, in one step; to look first and rename then would leave a gap
        os.link(own, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        os.replace(own, path)


def _create(path: Path, own: Path) -> int:
    """Makes an empty file with the permissions of any new file, and returns these."""
    # never a file or a link that somebody laid under this name: what it leads to would be overwritten
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
        # both are resolved, because the folder itself may be reached by a link
        root, real = os.path.realpath(folder), os.path.realpath(path)
        return os.path.commonpath([root, real]) == root
    except (OSError, ValueError):  # a name that no file can have; on Windows another drive
        return False


def read_bytes(path: str | Path) -> bytes:
    """Returns the content of a regular file; anything else, or a file that is too large, is a `StudyError`."""
    check_regular(Path(path))
    try:
        with Path(path).open("rb") as file:
            # one byte more than allowed: the size that the system states may be out of date, or 0 for odd files
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise StudyError(f"cannot read {str(path)!r} ({error.strerror})") from None
    if len(content) > LARGEST:
        raise StudyError(f"{str(path)!r} is larger than any such file, {LARGEST:,} bytes; {_AGAIN}")
    return content


def check_regular(path: Path) -> None:
    """Refuses what is no regular file: opening a pipe would wait, and a device never ends."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a zero character in the name
        raise StudyError(f"no file {str(path)!r}") from None
    except OSError as error:
        raise StudyError(f"cannot read {str(path)!r} ({error.strerror})") from None
    if not stat.S_ISREG(mode):
        raise StudyError(f"expected a file, but {str(path)!r} is a folder, a pipe or a device; delete it and run again")


def uninterrupted(read: Callable[[], T]) -> T:
    """Returns what a parser of another package reads; a Ctrl-C that it takes for an error of the file is one again."""
    try:
        return read()
    except Exception:
        # torch and safetensors forget an interrupt while they make a tensor, and raise an error of the file instead.
        # A second try tells the two apart: a file that is at fault raises again, here.
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
        raise raised(f"{str(path)!r} is not {what} ({one_line(error)}); {fix}") from None


def one_line(error: BaseException) -> str:
    """Returns what an error of another package says, short and on one line."""
    text = " ".join(str(error).split())[:200]
    # parsers quote the file in what they say, and a terminal would obey its control characters
    return "".join(c for c in text if c.isprintable()) or type(error).__name__
