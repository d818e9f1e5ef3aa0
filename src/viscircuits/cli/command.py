"""The command that was typed, to be kept in a study or told again."""

import shlex
import sys


def typed(*more: str) -> str:
    """Returns the command as a shell takes it, with more options added."""
    given = sys.argv[1:]
    end = given.index("--") if "--" in given else len(given)
    return shlex.join(["viscircuits", *given[:end], *more, *given[end:]])
