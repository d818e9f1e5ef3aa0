"""How well every criterion finds circuits that are known, because they were planted.

    uv run python benchmarks/planted.py

Prints the tables and writes them to docs/results/planted.md, between what is written there by hand, and every row to
docs/results/planted.csv. Five seeds of each case; FORCE is told every density that it is measured at, the ladder of
`reconstruct` the true one.
"""

import os
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import polars as pl
import polars.selectors as cs
import torch

import viscircuits as vc
from viscircuits.planted import CASES, Planted, recovery
from viscircuits.saliency.registry import needs_density

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/results/planted.md"
SEEDS = range(5)
OCTAVES = (0, 2)
SIZES = (1.0, 1.5, 2.0, 4.0, 8.0)
LADDER = "reconstruct,rounds=60"
"""Its last mask has the true size; towards it a kernel or two go in a step."""
START, END = "<!-- printed by benchmarks/planted.py -->", "<!-- end -->"


class Row(NamedTuple):
    """One selection; size is in true sizes."""

    octaves: int
    case: str
    seed: int
    criterion: str
    size: float
    precision: float
    recall: float
    area: float
    pearson: float
    decoy: float


def rows(case: Planted, octaves: int, seed: int) -> Iterator[Row]:
    """Every criterion that trains nothing at every size; the even network only at the true size."""
    for criterion in (*(name for name in vc.CRITERIA if name != "learned"), LADDER):  # see benchmarks/learned.py
        told = needs_density(criterion)
        last = case.truth.density if criterion == LADDER else None
        once = None if told else vc.score(case.model, case.target, case.images, criterion, density=last, seed=seed)
        for size in SIZES if octaves else SIZES[:1]:
            density = size * case.truth.density
            scores = once or vc.score(case.model, case.target, case.images, criterion, density=density)
            found = recovery(scores, case, density=density)
            decoy = _share(scores, case, density)
            yield Row(
                octaves, case.name, seed, criterion, size,
                found.precision, found.recall, found.area, found.pearson, decoy,
            )  # fmt: skip


def _share(scores: vc.Scores, case: Planted, density: float) -> float:
    """The fraction of what is selected that belongs to the decoy."""
    selected = scores.select(density=density)
    return (selected & case.parts["decoy"]).n_kept / selected.n_kept if "decoy" in case.parts else 0.0


def table(frame: pl.DataFrame, cell: pl.Expr, row: str = "criterion", column: str = "case") -> str:
    """A Markdown table of one text a cell."""
    wide = frame.select(row, column, cell.alias("cell")).pivot(column, index=row)
    lines = [f"| {row} | " + " | ".join(wide.columns[1:]) + " |", "|---" * wide.width + "|"]
    return "\n".join([*lines, *("| " + " | ".join(cells) + " |" for cells in wide.iter_rows())])


def joined(*names: str) -> pl.Expr:
    """Numbers as one text."""
    texts = [pl.col(n).map_elements(lambda v: f"{v:.2f}", return_dtype=pl.String) for n in names]
    return pl.concat_str(texts, separator=" / ")


def over_sizes(frame: pl.DataFrame) -> pl.DataFrame:
    """One row a case and criterion, the mean and the least |r| of the seeds in one text over all sizes."""
    found = frame.filter(pl.col("criterion").is_in(["actgrad", "snip", "force", "reconstruct", LADDER]))
    least = found.group_by("case", "criterion", "size", maintain_order=True).agg(
        pl.col("pearson").mean(), pl.col("pearson").min().alias("least")
    )
    texts = least.with_columns(joined("pearson"), pl.col("least").ge(0.95).alias("safe"))
    bold = pl.when("safe").then(pl.format("**{}**", "pearson")).otherwise("pearson")
    return texts.group_by("case", "criterion", maintain_order=True).agg(bold.str.join(" / ").alias("cell"))


def printed(frame: pl.DataFrame) -> str:
    """The part of the page that is measured."""
    git = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    keys = ("octaves", "case", "criterion")
    at_truth = frame.filter(pl.col("size") == 1).group_by(keys, maintain_order=True).agg(cs.float().mean())
    even, scaled = (at_truth.filter((pl.col("octaves") > 0) == rescaled) for rescaled in (False, True))
    decoys = pl.col("case").is_in(["silent", "cancelling"])
    sizes = ", ".join(f"{size:g}" for size in SIZES)
    return "\n\n".join([
        f"Command: `uv run python benchmarks/planted.py`; seeds {SEEDS.start} to {SEEDS.stop - 1}, 96 pictures to "
        f"score on, 96 others to measure on; torch {torch.__version__}, {platform.machine()}, "
        f"{torch.get_num_threads()} thread(s); commit {commit}. Cells are means over seeds.",
        "## At the true size",
        "Recall (which is precision here) / ROC area / |Pearson r| of what is selected.",
        table(scaled, joined("recall", "area", "pearson")),
        "The same where no channel is rescaled (`octaves=0`):",
        table(even, joined("recall", "area", "pearson")),
        "## At larger sizes",
        f"|Pearson r| at {sizes} times the true size; bold where it is at least .95 for every seed.",
        table(over_sizes(frame.filter(pl.col("octaves") > 0)), pl.col("cell"), "case", "criterion"),
        "## Decoys",
        "The fraction of the kernels selected at the true size that belong to the decoy; first rescaled, then even.",
        table(scaled.filter(decoys), joined("decoy")),
        table(even.filter(decoys), joined("decoy")),
    ])  # fmt: skip


def main() -> None:
    found = []
    for octaves in OCTAVES:
        for name, builder in CASES.items():
            for seed in SEEDS:
                found += rows(builder(seed, octaves=octaves), octaves, seed)
                print(f"{name} {seed} octaves {octaves}: {len(found)} rows", flush=True)
    frame = pl.DataFrame([row._asdict() for row in found])
    frame.write_csv(PAGE.with_suffix(".csv"), float_precision=4)
    text = printed(frame)
    print(text)
    before, _, rest = PAGE.read_text().partition(START) if PAGE.exists() else ("# Planted circuits\n\n", "", "")
    PAGE.write_text(f"{before}{START}\n\n{text}\n\n{END}{rest.partition(END)[2] or chr(10)}")


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    main()
