"""The entry point: commands, and what a user sees when something is wrong."""

import sys

import typer

from viscircuits import __version__
from viscircuits.cli import demo, extract, inspect, targets
from viscircuits.errors import ViscircuitsError

app = typer.Typer(
    name="viscircuits",
    help="Find the small circuit inside a vision model that computes one feature, and measure how well it does alone.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command("extract")(extract.extract)
app.command("targets")(targets.targets)
app.command("inspect")(inspect.inspect)
app.command("demo")(demo.demo)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"viscircuits {__version__}")
        raise typer.Exit


@app.callback()
def main(version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version.")) -> None:
    """Find, measure and look at the small circuits inside vision models."""


def run() -> None:
    """Runs the command line; an error a user can put right is one clear line and exit status 1."""
    try:
        app()
    except ViscircuitsError as error:
        from rich.console import Console
        from rich.text import Text

        Console(stderr=True, soft_wrap=True).print(Text.assemble(("error: ", "bold red"), str(error)))
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted; what was finished is saved, and the same command goes on from there", file=sys.stderr)  # noqa: T201
        sys.exit(130)
