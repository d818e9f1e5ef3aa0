"""``viscircuits report``: the whole story of a study on one page."""

from pathlib import Path
from typing import Annotated

import typer

from viscircuits.cli import options


def report(
    study: options.StudyArgument,
    model: options.ModelOption = None,
    criterion: options.CriterionOption = None,
    density: options.DensityOption = None,
    keep: options.KeepOption = 0.9,
    pictures: options.PicturesOption = options.FilterView.optvis,
    images: options.ImagesOption = None,
    most: options.MostOption = 300,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for report.html and diagrams/; default: STUDY.")
    ] = None,
    device: options.DeviceOption = "auto",
    threads: options.ThreadsOption = None,
) -> None:
    """Tell the story of a study on one page that needs no network: curves, circuits, diagrams, pictures."""
    from viscircuits.cli.command import again
    from viscircuits.cli.console import out as console
    from viscircuits.cli.console import print_next, progress_bars
    from viscircuits.report.findings import write_findings
    from viscircuits.report.report import report as written
    from viscircuits.runs.opened import open_study
    from viscircuits.study.names import FINDINGS, STUDY

    if not (study / STUDY).is_file() and (study / FINDINGS).is_dir():
        console.print(str(write_findings(study, out)), soft_wrap=True)
        return
    loaded = open_study(study, model, images, device, again)
    with progress_bars() as progress:
        made = written(
            loaded.study, loaded.model, prepare=loaded.prepare, images=loaded.images, source=str(images or ""),
            named=model, criterion=criterion, density=density, keep=keep, pictures=pictures.value, most=most,
            progress=progress,
        )  # fmt: skip
    for file in made.save(out or study):
        console.print(str(file), soft_wrap=True)
    if loaded.images is None:
        console.print("some parts are left out: the study's pictures are not at hand; give --images", style="dim")
    print_next("compare", study, "ANOTHER_STUDY")
