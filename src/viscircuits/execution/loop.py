"""The loop over images: on the model's device, in its floating type and fastest layout, labelled as its outputs are."""

from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from viscircuits.data.classes import by_output
from viscircuits.data.images import ImageSet, as_images
from viscircuits.data.stream import Batch
from viscircuits.errors import ImageError
from viscircuits.model.graph import OUTPUT, NetGraph
from viscircuits.model.guard.replica import like
from viscircuits.model.zoo import zoo
from viscircuits.readout import Readout
from viscircuits.target import Loss
from viscircuits.types import Progress


def batches(
    images: ImageSet,
    model: nn.Module,
    graph: NetGraph,
    size: int,
    *,
    progress: Progress | None = None,
    what: str = "responses",
) -> Iterator[Batch]:
    """Yields a set's pictures and labels, in order, as `to_model` gives them.

    Args:
        images: pictures of the graph's image size.
        model: the user's module.
        graph: its graph.
        size: pictures at a time.
        progress: told ``what``, how many pictures are done and of how many, after each batch; what it raises ends the
            loop.
        what: the name of the work.

    Raises:
        ImageError: images of another size than the graph's.
    """
    for batch in images.batches(size, graph.memory_format, progress=progress, what=what):
        yield to_model(batch, model, graph)


def to_model(batch: Batch, model: nn.Module, graph: NetGraph) -> Batch:
    """Returns a batch on the model's device; its images in the model's floating type and fastest layout.

    Args:
        batch: pictures and perhaps labels.
        model: the user's module.
        graph: its graph.

    Raises:
        ImageError: images of another size than the graph's.
    """
    if (size := tuple(batch.images.shape[1:])) != graph.input_shape:
        raise ImageError(
            f"expected pictures of the circuit's shape {graph.input_shape}, got {size}; prepare them alike"
        )
    own = like(model)
    labels = batch.labels.to(own.device) if batch.labels is not None else None
    images = batch.images.to(device=own.device, dtype=own.dtype)
    images = images.clone() if images.is_inference() else images  # gradients cannot pass those
    return Batch(images.contiguous(memory_format=graph.memory_format), labels, batch.start)


def judged(images: ImageSet | Tensor, model: nn.Module, readouts: Sequence[Readout]) -> ImageSet:
    """Returns the pictures labelled by the outputs that judge them, where one of the targets is a loss by labels.

    Args:
        images: pictures labelled by class folder or data set.
        model: the user's module, whose weights may say what its outputs are called.
        readouts: the targets.

    Raises:
        ImageError: which output judges which class is not known.
    """
    images = as_images(images)
    # of one model, so one answer serves them all
    for readout in readouts:
        if isinstance(readout.target, Loss) and not readout.target.predicted:
            return by_output(images, readout.graph.output(OUTPUT).n_channels, zoo.categories(model))
    return images
