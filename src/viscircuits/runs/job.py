"""Running a sweep into a study folder."""

from pathlib import Path

from viscircuits.evaluate.measurement import Measurement
from viscircuits.evaluate.sweep import Sweep, sweep
from viscircuits.model.fingerprint import graph_fingerprint
from viscircuits.model.guard.replica import like
from viscircuits.model.trace import trace
from viscircuits.plots.curve import preservation_curve
from viscircuits.runs.spec import Origin, spec_of
from viscircuits.saliency.engine.maps import engine
from viscircuits.study.folder import Study
from viscircuits.study.names import CURVE, ordered


def run_job(job: Sweep, folder: Path, origin: Origin, command: str = "") -> Study:
    """Returns the study of a job, with every circuit, the scores, the table and the curve on disk.

    Args:
        job: what to measure.
        folder: the study's, new or of the same question.
        origin: where the job's parts come from, in the user's words.
        command: what the user typed.

    Raises:
        StudyError: the folder holds something else.
    """
    spec = spec_of(job, origin)
    own = like(job.model)
    study = Study.create(
        folder, spec, command=command, engine=engine(own.device, own.dtype),
        graph=graph_fingerprint(job.model, trace(job.model, spec.input_shape)),
    )  # fmt: skip

    first = True

    def store(measurement: Measurement) -> None:
        nonlocal first
        # at the first that is new: where all is there, nothing is computed with this version
        if first:
            study.gone_on()
            first = False
        key = measurement.key
        # the fingerprint is that of the whole model, and the same for each circuit
        study.add_circuit(measurement.circuit, ordered(key.criterion, key.order), key.density, spec.fingerprint)

    try:
        sweep(job, study.measurements_path, store, study)
        # from the table that was written: a sweep gives only what was still missing
        preservation_curve(study.measurements(), title=f"{origin.model}: {spec.subject}").save(study.file(CURVE))
    finally:
        study.release()
    return Study.open(folder)
