"""Values that no option can take, for every option and argument of every command, and what a user sees of each.

The list of options is the command line's own, so a new one fails the test until it is given a kind here.
"""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import typer
from PIL import Image

from viscircuits.cli.main import app
from viscircuits.data.shapes import generate

SECONDS = 20
"""A command that takes longer to refuse a value hangs."""

HUGE = str(10**30)
LONG = "x" * 5000
NUMBERS = ("", "x", "nan", "inf", "-inf", "1e400", "-0.5")
WHOLE = ("", "x", "1.5", "nan", "inf", "True", "-1", HUGE)
MISSING = ("", "PLACE/nowhere", "PLACE/pipe", "PLACE/zero", "/dev/null", "/dev/zero", LONG, "PLACE/loop")

BAD: dict[str, tuple[str, ...]] = {
    "seed": (*WHOLE, str(2**63)),
    "count": (*WHOLE, "0", str(10**6 + 1)),
    "count or none": (*WHOLE, str(10**6 + 1)),
    "amount": ("", "x", "1.5", "nan", "inf", "True", "-1", "0"),
    "threads": (*WHOLE, "0", "1025"),
    "memory": ("", "x", "0", "-1GB", "nan", "inf", "1e400", "4PB", "1KB", "1e30", ".", "1e9999GB"),
    "size": (*WHOLE, "0", "1", "100000"),
    "density": (*NUMBERS, "0", "1.5"),
    "share": (*NUMBERS, "1.5"),
    "positive": NUMBERS,
    "white": (*NUMBERS, "0"),
    "model": ("", " ", "x", ":", "x:y", "shapesnet:", "os:getcwd", "sys:exit", "timm:", "time:nothing", "json:tool",
              LONG, "antigravity.nowhere:x"),
    "named": ("", " ", "x", ":", "x:y", "sys:exit", "squeezenet1_1"),
    "weights": (*MISSING, "x", "PLACE", "PLACE/notes.txt", "PLACE/sparse.pt", "PLACE/complex.pt", "PLACE/meta.pt"),
    "target": ("", " ", "x", "features.10", "features.10:", ":5", "features.10:x", "features.10:999", "features.10:-1",
               "features.10:1.5", "features.10:5@", "features.10:5@99,99", "features.10:5@nan", "features.10:5@1",
               "nan*features.10:5", "1e400*features.10:5", f"features.10:{HUGE}", "loss@x", "logit:99", "features.99:5",
               "features.10:5@1,1,1,1", "0*features.10:5", LONG),
    "probed": ("", " ", "x", "features.10:", ":5", "features.10:x", "features.10:999", "features.10:-1", "loss",
               "features.10:5@99,99", "features.99", "features.3:1 + features.3:2", "logit:99", LONG),
    "layer": ("x", "features.99", "features.10:5", "logit:3", " ", LONG),
    "count of layer": ("x", "features.99", " ", LONG),
    "channel": (*WHOLE, "999"),
    "images": (*MISSING, "PLACE/empty", "PLACE/notes.txt", "PLACE/wrong.png", "/proc/self/mem", "PLACE/piped"),
    "held out": (*MISSING, "PLACE/empty", "PLACE/notes.txt", "nan", "inf", "0", "1", "-0.5", "1e-9", "x", "0.5.5"),
    "classes": (*MISSING, "PLACE", "PLACE/notes.txt", "PLACE/wrong.png", "PLACE/huge.csv"),
    "circuit": (*MISSING, "PLACE", "PLACE/notes.txt", "PLACE/wrong.png"),
    "study": (*MISSING, "PLACE", "PLACE/notes.txt", "PLACE/empty"),
    "out": ("", "PLACE/notes.txt", "PLACE/notes.txt/deeper", "/proc/nowhere/deeper", "/dev/null", "PLACE/pipe", LONG,
            "PLACE/loop"),
    "out folder": ("", "PLACE/notes.txt", "PLACE/notes.txt/deeper", "/proc/nowhere", "PLACE/pipe", LONG, "PLACE/loop"),
    "out name": ("", "PLACE/notes.txt/deeper", "/proc/nowhere/deeper", LONG, "PLACE/loop/deeper"),
    "device": ("", " ", "x", "cuda:99", "meta", "mps", "cpu:x", "xpu", "CPU", "vulkan", "hpu", "cuda:-1", LONG),
    "criterion": ("", " ", "x", "snip,", "snip,rounds=0", "snip,rounds=-1", "snip,rounds=1.5", "snip,rounds=1000000000",
                  "snip,rounds=", "actgrad,steps=0", "actgrad,steps=nan", f"actgrad,steps={HUGE}", "force,rounds=0",
                  "learned,steps=0", "learned,steps=1000000000", "learned,densities=2", "learned,densities=nan",
                  "learned,densities=", "learned,loss=x", "actgrad:best", "actgrad,x=1", "snip,rounds=2,rounds=3",
                  "random,seed=3"),
    "one criterion": ("", " ", "x", "snip,rounds=0", "actgrad,x=1", "actgrad:worst", "snip,rounds=1000000000"),
    "shown criterion": ("", " ", "x", "actgrad:best", LONG),
    "shown target": ("", " ", "x", "features.3:8", "features.3", LONG),
    "shown density": (*NUMBERS, "0", "1.5", "0.123"),
    "choice": ("", " ", "x", "None", "1"),
    "family": ("", " ", "x", "Arc", LONG),
    "axis": ("", "x", "radius", "radius=1", "radius=0:1", "radius=0:1:1", "radius=0:1:nan", "radius=nan:1:3",
             "radius=0:inf:3", "radius=0:1:1.5", "x=0:1:2", "radius=0:1:1000001", f"radius=0:1:{HUGE}", "=0:1:2",
             "radius=0:1:-3", "radius=0:1e400:3", "radius=1:1:3"),
    "set": ("", "x", "x=1", "thickness=nan", "thickness=inf", "thickness=", "=1", "thickness=1e400", "thickness=x"),
    "flag": (),
}  # fmt: skip
"""Kind of option -> what it cannot take; PLACE stands for a folder with unpleasant things in it."""

BASE = {
    "extract": "extract shapesnet features.10:5 --images PHOTOS -c random -d 0.5 --out OUT --device cpu",
    "targets": "targets shapesnet",
    "inspect": "inspect STUDY",
    "demo": "demo --pictures 20 --target features.3:7 --out OUT",
    "diagram": "diagram STUDY --pictures none --out OUT --device cpu",
    "report": "report STUDY --pictures none --out OUT --device cpu",
    "top": "top shapesnet features.3 --images PHOTOS --out OUT -n 2 --device cpu",
    "polysemantic": "polysemantic shapesnet features.3 --images PHOTOS --out OUT -n 4 --min-cluster 2 --device cpu",
    "split": "split shapesnet features.3:7 --images CLASSED --by classes -d 0.5 --controls 0 --no-pictures "
    "-c random --out OUT --device cpu",
    "probe": "probe shapesnet features.3:7 --family arc --axis radius=0.2:0.4:2 --out OUT --device cpu",
    "compare": "compare STUDY -d 0.3 --out OUT",
}
"""Command -> what works; STUDY, PHOTOS, CLASSED and OUT stand for folders."""

KINDS: dict[str, str | dict[str, str]] = {
    "model": {"": "model", "diagram": "named", "report": "named", "compare": "named"},
    "target": {"": "target", "diagram": "shown target"},
    "layer": {"": "layer", "targets": "count of layer"},
    "what": "probed",
    "images": "images",
    "weights": "weights",
    "criterion": {"": "criterion", "split": "one criterion", "diagram": "shown criterion", "report": "shown criterion",
                  "compare": "shown criterion"},
    "density": {"": "density", "diagram": "shown density", "report": "shown density", "compare": "shown density"},
    "held_out": {"": "held out", "split": "flag"},
    "limit": "amount",
    "granularity": "choice", "biases": "choice", "theme": "choice", "by": "choice", "flat": "choice",
    "pictures": {"": "choice", "demo": "count", "split": "flag"},
    "panel": "choice",
    "minmax": "flag", "inside": "flag", "skip_unreadable": "flag", "control": "flag", "show": "flag",
    "out": {"": "out folder", "diagram": "out name", "report": "out folder"},
    "seed": "seed",
    "batch_size": "count",
    "memory": "memory",
    "input_size": "size",
    "classes": "classes",
    "white": "white",
    "device": "device",
    "threads": "threads",
    "study": "study",
    "keep": "share", "together": "share", "ground": "share",
    "most": "count", "number": "count", "min_cluster": "count", "best": "count", "count": "count", "at_least": "count",
    "controls": "count or none",
    "tolerance": "positive",
    "channel": "channel",
    "family": "family", "axis": "axis", "settings": "set", "circuit": "circuit",
}  # fmt: skip
"""Option or argument -> its kind, perhaps another one for some commands."""

FITS = {
    ("top", "layer", "logit:3"),  # ... which is refused as well
}


@dataclass(frozen=True)
class Case:
    """A command with one bad value."""

    command: str
    option: str
    value: str
    arguments: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.command} {self.option} {self.value[:40]!r}"


def cases() -> Iterator[Case]:
    """Every bad value of every option and argument of every command."""
    for name, command in typer.main.get_command(app).commands.items():  # pyright: ignore[reportAttributeAccessIssue]
        for parameter in command.params:
            kind = KINDS[parameter.name]
            kind = kind if isinstance(kind, str) else kind.get(name, kind[""])
            argument = parameter.param_type_name == "argument"
            for value in BAD[kind]:
                words = (_with_argument if argument else _with_option)(name, parameter, value)
                yield Case(name, parameter.name, value, tuple(words))


def _with_argument(command: str, parameter: object, value: str) -> list[str]:
    words = BASE[command].split()
    names = [p.name for p in _arguments(command)]
    place = 1 + names.index(parameter.name)
    words[place : place + (place < len(words) and not words[place].startswith("-"))] = [value]
    if value.startswith("-"):
        words.remove(value)
        words += ["--", value]
    return words


def _arguments(command: str) -> list[object]:
    params = typer.main.get_command(app).commands[command].params  # pyright: ignore[reportAttributeAccessIssue]
    return [p for p in params if p.param_type_name == "argument"]


def _with_option(command: str, parameter: object, value: str) -> list[str]:
    """The command with an option in place of what it has, or in addition."""
    words, kept = BASE[command].split(), []
    skip = False
    for word in words:
        if not skip and word not in parameter.opts:
            kept.append(word)
        skip = word in parameter.opts and not skip
    return [*kept, parameter.opts[0], value]


class Places:
    """The folders that commands name."""

    def __init__(self, root: Path, study: Path) -> None:
        self.root, self.study, self.count = root, study, 0
        place = root / "place"
        for folder in (place, root / "photos", root / "classed/a", root / "classed/b"):
            folder.mkdir(parents=True)
        for i, image in enumerate(generate(8, seed=7).images):
            picture = Image.fromarray(image.permute(1, 2, 0).numpy())
            picture.save(root / "photos" / f"{i}.png")
            picture.save(root / "classed" / "ab"[i % 2] / f"{i}.png")
        unpleasant(place)

    def filled(self, words: tuple[str, ...]) -> list[str]:
        """A command with its folders; its results go into a new one."""
        self.count += 1
        out = self.root / f"out-{self.count}"
        shutil.rmtree(self.root / f"out-{self.count - 1}", ignore_errors=True)
        whole = {"PHOTOS": self.root / "photos", "CLASSED": self.root / "classed", "STUDY": self.study, "OUT": out}
        return [str(whole.get(word, word)).replace("PLACE", str(self.root / "place")) for word in words]


def unpleasant(place: Path) -> None:
    """Fills a folder with pipes, devices, loops and files that are something else."""
    import torch

    (place / "empty").mkdir()
    (place / "piped").mkdir()

    os.mkfifo(place / "pipe")
    os.mkfifo(place / "piped" / "0.png")
    (place / "zero").symlink_to("/dev/zero")
    (place / "loop").symlink_to(place / "loop")
    (place / "notes.txt").write_text("notes\n")
    (place / "wrong.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    (place / "huge.csv").write_text("a,1000000000000000000000000000000\nb,0\n")
    weight = torch.zeros(2, 2)
    torch.save({"features.0.weight": weight.to_sparse()}, place / "sparse.pt")
    torch.save({"features.0.weight": weight.to(torch.complex64)}, place / "complex.pt")
    torch.save({"features.0.weight": weight.to("meta")}, place / "meta.pt")


class Hang(BaseException):
    """A command that takes too long."""


def within(seconds: int, call: Callable[[], object]) -> object:
    """What a call returns; `Hang` where it takes longer."""

    def late(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        return call()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
