"""Circuits both ways, compensated and rescaled, found again on other pictures: a channel of squeezenet1_1.

    uv run python benchmarks/faithfulness.py           # needs VISCIRCUITS_DATA
    uv run python benchmarks/faithfulness.py page

The first measures (about 15 CPU-minutes), one row a number in docs/results/faithfulness.csv; the second prints the
tables of these rows and writes them to docs/results/faithfulness.md, below what is written there by hand.
"""

import platform
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import criteria
import polars as pl
import torch

import viscircuits as vc
from viscircuits.evaluate.faithfulness import random_like

RESULTS = criteria.ROOT / "docs/results"
PAGE, ROWS = RESULTS / "faithfulness.md", RESULTS / "faithfulness.csv"
START, END = "<!-- printed by benchmarks/faithfulness.py -->", "<!-- end -->"
CHOSEN = ("features.7.expand3x3:82",)
METHODS = ("actgrad", "snip", "learned")
DENSITIES = (0.3, 0.1, 0.03, 0.01)
GIVEN = (0.1, 0.01)
MEASURED, TRIED, SEED = 100, 60, 0
"""Pictures to measure on; kernels left out one at a time."""
RANDOM, RANDOM_SEEDS = "random, SNIP's counts", (0, 1)
"""The control of rescaling: random kernels, as many of each layer as SNIP's circuit has."""
KINDS = ("as it is", "mean", "resampled", "rescaled", "rescaled, difference")


@dataclass(frozen=True)
class Row:
    """One number of one circuit; ``part`` is the table that it stands in, ``draw`` counts what is drawn again."""

    part: str
    target: str
    criterion: str
    density: float | None
    what: str
    measure: str
    value: float
    draw: int = 0


Circuits = dict[str, list[vc.Circuit]]


def both_ways(name: str, circuits: Circuits, images: vc.ImageSet) -> Iterator[Row]:
    """|r| of the circuits alone and of the model without them, of random ones likewise, and the areas below."""
    for method, some in circuits.items():
        found = vc.faithfulness(some, images, n_random=2, seed=SEED)
        for way in ("alone", "without", "random_alone", "random_without"):
            for point, value in zip(found.points, found.curve(way), strict=True):
                yield Row("both ways", name, method, round(point.density, 4), way, "pearson", value)
            yield Row("both ways", name, method, None, way, "area", found.area(way))


def given(name: str, criterion: str, circuit: vc.Circuit, own: vc.ImageSet, images: vc.ImageSet) -> Iterator[Row]:
    """What a circuit keeps as it is, and with what may be given to it; scales are trained on ``own``."""
    full = vc.Reference(vc.respond(circuit.model, circuit.readout, images), name)
    kept = (
        vc.preservation(circuit, images, full=full),
        vc.preservation(circuit.compensated(own.take(MEASURED, SEED)), images, full=full),
        full.compare(vc.respond_resampled(circuit, images, seed=SEED)),
        vc.preservation(vc.rescaled(circuit, own, seed=SEED), images, full=full),
        vc.preservation(vc.rescaled(circuit, own, loss="difference", seed=SEED), images, full=full),
    )
    for kind, one in zip(KINDS, kept, strict=True):
        for measure in ("pearson", "relative_difference", "sd_ratio"):
            density = round(circuit.mask.density, 4)
            yield Row("given", name, criterion, density, kind, measure, getattr(one, measure))


def controls(name: str, some: Sequence[vc.Circuit], own: vc.ImageSet, images: vc.ImageSet) -> Iterator[Row]:
    """The same of random circuits with as many kernels of each layer."""
    for circuit in some:
        for seed in RANDOM_SEEDS:
            drawn = vc.Circuit(circuit.model, circuit.target, random_like(circuit.mask, seed))
            for row in given(name, RANDOM, drawn, own, images):
                yield Row(**{**asdict(row), "draw": seed})


def left_out(name: str, circuits: Circuits, images: vc.ImageSet) -> Iterator[Row]:
    """What the kernels of the smallest circuits are worth, one at a time."""
    for method, some in circuits.items():
        found = vc.minimality(some[-1], images, at_most=TRIED, seed=SEED)
        numbers = {
            "pearson": found.pearson, "kernels": found.n_kept, "greatest damage": max(found.damage),
            "needless": found.needless(), "harmful": sum(d < -0.001 for d in found.damage) / len(found.damage),
        }  # fmt: skip
        for measure, value in numbers.items():
            yield Row("left out", name, method, DENSITIES[-1], "", measure, value)


def again(target: vc.Target, job: vc.Sweep) -> Iterator[Row]:
    """How far single-shot circuits agree when they are found on disjoint halves of the pictures."""
    for method in ("actgrad", "snip"):
        found = vc.stability(job.model, target, job.scoring.take(MEASURED, SEED), density=0.1, criterion=method)
        for draw, iou in enumerate(found.halves):
            yield Row("again", str(target), method, 0.1, "", "iou", iou, draw)
        yield Row("again", str(target), method, 0.1, "", "chance", found.chance)
        yield Row("again", str(target), method, 0.1, "", "chance_by_layer", found.chance_by_layer)


def measured(job: vc.Sweep, target: vc.Target) -> Iterator[Row]:
    """All rows of one channel."""
    images, name = job.held_out.take(MEASURED, SEED), str(target)
    circuits: Circuits = {}
    for method in METHODS:
        text = f"learned,densities={'/'.join(map(str, DENSITIES))}" if method == "learned" else method
        scores = vc.score(job.model, target, job.scoring, text, seed=SEED)
        circuits[method] = [vc.Circuit(job.model, target, scores.select(density=d)) for d in DENSITIES]
    yield from both_ways(name, circuits, images)
    places = [DENSITIES.index(density) for density in GIVEN]
    for method, some in circuits.items():
        for place in places:
            yield from given(name, method, some[place], job.scoring, images)
    yield from controls(name, [circuits["snip"][place] for place in places], job.scoring, images)
    yield from left_out(name, circuits, images)
    yield from again(target, job)


# ---- the page --------------------------------------------------------------------------------------------------------

HEADS = {
    "both ways": ["channel", "criterion", "way", *(f"{d:g}" for d in DENSITIES), "area"],
    "given": ["channel", "criterion", "density", *KINDS],
    "left out": ["channel", "criterion", "abs r", "kernels", "greatest damage", "needless", "harmful"],
    "again": ["channel", "criterion", "density", "IoU", "chance", "chance by layer"],
}


def lines_both_ways(frame: pl.DataFrame) -> Iterator[list[str]]:
    """Lines: a criterion and way each, with the control in brackets."""
    for (target, method), part in frame.group_by("target", "criterion", maintain_order=True):
        for way in ("alone", "without"):
            own, control = (
                part.filter(what=kind).sort("density", descending=True, nulls_last=True)["value"]
                for kind in (way, f"random_{way}")
            )
            yield [target, method, way, *(f"{a:.2f} ({b:.2f})" for a, b in zip(own, control, strict=True))]


def lines_given(frame: pl.DataFrame) -> Iterator[list[str]]:
    """Lines: a circuit each, three numbers a cell."""
    for (target, method, density, _), part in frame.group_by(
        "target", "criterion", "density", "draw", maintain_order=True
    ):
        cells = [" / ".join(f"{value:.2f}" for value in part.filter(what=kind)["value"]) for kind in KINDS]
        yield [target, method, f"{density:.2g}", *cells]


def lines_left_out(frame: pl.DataFrame) -> Iterator[list[str]]:
    """Lines: a circuit each."""
    for (target, method), part in frame.group_by("target", "criterion", maintain_order=True):
        found: dict[str, Any] = dict(part.select("measure", "value").iter_rows())
        numbers = [f"{found['pearson']:.3f}", f"{found['kernels']:,.0f}", f"{found['greatest damage']:.3f}"]
        yield [target, method, *numbers, f"{found['needless']:.0%}", f"{found['harmful']:.0%}"]


def lines_again(frame: pl.DataFrame) -> Iterator[list[str]]:
    """Lines: a criterion each."""
    for (target, method, density), part in frame.group_by("target", "criterion", "density", maintain_order=True):
        ious, chance, by_layer = (
            ", ".join(f"{value:.2f}" for value in part.filter(measure=measure)["value"])
            for measure in ("iou", "chance", "chance_by_layer")
        )
        yield [target, method, f"{density:g}", ious, chance, by_layer]


LINES = {"both ways": lines_both_ways, "given": lines_given, "left out": lines_left_out, "again": lines_again}


def table(part: str, frame: pl.DataFrame) -> str:
    """Returns a Markdown table."""
    lines = [HEADS[part], ["---"] * len(HEADS[part]), *LINES[part](frame.filter(part=part))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def page(frame: pl.DataFrame) -> str:
    """Returns what is printed below the text of the page."""
    splits = frame.filter(part="again", measure="iou")["draw"].n_unique()
    commits = ", ".join(frame["commit"].unique(maintain_order=True))
    return "\n\n".join([
        f"Command: `uv run python benchmarks/faithfulness.py`, then `page`; {MEASURED} pictures that were not scored "
        f"on, seed {SEED}, torch {torch.__version__}, {platform.machine()}, {torch.get_num_threads()} thread(s); "
        f"commit {commits}. All rows: [faithfulness.csv](faithfulness.csv).",
        "## Both ways", "|r| of the circuit alone and of the model without it; in brackets random circuits with as "
        "many kernels of each layer (mean of two); area: the mean over the logarithm of the density.",
        table("both ways", frame),
        "## What may be given to a circuit",
        "|r| / mean |circuit - full| over mean |full| / standard deviation of the circuit's responses over that of "
        "the model's. Trained and averaged on the scoring pictures. The last rows are the control: random circuits "
        f"with as many kernels of each layer as SNIP's, {len(RANDOM_SEEDS)} draws at each density.",
        table("given", frame),
        f"## Leaving out one kernel at a time, at density {DENSITIES[-1]:g}",
        f"{TRIED} kernels drawn. Needless: costs at most .001 of |r|; harmful: |r| is over .001 higher without it.",
        table("left out", frame),
        "## Found again", f"IoU of circuits found on disjoint halves of {MEASURED} pictures, "
        f"{splits} splits; chance at this density, and with as many kernels of each layer.",
        table("again", frame),
    ])  # fmt: skip


def write_page() -> None:
    """Replaces the printed part of the page."""
    text = page(pl.read_csv(ROWS))
    before, _, rest = PAGE.read_text().partition(START)
    PAGE.write_text(f"{before}{START}\n\n{text}\n\n{END}{rest.partition(END)[2]}")
    print(text)


def main() -> None:
    """Measures everything."""
    commit, job = criteria.head(), criteria.squeezenet1_1()
    rows: list[Row] = []
    for target in job.targets:
        if str(target) in CHOSEN:
            assert isinstance(target, vc.Target)
            for row in measured(job, target):
                rows.append(row)
                print(*asdict(row).values(), flush=True)
    pl.DataFrame(rows).with_columns(commit=pl.lit(commit)).write_csv(ROWS, float_precision=6)


if __name__ == "__main__":
    torch.set_num_threads(1)
    write_page() if sys.argv[1:] == ["page"] else main()
