"""How far two networks' responses agree: Pearson's r, r within positions, differences, the ratio of their spreads.

Convention: the full model's responses and a circuit's are arrays of one shape, images x positions, in double precision.
Whether a response varies at all is asked first (`constant`): of what rounding leaves, r is any number. What works on
arrays works on tensors too, in the order of operations of either.

Not here: the table of all these numbers (`viscircuits.evaluate.preservation`), intervals over images
(`viscircuits.evaluate.faithfulness`), losses that gates are trained for (`viscircuits.saliency.gates.training`).
"""

import math
from typing import TypeVar

import numpy as np
from jaxtyping import Float
from torch import Tensor

_ROUNDING = 1e-6
"""A spread below this fraction of the largest value is rounding of 32-bit numbers, not a response."""

_Values = TypeVar("_Values", np.ndarray, Tensor)


def constant(values: Float[np.ndarray, "..."] | Float[Tensor, "..."]) -> bool:
    """Returns whether responses are the same everywhere, but for rounding."""
    # measured against the values themselves: a response of 1e-9 that varies is one, and 1e6 that trembles is none
    return float(values.max() - values.min()) <= _ROUNDING * float(abs(values).max())


def varying(values: Float[np.ndarray, "n p"]) -> Float[np.ndarray, "n p"] | None:
    """Returns values less each position's mean over the images; None where that leaves only rounding."""
    # against the values before the mean is gone: what is left of a map that all images share is rounding of that map
    rest = values - values.mean(0)
    return None if float(np.abs(rest).max()) <= _ROUNDING * float(np.abs(values).max()) else rest


def correlation(a: Float[np.ndarray, " v"], b: Float[np.ndarray, " v"]) -> float:
    """Returns Pearson's r of two rows of numbers, in [-1, 1]; 0 where one of them does not vary at all."""
    a, b = a - a.mean(), b - b.mean()
    # one square root of the product: two roots would round twice, and r of a row with itself would not be 1
    norm = math.sqrt(float(a @ a) * float(b @ b))
    return max(-1.0, min(1.0, float(a @ b) / norm)) if norm else 0.0


def correlation_within(circuit: Float[np.ndarray, "n p"], full: Float[np.ndarray, "n p"]) -> float:
    """Returns |r| after each position's mean over the images is subtracted; 0 where only the mean map is left.

    Args:
        circuit: the circuit's responses, as they are.
        full: what `varying` leaves of the full model's, which many circuits are compared with.
    """
    own = varying(circuit)
    return 0.0 if own is None else abs(correlation(own.ravel(), full.ravel()))


def relative_difference(circuit: _Values, full: _Values) -> float:
    """Returns mean ``|circuit - full|`` over mean ``|full|``: 0 where they are equal, not bounded above."""
    return float(abs(circuit - full).mean() / abs(full).mean())


def sd_ratio(circuit: Float[np.ndarray, "n p"], full: Float[np.ndarray, "n p"]) -> float:
    """Returns the standard deviation of the circuit's responses over that of the full model's, at least 0."""
    return float(circuit.std() / full.std())
