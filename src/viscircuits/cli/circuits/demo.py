"""``viscircuits demo``: the main job on the built-in network and pictures, with no download."""

from pathlib import Path
from typing import Annotated

import typer

from viscircuits.cli import options

TARGET = "features.10:5"


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Study folder.")] = Path("studies/demo"),
    target: Annotated[
        list[str] | None,
        typer.Option("--target", help=f"What to explain; repeat for several.  [dim]default: {TARGET}[/]"),
    ] = None,
    pictures: Annotated[int, typer.Option("--pictures", min=20, help="How many pictures to draw.")] = 400,
    seed: options.Seed = 2,
) -> None:
    """Find and measure the circuits of one or more channels of the built-in network, on pictures drawn for it."""
    from viscircuits.cli.command import typed
    from viscircuits.cli.console import progress_bars
    from viscircuits.cli.tables import print_study
    from viscircuits.data.images import ImageSet
    from viscircuits.data.shapes import generate
    from viscircuits.evaluate.sweep import Sweep
    from viscircuits.model.zoo import zoo
    from viscircuits.runs.job import Source, run_job
    from viscircuits.target import parse_target

    model, prepare = zoo.load("shapesnet")
    drawn = generate(pictures, seed=seed)
    images = ImageSet.from_tensors(prepare(drawn.images), drawn.labels.tolist())
    scoring, held_out = images.split(0.5, seed=seed)
    criteria = ("actgrad", "snip", "magnitude", "random")
    targets = [parse_target(text) for text in target or [TARGET]]
    made = f"viscircuits.data.shapes.generate({pictures}, seed={seed})"
    with progress_bars() as report:
        job = Sweep(model, targets, scoring, held_out, criteria, seed=seed, progress=report)
        study = run_job(job, out, Source("shapesnet", None, made, made), typed())
    print_study(study)
