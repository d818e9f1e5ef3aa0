"""``viscircuits diagram``: a circuit of a study as one picture, from the pixels to its target."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from viscircuits.cli import options


class Shade(StrEnum):
    """Colours of the SVG and the PNG; the page follows its reader."""

    light = "light"
    dark = "dark"


def diagram(
    study: options.StudyArgument,
    model: options.ModelOption = None,
    target: Annotated[str | None, typer.Option("--target", "-t", help="Which target; default: the first.")] = None,
    criterion: options.CriterionOption = None,
    density: options.DensityOption = None,
    keep: options.KeepOption = 0.9,
    pictures: options.PicturesOption = options.FilterView.optvis,
    images: options.ImagesOption = None,
    most: options.MostOption = 300,
    theme: Annotated[Shade, typer.Option("--theme", help="Colours of SVG and PNG.")] = Shade.light,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Where, without an ending; default STUDY/diagrams/NAME.")
    ] = None,
    device: options.DeviceOption = "auto",
    threads: options.ThreadsOption = None,
) -> None:
    """Draw a circuit: SVG, PNG, and a page to explore it that needs no network."""
    from viscircuits.cli.command import again
    from viscircuits.cli.console import out as console
    from viscircuits.cli.console import print_next, progress_bars
    from viscircuits.diagram.extended import diagram as drawn
    from viscircuits.diagram.legend import about_row
    from viscircuits.runs.opened import open_study
    from viscircuits.study import chosen

    opened = open_study(study, model, images, device, again)
    row = chosen.chosen(chosen.measured(opened.study, target, criterion), density, keep)
    with progress_bars() as report:
        made = drawn(
            chosen.circuit_of(opened.study, row, opened.model), scores=chosen.scores_of(opened.study, row),
            images=opened.images, pictures=pictures.value, prepare=opened.prepare, most=most, cache=opened.study.cache,
            progress=report, about=about_row(opened.study, row, opened.images, str(images or "")),
        )  # fmt: skip
    files = made.save(out or opened.study.file("diagrams", chosen.name_of(row)), theme.value)
    for file in files:
        console.print(str(file), soft_wrap=True)
    if opened.images is None:
        console.print("without inset: the study's pictures are not at hand; give --images", style="dim")
    print_next("report", study, *(("--model", model) if model else ()))
