"""The inset: the target's responses in the full model against those of the circuit, with r (paper, figure 4)."""

from dataclasses import dataclass
from math import isfinite

import numpy as np
from jaxtyping import Float

from viscircuits.circuit import Circuit
from viscircuits.data.images import ImageSet
from viscircuits.diagram.marks import Box, Disc, Group, Line, Text
from viscircuits.evaluate.preservation import Preservation, Reference, reference

_POINTS = 800
"""How many of the values are drawn; r is that of all."""


@dataclass(frozen=True)
class Agreement:
    """Responses of the full model and of a circuit to the same images, and how well they agree."""

    full: Float[np.ndarray, "n p"]
    circuit: Float[np.ndarray, "n p"]
    preservation: Preservation

    @property
    def text(self) -> str:
        """The measure in words."""
        p = self.preservation
        why = f" ({p.reason})" if p.reason else ""
        mapped = self.full.shape[1] > 1 and not why and isfinite(p.pearson_within)
        within = f", {p.pearson_within:.3f} within positions," if mapped else ""
        return f"|r| = {p.pearson:.3f}{why}{within} on {p.n_images:,} images"


def agreement(circuit: Circuit, images: ImageSet, *, full: Reference | None = None, batch_size: int = 16) -> Agreement:
    """Returns both responses to images; take pictures that were not scored on.

    Args:
        circuit: the circuit.
        images: pictures of the circuit's size.
        full: the full model's responses to them, when known.
        batch_size: pictures at a time.
    """
    full = full or reference(circuit, images, batch_size=batch_size)
    values = circuit.respond(images, frozen=full.response.frozen, batch_size=batch_size)
    measured = full.compare(values, disconnected=circuit.disconnected)
    return Agreement(full.response.values.double().numpy(), values.double().numpy(), measured)


def inset(agreement: Agreement, x: float, y: float, side: float) -> Group:
    """Returns the scatter plot in a square whose top left corner is (x, y); labels stand left and below."""
    chosen = np.linspace(0, agreement.full.size - 1, min(_POINTS, agreement.full.size)).astype(int)
    across, up = (_scaled(values.ravel()[chosen]) for values in (agreement.full, agreement.circuit))
    inner = side - 10
    points = tuple((x + 5 + float(a) * inner, y + side - 5 - float(b) * inner) for a, b in zip(across, up, strict=True))
    p = agreement.preservation
    return Group(
        (
            Box(x, y, side, side, "panel"),
            Disc(points, 1.5, "ink", opacity=0.32 if len(points) > 150 else 0.6),
            Line(((x, y + side), (x + side, y + side)), "muted"),
            Line(((x, y), (x, y + side)), "muted"),
            Text(x + side / 2, y + side + 14, "response of the full model", 10, "muted", "middle"),
            Text(x - 6, y + side / 2, "of the circuit", 10, "muted", "middle", turn=90),
            Text(x + 8, y + 16, f"r = {p.signed:.3f}".replace("-", "−"), 12.5, "ink", bold=True, halo=True),
        ),
        "inset",
        "inset",
        f"{agreement.text}; {len(points):,} of {p.n_values:,} values drawn\n"
        f"signed r {p.signed:.3f}, Spearman {p.spearman:.3f}",
    )


def _scaled(values: Float[np.ndarray, " v"]) -> Float[np.ndarray, " v"]:
    low, high = float(values.min()), float(values.max())
    return (values - low) / (high - low) if high > low else np.full_like(values, 0.5)
