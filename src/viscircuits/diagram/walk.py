"""From a circuit to the content of its diagram: everything on a path from the image to the target.

Only *effective* kernels are drawn (`Circuit.effective`). The walk goes backwards from the target, cut by cut (see
`viscircuits.model.flow.provenance`); then what no path from the image reaches is dropped, and so is a join at which a
single signal arrives, because it does nothing in this circuit.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor, fx

from viscircuits.circuit.circuit import Circuit
from viscircuits.diagram.content import Content, Edge, Vertex, VertexKind, Wire, contracted, paired
from viscircuits.errors import MaskError
from viscircuits.model.flow.provenance import CutChannel, Provenance, provenance
from viscircuits.model.graph import KernelLayer
from viscircuits.model.guard.replica import own_parameter
from viscircuits.scores import Scores
from viscircuits.target import Target

Identity = tuple[object, ...]
"""What a vertex stands for: a stem, a mixture of stems, or the target."""


def content(circuit: Circuit, scores: Scores | None = None) -> Content:
    """Returns what to draw of a circuit.

    Args:
        circuit: the circuit.
        scores: what the circuit was selected by; widths then show its kernels' scores per image, else Σ|w|.

    Raises:
        MaskError: the scores are those of another network or target.
    """
    ends = [circuit.graph.output(layer).node for layer in circuit.readout.layers]
    return _Walk(circuit, _kernel_scores(circuit, scores), provenance(circuit.graph, ends)).content(
        scores.criterion if scores else "Σ|w|"
    )


def kept_kernels(circuit: Circuit) -> dict[str, Bool[Tensor, "out in"]]:
    """Returns the kernels that are effective at least in part, by layer."""
    arrays = {}
    for name, kept in circuit.effective.kept.items():
        layer = circuit.graph.layers[name]
        arrays[name] = kept[:, None].expand(layer.shape) if kept.ndim == 1 else kept.reshape(*layer.shape, -1).any(2)
    return arrays


def _kernel_scores(circuit: Circuit, scores: Scores | None) -> dict[str, Tensor]:
    """Layer -> a number a kernel: its score per image, a weight's summed, a filter's for each of its kernels."""
    layers, arrays = circuit.graph.layers, {}
    if scores is None:
        return {name: _weights(circuit, layers[name]).abs().flatten(2).sum(2) for name in circuit.mask.kept}
    for name, mean in scores.means.items():
        layer = layers.get(name)
        if layer is None or layer.structure_shape(scores.granularity) != tuple(mean.shape):
            raise MaskError(f"scores of layer {name!r}, shape {tuple(mean.shape)}, do not fit the circuit's model")
        # a filter's score is that of each of its kernels, so that widths compare; weights are added up
        wide = mean[:, None].expand(layer.shape) if mean.ndim == 1 else mean.reshape(*layer.shape, -1).sum(2)
        arrays[name] = wide.clamp(min=0)
    if missing := circuit.mask.kept.keys() - arrays.keys():
        raise MaskError(
            f"the scores (of target {scores.target}) have no layer {min(missing)!r}; take the circuit's own"
        )
    return arrays


def _weights(circuit: Circuit, layer: KernelLayer) -> Float[Tensor, "out in ..."]:
    """The circuit's own weights, the removed ones zero."""
    # weights that a circuit leaves alone are not among its own, and are the model's at rest
    own = circuit.weights.get(layer.weight, own_parameter(circuit.model, layer.weight))
    weight = layer.out_first(own.detach().float().cpu())
    return weight.reshape(*weight.shape, 1, 1) if weight.ndim == 2 else weight


@dataclass
class _Walk:
    """Backwards from the target; what is met for the first time waits until its turn comes."""

    circuit: Circuit
    scores: Mapping[str, Tensor]
    origins: Provenance
    vertices: dict[Identity, Vertex] = field(default_factory=dict)
    edges: list[Edge] = field(default_factory=list)
    wires: list[Wire] = field(default_factory=list)
    waiting: list[CutChannel] = field(default_factory=list)
    weights: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.kept = kept_kernels(self.circuit)
        self.order = {node: i for i, node in enumerate(self.circuit.graph.nodes)}
        self.blocks = self._block_names()

    def content(self, measure: str) -> Content:
        target = self._target()
        # a list of what waits, not a recursion: networks are deeper than Python's stack
        while self.waiting:
            self._expand(self.waiting.pop())
        images = [v.id for v in self.vertices.values() if v.kind == "image"]
        # the walk starts at the target, so it also meets what no path from the image reaches
        live = _between(self.edges, self.wires, images, target)
        whole = Content(
            tuple(self._in_order(live | {target})),
            tuple(e for e in self.edges if {e.source, e.target} <= live),
            tuple(dict.fromkeys(w for w in self.wires if {w.source, w.target} <= live)),
            target,
            measure,
            self.circuit.graph.input_shape[0],
        )
        return paired(_with_scores(contracted(whole)))

    def _target(self) -> str:
        """The target's vertex: the filter itself, or one of its own where it is something else."""
        graph, target = self.circuit.graph, self.circuit.target
        stems = {
            stem
            for layer, channels in self.circuit.readout.seeds().items()
            for channel in channels.nonzero().flatten().tolist()
            for stem in self.origins.output_stems(graph.output(layer).node, channel)
        }
        if len(stems) == 1 and (only := next(iter(stems))).node in graph.kernel_calls:
            self._met(only)
            self.vertices[only] = replace(self.vertices[only], is_target=True)
            return self.vertices[only].id
        if isinstance(target, Target) and target.channel is not None:
            name = target.layer or "logit"
            vertex = self._add(("target",), "target", name, target.channel, layer=name, is_target=True)
        else:
            vertex = self._add(("target",), "target", "target", is_target=True)
        self._wired(stems, vertex)
        return vertex

    def _met(self, stem: CutChannel) -> str:
        """The vertex of a channel, which is expanded later when it is new."""
        if stem not in self.vertices:
            node, channel = stem
            name = self.circuit.graph.kernel_calls.get(node)
            if name is not None:
                self._add(stem, "filter", self.blocks[node], channel, layer=name)
            elif self.origins.is_join(node):
                self._add(stem, "join", self.blocks[node], channel, sign=self.origins.symbol(node))
            else:
                self._add(stem, "image", "image", channel)
            self.waiting.append(stem)
        return self.vertices[stem].id

    def _expand(self, stem: CutChannel) -> None:
        node, channel = stem
        vertex = self.vertices[stem].id
        if node in self.circuit.graph.kernel_calls:
            self._expand_filter(node, channel, vertex)
        elif self.origins.is_join(node):
            for operand in self.origins.input_stems(node, channel):
                self._wired(operand, vertex)

    def _expand_filter(self, node: fx.Node, out: int, vertex: str) -> None:
        layer = self.circuit.graph.layers[self.circuit.graph.kernel_calls[node]]
        columns = self.kept[layer.name][out].nonzero().flatten().tolist() if layer.name in self.kept else []
        for column in columns:
            channel = int(layer.sources[out, column])
            (stems,) = self.origins.input_stems(node, channel)
            # a channel that stems from nothing is a constant, such as padding: no vertex stands for it
            if stems:
                self.edges.append(self._edge(self._source(node, stems), vertex, layer, out, column, channel))

    def _source(self, node: fx.Node, stems: frozenset[CutChannel]) -> str:
        """The vertex a kernel reads; where its input mixes many channels, a join of them all."""
        if len(stems) == 1:
            return self._met(next(iter(stems)))
        key = ("mix", node, stems)
        if key not in self.vertices:
            before = sum(k[:2] == ("mix", node) for k in self.vertices)
            self._wired(stems, self._add(key, "join", f"into {self.blocks[node]}", before, sign="mix"))
        return self.vertices[key].id

    def _wired(self, stems: Iterable[CutChannel], vertex: str) -> None:
        # stems come as a set, whose order differs from run to run
        ordered = sorted(stems, key=lambda stem: (self.order[stem.node], stem.channel))
        self.wires += [Wire(self._met(stem), vertex) for stem in ordered]

    def _edge(self, source: str, target: str, layer: KernelLayer, out: int, column: int, channel: int) -> Edge:
        if layer.name not in self.weights:
            self.weights[layer.name] = _weights(self.circuit, layer).numpy()
        weights = self.weights[layer.name][out, column]
        plane = weights.reshape(-1, weights.shape[-1]) if weights.ndim != 1 else weights[None]
        score = float(self.scores[layer.name][out, column])
        return Edge(
            source, target, (layer.name, out, channel), plane, score, float(plane.sum()), float(np.abs(plane).sum())
        )

    def _add(
        self, key: Identity, kind: VertexKind, block: str, channel: int = 0, *, layer: str = "", sign: str = "",
        is_target: bool = False,
    ) -> str:  # fmt: skip
        vertex = Vertex(f"v{len(self.vertices)}", kind, block, channel, layer, sign, is_target=is_target)
        self.vertices[key] = vertex
        return vertex.id

    def _in_order(self, live: set[str]) -> list[Vertex]:
        """By execution, then by channel; joins without a node of their own before what reads them."""

        def place(item: tuple[Identity, Vertex]) -> tuple[float, int]:
            key, vertex = item
            node = key[1] if key[0] == "mix" else key[0]
            before = 0.5 if key[0] == "mix" else 0.0
            return (self.order[node] - before if isinstance(node, fx.Node) else float("inf"), vertex.channel)

        return [vertex for _, vertex in sorted(self.vertices.items(), key=place) if vertex.id in live]

    def _block_names(self) -> dict[fx.Node, str]:
        """The heading of every cut: the layer, with the number of its call where it has several; or the join."""
        graph, names, calls = self.circuit.graph, {}, dict[str, int]()
        for node in self.origins.cuts:
            name = graph.kernel_calls.get(node)
            if name is None:
                stack = list((node.meta.get("nn_module_stack") or {}).values())
                name = " ".join(filter(None, (stack[-1][0] if stack else "", self.origins.symbol(node))))
            # a module that is used twice has two blocks: the second reads what the first made
            call = calls[name] = calls.get(name, -1) + 1
            several = name in graph.layers and graph.layers[name].calls > 1
            names[node] = f"{name}@{call}" if several or call else name
        return names


def _between(edges: Iterable[Edge], wires: Iterable[Wire], starts: Iterable[str], end: str) -> set[str]:
    """The vertices on a path from a start to the end."""
    links = [(link.source, link.target) for link in [*edges, *wires]]
    forward = _reached(links, starts)
    return forward & _reached([(b, a) for a, b in links], [end])


def _reached(links: Iterable[tuple[str, str]], starts: Iterable[str]) -> set[str]:
    after: dict[str, list[str]] = {}
    for a, b in links:
        after.setdefault(a, []).append(b)
    seen, stack = set(starts), list(starts)
    while stack:
        for other in after.get(stack.pop(), ()):
            if other not in seen:
                seen.add(other)
                stack.append(other)
    return seen


def _with_scores(content: Content) -> Content:
    """The content with each vertex's summed score, and the kernels of those that read the image."""
    into: dict[str, list[Edge]] = {}
    for edge in content.edges:
        into.setdefault(edge.target, []).append(edge)

    def filled(vertex: Vertex) -> Vertex:
        edges = into.get(vertex.id, [])
        score = sum((edge.score for edge in edges), 0.0)
        reads_image = edges and all(content.by_id[edge.source].kind == "image" for edge in edges)
        return replace(
            vertex, score=score, kernel=_image_kernel(edges, content.n_image_channels) if reads_image else None
        )

    return replace(content, vertices=tuple(map(filled, content.vertices)))


def _image_kernel(edges: list[Edge], channels: int) -> Float[np.ndarray, "c kh kw"]:
    # all image channels, also those whose kernels were removed: the picture has its colours only with all three
    kernel = np.zeros((channels, *edges[0].weights.shape), np.float32)
    for edge in edges:
        kernel[edge.kernel[2]] = edge.weights
    return kernel
