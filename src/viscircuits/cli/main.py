"""The entry point: commands, and what a user sees when something is wrong."""

import errno
import logging
import os
import sys
import warnings
from typing import Annotated, NoReturn

import typer

from viscircuits.cli.circuits import compare, demo, diagram, extract, inspect, report, targets
from viscircuits.cli.features import polysemantic, probe, split, top
from viscircuits.cli.options import Command
from viscircuits.errors import ViscircuitsError
from viscircuits.version import __version__

app = typer.Typer(
    name="viscircuits",
    help="Find the small circuit inside a vision model that computes one feature, and measure how well it does alone.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command("extract", cls=Command)(extract.extract)
app.command("targets", cls=Command)(targets.targets)
app.command("inspect", cls=Command)(inspect.inspect)
app.command("demo", cls=Command)(demo.demo)
app.command("diagram", cls=Command)(diagram.diagram)
app.command("report", cls=Command)(report.report)
app.command("top", cls=Command)(top.top)
app.command("polysemantic", cls=Command)(polysemantic.polysemantic)
app.command("split", cls=Command)(split.split)
app.command("probe", cls=Command)(probe.probe)
app.command("compare", cls=Command)(compare.compare)


def _version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"viscircuits {__version__}")
        raise typer.Exit
    return wanted


_VERSION = typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")


@app.callback()
def main(version: Annotated[bool, _VERSION] = False) -> None:
    """Find, measure and look at the small circuits inside vision models."""


def _warning(message: Warning | str, *_: object, **__: object) -> str:
    from viscircuits.cli.console import one_line

    return f"warning: {one_line(message)}\n"


class _LogLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        from viscircuits.cli.console import one_line

        return one_line(super().format(record))


def run() -> None:
    """Runs the command line; an error a user can put right is one clear line and exit status 1."""
    warnings.formatwarning = _warning
    if logging.lastResort is not None:  # what prints a log that nobody set up
        logging.lastResort.setFormatter(_LogLine())
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # where it keeps its fonts interests nobody
    try:
        app()
    except (ViscircuitsError, OSError) as error:  # OSError: a full disk, a folder that may not be written
        from rich.text import Text

        from viscircuits.cli.console import err, one_line

        told = _of_the_system(error) if isinstance(error, OSError) else error
        err.print(Text.assemble(("error: ", "bold red"), one_line(told)), soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        _interrupted()
    except SystemExit as stop:  # typer turns an interrupt into an exit without a word
        if stop.code == _INTERRUPTED:
            _interrupted()
        raise


_INTERRUPTED = 130

_FIXES = {
    errno.EACCES: "take the right to it (chmod), or another place",
    errno.EPERM: "take the right to it (chmod), or another place",
    errno.EROFS: "choose a place that can be written (--out)",
    errno.ENOSPC: "free some space and run the same command again; what was finished is saved",
    errno.EDQUOT: "free some space and run the same command again; what was finished is saved",
    errno.ENOTDIR: "choose another place (--out)",
    errno.EEXIST: "choose another place (--out), or move what is there",
    errno.EMFILE: "allow more open files (ulimit -n)",
}
"""What to do about what the operating system refuses."""


def _of_the_system(error: OSError) -> str:
    """An error of the operating system: what, where, and what to do."""
    what = error.strerror or str(error)
    where = f": {os.fsdecode(error.filename)!r}" if isinstance(error.filename, str | bytes) else ""
    fix = f"; {_FIXES[error.errno]}" if error.errno in _FIXES else ""
    return f"{what}{where}{fix}"


def _interrupted() -> NoReturn:
    print("interrupted; what was finished is saved, and the same command goes on from there", file=sys.stderr)  # noqa: T201
    sys.exit(_INTERRUPTED)
