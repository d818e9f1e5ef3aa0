"""Tables of measurements and studies that hold nothing else, with the numbers that a test is about."""

from collections.abc import Sequence
from pathlib import Path

from viscircuits.evaluate.measurement import Row
from viscircuits.evaluate.table import table
from viscircuits.study.folder import Study
from viscircuits.study.spec import Pictures, Spec

N = 1000
"""Relevant kernels."""


def row(criterion: str, density: float, r: float, *, target: str = "a:1", sd: float | None = 1.0, **more) -> Row:
    """A measurement; ``criterion`` as it is asked for, ``r`` with its sign."""
    name, _, order = criterion.partition(":")
    return {
        "target": target, "criterion": name, "order": order or "best", "density": density, "sparsity": 1 - density,
        "kept": round(N * density), "relevant": N, "effective": round(N * density), "effective_density": density,
        "disconnected": False, "zero_scores": 0, "pearson": abs(r), "pearson_within": abs(r), "pearson_signed": r,
        "spearman": r, "relative_difference": 0.5, "sd_ratio": sd, "reason": None, "granularity": "kernel",
        "biases": "masked", "n_scoring": 20, "n_held_out": 24, "seed": 0, "seconds": 0.0,
    } | more  # fmt: skip


def study(folder: Path, rows: Sequence[Row], criteria: Sequence[str], targets: Sequence[str] = ("a:1",)) -> Study:
    """A study that was asked for these criteria and targets, with this table."""
    pictures = Pictures(source="photos", count=24, hash="0")
    spec = Spec(
        model="net", weights=None, fingerprint="0", input_shape=(3, 8, 8), targets=tuple(targets), scoring=pictures,
        held_out=pictures, criteria=tuple(criteria), densities=(0.5, 0.1),
    )  # fmt: skip
    made = Study.create(folder, spec)
    table(rows).write_parquet(made.measurements_path)
    return made
