"""``viscircuits extract``: the main job, from a model, targets and pictures to measured circuits in a study folder."""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from viscircuits.cli import early, options
from viscircuits.errors import ImageError

if TYPE_CHECKING:
    from viscircuits.data.images import ImageSet
    from viscircuits.evaluate.sweep import Sweep


class Structures(StrEnum):
    """What is kept or removed."""

    kernel = "kernel"
    filter = "filter"
    weight = "weight"


class Bias(StrEnum):
    """What becomes of filters without kernels."""

    masked = "masked"
    pruned = "pruned"


def extract(
    model: options.ModelArgument,
    target: Annotated[
        list[str],
        typer.Argument(
            metavar="TARGET...",
            help="layer:channel, layer:channel@y,x, layer:channel@max, logit:CLASS, loss, or a sum: 'a:3 - 0.5*b:7'.",
        ),
    ],
    images: Annotated[Path, typer.Option("--images", "-i", help="Folder of pictures or of class folders, or a file.")],
    weights: options.WeightsOption = None,
    criterion: Annotated[
        list[str] | None,
        typer.Option("--criterion", "-c", help=f"{', '.join(early.CRITERIA)}; with options as in snip,rounds=10; "
                     "repeat for several; NAME:worst keeps the worst first, a control.  "
                     "[dim]default: actgrad random[/]"),
    ] = None,
    density: Annotated[
        list[float] | None,
        typer.Option("--density", "-d", help="Kept over relevant, in (0, 1]; repeat for several.  "
                     "[dim]default: the paper's 13[/]"),
    ] = None,
    held_out: Annotated[
        str, typer.Option("--held-out", help="Pictures to measure on: a folder, or the fraction of --images set aside.")
    ] = "0.5",
    limit: Annotated[
        int | None, typer.Option("--limit", min=2, help="Use this many of the pictures, drawn by the seed.")
    ] = None,
    granularity: Annotated[
        Structures, typer.Option("--granularity", "-g", help="What is kept or removed.")
    ] = Structures.kernel,
    minmax: Annotated[bool, typer.Option("--minmax", help="Scale scores to [0, 1] within each layer.")] = False,
    biases: Annotated[
        Bias, typer.Option("--biases", help="Filters without kernels keep their bias, or fall silent.")
    ] = Bias.masked,
    inside: Annotated[
        bool, typer.Option("--inside", help="Look into each circuit too, filter by filter (columns of the table).")
    ] = False,
    out: options.OutOption = None,
    seed: options.SeedOption = 0,
    batch_size: Annotated[
        int | None,
        typer.Option("--batch-size", min=1, help="Pictures at a time; changes no result.  [dim]default: what fits[/]"),
    ] = None,
    memory: options.MemoryOption = None,
    input_size: options.InputSizeOption = None,
    classes: options.ClassesOption = None,
    white: options.WhiteOption = None,
    skip_unreadable: Annotated[bool, typer.Option("--skip-unreadable", help="Leave out damaged pictures.")] = False,
    device: options.DeviceOption = "auto",
    threads: options.ThreadsOption = None,
) -> None:  # fmt: skip
    """Find the circuits of one or more targets and measure how well they keep them.

    Scores come from one half of the pictures and measurements from the other. Interrupted, the same command goes on
    where it stopped.
    """
    from dataclasses import replace

    from viscircuits.cli.command import typed
    from viscircuits.cli.console import print_next, progress_bars
    from viscircuits.cli.tables import print_study
    from viscircuits.evaluate.question import PAPER_DENSITIES
    from viscircuits.evaluate.sweep import Sweep
    from viscircuits.model.zoo import zoo
    from viscircuits.runs import networks
    from viscircuits.runs.classes import is_named, numbered
    from viscircuits.runs.job import run_job
    from viscircuits.runs.pictures import read_classes, read_pictures
    from viscircuits.runs.spec import Origin
    from viscircuits.study.names import slug
    from viscircuits.target import parse_target

    for text in target:
        if not is_named(text):  # what no model is needed for is answered before one is loaded
            parse_target(text)
    network, prepare = networks.load(model, weights, input_size=input_size)
    parsed = [parse_target(numbered(text, zoo.categories(network))) for text in target]
    network = networks.on_device(network, device)

    numbers = None if classes is None else read_classes(classes)

    def pictures(path: Path) -> "ImageSet":
        reading = "skip" if skip_unreadable else "error"
        return read_pictures(path, prepare, unreadable=reading, white=white, classes=numbers)

    everything = pictures(images)
    found = len(everything) if limit is not None and limit < len(everything) else None
    everything = everything if limit is None or found is None else everything.take(limit, seed)
    scoring, measuring, source = _split(everything, held_out, seed, images, pictures)
    job = Sweep(  # checks names and ranges, before every picture is read
        network, parsed, scoring, measuring, tuple(criterion or ("actgrad", "random")),
        tuple(density or PAPER_DENSITIES), granularity.value, "minmax" if minmax else None, biases.value, seed,
        batch_size, memory, inside=inside,
    )  # fmt: skip
    job = held(job)
    name = slug(model.replace("/", "-"), *map(str, parsed[:2]), "more" if len(parsed) > 2 else "")
    origin = Origin(model, weights, str(images), source, numbers, white, found)
    with progress_bars() as report:
        study = run_job(replace(job, progress=report), out or Path("studies") / name, origin, typed())
    print_study(study)
    # a callable is started on the user's word alone, not on the study's
    print_next("report", study.path, *(("--model", model) if zoo.is_foreign(model) else ()))


def _split(
    everything: "ImageSet", held_out: str, seed: int, source: Path, read: "Callable[[Path], ImageSet]"
) -> "tuple[ImageSet, ImageSet, str]":
    """Pictures to score on, pictures to measure on, and where the latter come from."""
    if Path(held_out).exists():
        return everything, read(Path(held_out)), held_out
    try:
        fraction = float(held_out)
    except ValueError:
        raise ImageError(f"--held-out {held_out!r} is neither a fraction in (0, 1) nor a folder that exists") from None
    if not 0 < fraction < 1:
        raise ImageError(f"--held-out {held_out} is out of range; expected a fraction in (0, 1) or a folder")
    n = len(everything)
    if not 0 < round((1 - fraction) * n) < n:
        raise ImageError(
            f"--held-out {held_out} of {n} picture{'s' * (n > 1)} leaves nothing on one side; give --held-out FOLDER, "
            f"another fraction or more pictures"
        )
    scoring, measuring = everything.split(1 - fraction, seed=seed)
    return scoring, measuring, str(source)


def held(job: "Sweep") -> "Sweep":
    """Returns a job that holds its pictures, each set where what its memory limit then leaves takes the same passes."""
    from dataclasses import replace

    from viscircuits.saliency.engine.plan import MEMORY

    limit = left = MEMORY if job.memory is None else job.memory
    wanted, sets = job.plans(limit), dict[str, "ImageSet"]()
    for name, images in (("scoring", job.scoring), ("held_out", job.held_out)):
        size = len(images) * images[0].numel() * images[0].element_size()
        if wanted is not None and size < left and job.plans(left - size) == wanted:
            sets[name] = images.in_memory()
            left -= size
    return replace(job, **sets)
