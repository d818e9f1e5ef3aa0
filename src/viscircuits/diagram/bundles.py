"""A circuit too large to draw kernel by kernel: one vertex a layer, one line a pair of layers."""

from dataclasses import replace

from viscircuits.diagram.content import Content, Edge, Vertex, Wire, merged


def bundled(content: Content) -> Content:
    """Returns content in which every block is one vertex, and all kernels between two blocks are one edge.

    Scores and counts are summed; the balance is that of all the weights together. The target stays on its own.
    """
    blocks: dict[str, list[Vertex]] = {}
    for vertex in content.vertices:
        blocks.setdefault(vertex.block, []).append(vertex)
    stand_in = {vertex.id: members[0].id for members in blocks.values() for vertex in members}
    groups: dict[tuple[str, str], list[Edge]] = {}
    for edge in content.edges:
        groups.setdefault((stand_in[edge.source], stand_in[edge.target]), []).append(edge)
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
