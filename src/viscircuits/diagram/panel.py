"""What a diagram's page tells closely, as data for ``canvas/script/panel.js``: names, numbers and small pictures.

Vertices go by id, lines by ``source>target``, as the script names them. Pictures that stand in the drawing itself are
not repeated here: the script takes them from there.
"""

import base64
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from viscircuits.canvas.palette import balance_role, heat_map
from viscircuits.canvas.svg import data_uri
from viscircuits.diagram.content import Content, Edge, Vertex
from viscircuits.diagram.glyphs import SHEET, FilterPictures
from viscircuits.plots.plate import Rgb

OPENED = 40
"""Kernels of a bundle that the page holds: a bundle may stand for a hundred thousand, and nobody reads on so long."""

_SIDE = 112
"""Pixels a side of a small picture at most; as large as they come they would make a page of many megabytes."""


def panel_facts(
    content: Content, crops: Mapping[tuple[str, int], Sequence[Rgb]], originals: FilterPictures
) -> dict[str, object]:
    """Returns what the panel tells of every vertex and line.

    Args:
        content: what is drawn.
        crops: (layer, channel) -> the pieces of images that excite that filter most.
        originals: (layer, channel) -> that filter's picture in the full model.
    """
    members = {member.id: member for vertex in content.vertices for member in vertex.members or (vertex,)}
    rgb = content.n_image_channels == 3
    return {
        "measure": content.measure,
        "vertices": {v.id: _vertex(v, crops, originals) for v in content.vertices},
        "edges": {f"{edge.source}>{edge.target}": _edge(edge, members, rgb) for edge in content.edges},
    }


def _vertex(
    vertex: Vertex, crops: Mapping[tuple[str, int], Sequence[Rgb]], originals: FilterPictures
) -> dict[str, object]:
    facts: dict[str, object] = {
        "name": vertex.name, "kind": vertex.kind, "target": vertex.is_target, "score": _rounded(vertex.score),
        "members": len(vertex.members), "crops": [_thumbnail(crop) for crop in crops.get(_unit(vertex), ())],
    }  # fmt: skip
    if _unit(vertex) in originals:
        facts["original"] = _thumbnail(originals[_unit(vertex)])
    if vertex.members:
        facts["strongest"] = [_member(member, originals) for member in vertex.members[:SHEET]]
    return facts


def _member(member: Vertex, originals: FilterPictures) -> dict[str, object]:
    facts: dict[str, object] = {"channel": member.channel, "score": _rounded(member.score)}
    if _unit(member) in originals:
        facts["original"] = _thumbnail(originals[_unit(member)])
    return facts


def _edge(edge: Edge, members: Mapping[str, Vertex], rgb: bool) -> dict[str, object]:
    facts: dict[str, object] = {
        "score": _rounded(edge.score), "total": _rounded(edge.total), "magnitude": _rounded(edge.magnitude),
        "count": edge.count,
    }  # fmt: skip
    if edge.members:
        strongest = edge.members[:OPENED]
        pairs = Counter((kernel.source, kernel.target) for kernel in strongest)
        # a linear layer reads one channel of a flattened map at many places, each with a weight of its own
        alone = {pair for pair, count in pairs.items() if count == 1}
        facts["kernels"] = [_kernel(one, members, (one.source, one.target) in alone, rgb) for one in strongest]
    return facts


def _kernel(kernel: Edge, members: Mapping[str, Vertex], alone: bool, rgb: bool) -> dict[str, object]:
    """One kernel of a bundle; its pixels are three bytes a weight, which the script paints."""
    height, width = kernel.weights.shape
    _, out, column = kernel.kernel
    # joins that are drawn as one disc are not told apart any more: their channel is the one that the layer reads
    source = _channel(members[kernel.source], rgb) if kernel.source in members else str(column)
    name = f"{source} → {out}" if alone else f"{source} → {out}, input {column}"
    return {
        "name": name, "score": _rounded(kernel.score), "total": _rounded(kernel.total),
        "magnitude": _rounded(kernel.magnitude), "colour": balance_role(kernel.balance), "size": [width, height],
        "pixels": base64.b64encode(heat_map(kernel.weights).tobytes()).decode(),
    }  # fmt: skip


def _channel(vertex: Vertex, rgb: bool) -> str:
    """A channel as the drawing writes it: those of coloured images by their letters."""
    return "RGB"[vertex.channel] if rgb and vertex.kind == "image" else str(vertex.channel)


def _unit(vertex: Vertex) -> tuple[str, int]:
    return vertex.layer, vertex.channel


def _thumbnail(picture: Rgb) -> str:
    """A picture as the panel shows it, of `_SIDE` pixels at most."""
    step = -(-max(picture.shape) // _SIDE)
    height, width = (side // step for side in picture.shape[1:])
    cells = picture[:, : height * step, : width * step].reshape(3, height, step, width, step)
    return data_uri((cells.mean((2, 4)).clip(0, 1).transpose(1, 2, 0) * 255 + 0.5).astype(np.uint8), sharp=False)


def _rounded(value: float) -> float:
    """Six digits: more than is ever shown, and half the bytes."""
    return float(f"{value:.6g}")
