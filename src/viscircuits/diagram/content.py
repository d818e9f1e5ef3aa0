"""What a circuit's diagram shows: filters as vertices, kernels as edges, and the joins where signals meet.

A *kernel edge* runs from where its input channel stems from to the filter it belongs to; what carries a channel without
a kernel, into a sum, a gate or the target, is a *wire*. Names and numbers only: no geometry, no colours. How a circuit
becomes this is in `viscircuits.diagram.walk`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Float

VertexKind = Literal["image", "filter", "join", "target", "bundle"]


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
    kind: VertexKind
    block: str
    channel: int = 0
    layer: str = ""
    sign: str = ""
    score: float = 0.0
    is_target: bool = False
    kernel: Float[np.ndarray, "c kh kw"] | None = None
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
        members: these kernels, the one of the largest Σ|w| first; none where it is a single one.
    """

    source: str
    target: str
    kernel: tuple[str, int, int]
    weights: Float[np.ndarray, "kh kw"]
    score: float
    total: float
    magnitude: float
    count: int = 1
    members: tuple["Edge", ...] = field(default=(), repr=False)

    @property
    def balance(self) -> float:
        """Σw / Σ|w|: 1 if all weights excite, -1 if all inhibit, 0 if they cancel exactly."""
        # a kernel can be kept and be all zeros, as in networks that were trained sparse
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
    """Returns several kernels as one edge: scores, weights and counts are summed.

    Args:
        source, target: ids of the vertices that it joins.
        edges: the kernels, one at least.
    """
    if len(edges) == 1:
        return replace(edges[0], source=source, target=target)
    # kernels keep the ends they had, and what was merged before is taken apart again: a bundle opens in one step
    kernels = [kernel for edge in edges for kernel in edge.members or (edge,)]
    return Edge(
        source,
        target,
        (edges[0].kernel[0], -1, -1),  # of one layer all, but of no one channel
        np.zeros((0, 0), np.float32),
        sum(edge.score for edge in edges),
        sum(edge.total for edge in edges),
        sum(edge.magnitude for edge in edges),
        sum(edge.count for edge in edges),
        tuple(sorted(kernels, key=lambda kernel: (-kernel.magnitude, kernel.kernel))),
    )


def contracted(content: Content) -> Content:
    """Returns content without joins at which a single signal arrives."""
    arriving: dict[str, list[str]] = {}
    for wire in content.wires:
        arriving.setdefault(wire.target, []).append(wire.source)
    stand_in: dict[str, str] = {}
    for vertex in content.vertices:  # in order of execution, so what a source stands for is known
        sources = {stand_in.get(s, s) for s in arriving.get(vertex.id, [])}
        if vertex.kind == "join" and len(sources) == 1:
            stand_in[vertex.id] = sources.pop()
    return replace(
        content,
        vertices=tuple(v for v in content.vertices if v.id not in stand_in),
        edges=tuple(replace(e, source=stand_in.get(e.source, e.source)) for e in content.edges),
        wires=tuple(
            dict.fromkeys(
                replace(w, source=stand_in.get(w.source, w.source)) for w in content.wires if w.target not in stand_in
            )
        ),
    )


def paired(content: Content) -> Content:
    """Returns content with one edge a pair of vertices: a linear layer may read a flattened map many times."""
    pairs: dict[tuple[str, str], list[Edge]] = {}
    for edge in content.edges:
        pairs.setdefault((edge.source, edge.target), []).append(edge)
    return replace(content, edges=tuple(merged(*pair, edges) for pair, edges in pairs.items()))


def bundled(content: Content) -> Content:
    """Returns content in which every block is one vertex, and all kernels between two blocks are one edge.

    Scores and counts are summed; the balance is that of all the weights together. The target stays on its own.
    """
    blocks: dict[str, list[Vertex]] = {}
    for vertex in content.vertices:
        blocks.setdefault(vertex.block, []).append(vertex)
    # ids are kept, not drawn anew: the page and its links name vertices by them
    stand_in = {vertex.id: members[0].id for members in blocks.values() for vertex in members}
    groups: dict[tuple[str, str], list[Edge]] = {}
    for edge in content.edges:
        groups.setdefault((stand_in[edge.source], stand_in[edge.target]), []).append(edge)
    # several wires between two blocks are one now, and those inside a block are none
    wires = dict.fromkeys(Wire(stand_in[w.source], stand_in[w.target]) for w in content.wires)
    return replace(
        content,
        vertices=tuple(_block(members) for members in blocks.values()),
        edges=tuple(merged(*pair, edges) for pair, edges in groups.items()),
        wires=tuple(wire for wire in wires if wire.source != wire.target),
        target=stand_in[content.target],
        bundled=sum(edge.count for edge in content.edges),
    )


def _block(members: list[Vertex]) -> Vertex:
    first = members[0]
    if first.kind in ("join", "target") or (first.kind == "filter" and len(members) == 1):
        return first
    strongest = sorted(members, key=lambda v: (-v.score, v.channel))
    return Vertex(
        first.id, "bundle", first.block, score=sum((v.score for v in members), 0.0), members=tuple(strongest),
        is_target=any(v.is_target for v in members),
    )  # fmt: skip
