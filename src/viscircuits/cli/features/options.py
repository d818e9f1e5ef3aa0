"""Options of the commands that take features apart, each declared once."""

from pathlib import Path
from typing import Annotated

import typer

PictureFoldersOption = Annotated[
    list[Path],
    typer.Option("--images", "-i", help="FolderOption of pictures or of class folders, or a file; repeat for more."),
]
FolderOption = Annotated[
    Path | None, typer.Option("--out", "-o", metavar="STUDY", help="Study folder, new or not; default studies/MODEL.")
]
