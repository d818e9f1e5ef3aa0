"""How well scores recover a planted circuit."""

import functools
import operator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from viscircuits.activations.agreement import constant
from viscircuits.circuit.circuit import Circuit
from viscircuits.errors import MaskError
from viscircuits.execution.response import respond
from viscircuits.mask import Mask
from viscircuits.planted.cases import Planted
from viscircuits.scores import Scores


@dataclass(frozen=True)
class Recovery:
    """Agreement of scores with a planted circuit; all in [0, 1].

    Attributes:
        precision: fraction of the selected kernels that are true.
        recall: fraction of the true kernels that are selected; equal to the precision at the true size.
        area: under the ROC curve over relevant kernels: how often a true kernel scores above one that is not (ties
            count half). The kernels of the other alternatives are left out.
        pearson: |r| of the selected circuit with the full model on pictures that were not scored on; 0 if constant.
        density: of the selection.
    """

    precision: float
    recall: float
    area: float
    pearson: float
    density: float


def recovery(scores: Scores, case: Planted, *, density: float | None = None) -> Recovery:
    """Returns how well scores recover the planted circuit, compared with the alternative that they agree with best.

    Args:
        scores: of kernels, for the case's model and target.
        case: the planted case.
        density: of the selection; that of the truth where None.

    Raises:
        MaskError: scores of another target, of other kernels, or not of kernels.
    """
    if (scores.target, scores.granularity) != (str(case.target), "kernel"):
        raise MaskError(
            f"expected scores of kernels for {case.target}, got scores of {scores.granularity}s for {scores.target}"
        )
    selected = scores.select(density=case.truth.density if density is None else density)
    # of several right circuits the nearest; a mixture of two is wrong, so hits are not added up
    hits = max((selected & truth).n_kept for truth in case.alternatives)
    return Recovery(
        precision=hits / selected.n_kept,
        recall=hits / case.truth.n_kept,
        area=max(_area(scores, truth, case) for truth in case.alternatives),
        pearson=agreement(selected, case),
        density=selected.density,
    )


def agreement(mask: Mask, case: Planted) -> float:
    """Returns |r| of a masked circuit with the full model on pictures that were not scored on; 0 if it is constant."""
    circuit = Circuit(case.model, case.target, mask)
    full = respond(case.model, circuit.readout, case.held_out, batch_size=len(case.held_out))
    values = circuit.respond(case.held_out, frozen=full.frozen, batch_size=len(case.held_out))
    both = torch.stack([full.values, values]).flatten(1).double()
    if circuit.disconnected or constant(both[1]):
        return 0.0
    # rounding may lift a perfect correlation above 1
    return min(1.0, abs(float(torch.corrcoef(both)[0, 1])))


def _area(scores: Scores, truth: Mask, case: Planted) -> float:
    yes, no = _values(scores, truth), _values(scores, ~functools.reduce(operator.or_, case.alternatives))
    # every pair of a true and a false kernel, instead of a curve: ties count half only so
    difference = yes[:, None] - no
    return float((difference > 0).double().mean() + 0.5 * (difference == 0).double().mean())


def _values(scores: Scores, mask: Mask) -> Float[Tensor, " k"]:
    return torch.cat([scores.sums[name][kept] for name, kept in mask.kept.items()])
