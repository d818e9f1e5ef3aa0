"""Temporary files: hidden names that say whose they are, so that those of processes which are gone can be removed.

A name holds the host, the process and when that started, counted from the start of the machine: a number that is given
again belongs to another process. No clock is asked, files of other hosts stay, and so do those of living processes. A
*claim* is such a file too: it says that a process works in a folder.
"""

import atexit
import os
import platform
import re
import secrets
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

from viscircuits.errors import StudyError
from viscircuits.store.checks import shown

_LONGEST = 32
"""Characters of a name that are kept; a file system takes 255 bytes in all."""

_CLAIM = "claim"
_NAME = re.compile(r"\.(?P<name>.*)~(?P<host>[\w-]+)~(?P<process>\d+)~(?P<started>\d+)~[0-9a-f]+(\.[^.~]*)?", re.DOTALL)


class Owner(NamedTuple):
    """A process: the machine that it runs on, its number there, and when it started (0 where that is not known)."""

    host: str
    process: int
    started: int

    @property
    def is_gone(self) -> bool:
        """Whether it surely ended; a process of another machine never did."""
        if self.host != _host() or os.name == "nt":  # there a signal 0 is Ctrl-C
            return False
        try:
            os.kill(self.process, 0)
        except ProcessLookupError:
            return True
        except (OSError, OverflowError):  # somebody else's
            pass
        state = _state(self.process)
        # Z and X: it ended and its parent has not asked yet; another start: the number was given again
        return state is not None and (state[0] in "ZX" or state[1] != self.started)


def beside(path: Path) -> Path:
    """Returns a new hidden name in a file's folder, with its ending."""
    return path.with_name(_name(path.name[:_LONGEST], secrets.token_hex(8)) + path.suffix)


def clear(folder: str | Path) -> None:
    """Removes the temporary files in a folder and below that processes of this machine left when they were killed."""
    for parent, _, names in os.walk(folder):
        for name in names:
            if (owner := _owner(name)) is not None and owner.is_gone:
                with suppress(OSError):
                    Path(parent, name).unlink()


def claim(folder: Path) -> None:
    """Says that this process works in a folder, until `release` or its end; the folder is made where it is missing.

    Raises:
        StudyError: nothing can be written there.
    """
    file = _claim(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file.touch()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise StudyError(f"cannot write {shown(str(folder))} ({reason}); choose another place") from None
    atexit.register(_end, file, os.getpid())


def release(folder: Path) -> None:
    """Takes this process's claim back."""
    _end(_claim(folder), os.getpid())


def is_claimed(folder: Path) -> bool:
    """Returns whether another process works in a folder."""
    owners = (_owner(file.name) for file in folder.glob(f".{_CLAIM}~*"))
    return any(owner is not None and owner != _own(os.getpid()) and not owner.is_gone for owner in owners)


def _claim(folder: Path) -> Path:
    return folder / _name(_CLAIM, "0")


def _end(file: Path, process: int) -> None:
    if process == os.getpid():  # not in a process that was forked from it
        with suppress(OSError):
            file.unlink()


def _name(name: str, ending: str) -> str:
    owner = _own(os.getpid())
    return f".{name}~{owner.host}~{owner.process}~{owner.started}~{ending}"


def _owner(name: str) -> Owner | None:
    match = _NAME.fullmatch(name)
    return None if match is None else Owner(match["host"], int(match["process"]), int(match["started"]))


@cache
def _own(process: int) -> Owner:
    state = _state(process)
    return Owner(_host(), process, 0 if state is None else state[1])


@cache
def _host() -> str:
    """The machine's name; of a container with processes of its own also which one, as it may share name and files."""
    try:
        space = re.sub(r"\D", "", os.readlink("/proc/self/ns/pid"))
    except OSError:
        space = ""
    return re.sub(r"[^\w-]", "-", platform.node(), flags=re.ASCII)[:40] + f"-{space}" * bool(space)


def _state(process: int) -> tuple[str, int] | None:
    """A process's state and start, where the system tells."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return fields[0], int(fields[19])
    except (OSError, IndexError, ValueError):
        return None
