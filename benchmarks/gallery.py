"""How much of a high |r| in the gallery is the border that all pictures share.

    uv run python benchmarks/gallery.py    # needs VISCIRCUITS_DATA; half a CPU-minute

Finds three circuits of docs/gallery/README.md again, with the pictures and the halves of the commands there, and prints
for each, on the half that was not scored on: |r|; |r| within positions; r of the circuit's mean map alone, the same for
every picture, with the model's responses; r away from the outermost ring of positions. Rows: docs/results/gallery.csv.
"""

import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import criteria
import polars as pl
import torch
from torch import Tensor

import viscircuits as vc

ROWS = criteria.ROOT / "docs/results/gallery.csv"
CASES = (
    ("features.7.expand3x3:34", "snip", 0.01),
    ("features.4.expand3x3:16", "actgrad", 0.02),
    ("features.10.expand3x3:30", "random", 0.1),
)
PICTURES, SEED = 200, 0


def correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's r of all values."""
    return float(torch.corrcoef(torch.stack([a.double().flatten(), b.double().flatten()]))[0, 1])


def inside(maps: Tensor) -> Tensor:
    """Square maps ``n x positions`` without their outermost ring."""
    side = round(maps.shape[1] ** 0.5)
    return maps.unflatten(1, (side, side))[:, 1:-1, 1:-1]


def measured(model: torch.nn.Module, images: vc.ImageSet) -> Iterator[dict[str, Any]]:
    """One row a circuit."""
    scoring, measuring = images.split(0.5, seed=SEED)
    for text, criterion, density in CASES:
        target = vc.parse_target(text)
        circuit = vc.find(model, target, scoring, criterion=criterion, density=density, seed=SEED)
        full, own = vc.respond(model, circuit.readout, measuring).values, circuit.respond(measuring)
        kept = vc.preservation(circuit, measuring)
        yield {
            "target": text, "criterion": criterion, "density": density, "effective": circuit.effective.n_kept,
            "pearson": kept.pearson, "within": kept.pearson_within,
            "mean_map": correlation(own.mean(0).expand_as(own), full), "inside": correlation(inside(own), inside(full)),
        }  # fmt: skip


def main() -> None:
    """Measures, prints and keeps the rows."""
    data = Path(os.environ.get("VISCIRCUITS_DATA", criteria.ROOT / "../shared/data"))
    model, prepare = vc.zoo.load("squeezenet1_1", data / "weights/squeezenet1_1-imagenet.safetensors")
    images = vc.ImageSet.from_folder(data / "photos", prepare).take(PICTURES, SEED).in_memory()
    frame = pl.DataFrame(list(measured(model, images))).with_columns(commit=pl.lit(criteria.head()))
    frame.write_csv(ROWS, float_precision=6)
    for row in frame.iter_rows(named=True):
        print(
            f"{row['target']} {row['criterion']} at {row['density']:g}, {row['effective']:,} kernels on a path: "
            f"|r| {row['pearson']:.2f}, within {row['within']:.2f}; mean map {row['mean_map']:.2f}, "
            f"inside the ring {row['inside']:.2f}"
        )
    print(f"seed {SEED}, torch {torch.__version__}, {platform.machine()}, commit {criteria.head()}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
