"""Options of the commands that take features apart, each declared once."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

PictureFoldersOption = Annotated[
    list[Path],
    typer.Option("--images", "-i", help="Folder of pictures or of class folders, or a file; repeat for more."),
]
FolderOption = Annotated[
    Path | None, typer.Option("--out", "-o", metavar="STUDY", help="Study folder, new or not; default studies/MODEL.")
]


def pictures_of(images: Sequence[Path], weights: str | None = None) -> list[str]:
    """Returns the options with which another command takes the same pictures, and weights, as they are typed."""
    options = ["--weights", weights] if weights else []
    for path in images:
        options += ["--images", str(path)]
    return options
