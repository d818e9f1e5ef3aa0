"""How well each criterion's circuits keep their targets, over the paper's densities (paper, figure 2).

    uv run python benchmarks/criteria.py shapesnet
    uv run python benchmarks/criteria.py squeezenet1_1    # needs VISCIRCUITS_DATA
    uv run python benchmarks/criteria.py squeezenet1_1 page 617842c

Prints the table of medians over targets and writes it, all rows and the figure to docs/results/. An interrupted run
goes on where it stopped (rows are kept in studies/). The last prints and writes the page of the rows that are there,
which were measured at the commit that is named.
"""

import os
import platform
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import torch

import viscircuits as vc
from viscircuits.data.shapes import generate
from viscircuits.evaluate.question import PAPER_DENSITIES
from viscircuits.evaluate.sweep import Sweep, sweep
from viscircuits.plots.curve import preservation_curve

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs/results"
SEED = 0
FORCE_DENSITIES = (0.5, 0.2, 0.1, 0.05, 0.01)
FORCE_PICTURES = 100
CRITERIA = ("actgrad", "snip", "force", "magnitude", "random")


def squeezenet1_1() -> Sweep:
    """12 random 3x3-expand channels from features.7 on; 500 pictures for scores, 500 others for measuring."""
    data = Path(os.environ.get("VISCIRCUITS_DATA", ROOT / "../shared/data"))
    model, prepare = vc.zoo.load("squeezenet1_1", data / "weights/squeezenet1_1-imagenet.safetensors")
    images = vc.ImageSet.from_folder(data / "imagenet-1000", prepare).in_memory()
    layers = {"features.7": 192, "features.9": 192, "features.10": 256, "features.11": 256, "features.12": 256}
    widths = {f"{fire}.expand3x3": model.get_submodule(f"{fire}.expand3x3").out_channels for fire in layers}
    channels = [(layer, channel) for layer, width in widths.items() for channel in range(width)]
    chosen = sorted(random.Random(SEED).sample(channels, 12), key=lambda c: (list(widths).index(c[0]), c[1]))
    targets = [vc.Target(layer, channel) for layer, channel in chosen]
    return _job(model, targets, *images.split(0.5, seed=SEED))


def shapesnet() -> Sweep:
    """All live channels of the built-in network's fourth and fifth convolution; 200 + 200 pictures."""
    model, prepare = vc.zoo.load("shapesnet")
    drawn = generate(400, seed=2)
    images = vc.ImageSet.from_tensors(prepare(drawn.images), drawn.labels.tolist())
    scoring, held_out = images.split(0.5, seed=SEED)
    targets = [
        vc.Target(layer, channel)
        for layer in ("features.8", "features.10")
        for channel in range(model.get_submodule(layer).out_channels)
    ]
    return _job(model, _live(model, targets, held_out), scoring, held_out)


def _job(model: torch.nn.Module, targets: Sequence[vc.Target], scoring: vc.ImageSet, held_out: vc.ImageSet) -> Sweep:
    return Sweep(
        model, targets, scoring, held_out, CRITERIA, PAPER_DENSITIES, seed=SEED,
        limits={"force": FORCE_DENSITIES}, scoring_limits={"force": FORCE_PICTURES},
    )  # fmt: skip


def _live(model: torch.nn.Module, targets: Sequence[vc.Target], images: vc.ImageSet) -> list[vc.Target]:
    """The targets whose response is not constant."""
    live = []
    for target in targets:
        readout = vc.Readout(target, vc.trace(model, images[0].shape))
        try:
            vc.Reference(vc.respond(model, readout, images), str(target))
            live.append(target)
        except vc.TargetError:
            pass
    return live


def medians(frame: pl.DataFrame) -> pl.DataFrame:
    """Median |Pearson| over targets, a row a density and a column a criterion."""
    grouped = frame.group_by("density", "criterion", maintain_order=True).agg(pl.col("pearson").median())
    return grouped.pivot("criterion", index="density").sort("density", descending=True)


def head() -> str:
    """The commit that is checked out."""
    git = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()


def markdown(name: str, frame: pl.DataFrame, commit: str) -> str:
    """The page kept in docs/results/, of rows that were measured at a commit."""
    table = medians(frame)
    lines = ["| density (sparsity) | " + " | ".join(table.columns[1:]) + " |", "|---" * table.width + "|"]
    for density, *values in table.iter_rows():
        cells = ["" if v is None else f"{v:.3f}" for v in values]
        lines.append(f"| {density:g} ({1 - density:g}) | " + " | ".join(cells) + " |")
    cut = frame.filter("disconnected").group_by("density").len().sort("density", descending=True)
    disconnected = ", ".join(f"{d:g}: {n}" for d, n in cut.iter_rows()) or "none"
    return "\n".join([
        f"# Criteria on {name}", "",
        f"Median |Pearson r| over {frame['target'].n_unique()} targets. Density is kept over relevant kernels, masked "
        f"circuits; scored on {frame['n_scoring'].max()} pictures, measured on {frame['n_held_out'][0]} others. FORCE "
        f"was scored on {FORCE_PICTURES} pictures and at five densities only. A disconnected circuit counts as 0 "
        f"(circuits: {disconnected}).", "",
        *lines, "",
        f"Targets: {', '.join(frame['target'].unique(maintain_order=True).to_list())}.", "",
        f"Command: `uv run python benchmarks/criteria.py {name}`, seed {SEED}, torch {torch.__version__}, "
        f"{platform.machine()}, {torch.get_num_threads()} thread(s), commit {commit}.", "",
    ])  # fmt: skip


def main(name: str) -> None:
    job = {"squeezenet1_1": squeezenet1_1, "shapesnet": shapesnet}[name]()
    commit = head()  # in the file's name, so that no run goes on from the rows of other code
    checkpoint = ROOT / f"studies/criteria-{name}-{commit}.parquet"
    checkpoint.parent.mkdir(exist_ok=True)
    total = len(job.keys())
    frame = sweep(job, checkpoint, each=lambda m: print(*m.key, f"{m.row['pearson']:.3f}", f"of {total}", flush=True))
    frame.drop("seconds").write_csv(RESULTS / f"criteria-{name}.csv", float_precision=6)
    preservation_curve(frame, title=f"{name}: {len(job.targets)} channels").save(RESULTS / f"criteria-{name}")
    write_page(name, frame, commit)


def write_page(name: str, frame: pl.DataFrame, commit: str) -> None:
    page = markdown(name, frame, commit)
    (RESULTS / f"criteria-{name}.md").write_text(page)
    print(page)


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    if sys.argv[2:3] == ["page"]:
        write_page(sys.argv[1], pl.read_csv(RESULTS / f"criteria-{sys.argv[1]}.csv"), sys.argv[3])
    else:
        main(sys.argv[1])
