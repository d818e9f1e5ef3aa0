"""Circuits both ways, compensated and rescaled, found again on other pictures: a channel of squeezenet1_1.

    uv run python benchmarks/faithfulness.py           # needs VISCIRCUITS_DATA

Prints the tables and writes them to docs/results/faithfulness.md, between what is written there by hand.
"""

import platform
from collections.abc import Iterator

import criteria
import torch

import viscircuits as vc

PAGE = criteria.ROOT / "docs/results/faithfulness.md"
START, END = "<!-- printed by benchmarks/faithfulness.py -->", "<!-- end -->"
CHOSEN = ("features.7.expand3x3:82",)
METHODS = ("actgrad", "snip", "learned")
DENSITIES = (0.3, 0.1, 0.03, 0.01)
MEASURED, TRIED, SEED = 100, 60, 0
"""Pictures to measure on; kernels left out one at a time."""


def both_ways(name: str, circuits: dict[str, list[vc.Circuit]], images: vc.ImageSet) -> Iterator[list[str]]:
    """Rows: |r| of the circuits alone and of the model without them, and the areas under these curves."""
    for method, some in circuits.items():
        found = vc.faithfulness(some, images, n_random=2, seed=SEED)
        for way in ("alone", "without"):
            values, control = found.curve(way), found.curve(f"random_{way}")
            cells = [f"{a:.2f} ({b:.2f})" for a, b in zip(reversed(values), reversed(control), strict=True)]
            areas = f"{found.area(way):.2f} ({found.area(f'random_{way}'):.2f})"
            yield [name, method, way, *cells, areas]


def given(
    name: str, circuits: dict[str, list[vc.Circuit]], own: vc.ImageSet, images: vc.ImageSet
) -> Iterator[list[str]]:
    """Rows: |r| and the relative difference of circuits as they are, and of what may be given to them."""
    for method, some in circuits.items():
        for circuit in some[1::2]:
            full = vc.Reference(vc.respond(circuit.model, circuit.readout, images), name)
            kinds = [
                vc.preservation(circuit, images, full=full),
                vc.preservation(circuit.compensated(own.take(MEASURED, SEED)), images, full=full),
                full.compare(vc.respond_resampled(circuit, images, seed=SEED)),
                vc.preservation(vc.rescaled(circuit, own, seed=SEED), images, full=full),
                vc.preservation(vc.rescaled(circuit, own, loss="difference", seed=SEED), images, full=full),
            ]
            cells = [f"{kept.pearson:.2f} / {kept.relative_difference:.2f}" for kept in kinds]
            yield [name, method, f"{circuit.mask.density:.2g}", *cells]


def again(target: vc.Target, job: vc.Sweep) -> Iterator[list[str]]:
    """Rows: how far single-shot circuits agree when they are found on disjoint halves of the pictures."""
    for method in ("actgrad", "snip"):
        found = vc.stability(job.model, target, job.scoring.take(MEASURED, SEED), density=0.1, criterion=method)
        halves = ", ".join(f"{iou:.2f}" for iou in found.halves)
        yield [str(target), method, "0.1", halves, f"{found.chance:.2f}", f"{found.chance_by_layer:.2f}"]


def table(head: list[str], rows: list[list[str]]) -> str:
    """Returns a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main() -> None:
    """Measures everything and writes the page."""
    job = criteria.squeezenet1_1()
    images = job.held_out.take(MEASURED, SEED)
    ways, gifts, leaves, repeats = [], [], [], []
    for target in [t for t in job.targets if str(t) in CHOSEN]:
        assert isinstance(target, vc.Target)
        circuits = {}
        for method in METHODS:
            text = f"learned,densities={'/'.join(map(str, DENSITIES))}" if method == "learned" else method
            scores = vc.score(job.model, target, job.scoring, text, seed=SEED)
            circuits[method] = [vc.Circuit(job.model, target, scores.select(density=d)) for d in DENSITIES]
        print(target, "found", flush=True)
        ways += both_ways(str(target), circuits, images)
        print(target, "both ways", flush=True)
        gifts += given(str(target), circuits, job.scoring, images)
        print(target, "given", flush=True)
        for method, some in circuits.items():
            found = vc.minimality(some[-1], images, at_most=TRIED, seed=SEED)
            row = [str(target), method, f"{found.pearson:.3f}", f"{found.n_kept:,}", f"{max(found.damage):.3f}"]
            leaves.append(
                [*row, f"{found.needless():.0%}", f"{sum(d < -0.001 for d in found.damage) / len(found.damage):.0%}"]
            )
        repeats += again(target, job)
    densities = [f"{d:g}" for d in DENSITIES]
    text = "\n\n".join([
        f"Command: `uv run python benchmarks/faithfulness.py`; {MEASURED} unseen pictures, seed {SEED}, torch "
        f"{torch.__version__}, {platform.machine()}, {torch.get_num_threads()} thread(s); commit {criteria.head()}.",
        "## Both ways", "|r| of the circuit alone and of the model without it; in brackets random circuits with as "
        "many kernels of each layer (mean of two); area: the mean over the logarithm of the density.",
        table(["channel", "criterion", "way", *densities, "area"], ways),
        "## What may be given to a circuit",
        "|r| / mean |circuit - full| over mean |full|. Trained and averaged on the scoring pictures.",
        table(["channel", "criterion", "density", "as it is", "mean", "resampled", "rescaled", "rescaled, difference"],
              gifts),
        f"## Leaving out one kernel at a time, at density {DENSITIES[-1]:g}",
        f"{TRIED} kernels drawn. Needless: costs at most .001 of |r|; harmful: |r| is over .001 higher without it.",
        table(["channel", "criterion", "abs r", "kernels", "greatest damage", "needless", "harmful"], leaves),
        "## Found again", f"IoU of circuits found on disjoint halves of {MEASURED} pictures, three splits; chance at "
        "this density, and with as many kernels of each layer.",
        table(["channel", "criterion", "density", "IoU", "chance", "chance by layer"], repeats),
    ])  # fmt: skip
    before, _, rest = PAGE.read_text().partition(START)
    PAGE.write_text(f"{before}{START}\n\n{text}\n\n{END}{rest.partition(END)[2]}")
    print(text)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
