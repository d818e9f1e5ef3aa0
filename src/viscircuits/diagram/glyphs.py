"""The vertices of a diagram, and the headings of their blocks."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, UInt8

from viscircuits.canvas.marks import Box, Disc, Group, Mark, Raster, Text
from viscircuits.canvas.palette import image_kernel
from viscircuits.diagram.content import Vertex
from viscircuits.diagram.drawing import BESIDE, LINE, Drawing

FilterPictures = Mapping[tuple[str, int], Float[np.ndarray, "3 _ _"]]
"""(layer, channel) -> a picture of it, values in [0, 1]; each of its own size."""

SHEET = 9
"""How many members of a bundle are shown."""

_COARSE = 12
"""FilterPictures with fewer pixels a side keep their edges when they are enlarged."""


def vertices(drawing: Drawing, pictures: FilterPictures, originals: FilterPictures) -> Group:
    """Returns all vertices: filters with their pictures, image channels, joins, and the target.

    Args:
        drawing: sizes and places.
        pictures: of filters in the circuit.
        originals: of filters in the full model; the target's stands beside its picture where the drawing has room.
    """
    drawn = [_vertex(drawing, pictures, originals, vertex) for vertex in drawing.content.vertices]
    return Group(tuple(drawn), kind="vertices")


def headings(drawing: Drawing) -> list[Text]:
    """Returns the name of every block, and how many of its filters are drawn, above its topmost vertex."""
    tops = [drawing.content.by_id[vertex] for vertex in drawing.tops.values()]
    return [text for vertex in tops if vertex.kind != "join" for text in _heading(drawing, vertex)]


def _heading(drawing: Drawing, vertex: Vertex) -> list[Text]:
    lines, count = drawing.heading(vertex), drawing.count(vertex)
    x, base = drawing.plan.x[vertex.id], drawing.plan.y[vertex.id] - drawing.size(vertex)[1] / 2 - 7
    # the target has a rim, which the heading must not touch
    base -= (len(lines) - (0 if count else 1)) * LINE + (4 if vertex.is_target else 0)
    texts = [Text(x, base + i * LINE, s, 11.5, "ink", "middle", bold=True, halo=True) for i, s in enumerate(lines)]
    below = base + len(lines) * LINE
    return [*texts, Text(x, below, count, 10, "muted", "middle", halo=True)] if count else texts


def _vertex(drawing: Drawing, pictures: FilterPictures, originals: FilterPictures, vertex: Vertex) -> Group:
    x, y = drawing.plan.x[vertex.id], drawing.plan.y[vertex.id]
    side = drawing.size(vertex)[0]
    match vertex.kind:
        case "join":
            body = _join(vertex, x, y, side)
        case "image":
            body = _image_channel(vertex, drawing.content.n_image_channels == 3, x, y, side)
        case "bundle":
            body = _sheet(vertex, pictures, drawing.content.n_image_channels == 3, x - side / 2, y - side / 2, side)
        case _:
            body = _filter(vertex, _pixels(vertex, pictures), x, y, side)
            if vertex.is_target and drawing.beside:
                body += _original(originals[vertex.layer, vertex.channel], x + side / 2 + BESIDE, y, side)
    data = {"goal": "1"} if vertex.is_target else {}
    return Group(tuple(body), vertex.id, f"vertex {vertex.kind}", _title(drawing, vertex), data, (x, y))


def _title(drawing: Drawing, vertex: Vertex) -> str:
    content = drawing.content
    lines = [vertex.name + (" (target)" if vertex.is_target else "")]
    into = sum(edge.count for edge in content.edges if edge.target == vertex.id)
    out = sum(edge.count for edge in content.edges if edge.source == vertex.id)
    if vertex.kind == "join":
        lines.append(f"{vertex.sign}: {sum(wire.target == vertex.id for wire in content.wires)} signals meet")
    if into:
        lines.append(f"{content.measure} {vertex.score:.4g}, summed over its kernels")
    return "\n".join([*lines, f"{into:,} kernel{'s' * (into != 1)} in, {out:,} out"])


def _pixels(vertex: Vertex, pictures: FilterPictures) -> UInt8[np.ndarray, "h w 3"] | None:
    """The picture of a vertex: its kernel where that is on the image, else what was given."""
    if vertex.kernel is not None:
        return image_kernel(vertex.kernel)
    known = pictures.get((vertex.layer, vertex.channel))
    return None if known is None else _bytes(known)


def _bytes(picture: Float[np.ndarray, "3 h w"]) -> UInt8[np.ndarray, "h w 3"]:
    # half a step is added because astype cuts off
    return (np.clip(picture, 0, 1).transpose(1, 2, 0) * 255 + 0.5).astype(np.uint8)


def _filter(vertex: Vertex, pixels: UInt8[np.ndarray, "h w 3"] | None, x: float, y: float, side: float) -> list[Mark]:
    left, top = x - side / 2, y - side / 2
    rim: list[Mark] = []
    if vertex.is_target:
        rim = [Box(left - 4, top - 4, side + 8, side + 8, "paper", "ink", 2, radius=5)]
    if pixels is None:
        name = str(vertex.channel) if vertex.layer else "target"
        size = min(20.0, side * 0.3)
        box = Box(left, top, side, side, "panel", "faint", 1, radius=4)
        return [*rim, box, Text(x, y + size * 0.36, name, size, "muted", "middle")]
    below = top + side + (15 if vertex.is_target else 11.5)
    label = str(vertex.channel) if vertex.layer else ""
    text = Text(x, below, label, 10, "ink" if vertex.is_target else "muted", "middle", halo=True)
    return [*rim, _picture(pixels, left, top, side), text]


def _original(picture: Float[np.ndarray, "3 h w"], left: float, y: float, side: float) -> list[Mark]:
    """What the target looks for in the full model: how much of it the circuit computes is seen beside it."""
    below = Text(left + side / 2, y + side / 2 + 15, "full model", 10, "muted", "middle", halo=True)
    return [_picture(_bytes(picture), left, y - side / 2, side), below]


def _picture(pixels: UInt8[np.ndarray, "h w 3"], left: float, top: float, side: float) -> Raster:
    return Raster(left, top, side, side, pixels, sharp=min(pixels.shape[:2]) < _COARSE)


def _join(vertex: Vertex, x: float, y: float, side: float) -> list[Mark]:
    # a word such as "mix" has to fit into the disc of a plus
    size = 14.0 if len(vertex.sign) == 1 else 7.5
    disc = Disc(((x, y),), side / 2, "paper", "wire", 1.4)
    return [disc, Text(x, y + size * 0.34, vertex.sign, size, "ink", "middle")]


def _image_channel(vertex: Vertex, rgb: bool, x: float, y: float, side: float) -> list[Mark]:
    box = Box(x - side / 2, y - side / 2, side, side, f"image{vertex.channel}" if rgb else "faint", radius=4)
    label = "RGB"[vertex.channel] if rgb else str(vertex.channel)
    return [box, Text(x, y + 4, label, 11, "paper" if rgb else "ink", "middle", bold=True)]


def _sheet(vertex: Vertex, pictures: FilterPictures, rgb: bool, left: float, top: float, side: float) -> list[Mark]:
    """A bundle: its strongest members in a square."""
    body: list[Mark] = [Box(left, top, side, side, "panel", "faint", 1, radius=4)]
    across = 2 if len(vertex.members) <= 4 else 3
    cell = side / across
    # members come the strongest first, so what has no room is the weakest
    for i, member in enumerate(vertex.members[: across**2]):
        x, y = left + (i % across + 0.5) * cell, top + (i // across + 0.5) * cell
        pixels = _pixels(member, pictures)
        if member.kind == "image":
            body += _image_channel(member, rgb, x, y, cell * 0.6)
        elif pixels is not None:
            body.append(_picture(pixels, x - cell / 2 + 2, y - cell / 2 + 2, cell - 4))
        else:
            size = min(13.0, cell * 0.36)
            body.append(Text(x, y + size * 0.36, str(member.channel), size, "muted", "middle"))
    return body
