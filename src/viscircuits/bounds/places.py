"""Places of files, as arguments: what a path may be, and what stands where it leads.

Not here: paths that have to stay in a folder (`viscircuits.store.files.inside`).
"""

import errno
import os
import stat
from pathlib import Path

from viscircuits.errors import ViscircuitsError
from viscircuits.store.checks import shown


def check_path(name: str, value: str | os.PathLike[str]) -> None:
    """Refuses what no file can be called, and an empty path, which would mean the folder one is in.

    Args:
        name: what the path is called, for the message.
        value: the path; nothing need be there.

    Raises:
        ViscircuitsError: it is empty, or longer than the system takes, or has a zero character in it.
    """
    if not str(os.fspath(value)).strip():
        raise ViscircuitsError(f"{name} is empty; expected a path")
    try:
        # the system is asked, because how long a name may be depends on the file system
        os.lstat(value)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        if isinstance(error, ValueError) or error.errno == errno.ENAMETOOLONG:
            reason = getattr(error, "strerror", None) or error
            raise ViscircuitsError(f"{name}: {shown(os.fspath(value))} is no path ({reason})") from None


def regular(path: str | Path, what: str, raised: type[ViscircuitsError]) -> Path:
    """Returns the path of a regular file; anything else is refused, as opening a pipe waits and a device never ends.

    Args:
        path: the place.
        what: what the file is for, in the words of a message.
        raised: the error for anything else.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise raised(f"cannot read {what} {shown(str(path))} ({reason}); expected a file") from None
    if not stat.S_ISREG(mode):
        raise raised(f"expected a file for {what}, but {shown(str(path))} is {what_is(path)}")
    return path


def what_is(path: str | Path) -> str:
    """Returns in words what stands at a place; empty where nothing does, or nothing that may be seen."""
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):
        return ""
    # a link counts as what it leads to: stat follows it
    kinds = (
        (stat.S_ISREG, "a file"),
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISSOCK, "a socket"),
    )
    return next((words for is_kind, words in kinds if is_kind(mode)), "a device")
