"""How far every criterion is from the best circuit there is, in planted networks small enough to try them all.

    uv run python benchmarks/optimum.py

Prints the table and writes it to docs/results/optimum.md, between what is written there by hand, and every row to
docs/results/optimum.csv; networks whose rows are there are not measured again. Planted cases are cut down to the
channels that their parts use; circuits are searched and measured on the same pictures, others than those scored on.
"""

import math
import os
import platform
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import torch

import viscircuits as vc
from viscircuits.planted import CASES, Planted
from viscircuits.planted.optimum import MOST, cut_down, optimum
from viscircuits.planted.recovery import agreement

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/results/optimum.md"
SEEDS = range(3)
N_IMAGES = 16
AROUND = (-1, 0, 1)
START, END = "<!-- printed by benchmarks/optimum.py -->", "<!-- end -->"


def rows(whole: Planted, seed: int) -> Iterator[dict[str, Any]]:
    """The optimum, the truth and every criterion at the true size and around; nothing where there are too many."""
    case = cut_down(whole)
    case = replace(case, held_out=case.held_out.subset(range(N_IMAGES)))
    size, n = case.truth.n_kept, case.truth.n_relevant
    sizes = [size + step for step in AROUND if 0 < size + step <= n]
    if sum(math.comb(n, k) for k in range(1, sizes[-1] + 1)) > MOST:
        return
    best = optimum(case.model, case.target, case.held_out, sizes[-1])
    for k in sizes:
        common = {"case": case.name, "seed": seed, "kernels": n, "size": k, "step": k - size, "n_run": best.n_run}
        common["optimum"] = best.pearson[k - 1]
        if k == size:
            yield common | {"criterion": "(the truth)", "pearson": agreement(case.truth, case)}
        for criterion in vc.CRITERIA:
            scores = vc.score(case.model, case.target, case.images, criterion, density=k / n, seed=seed)
            yield common | {"criterion": criterion, "pearson": agreement(scores.select(density=k / n), case)}


def table(frame: pl.DataFrame) -> str:
    """A Markdown table: a row a criterion, a column a case, the mean gap one below, at and one above the true size."""
    gaps = frame.with_columns((pl.col("optimum") - pl.col("pearson")).alias("gap"))
    means = gaps.group_by("criterion", "case", "step", maintain_order=True).agg(pl.col("gap").mean()).sort(
        "step", maintain_order=True
    )  # fmt: skip
    texts = pl.col("gap").map_elements(lambda v: f"{round(v, 2) + 0:.2f}", return_dtype=pl.String)
    cells = means.group_by("criterion", "case", maintain_order=True).agg(texts.str.join(" / "))
    wide = cells.pivot("case", index="criterion", values="gap")
    lines = ["| gap of | " + " | ".join(wide.columns[1:]) + " |", "|---" * wide.width + "|"]
    return "\n".join([*lines, *("| " + " | ".join(c or "" for c in row) + " |" for row in wide.iter_rows())])


def best_table(frame: pl.DataFrame) -> str:
    """What the networks are, and how much the best circuits keep."""
    rows = []
    for (name,), part in frame.group_by("case", maintain_order=True):
        sizes = part.group_by("step", maintain_order=True).agg(pl.col("optimum").mean(), pl.col("size").first())
        r = " / ".join(f"{v:.3f}" for v in sizes["optimum"])
        k = " / ".join(map(str, sizes["size"]))
        rows.append(f"| {name} | {part['kernels'][0]} | {k} | {r} | {part['n_run'].mean():,.0f} |")
    head = "| case | relevant kernels | sizes | optimal abs r (mean over seeds) | circuits run |\n|---|---|---|---|---|"
    return "\n".join([head, *rows])


def printed(frame: pl.DataFrame, refused: Sequence[str]) -> str:
    """The part of the page that is measured."""
    git = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    return "\n\n".join([
        f"Command: `uv run python benchmarks/optimum.py`; seeds {SEEDS.start} to {SEEDS.stop - 1}, 96 pictures to "
        f"score on, {N_IMAGES} others to search and to measure on; torch {torch.__version__}, {platform.machine()}, "
        f"{torch.get_num_threads()} thread(s); commit {commit}.",
        best_table(frame),
        "## Gap to the optimum",
        "abs r of the best circuit of at most as many kernels less that of the criterion's, mean over seeds; one "
        "kernel below / at / one above the true size.",
        table(frame),
        f"Too many circuits to try (more than {MOST:,}): {', '.join(refused) or 'none'}.",
    ])  # fmt: skip


def main() -> None:
    path = PAGE.with_suffix(".csv")
    found: list[dict[str, Any]] = pl.read_csv(path).to_dicts() if path.exists() else []
    refused = []
    for name, builder in CASES.items():
        for seed in SEEDS:
            if any((row["case"], row["seed"]) == (name, seed) for row in found):
                continue
            new = list(rows(builder(seed), seed))
            if not new:
                refused.append(name)
                break
            found += new
            print(f"{name} {seed}: {len(found)} rows", flush=True)
            pl.DataFrame(found).write_csv(path, float_precision=4)
    text = printed(pl.DataFrame(found), refused)
    print(text)
    page = PAGE.read_text() if PAGE.exists() else "# The best possible circuits\n\n"
    before, _, rest = page.partition(START)
    PAGE.write_text(f"{before}{START}\n\n{text}\n\n{END}{rest.partition(END)[2] or chr(10)}")


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    main()
