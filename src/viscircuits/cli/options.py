"""The options that several commands share, each declared once, and what their values may be."""

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from viscircuits.cli import early
from viscircuits.errors import ViscircuitsError

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40, "P": 2**50}


def size(text: str) -> int:
    """Returns the bytes that a text such as "4GB", "500M" or "2e9" stands for."""
    found = re.fullmatch(r"([0-9.]+(?:e[0-9]+)?)\s*([KMGTP]?)(?:i?B)?", text.strip(), flags=re.IGNORECASE)
    try:
        number = float(found[1]) * _UNITS[found[2].upper()] if found else 0.0
    except ValueError:
        number = 0.0
    if not 1 <= number <= _UNITS["P"]:
        raise typer.BadParameter(
            f"{text!r} is not an amount of memory; expected something like 4GB or 500MB, at most 1PB"
        )
    return int(number)


class Command(TyperCommand):
    """A command whose values are looked at before it runs: numbers by their names, as arguments of functions are."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Reads the command line; an empty text, or a number out of range, is an error of one line."""
        self._refuse_empty(ctx, args)
        rest = super().parse_args(ctx, args)
        early.look_at(ctx.params)
        from viscircuits.bounds.ranges import COUNT, RANGES, within

        rules = {**RANGES, "count": COUNT}  # of stimuli; that of structures to keep has no bound but the network's
        for name, value in ctx.params.items():
            for one in value if isinstance(value, list | tuple) else [value]:
                if name in rules and isinstance(one, int | float) and not isinstance(one, bool):
                    within(name, one, rules[name])
        return rest

    def _refuse_empty(self, ctx: Any, args: list[str]) -> None:
        # a path of nothing would be the folder one is in
        given, _, _ = self.make_parser(ctx).parse_args(args=list(args))
        for parameter in self.params:
            values = given.get(parameter.name or "")
            several = values if isinstance(values, list | tuple) else [values]
            if any(isinstance(value, str) and not value.strip() for value in several):
                name = parameter.opts[0] if parameter.param_type_name == "option" else parameter.opts[0].upper()
                raise ViscircuitsError(f"{name} is empty; give it a value, or leave it out")


ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="[bold]shapesnet[/] (built in), a torchvision model such as squeezenet1_1, timm:NAME, "
        "or package.module:callable.",
    ),
]
WeightsOption = Annotated[
    str | None,
    typer.Option("--weights", "-w", help="DEFAULT (downloaded by torchvision), or a safetensors or state-dict file."),
]
InputSizeOption = Annotated[
    int | None, typer.Option("--input-size", min=1, help="Side of the model's input, in pixels.")
]
OutOption = Annotated[Path | None, typer.Option("--out", "-o", help="Study folder; default studies/MODEL-TARGET.")]
LimitOption = Annotated[
    int | None, typer.Option("--limit", min=1, help="Use this many of the pictures, drawn by the seed.")
]
SeedOption = Annotated[int, typer.Option("--seed", help="Seed of every random choice.")]
ClassesOption = Annotated[
    Path | None,
    typer.Option("--classes", help="File of lines 'class folder, number of the output that judges it', for the loss."),
]
WhiteOption = Annotated[
    float | None,
    typer.Option("--white", metavar="N", help="The value that is white in pictures of more than 8 bits, such as 4095."),
]
DeviceOption = Annotated[str, typer.Option("--device", help="cpu, cuda, or auto (cuda where there is one).")]
MemoryOption = Annotated[
    int | None,
    typer.Option("--memory", parser=size, metavar="SIZE", help="The most memory to work in, beside the model, such as "
                 "4GB; more pictures are then taken at a time, or fewer.  [dim]default: 2GB[/]"),
]  # fmt: skip
ModelOption = Annotated[
    str | None,
    typer.Option("--model", metavar="MODEL", help="The study's model, where that is code of one's own: "
                 "package.module:callable. No file of a study may start code.  [dim]default: what the study names, if "
                 "it is built in, torchvision's or timm's[/]"),
]  # fmt: skip


def _threads(wanted: int | None) -> int | None:
    """Sets torch's threads: they are the whole process's, and a command is one."""
    if wanted is not None:
        import torch

        from viscircuits.bounds.ranges import within

        within("threads", wanted)
        torch.set_num_threads(wanted)
    return wanted


ThreadsOption = Annotated[
    int | None,
    typer.Option("--threads", min=1, callback=_threads, help="CPU threads; default: torch's own choice."),
]


class FilterView(StrEnum):
    """Where pictures of filters come from."""

    optvis = "optvis"
    crops = "crops"
    none = "none"


StudyArgument = Annotated[Path, typer.Argument(metavar="STUDY", help="A study folder.")]
CriterionOption = Annotated[
    str | None,
    typer.Option("--criterion", "-c", help="Search the circuits of this one alone, or of a control: random, "
                 "NAME:worst.  [dim]default: of all but controls[/]"),
]  # fmt: skip
DensityOption = Annotated[
    float | None,
    typer.Option("--density", "-d", help="Show the circuit with the largest |r| of this density.  [dim]default: see "
                 "--keep[/]"),
]  # fmt: skip
KeepOption = Annotated[
    float,
    typer.Option("--keep", min=0, max=1, help="Of the circuits with |r| >= KEEP show the one of the smallest density, "
                 "then the one with the larger |r|, then the criterion asked first; where there is none, the one with "
                 "the largest |r|."),
]  # fmt: skip
PicturesOption = Annotated[
    FilterView,
    typer.Option(
        "--pictures",
        help="What filters show: optvis, what each looks for in the circuit; crops, the piece of a picture that "
        "excites it most; none, its number.",
    ),
]
ImagesOption = Annotated[
    Path | None,
    typer.Option(
        "--images", "-i", help="Pictures to look at the circuit with; default: those that the study measured on."
    ),
]
MostOption = Annotated[int, typer.Option("--most", min=1, help="Draw more edges than this as bundles.")]
