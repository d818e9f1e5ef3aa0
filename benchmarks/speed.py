"""How fast we are, and with how much memory, beside plain torch on the same network: tables of ratios.

    uv run python benchmarks/speed.py [PART ...] [--pictures 100] [--save]

Ours and the yardstick run in turns in one process (ours, yardstick, ours, ...); shown are medians of seconds, and the
median of each turn's ratio with the smallest and the largest. Whether the results agree is measured in the same run.
Without names all parts run; without options, with the settings of docs/results/speed.md, where ``--save`` replaces
the section of each part. A GPU is used where there is one.
"""

import argparse
import shlex
import sys
import textwrap
import traceback
from collections.abc import Callable
from dataclasses import dataclass

import parts
import scaling
import torch
from timing import ROOT, Clock, commit, machine, note
from yardsticks import NETWORKS

PAGE = ROOT / "docs/results/speed.md"


@dataclass(frozen=True)
class Part:
    """A section of the results page, and its default settings."""

    title: str
    measure: Callable[[parts.Options], str]
    pictures: int
    pairs: int
    channels: int = 1
    criteria: tuple[str, ...] = ("actgrad", "snip")


PARTS = {
    "scoring": Part("Scoring", parts.scoring_part, 100, 5),
    "memory": Part("Memory", parts.memory_part, 100, 1),
    "textbook": Part("The textbook's way", parts.textbook_part, 16, 3, criteria=("actgrad",)),
    "many": Part("Many targets", parts.many_part, 32, 3, channels=256),
    "sweep": Part("A sweep of densities", parts.sweep_part, 500, 3),
    "one": Part("One small circuit", parts.one_part, 500, 5),
    "few": Part("One small circuit on few pictures", parts.few_part, 40, 5),
    "figure3": Part("The paper's figure 3", scaling.figure3_part, 100, 1, channels=8, criteria=("actgrad",)),
    "growth": Part("Growth", scaling.growth_part, 128, 3, channels=32, criteria=("actgrad",)),
}
NETWORKS_OF = {"textbook": ("alexnet", "squeezenet1_1")}


def options_of(name: str, given: argparse.Namespace) -> parts.Options:
    """Returns a part's settings: those given, else its own."""
    part = PARTS[name]
    return parts.Options(
        pictures=given.pictures or part.pictures,
        pairs=given.pairs or part.pairs,
        channels=given.channels or part.channels,
        networks=tuple(given.networks or NETWORKS_OF.get(name, NETWORKS)),
        criteria=tuple(given.criteria or part.criteria),
        batch=given.batch,
        room=given.room * 10**6,
        clock=Clock(given.device, given.threads),
    )


def section(name: str, options: parts.Options) -> str:
    """Returns a part's section: title, what and how, table, and where it was measured."""
    before = machine(options.clock)
    paragraphs = PARTS[name].measure(options).split("\n\n")
    body = "\n\n".join(each if each.startswith("|") else textwrap.fill(each, 120) for each in paragraphs)
    command = shlex.join(["uv", "run", "python", "benchmarks/speed.py", *_without_other_parts(name)])
    return f"## {PARTS[name].title}\n\n{body}\n\n`{command}`; {before}; commit {commit()}.\n"


def _without_other_parts(name: str) -> list[str]:
    kept = [word for word in sys.argv[1:] if word not in PARTS and word != "--save"]
    return [name, *kept]


def save(text: str) -> None:
    """Replaces the section of the results page that has the same title, or adds it at the end."""
    head, *sections = PAGE.read_text().split("\n## ")
    title = text.splitlines()[0].removeprefix("## ")
    place = next((i for i, each in enumerate(sections) if each.splitlines()[0] == title), len(sections))
    sections[place : place + 1] = [text.removeprefix("## ").rstrip("\n") + "\n"]
    PAGE.write_text("\n## ".join([head, *sections]))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--pictures", type=int, help="how many to score or measure on")
    parser.add_argument("--pairs", type=int, help="turns of ours and the yardstick")
    parser.add_argument("--channels", type=int, help="targets: many, growth; figure3: a layer and process")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS)
    parser.add_argument("--criteria", nargs="+", choices=("actgrad", "snip"))
    parser.add_argument("--batch", type=int, default=16, help="pictures at a time, on both sides")
    parser.add_argument("--room", type=int, default=1000, help="megabytes for the textbook's maps")
    parser.add_argument("--threads", type=int, default=1, help="more than one: seconds of the wall")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--save", action="store_true", help=f"replace the parts' sections in {PAGE.relative_to(ROOT)}")
    given = parser.parse_args()
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    return given


def main() -> None:
    given = arguments()
    torch.set_num_threads(given.threads)
    failed = []
    for name in given.parts or PARTS:
        try:
            text = section(name, options_of(name, given))
        except Exception:  # the other parts may take hours, and do not depend on this one
            note(f"{name} failed:\n{traceback.format_exc()}")
            failed.append(name)
            continue
        print(text, flush=True)
        if given.save:
            save(text)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
