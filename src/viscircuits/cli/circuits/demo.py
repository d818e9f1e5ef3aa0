"""``viscircuits demo``: the main job on the built-in network and pictures, with no download."""

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from viscircuits.cli import options

TARGET = "features.8:50"


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Study folder.")] = Path("studies/demo"),
    target: Annotated[
        list[str] | None,
        typer.Option("--target", help=f"What to explain; repeat for several.  [dim]default: {TARGET}[/]"),
    ] = None,
    pictures: Annotated[int, typer.Option("--pictures", min=20, help="How many pictures to draw.")] = 400,
    seed: options.SeedOption = 2,
    show: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the report, where this is a terminal and a browser is known.")
    ] = True,
) -> None:
    """Find and measure the circuits of one or more channels of the built-in network, on pictures drawn for it."""
    from viscircuits.cli.command import typed
    from viscircuits.cli.console import out as console
    from viscircuits.cli.console import print_next, progress_bars
    from viscircuits.cli.tables import print_study
    from viscircuits.data.images import ImageSet
    from viscircuits.data.shapes import generate
    from viscircuits.evaluate.sweep import Sweep
    from viscircuits.report.report import report
    from viscircuits.runs import networks
    from viscircuits.runs.job import run_job
    from viscircuits.runs.spec import Origin
    from viscircuits.target import parse_target

    model, prepare = networks.load("shapesnet")
    drawn = generate(pictures, seed=seed)
    images = ImageSet.from_tensors(prepare(drawn.images), drawn.labels.tolist())
    scoring, held_out = images.split(0.5, seed=seed)
    criteria = ("actgrad", "snip", "magnitude", "random")
    targets = [parse_target(text) for text in target or [TARGET]]
    made = f"viscircuits.data.shapes.generate({pictures}, seed={seed})"
    with progress_bars() as progress:
        job = Sweep(model, targets, scoring, held_out, criteria, seed=seed, progress=progress)
        study = run_job(job, out, Origin("shapesnet", None, made, made), typed())
        page = report(study, model, prepare=prepare, images=held_out, progress=progress).save(out)[0]
    print_study(study)
    print_next("extract", "MODEL", "LAYER:CHANNEL", "--images", "FOLDER")
    if show and sys.stdout.isatty():
        _open(page)
    console.print(str(page), soft_wrap=True)  # last, for those who look for it


def _open(page: Path) -> None:
    """Opens a page in a browser with a window; one in text would take the terminal away."""
    import webbrowser

    windows = sys.platform in ("win32", "darwin") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    with suppress(webbrowser.Error):
        if windows:
            webbrowser.get().open(page.resolve().as_uri())
