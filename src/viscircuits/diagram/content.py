"""What a circuit's diagram shows: filters as vertices, kernels as edges, and the joins where signals meet.

A *kernel edge* runs from where its input channel stems from to the filter it belongs to; what carries a channel without
a kernel, into a sum, a gate or the target, is a *wire*. Names and numbers only: no geometry, no colours. How a circuit
becomes this is in `viscircuits.diagram.walk`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Float

Kind = Literal["image", "filter", "join", "target", "bundle"]

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Vertex:
    """A filter, an image channel, a join, or the target where it is not itself a filter.

    Attributes:
        id: unique name, ``v0``, ``v1``, ...
        kind: what it stands for.
        block: what it belongs to: vertices of one block stand together under this heading.
        channel: index of the channel in its block.
        layer: the kernel layer of a filter, or the layer that a target reads.
        sign: what a join does.
        score: summed score of the kernels that lead into it.
        is_target: whether this is what the circuit computes.
        kernel: of a filter that reads the image: its weights ``[image channel, kh, kw]``, zero where not kept.
        members: what a bundle stands for, the strongest first.
    """

    id: str
    kind: Kind
    block: str
    channel: int = 0
    layer: str = ""
    sign: str = ""
    score: float = 0.0
    is_target: bool = False
    kernel: Float[Array, "c kh kw"] | None = None
    members: tuple["Vertex", ...] = ()

    @property
    def name(self) -> str:
        """The name in words: ``features.6:37``, ``image:0``, ``layer1.0 +:5``."""
        alone = self.kind == "bundle" or (self.kind == "target" and not self.layer)
        return self.block if alone else f"{self.block}:{self.channel}"


@dataclass(frozen=True, eq=False)
class Edge:
    """One kernel (or a bundle of them): from where its input stems from, to its filter.

    Attributes:
        source: id of the vertex where the input channel stems from.
        target: id of the filter.
        kernel: ``(layer, out, in)``, ``in`` the global input channel.
        weights: the kernel as a picture has it, ``[kh, kw]``; weights that are not kept are zero.
        score: what its width shows.
        total: sum of its weights.
        magnitude: sum of their magnitudes.
        count: how many kernels it stands for; several have no weights of their own.
    """

    source: str
    target: str
    kernel: tuple[str, int, int]
    weights: Float[Array, "kh kw"]
    score: float
    total: float
    magnitude: float
    count: int = 1

    @property
    def balance(self) -> float:
        """Σw / Σ|w|: 1 if all weights excite, -1 if all inhibit, 0 if they cancel exactly."""
        return self.total / self.magnitude if self.magnitude else 0.0


@dataclass(frozen=True)
class Wire:
    """A channel that goes on without a kernel."""

    source: str
    target: str


@dataclass(frozen=True)
class Content:
    """Everything a diagram shows of a circuit; vertices in order of execution."""

    vertices: tuple[Vertex, ...]
    edges: tuple[Edge, ...]
    wires: tuple[Wire, ...]
    target: str
    measure: str  # what the widths show: a criterion's name, or "Σ|w|"
    n_image_channels: int
    bundled: int = 0  # kernels that are not drawn one by one

    @cached_property
    def by_id(self) -> dict[str, Vertex]:
        """The vertices by id."""
        return {vertex.id: vertex for vertex in self.vertices}

    @property
    def links(self) -> list[tuple[str, str]]:
        """All pairs that are joined, each once: kernel edges, then wires."""
        return list(dict.fromkeys((link.source, link.target) for link in [*self.edges, *self.wires]))


def merged(source: str, target: str, edges: Sequence[Edge]) -> Edge:
    """Returns several kernels as one edge: scores, weights and counts are summed."""
    if len(edges) == 1:
        return replace(edges[0], source=source, target=target)
    return Edge(
        source,
        target,
        (edges[0].kernel[0], -1, -1),
        np.zeros((0, 0), np.float32),
        sum(edge.score for edge in edges),
        sum(edge.total for edge in edges),
        sum(edge.magnitude for edge in edges),
        sum(edge.count for edge in edges),
    )
