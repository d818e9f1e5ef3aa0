"""What the commands print: tables, and progress bars on standard error."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from viscircuits.types import Progress as Report

out = Console(soft_wrap=False)
"""Results, on standard output."""

err = Console(stderr=True)
"""Everything that is not a result."""


@contextmanager
def progress_bars() -> Iterator[Report]:
    """Yields a callback ``(what, done, total)`` that draws one bar for each kind of work."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total, visible=done < total or what == "circuits")

        yield report


def print_table(title: str, columns: Sequence[tuple[str, bool]], rows: Iterable[Sequence[str]]) -> None:
    """Prints a table; each column is (name, whether it holds numbers)."""
    out.print(Text(title, style="bold"))
    table = Table(header_style="dim", box=None, pad_edge=False, show_header=any(name for name, _ in columns))
    for name, numeric in columns:
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))  # names of files and layers may look like markup
    out.print(table)
