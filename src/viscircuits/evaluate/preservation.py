"""Preservation: how well a circuit alone keeps the responses of its target.

Source: circuit pruning, section 4: the absolute Pearson correlation between the original feature's activations and the
circuit's, over all images and positions; a disconnected circuit counts as 0 (section 8.6).

That number also counts what is the same for every image: a map that zero padding makes brighter at the border can give
nearly all of it. `Preservation.pearson_within` leaves each position's own mean out.

Not here: the formulas (`viscircuits.activations.agreement`).
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
from jaxtyping import Float
from torch import Tensor

from viscircuits.activations import agreement
from viscircuits.bounds.arguments import checked
from viscircuits.card import Card, Shown
from viscircuits.circuit.circuit import Circuit
from viscircuits.data.images import ImageSet, as_images
from viscircuits.errors import ImageError, TargetError
from viscircuits.execution.response import Response, respond
from viscircuits.execution.together import respond_all
from viscircuits.types import Progress


@dataclass(frozen=True, repr=False)
class Preservation(Shown):
    """Agreement of a circuit's responses with the full model's.

    Attributes:
        pearson: absolute Pearson correlation, in [0, 1]; the paper's measure.
        pearson_within: the same after each position's mean over the images is subtracted from both: 0 for a circuit
            that only keeps the mean map; equal to ``pearson`` where a response is one number an image; nan where the
            full model's own response is the same for every image (one image, say), so that nothing is asked.
        signed: ``pearson`` with its sign, in [-1, 1].
        spearman: rank correlation, in [-1, 1].
        relative_difference: mean |circuit - full| over mean |full|; 0 is perfect, not bounded above.
        sd_ratio: standard deviation of the circuit's responses over that of the model's, over the values that
            ``pearson`` uses, which says nothing of it; 1 is perfect, above 1 is possible, 0 where the circuit's are
            constant.
        reason: why the correlations are 0 by definition ("disconnected" or "constant"), or None.
        n_images: number of images.
        n_values: number of values compared: images x positions.
    """

    pearson: float
    pearson_within: float
    signed: float
    spearman: float
    relative_difference: float
    sd_ratio: float
    reason: str | None
    n_images: int
    n_values: int

    def _card(self) -> Card:
        return Card("Preservation", {
            "|r|": f"{self.pearson:.4f}", "|r| within positions": f"{self.pearson_within:.4f}",
            "r": f"{self.signed:.4f}", "rank correlation": f"{self.spearman:.4f}",
            "relative difference": f"{self.relative_difference:.4f}", "sd ratio": f"{self.sd_ratio:.4f}",
            "0 because": self.reason, "images": f"{self.n_images:,}", "values": f"{self.n_values:,}",
        })  # fmt: skip


@dataclass(frozen=True, repr=False)
class Reference(Shown):
    """The full model's responses, against which any number of circuits is measured.

    Raises:
        TargetError: the responses never change; nothing can be preserved of a dead target.
        ImageError: they are not finite.
    """

    response: Response
    target: str

    def __post_init__(self) -> None:
        values = self._values
        if not np.isfinite(values).all():
            raise ImageError(f"target {self.target} is not finite on these images; check preprocessing and weights")
        if agreement.constant(values):
            raise TargetError(
                f"target {self.target} is dead: its response is {values.flat[0]:.4g} everywhere on these "
                f"{len(values)} images; choose another channel, or other or more images"
            )

    def _card(self) -> Card:
        images, positions = self.response.values.shape
        return Card("Reference", {"target": self.target, "images": f"{images:,}", "values of each": f"{positions:,}"})

    @cached_property
    def _values(self) -> Float[np.ndarray, "n p"]:
        return self.response.values.double().numpy()

    @cached_property
    def _varying(self) -> Float[np.ndarray, "n p"] | None:
        return agreement.varying(self._values)

    @cached_property
    def _ranks(self) -> Float[np.ndarray, " v"]:
        return _ranks(self._values)

    @checked
    def compare(self, values: Float[Tensor, "n p"], *, disconnected: bool = False) -> Preservation:
        """Returns how well a circuit's responses agree with these.

        Args:
            values: the circuit's responses to the same images.
            disconnected: whether no path leads from the image to the target in the circuit.

        Raises:
            ImageError: responses of another shape, or not finite.
        """
        full, circuit = self._values, values.double().numpy()
        if circuit.shape != full.shape:
            raise ImageError(f"values: expected responses of shape {list(full.shape)}, got {list(circuit.shape)}")
        if not np.isfinite(circuit).all():  # a correlation of nan would pass every comparison
            raise ImageError(f"the circuit's response to target {self.target} is not finite; run the model in float32")
        difference = agreement.relative_difference(circuit, full)
        sizes = len(full), full.size
        within = math.nan if self._varying is None else 0.0
        # what rounding leaves of a constant response correlates with anything, so these are 0 by definition
        if disconnected or agreement.constant(circuit):
            reason = "disconnected" if disconnected else "constant"
            return Preservation(0.0, within, 0.0, 0.0, difference, 0.0, reason, *sizes)
        signed = agreement.correlation(circuit.ravel(), full.ravel())
        spearman = agreement.correlation(_ranks(circuit), self._ranks)
        if self._varying is not None:
            within = agreement.correlation_within(circuit, self._varying)
        ratio = agreement.sd_ratio(circuit, full)
        return Preservation(abs(signed), within, signed, spearman, difference, ratio, None, *sizes)


def reference(
    circuit: Circuit, images: ImageSet, *, batch_size: int = 16, progress: Progress | None = None
) -> Reference:
    """Returns the full model's responses to the circuit's target.

    Args:
        circuit: any circuit of the model and target.
        images: the pictures that circuits are going to be measured on.
        batch_size: pictures at a time.
        progress: called after every batch.
    """
    full = respond(circuit.model, circuit.readout, images, batch_size=batch_size, progress=progress)
    return Reference(full, str(circuit.target))


@checked
def preservation(
    circuit: Circuit,
    images: ImageSet | Tensor,
    *,
    full: Reference | None = None,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> Preservation:
    """Returns how well a circuit keeps its target's responses to images it was not scored on.

    Args:
        circuit: what to measure.
        images: pictures; take others than those the scores came from, or the number flatters the circuit.
        full: the full model's responses to the same images, when several circuits are measured.
        batch_size: pictures at a time.
        progress: called after every batch.

    Raises:
        TargetError: the target is dead on these pictures.
        ImageError: pictures of another size than the circuit's, or another target's or other pictures' responses.
    """
    images = as_images(images)
    # told before the full model runs over all pictures
    size = tuple(images[0].shape)
    if size != circuit.mask.input_shape:
        raise ImageError(f"expected pictures of the circuit's shape {circuit.mask.input_shape}, got {size}")
    full = full or reference(circuit, images, batch_size=batch_size, progress=progress)
    # responses do not know their pictures; a count that differs is what can be seen of other ones
    if (full.target, len(full.response.values)) != (str(circuit.target), len(images)):
        raise ImageError(
            f"expected responses of target {circuit.target} to these {len(images)} images, got those of {full.target} "
            f"to {len(full.response.values)}; make them with reference(circuit, images)"
        )
    frozen = full.response.frozen
    (values,) = respond_all([circuit.execution], images, frozen=frozen, batch_size=batch_size, progress=progress)
    return full.compare(values, disconnected=circuit.disconnected)


def _ranks(values: np.ndarray) -> np.ndarray:
    # ties get their mean rank: a rectified response is zero at most places
    return pl.Series(values.ravel()).rank("average").to_numpy()
