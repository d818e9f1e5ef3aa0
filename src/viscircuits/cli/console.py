r"""What the commands print: lines, tables, and progress bars on standard error.

Names come from files of others, and a terminal obeys what it is sent: all that is printed goes through a `Terminal`,
which shows control characters as ``\x1b`` and takes no text as markup.
"""

import re
import shlex
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Span, Text

if TYPE_CHECKING:  # it brings torch, which a mistake should not wait for
    from viscircuits.types import Progress as Report

_HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # C0, DEL, C1: what moves the cursor, changes colours or types for the user
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # what turns the direction of text
    "\u2028\u2029\ud800-\udfff]"  # line ends, and halves of characters, which no output can encode
)


def plain(text: str) -> str:
    """Returns a text with its control characters escaped, ends of lines and turns of direction among them."""
    return _HIDDEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def one_line(text: object) -> str:
    """Returns a message as one line, with its control characters escaped."""
    return plain(re.sub(r"\s*[\r\n]+\s*", " ", str(text).strip()))


class Terminal(Console):
    """A console on which texts are what they say: no markup, no control characters."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Prints texts (as they are), or what rich can show."""
        super().print(*map(_shown, objects), **options)


def _shown(thing: Any) -> Any:
    match thing:
        case str():
            return Text(plain(thing))
        case Text():
            pieces = [plain(character) for character in thing.plain]
            places = [0, *accumulate(map(len, pieces))]
            spans = [Span(places[span.start], places[span.end], span.style) for span in thing.spans]
            return Text("".join(pieces), style=thing.style, spans=spans)
        case _:
            return thing


out = Terminal(soft_wrap=False)
"""Results, on standard output."""

err = Terminal(stderr=True)
"""Everything that is not a result."""


def print_next(*command: object) -> None:
    """Prints what one may want to do next, as it is typed; on standard error, as it is no result."""
    err.print(Text.assemble(("next: ", "dim"), plain(shlex.join(["viscircuits", *map(str, command)]))), soft_wrap=True)


@contextmanager
def progress_bars() -> "Iterator[Report]":
    """Yields a callback ``(what, done, total)`` that draws one bar for each kind of work; lines without a terminal."""
    if not err.is_terminal:
        yield Lines().report
        return
    told = TextColumn("{task.description}", markup=False)
    columns = (told, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(plain(what), total=total)
            bars.update(tasks[what], completed=done, total=total, visible=done < total or what == "circuits")

        yield report


class Lines:
    """How far a work has come, for a log: a line now and then, with the time that is left."""

    EVERY = 10.0
    """Seconds between two lines; a work that is done sooner has none."""

    def __init__(self) -> None:
        self._started: dict[str, float] = {}
        self._told = time.monotonic()

    def report(self, what: str, done: int, total: int) -> None:
        """Prints where the work stands, where the last line is long ago.

        Args:
            what: the work.
            done: how much of it is done.
            total: how much there is.
        """
        now = time.monotonic()
        started = self._started.setdefault(what, now)
        if now - self._told < self.EVERY or not done:  # that nothing is done yet says nothing
            return
        self._told = now
        # the first call comes when something is done already, so that its time is not known
        left = (now - started) / done * (total - done)
        err.print(f"{what}: {done:,} of {total:,}{f', about {_duration(left)} left' if done < total else ''}")


def _duration(seconds: float) -> str:
    """A time as one says it: ``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"


def print_table(title: str, columns: Sequence[tuple[str, bool]], rows: Iterable[Sequence[str]]) -> None:
    """Prints a table.

    Args:
        title: what it shows, in the line above.
        columns: of each its name, and whether it holds numbers.
        rows: as many cells as columns.
    """
    out.print(title, style="bold")
    table = Table(header_style="dim", box=None, pad_edge=False, show_header=any(name for name, _ in columns))
    for name, numeric in columns:
        table.add_column(Text(plain(name)), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(plain(cell)) for cell in row))  # names of files and layers may look like markup
    out.print(table)
