"""The lines of a diagram: kernels with their pictures, wires, and the way of channels that are read far away."""

from viscircuits.canvas.marks import Bezier, Box, Group, Raster, Text
from viscircuits.canvas.palette import balance_role, heat_map
from viscircuits.diagram.content import Edge, Wire
from viscircuits.diagram.drawing import Drawing
from viscircuits.diagram.geometry.curves import point

_WIRE = 1.6


def lines(drawing: Drawing) -> Group:
    """Returns all lines, the strongest kernels in front."""
    content = drawing.content
    # painted from the weakest on, because what is painted last lies in front
    edges = [_edge(drawing, edge) for edge in reversed(drawing.by_score())]
    return Group((*_trunks(drawing), *(_wire(drawing, wire) for wire in content.wires), *edges), kind="lines")


def labels(drawing: Drawing) -> Group:
    """Returns what sits on the lines: a kernel's picture, or how many kernels a line stands for."""
    return Group(
        tuple(
            _thumbnail(drawing, edge) if edge.count == 1 else _number(drawing, edge)
            for edge in reversed(drawing.by_score())
        ),
        kind="kernels",
    )


def _trunks(drawing: Drawing) -> list[Group]:
    groups = []
    for pieces, links in drawing.trunks.values():
        data = {"links": " ".join(f"{source}>{target}" for source, target in links)}
        groups.append(Group(tuple(Bezier(piece, "wire", _WIRE) for piece in pieces), kind="trunk", data=data))
    return groups


def _wire(drawing: Drawing, wire: Wire) -> Group:
    return Group((Bezier(drawing.pieces[wire], "wire", _WIRE),), kind="wire", data=_ends(wire))


def _edge(drawing: Drawing, edge: Edge) -> Group:
    line = Bezier(drawing.pieces[edge], balance_role(edge.balance), drawing.widths[edge], 0.88)
    data = _ends(edge) | {"score": f"{edge.score:.6g}"}
    return Group((line,), _name(edge), "edge", _title(drawing, edge), data)


def _thumbnail(drawing: Drawing, edge: Edge) -> Group:
    x, y, shown = drawing.thumbnails.places[edge]
    kh, kw = edge.weights.shape
    # kernels of 1x1 are drawn as a third of a 3x3 one: as large as one weight of it
    cell = drawing.thumbnails.size / max(3, kh, kw)
    left, top = x - cell * kw / 2, y - cell * kh / 2
    frame = Box(left - 1, top - 1, cell * kw + 2, cell * kh + 2, "paper", "wire", 0.8, radius=1)
    picture = Raster(left, top, cell * kw, cell * kh, heat_map(edge.weights), sharp=True)
    kind = "kernel" if shown else "kernel crowded"
    return Group((frame, picture), "", kind, "", _ends(edge) | {"edge": _name(edge)}, (x, y), hidden=not shown)


def _number(drawing: Drawing, edge: Edge) -> Group:
    x, y = point(drawing.pieces[edge], 0.5)
    text = Text(x, y - drawing.widths[edge] / 2 - 4, f"{edge.count:,}", 11, "ink", "middle", halo=True)
    return Group((text,), "", "kernel", "", _ends(edge) | {"edge": _name(edge)}, (x, y))


def _name(edge: Edge) -> str:
    return f"e-{edge.source}-{edge.target}"


def _ends(link: Edge | Wire) -> dict[str, str]:
    return {"source": link.source, "target": link.target}


def _title(drawing: Drawing, edge: Edge) -> str:
    source, target = (drawing.content.by_id[v].name for v in (edge.source, edge.target))
    what = "x".join(map(str, edge.weights.shape)) + " kernel" if edge.count == 1 else f"{edge.count:,} kernels"
    tone = "is balanced"
    if edge.balance:
        tone = "excites" if edge.balance > 0 else "inhibits"
    return (
        f"{source} → {target}\n{drawing.content.measure} {edge.score:.4g}\n{what}, balance {edge.balance:+.2f}: {tone}"
    )
