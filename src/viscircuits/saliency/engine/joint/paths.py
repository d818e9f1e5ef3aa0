"""The order in which kernels come into play: a kernel counts once it lies on a path from the image to the target.

The kernels above a threshold are a circuit with dead ends: what nothing feeds, and what nothing reads. As the threshold
falls, each kernel comes into play at one point, not before its own score is passed, and stays in play. In the order of
these points the first ``k`` all take part, for every ``k``, up to the width of a step (`STEP`).
"""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from viscircuits.mask import by_layer
from viscircuits.model.flow.reach import reach
from viscircuits.readout import Readout

STEP = 0.95
"""From one threshold to the next, so many of the kernels above it are left. Of a tenth of SqueezeNet's kernels, at most
.5 % then take no part; of its best tenth by score alone, 20 % do."""


class Ranking:
    """Some kernels of a network, flat and by falling score.

    Args:
        readout: the target, bound to the graph.
        kernels: layer -> those that are ranked; the other kernels of these layers never conduct.
        scores: layer -> their scores; ties are broken by layer order, then by index.
    """

    def __init__(
        self,
        readout: Readout,
        kernels: Mapping[str, Bool[Tensor, "out in"]],
        scores: Mapping[str, Float[Tensor, "out in"]],
    ) -> None:
        self.readout, self.kernels = readout, kernels
        values = torch.cat([scores[name][array] for name, array in kernels.items()])
        self.by_score: Int[Tensor, " k"] = values.argsort(descending=True, stable=True)

    def by_path(self) -> Int[Tensor, " k"]:
        """Returns all kernels, flat, in the order in which they come into play.

        Within a step first those that were passed in it, because they open the way for others; then the others, which
        had waited; each by score.
        """
        above = [len(self.by_score)]
        last = torch.zeros(
            len(self.by_score), dtype=torch.int64
        )  # the last, highest, threshold at which each takes part
        while above[-1] and bool((inside := self.on_path(above[-1])).any()):
            last[inside] = len(above) - 1
            above.append(int(above[-1] * STEP))
        rank = torch.empty_like(self.by_score)
        rank[self.by_score] = torch.arange(len(rank))
        waited = rank < torch.tensor([*above, 0])[last + 1]
        return self.by_score[(2 * last + ~waited)[self.by_score].argsort(descending=True, stable=True)]

    def on_path(self, above: int) -> Bool[Tensor, " k"]:
        """Returns which kernels, flat, lie on a path when so many of the first by score conduct."""
        conducts = torch.zeros(len(self.by_score), dtype=torch.bool)
        conducts[self.by_score[:above]] = True
        used = reach(self.readout.graph, self.readout.seeds(), by_layer(conducts, self.kernels)).used
        nothing = torch.zeros((), dtype=torch.bool)
        return torch.cat([used.get(name, nothing.expand_as(a))[a] for name, a in self.kernels.items()])
