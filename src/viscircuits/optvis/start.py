"""Where an ascent starts, and what to do when nothing leads up from there.

Behind a ReLU that is off everywhere the gradient is exactly zero, and no step is ever taken. Such a start is found
before the first step. If the objective reads right behind a ReLU, the ascent follows what goes into it instead: its
maximum is the same. Otherwise it starts again, elsewhere and with more contrast. What was done is said.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool
from torch import Tensor

from viscircuits.model import ops
from viscircuits.model.graph import NetGraph
from viscircuits.model.nodes import op_name
from viscircuits.optvis.gradient import gradient
from viscircuits.optvis.network import Network
from viscircuits.optvis.objective import Activation, Combination, Objective
from viscircuits.optvis.parameterisation import Parameterisation
from viscircuits.target import Target, TargetSum

RESTARTS = 5


@dataclass(frozen=True)
class Start:
    """The parameters that one picture starts from, the objective it then follows, and what there is to say about it."""

    parameters: Tensor
    objective: Objective
    note: str = ""


def starts(
    network: Network, parameterisation: Parameterisation, objectives: Sequence[Objective], seeds: Sequence[int]
) -> list[Start]:
    """Returns one start a picture, with a gradient wherever one was found.

    Args:
        network: what is looked into.
        parameterisation: how pictures are written down.
        objectives: one a picture.
        seeds: one a picture.
    """
    first = [Start(parameterisation.start(seed), o) for o, seed in zip(objectives, seeds, strict=True)]
    live = alive(network, parameterisation, first).tolist()
    return [
        start if ok else _awakened(network, parameterisation, start, seed)
        for start, seed, ok in zip(first, seeds, live, strict=True)
    ]


def alive(network: Network, parameterisation: Parameterisation, places: Sequence[Start]) -> Bool[Tensor, " n"]:
    """Returns whether each picture's objective has a gradient that is not exactly zero.

    Args:
        network: what is looked into.
        parameterisation: how pictures are written down.
        places: the parameters and objectives of the pictures.
    """
    parameters = torch.stack([start.parameters for start in places]).detach().to(network.like).requires_grad_()
    objectives = [start.objective for start in places]
    # one pass for all: a picture has no part in the gradient of another
    uphill = gradient(lambda: network.look(parameterisation.picture(parameters), objectives).values.sum(), parameters)
    return (uphill != 0).flatten(1).any(1).cpu()


def _awakened(network: Network, parameterisation: Parameterisation, start: Start, seed: int) -> Start:
    before = before_relu(start.objective, network.graph)
    if before is not None and alive(network, parameterisation, [replace(start, objective=before)]).all():
        return Start(start.parameters, before, f"no gradient at the start; follows {before}, which goes into the ReLU")
    for attempt in range(1, RESTARTS + 1):
        contrast = 2.0**attempt
        # far away, because seed + 1 is where the next variant starts from
        elsewhere = seed + 1000 * attempt
        other = replace(start, parameters=parameterisation.start(elsewhere, contrast))
        if alive(network, parameterisation, [other]).all():
            note = (
                f"no gradient at the start; started again from seed {seed + attempt} at {contrast:g} times the contrast"
            )
            return replace(other, note=note)
    blank = parameterisation.start(seed, 0.0)  # better than noise that looks like something
    return replace(start, parameters=blank, note=f"no gradient at any of {RESTARTS + 1} starts: nothing to draw")


def before_relu(what: Objective, graph: NetGraph) -> Objective | None:
    """Returns the objective with every output of a ReLU replaced by what goes into it; None if that is no module's."""
    if isinstance(what, Combination):
        terms = [(weight, before_relu(term, graph)) for weight, term in what.terms]
        kept = tuple((weight, term) for weight, term in terms if term is not None)
        return Combination(kept) if len(kept) == len(terms) else None
    if not isinstance(what, Activation):
        return None
    if isinstance(what.target, Target):
        layer = _before(what.target.layer, graph)
        return None if layer is None else Activation(replace(what.target, layer=layer))
    # all of them or none: a sum of values before and behind a ReLU has another maximum
    layers = [_before(term.layer, graph) for _, term in what.target.terms]
    terms = tuple(
        (weight, replace(term, layer=layer))
        for (weight, term), layer in zip(what.target.terms, layers, strict=True)
        if layer is not None
    )
    return Activation(TargetSum(terms)) if len(terms) == len(layers) else None


def _before(layer: str, graph: NetGraph) -> str | None:
    """The module whose output goes straight into the ReLU that is this module's last step."""
    node = graph.output(layer).node
    if node.op != "call_function" or op_name(node) not in ops.RELUS | ops.IN_PLACE_RELUS:
        return None
    return next((name for name, output in graph.outputs.items() if output.node is node.all_input_nodes[0]), None)
