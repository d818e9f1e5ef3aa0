"""A sweep as a study's question, and a study's question as a sweep again: the one place that knows the fields of both.

What only decides how the work is done (batches, memory, progress) is no part of a question, and neither are the limits
of a sweep, which leave out rows and change none.
"""

from dataclasses import dataclass

from torch import nn

from viscircuits.data.images import ImageSet
from viscircuits.errors import StudyError
from viscircuits.evaluate.sweep import Sweep
from viscircuits.model.fingerprint import fingerprint
from viscircuits.model.zoo.zoo import categories
from viscircuits.runs.classes import label
from viscircuits.study.spec import Pictures, Spec
from viscircuits.target import parse_target
from viscircuits.types import Progress


@dataclass(frozen=True)
class Origin:
    """Where the parts of a job come from, in the user's words.

    Attributes:
        model: what the user calls it.
        weights: likewise; None for random ones.
        scoring: folder, file or generator of the pictures to score on.
        held_out: of those to measure on.
        classes: class folder -> number of the output that judges it, where said.
        white: the value that is white above 8 bits, where said.
        found: pictures where those scored on come from, if fewer were used.
    """

    model: str
    weights: str | None
    scoring: str
    held_out: str
    classes: dict[str, int] | None = None
    white: float | None = None
    found: int | None = None

    @classmethod
    def of(cls, spec: Spec) -> "Origin":
        """Returns what a study says of where its parts came from."""
        scoring = spec.scoring
        return cls(
            spec.model, spec.weights, scoring.source, spec.held_out.source, scoring.classes, scoring.white,
            scoring.found,
        )  # fmt: skip


def spec_of(job: Sweep, origin: Origin) -> Spec:
    """Returns the question that a sweep answers."""
    # pictures that were set aside come out of those that were found; of other pictures nobody took fewer
    found = origin.found if origin.held_out == origin.scoring else None
    targets = tuple(map(str, job.targets))
    names = categories(job.model) if origin.weights else None  # random weights know no class
    return Spec(
        model=origin.model, weights=origin.weights, fingerprint=fingerprint(job.model),
        input_shape=tuple(job.scoring[0].shape), targets=targets,
        labels={text: name for text in targets if (name := label(text, names))},
        scoring=Pictures.of(
            job.scoring, origin.scoring, classes=origin.classes, white=origin.white, found=origin.found
        ),
        held_out=Pictures.of(job.held_out, origin.held_out, classes=origin.classes, white=origin.white, found=found),
        criteria=tuple(job.criteria), densities=tuple(job.densities), granularity=job.granularity,
        normalise=job.normalise, biases=job.biases, seed=job.seed, inside=job.inside,
    )  # fmt: skip


def sweep_of(
    spec: Spec, model: nn.Module, scoring: ImageSet, held_out: ImageSet, *, batch_size: int | None = None,
    memory: int | None = None, progress: Progress | None = None,
) -> Sweep:  # fmt: skip
    """Returns the sweep that answers a study's question.

    Args:
        spec: the question.
        model: the study's model.
        scoring: the pictures that it scored on.
        held_out: those that it measured on.
        batch_size: pictures at a time; what fits where None.
        memory: the most bytes to work in; see `viscircuits.Sweep`.
        progress: called as the work goes on.

    Raises:
        StudyError: the model or the pictures are others than the study's.
    """
    job = Sweep(
        model, [parse_target(text) for text in spec.targets], scoring, held_out, spec.criteria, spec.densities,
        spec.granularity, spec.normalise, spec.biases, spec.seed, batch_size, memory, inside=spec.inside,
        progress=progress,
    )  # fmt: skip
    # asked back, so that no field can be forgotten in one of the two directions
    if different := spec.differs(spec_of(job, Origin.of(spec))):
        raise StudyError(f"these are not the model and pictures of the study: {', '.join(different)} differ")
    return job
