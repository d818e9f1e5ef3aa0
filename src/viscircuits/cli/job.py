"""Running a sweep into a study folder, and telling what came of it; imported when a command runs, not for its help."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
import torch
from rich.text import Text
from torch import nn

from viscircuits.cli.command import typed
from viscircuits.cli.console import out, print_table, progress_bars
from viscircuits.diagram.chosen import series_of, titled
from viscircuits.diagram.curve import preservation_curve
from viscircuits.diagram.told import WEAK, in_a_cell, inverted
from viscircuits.errors import ModelError
from viscircuits.evaluate.sweep import Measurement, Sweep, sweep
from viscircuits.header import shown
from viscircuits.model.fingerprint import fingerprint, graph_fingerprint
from viscircuits.model.plain import check_plain
from viscircuits.model.trace import trace
from viscircuits.saliency.maps import engine
from viscircuits.study import Pictures, Spec, Study

CURVE = "preservation"
"""Name of the curve in a study folder, without its ending."""


@dataclass(frozen=True)
class Source:
    """Where the parts of a job come from, in the user's words."""

    model: str
    weights: str | None
    scoring: str
    held_out: str
    classes: dict[str, int] | None = None
    white: float | None = None
    found: int | None = None
    """Pictures where those scored on come from, if fewer were used."""


def on_device(model: nn.Module, device: str) -> nn.Module:
    """Returns the model on the wanted device."""
    check_plain(model)
    wanted = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if not re.fullmatch(r"cpu|cuda(:\d+)?", wanted):  # torch names more, on most of which nothing here runs
        raise ModelError(f"unknown device {shown(device)}; expected cpu, cuda (or cuda:NUMBER) or auto")
    try:
        return model.to(wanted)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"cannot use device {device!r} ({reason}); expected cpu, cuda or auto") from None


def run_job(job: Sweep, folder: Path, source: Source) -> Study:
    """Returns the study of a job, with every circuit, the scores, the table and the curve on disk."""
    found = source.found if source.held_out == source.scoring else None  # they are set aside from these
    spec = Spec(
        model=source.model, weights=source.weights, fingerprint=fingerprint(job.model),
        input_shape=tuple(job.scoring[0].shape), targets=tuple(map(str, job.targets)),
        scoring=Pictures.of(
            job.scoring, source.scoring, classes=source.classes, white=source.white, found=source.found
        ),
        held_out=Pictures.of(job.held_out, source.held_out, classes=source.classes, white=source.white, found=found),
        criteria=tuple(job.criteria), densities=tuple(job.densities), granularity=job.granularity,
        normalise=job.normalise, biases=job.biases, seed=job.seed,
    )  # fmt: skip
    weight = next(job.model.parameters())
    study = Study.create(
        folder, spec, command=typed(), engine=engine(weight.device, weight.dtype),
        graph=graph_fingerprint(job.model, trace(job.model, spec.input_shape)),
    )  # fmt: skip

    told = False

    def store(measurement: Measurement) -> None:
        nonlocal told
        if not told:
            study.gone_on()
            told = True
        key = measurement.key
        study.add_circuit(measurement.circuit, f"{key.criterion}{'' if key.order == 'best' else '-worst'}", key.density)

    try:
        with progress_bars() as report:
            sweep(replace(job, progress=report), study.measurements_path, store, study)
        preservation_curve(study.measurements(), title=f"{source.model}: {_targets(spec)}").save(study.file(CURVE))
    finally:
        study.release()
    return Study.open(folder)


def print_study(study: Study) -> None:
    """Prints the table of a study and where it stands."""
    frame = study.measurements()
    targets = frame["target"].n_unique()
    title = f"|Pearson r| with the full model, {_targets(study.header.spec)}" + (", median" if targets > 1 else "")
    series = series_of(frame)
    names = ["density", "kept", *(titled(criterion, order) for criterion, order in series)]
    rows = [_row(frame, density, series) for density in _densities(frame)]
    print_table(title, [(name, name in ("density", "kept")) for name in names], rows)
    print_notes([cell for row in rows for cell in row[2:]], targets)
    curve = f", {CURVE}.png" if (study.path / f"{CURVE}.png").is_file() else "; not finished, run its command again"
    line = Text.assemble((str(study.path), "bold"), f": table, {len(study.circuits())} circuits{curve}")
    out.print(line, soft_wrap=True)  # a path that is cut cannot be copied


def _targets(spec: Spec) -> str:
    return spec.targets[0] if len(spec.targets) == 1 else f"{len(spec.targets)} targets"


def _densities(frame: pl.DataFrame) -> list[float]:
    return sorted(frame["density"].unique(), reverse=True)


def _row(frame: pl.DataFrame, density: float, series: list[tuple[str, str]]) -> list[str]:
    here = frame.filter(pl.col("density") == density)
    kept = sorted(set(here["kept"]))
    cells = [f"{density:g}", f"{kept[0]:,}" + (f" to {kept[-1]:,}" if len(kept) > 1 else "")]
    for criterion, order in series:
        cells.append(_cell(here.filter(pl.col("criterion") == criterion, pl.col("order") == order)))
    return cells


def _cell(rows: pl.DataFrame) -> str:
    """One circuit's agreement; of several the medians, and how many of them are inverted."""
    if len(rows) == 1:
        return told_in_a_cell(rows.to_dicts()[0])
    if rows.is_empty() or rows["disconnected"].all():
        return "" if rows.is_empty() else "0*"
    turned = sum(map(inverted, rows["pearson_signed"]))
    middle = {"pearson": rows["pearson"].median(), "sd_ratio": rows["sd_ratio"].median(), "disconnected": False}
    number, weak = in_a_cell(middle)
    return _with(number, [*[f"({turned} inverted)"] * bool(turned), *weak])


def told_in_a_cell(row: Mapping[str, Any]) -> str:
    """Returns a circuit's agreement for a cell of a printed table: ``0.930``, ``-0.163 inverted sd 0.02``."""
    number, remarks = in_a_cell(row)
    return _with(number.replace("−", "-"), remarks)  # not every terminal can print a minus sign


def _with(number: str, remarks: Sequence[str]) -> str:
    return " ".join([f"{number:>6}", *remarks])  # numbers stand in a column, whatever follows


def print_notes(cells: Sequence[str], targets: int = 1) -> None:
    """Prints what the remarks in a table's cells mean, where there are any."""
    several = f", of so many of the {targets} targets" if targets > 1 else ""
    meanings = {
        "0*": " no path leads from the image to the target",
        "inverted": f": r is negative{several}",
        "sd": f": standard deviation of the responses over the model's, where below {WEAK:g}",
    }
    for word, meaning in meanings.items():
        if any(word in cell for cell in cells):
            out.print(word + meaning, style="dim", soft_wrap=True)
