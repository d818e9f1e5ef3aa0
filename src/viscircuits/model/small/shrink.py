"""Extraction: a standalone, physically smaller module that computes what the seeds ask for.

The exported graph is rebuilt operation by operation with only the channels that are needed downstream and still depend
on the image. Convolutions, linear maps, norms, pooling, activations, sums, concatenation and flattening run narrow;
whatever moves or mixes channels in another way (shuffles, channel-mixing norms, attention) gets its input back at full
width and is reported in `Shrunk.full_width`. Channels that no longer depend on the image are the same map for every
image, uneven at zero-padded borders: they are computed once, on a blank image, and what a convolution makes of them
is added to its output as a map, or to its bias where that map is even.

Here is the order in which that happens, and the module that comes of it. What is needed of each node is in
`viscircuits.model.small.liveness`; how one is written, in `kernels`, `operations` and `draft`.
"""

from collections.abc import Iterable, Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, fx, nn

from viscircuits.model.flow.reach import Seeds
from viscircuits.model.graph import NetGraph
from viscircuits.model.small.blank import Tensors
from viscircuits.model.small.cost import Work
from viscircuits.model.small.draft import Draft, Narrow
from viscircuits.model.small.kernels import kernel_layer
from viscircuits.model.small.liveness import Liveness
from viscircuits.model.small.operations import operation, size
from viscircuits.model.small.program import Program
from viscircuits.model.small.rewrite import even_parts, images_at_once, write_in_place


class Shrunk(nn.Module):
    """A circuit as a module of its own: images ``[n, c, h, w]`` to the target's response ``[n, p]``.

    It can be copied, pickled and exported. Its parameters are the parts of the network's own that it needs, under
    ``body`` and the network's names; what is constant on all images, and which channels to take, are buffers below
    ``body.constants``. They ask for no gradients until ``requires_grad_()`` is called.

    Attributes:
        full_width: where channels could not be dropped -> the operation that needs all of them.
        reads: the channels that it takes: those of the image, or some of those behind the network's first layers.
        seconds: estimated time for one image; ``dense_seconds`` is that of the whole network it was made from.
        at_once: how many images it takes at a time.
    """

    def __init__(
        self, body: Program, layers: Iterable[str], head: nn.Module | None, full_width: Mapping[str, str],
        reads: Int[Tensor, " k"], work: Work, dense: Work,
    ) -> None:  # fmt: skip
        super().__init__()
        self.body = body
        self.head = head
        self.layers = tuple(layers)
        self.full_width = dict(full_width)
        self.reads = reads
        self.seconds, self.dense_seconds = work.seconds, dense.seconds
        self.at_once = images_at_once(work.largest)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n p"]:
        """Returns the target's response to images of the size the circuit was extracted for."""
        assert self.head is not None
        return self.head(self.outputs(images))

    def outputs(self, images: Float[Tensor, "n c h w"]) -> dict[str, Tensor]:
        """Returns the outputs of the modules that the target reads; only what it reads of them is meaningful."""
        if torch.compiler.is_exporting():  # for any number of images, so that nothing may depend on it
            return dict(zip(self.layers, self.body(images), strict=True))
        # in parts, because allocators fetch each very large block anew from the system
        parts = [self.body(some) for some in even_parts(images, self.at_once)]
        return dict(zip(self.layers, map(torch.cat, zip(*parts, strict=True)), strict=True))

    @property
    def saving(self) -> float:
        """Its estimated time over that of the network it was made from; above 1 it is slower."""
        return self.seconds / self.dense_seconds

    @property
    def n_parameters(self) -> int:
        """How many numbers the module stores."""
        return sum(tensor.numel() for tensor in (*self.parameters(), *self.buffers()))


def shrink(
    model: nn.Module,
    graph: NetGraph,
    seeds: Seeds,
    kept: Mapping[str, Bool[Tensor, "out in"]],
    weights: Mapping[str, Tensor],
    head: nn.Module | None = None,
    after: fx.Node | None = None,
) -> Shrunk:
    """Returns the smaller module.

    Args:
        model: the user's module; its tensors are copied.
        graph: its graph, traced for any number of images.
        seeds: module outputs and channels to compute.
        kept: kernel layer -> kernels that conduct.
        weights: edited parameters by name, taken instead of the model's own.
        head: from a dict of full-width module outputs to the response; without one, only `Shrunk.outputs` serves.
        after: a node on every path from the image, to start behind instead of at the image; see `Shrunk.reads`.
    """
    tensors = Tensors(model, graph, weights)
    life = Liveness(graph, seeds, kept, tensors)
    draft = Draft(life, tensors)
    start = after if after is not None else next(n for n in graph.axes if n.op == "placeholder")
    blank = life.blank[start]
    reads = torch.arange(blank.shape[1]) if after is None else life.live(after, 1).nonzero()[:, 0]
    draft.env[start] = Narrow(draft.image, None if after is None else reads)
    _write(draft, start, len(blank))
    body = Program(draft.graph, draft.held)
    # priced on what it is made for: one blank image, which takes the same work as any other
    first = blank.index_select(1, reads.to(blank.device))
    with torch.no_grad(), Work() as work:
        body(first)
    return Shrunk(body, life.ends, head, draft.full_width, reads, work, life.dense).eval().to(first.device)


def _write(draft: Draft, start: fx.Node, n_first: int) -> None:
    """Writes everything from a node to the ends; the axis of images is ``n_first`` long there, for one of them."""
    life, nodes = draft.life, draft.life.graph.nodes
    place = nodes.index(start)
    for node in nodes[:place]:  # numbers of images that are used behind
        if node in life.of_images and isinstance(node.meta.get("val"), torch.SymInt):
            draft.env[node] = size(draft, node, n_first)
    # what lies behind the last end may have no value on the blank image
    last = max(nodes.index(node) for node in life.ends.values())
    for node in nodes[place + 1 : last + 1]:
        if node in life.varying and life.wanted(node):
            name = life.graph.kernel_calls.get(node)
            layer = life.graph.layers[name] if name is not None else None
            draft.env[node] = operation(draft, node) if layer is None else kernel_layer(draft, node, layer)
        elif node in life.unknown:
            continue
        elif node not in life.varying and any(draft.is_here(n) for n in node.all_input_nodes):
            draft.env[node] = size(draft, node, n_first)
    draft.graph.output(tuple(draft.full(node) for node in life.ends.values()))
    # sizes and constants were written before it was known who reads them
    draft.graph.eliminate_dead_code()
    write_in_place(draft.graph)
