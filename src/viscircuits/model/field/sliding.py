"""What a place reads where windows slide over a map: convolutions, also transposed, and pools.

Channels of a kernel layer are those of its groups; a pool and a filter of one group read their own. How a window walks
is in `viscircuits.model.field.windows`.
"""

from viscircuits.model.field.places import Call, Places, Requests
from viscircuits.model.field.windows import space_axes, windows
from viscircuits.model.nodes import shape_of


def of_groups(channels: Places, out: int, width: int) -> Places:
    """Returns the input channels that some output channels read, in a layer of groups.

    Args:
        channels: the output channels.
        out: how many output channels a group has.
        width: how many input channels a group has.
    """
    groups = {c // out for c in channels.at}
    return Places(frozenset(g * width + i for g in groups for i in range(width)))


def windowed(call: Call) -> Requests:
    """Convolutions (also transposed) and pools."""
    along, name = windows(call.node), call.graph.kernel_calls.get(call.node)
    lead, space = list(call.demand[: -len(along)]), call.demand[-len(along) :]
    layer = call.graph.layers[name] if name is not None else None
    if layer is not None:
        lead[-1] = of_groups(lead[-1], layer.out_channels // layer.groups, layer.shape[1])
    # a transposed convolution writes windows, so what a place reads are the places whose windows cover it
    transposed = layer is not None and layer.op == "conv_transpose"
    reads = [
        Places(w.writers(p.at) if transposed else w.reads(p.at), p.mixed) for w, p in zip(along, space, strict=True)
    ]
    yield call.inputs[0], (*lead, *reads)


def adaptive_pool(call: Call) -> Requests:
    """Place o of ``n`` reads ``floor(o * size / n)`` to ``ceil((o + 1) * size / n)``."""
    source = call.inputs[0]
    k = space_axes(call.node)
    space = []
    for places, n, size in zip(call.demand[-k:], call.shape[-k:], shape_of(source)[-k:], strict=True):
        ranges = [range(o * size // n, -(-(o + 1) * size // n)) for o in places.at]
        # a single place reads the whole axis however large the map is: a global pool, which says so
        space.append(Places(frozenset(i for r in ranges for i in r), places.mixed or n == 1))
    yield source, (*call.demand[:-k], *space)
