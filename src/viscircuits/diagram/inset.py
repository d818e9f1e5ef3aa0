"""The inset: the target's responses in the full model against those of the circuit, with r (paper, figure 4)."""

from dataclasses import dataclass
from math import isfinite

import numpy as np
from jaxtyping import Float

from viscircuits.canvas.marks import Anchor, Bezier, Box, Disc, Group, Text
from viscircuits.canvas.told import beside, inverted, measure, number
from viscircuits.evaluate.preservation import Preservation

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
        on = f" on {p.n_images:,} images"
        if p.reason:
            return f"|r| = {p.pearson:.3f} ({p.reason}){on}"
        mapped = self.full.shape[1] > 1 and isfinite(p.pearson_within)
        within = f"{p.pearson_within:.3f} within positions" if mapped else ""
        words = [part for part in (measure(p.pearson, p.signed), within, beside(p.sd_ratio)) if part]
        # with several numbers a comma keeps the pictures from belonging to the last one alone
        return ", ".join(words) + "," * (len(words) > 1) + on


def inset(agreement: Agreement, x: float, y: float, side: float) -> Group:
    """Returns the scatter plot in a square whose top left corner is (x, y); numbers and labels stand left and below.

    Each axis has a scale of its own, with its least and greatest value at the ends.

    Args:
        agreement: what is compared.
        x, y: the corner.
        side: of the square.
    """
    # spread evenly over all, because the first ones may be of one class; not at random, so that files stay the same
    shown = np.linspace(0, agreement.full.size - 1, min(_POINTS, agreement.full.size)).astype(int)
    full, circuit = (values.ravel()[shown] for values in (agreement.full, agreement.circuit))
    inner = side - 10
    places = zip(_scaled(full), _scaled(circuit), strict=True)
    points = tuple((x + 5 + float(a) * inner, y + side - 5 - float(b) * inner) for a, b in places)
    p = agreement.preservation
    turned = inverted(p.signed)  # then the points lie along the other diagonal, and the words in the other corner
    at, end = (x + side - 8, "end") if turned else (x + 8, "start")
    words = [f"r = {p.signed:.3f}".replace("-", "−"), *["inverted"] * turned]
    lines = [Text(at, y + 16 + 15 * i, word, 12.5, "ink", end, bold=True, halo=True) for i, word in enumerate(words)]
    return Group(
        (
            Box(x, y, side, side, "panel"),
            Disc(points, 1.5, "ink", opacity=0.32 if len(points) > 150 else 0.6),
            Bezier(((x, y + side), (x + side, y + side)), "muted"),
            Bezier(((x, y), (x, y + side)), "muted"),
            *(Text(x + 5 + at * inner, y + side + 12, word, 9, "muted", end) for word, at, end in _ends(full)),
            *(
                Text(x - 4, y + side - 5 - at * inner, word, 9, "muted", end, turn=90)
                for word, at, end in _ends(circuit)
            ),
            Text(x + side / 2, y + side + 25, "response of the full model", 10, "muted", "middle"),
            Text(x - 17, y + side / 2, "of the circuit", 10, "muted", "middle", turn=90),
            *lines,
        ),
        "inset",
        "inset",
        f"{agreement.text}; {len(points):,} of {p.n_values:,} values drawn\n"
        f"signed r {p.signed:.3f}, Spearman {p.spearman:.3f}",
    )


def _scaled(values: Float[np.ndarray, " v"]) -> Float[np.ndarray, " v"]:
    low, high = float(values.min()), float(values.max())
    # a circuit that always answers alike is a line through the middle, not a division by zero
    return (values - low) / (high - low) if high > low else np.full_like(values, 0.5)


def _ends(values: Float[np.ndarray, " v"]) -> list[tuple[str, float, Anchor]]:
    """The numbers at the ends of an axis, each with its place in [0, 1]; one in the middle where all are alike."""
    low, high = (number(float(end)).replace("-", "−") for end in (values.min(), values.max()))
    return [(low, 0.0, "start"), (high, 1.0, "end")] if values.max() > values.min() else [(low, 0.5, "middle")]
