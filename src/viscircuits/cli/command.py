"""The command that was typed, to be kept in a study or told again."""

import shlex
import sys


def again(*more: str) -> str:
    """Returns the command for a terminal to show, with more options added."""
    from viscircuits.cli.console import plain

    return plain(typed(*more))


def typed(*more: str) -> str:
    """Returns the command as a shell takes it, with more options added."""
    given = sys.argv[1:]
    end = given.index("--") if "--" in given else len(given)
    return shlex.join(["viscircuits", *given[:end], *more, *given[end:]])
