"""The options that several commands share, each declared once."""

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="[bold]shapesnet[/] (built in), a torchvision model such as squeezenet1_1, timm:NAME, "
        "or package.module:callable.",
    ),
]
Weights = Annotated[
    str | None,
    typer.Option("--weights", "-w", help="DEFAULT (downloaded by torchvision), or a safetensors or state-dict file."),
]
InputSize = Annotated[int | None, typer.Option("--input-size", min=1, help="Side of the model's input, in pixels.")]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Study folder; default studies/MODEL-TARGET.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of every random choice.")]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, or auto (cuda where there is one).")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads; default: torch's own choice.")]
