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


class PanelView(StrEnum):
    """Where the panel's pictures of filters come from."""

    circuit = "circuit"
    model = "model"


def diagram(
    study: options.StudyArgument,
    model: options.ModelOption = None,
    target: Annotated[str | None, typer.Option("--target", "-t", help="Which target; default: the first.")] = None,
    criterion: options.CriterionOption = None,
    density: options.DensityOption = None,
    keep: options.KeepOption = 0.9,
    pictures: options.PicturesOption = options.FilterView.optvis,
    panel: Annotated[
        PanelView,
        typer.Option(
            "--panel",
            help="Pictures that the page shows of a filter: circuit, or model: beside them those in "
            "the full model, as the target always has.",
        ),
    ] = PanelView.circuit,
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

    loaded = open_study(study, model, images, device, again)
    row = chosen.chosen(chosen.measured(loaded.study, target, criterion), density, keep)
    with progress_bars() as report:
        made = drawn(
            chosen.circuit_of(loaded.study, row, loaded.model), scores=chosen.scores_of(loaded.study, row),
            images=loaded.images, pictures=pictures.value, panel=panel.value, prepare=loaded.prepare, most=most,
            cache=loaded.study.cache, progress=report,
            about=about_row(loaded.study, row, loaded.images, str(images or "")),
        )  # fmt: skip
    files = made.save(out or loaded.study.file("diagrams", chosen.name_of(row)), theme.value)
    for file in files:
        console.print(str(file), soft_wrap=True)
    if loaded.images is None:
        console.print("without inset: the study's pictures are not at hand; give --images", style="dim")
    print_next("report", study, *(("--model", model) if model else ()))
