"""Running a sweep into a study folder."""

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from viscircuits.errors import ModelError
from viscircuits.evaluate.sweep import Measurement, Sweep, sweep
from viscircuits.header import shown
from viscircuits.model.fingerprint import fingerprint, graph_fingerprint
from viscircuits.model.guard.plain import check_plain
from viscircuits.model.trace import trace
from viscircuits.plots.curve import preservation_curve
from viscircuits.saliency.engine.maps import engine
from viscircuits.study.folder import Pictures, Spec, Study

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


def run_job(job: Sweep, folder: Path, source: Source, command: str = "") -> Study:
    """Returns the study of a job, with every circuit, the scores, the table and the curve on disk.

    Args:
        job: what to measure.
        folder: the study's, new or of the same question.
        source: where the job's parts come from, in the user's words.
        command: what the user typed.

    Raises:
        StudyError: the folder holds something else.
    """
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
        folder, spec, command=command, engine=engine(weight.device, weight.dtype),
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
        sweep(job, study.measurements_path, store, study)
        preservation_curve(study.measurements(), title=f"{source.model}: {spec.subject}").save(study.file(CURVE))
    finally:
        study.release()
    return Study.open(folder)
