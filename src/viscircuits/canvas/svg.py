"""A scene as SVG: text that can be selected, pictures embedded, every vertex and edge a group with a name."""

import base64
import io
from collections.abc import Callable, Mapping
from xml.sax.saxutils import quoteattr

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from viscircuits.canvas.marks import Bezier, Box, Disc, Group, Mark, Number, Raster, Scene, Text
from viscircuits.canvas.markup import Html, escaped, joined, plain
from viscircuits.canvas.palette import PALETTES, Theme

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

_CELL = 8
"""Pixels a kernel's weight is stored with, for programs that smooth what they enlarge."""

Colour = Callable[[str], str]


def write_svg(scene: Scene, theme: Theme = "light") -> str:
    """Returns a scene as an SVG document of its own, on paper of the theme's colour."""
    roles = PALETTES[theme].roles
    background = _element("rect", {"width": "100%", "height": "100%", "fill": roles["paper"]})
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        + _svg(scene, roles.__getitem__, background, {"xmlns": "http://www.w3.org/2000/svg"}, False)
        + "\n"
    )


def inline_svg(scene: Scene) -> Html:
    """Returns a scene as an SVG element for a page that sets the colours as ``--ROLE``."""
    return _svg(scene, lambda role: f"var(--{role})", "", {}, True)


def _svg(scene: Scene, colour: Colour, background: str, attributes: Mapping[str, str], interactive: bool) -> Html:
    size = {
        "viewBox": f"0 0 {_n(scene.width)} {_n(scene.height)}",
        "width": _n(scene.width),
        "height": _n(scene.height),
    }
    about = joined([_element("title", {}, scene.title), _element("desc", {}, scene.description), background])
    body = joined([about, *(_mark(mark, colour, interactive) for mark in scene.marks)], "\n")
    font = {"font-family": FONT, "role": "img", "aria-label": scene.title}
    return _element("svg", {**attributes, **size, **font}, body)


def _mark(mark: Mark, colour: Colour, interactive: bool) -> Html:
    match mark:
        case Group():
            return _group(mark, colour, interactive)
        case Bezier():
            return _line(mark, colour)
        case Box():
            place = {"x": mark.x, "y": mark.y, "width": mark.width, "height": mark.height, "rx": mark.radius or None}
            return _element("rect", {**place, **_paint(mark.fill, mark.stroke, mark.line, colour)})
        case Disc():
            style = {**_paint(mark.fill, mark.stroke, mark.line, colour), "fill-opacity": _opacity(mark.opacity)}
            discs = [_element("circle", {"cx": x, "cy": y, "r": mark.radius}) for x, y in mark.centres]
            return _element("g", style, joined(discs))
        case Raster():
            return _raster(mark)
        case Text():
            return _text(mark, colour)


def _group(group: Group, colour: Colour, interactive: bool) -> Html:
    if group.hidden and not interactive:
        return joined([])
    data = {f"data-{name}": value for name, value in group.data.items()}
    if group.offset != (0, 0):
        data["transform"] = f"translate({_n(group.offset[0])} {_n(group.offset[1])})"
    if group.centre is not None:
        x, y = group.centre
        data["transform-origin"] = f"{_n(x)} {_n(y)}"
    title = [_element("title", {}, group.title)] if group.title else []
    marks = joined([*title, *(_mark(mark, colour, interactive) for mark in group.marks)])
    name = {"data-id" if interactive else "id": group.id or None}  # a page may hold several pictures
    return _element("g", {**name, "class": group.kind or None, **data}, marks)


def _line(line: Bezier, colour: Colour) -> Html:
    points = [f"{_n(x)} {_n(y)}" for x, y in line.points]
    path = f"M{points[0]}" + (f"L{points[1]}" if len(points) == 2 else "C" + " ".join(points[1:]))
    style = {"stroke-opacity": _opacity(line.opacity), "stroke-dasharray": "3 3" if line.dashed else None}
    return _element("path", {"d": path, **_paint("", line.role, line.width, colour), **style})


def _raster(raster: Raster) -> Html:
    place = {"x": raster.x, "y": raster.y, "width": raster.width, "height": raster.height}
    sharp = {"image-rendering": "pixelated"} if raster.sharp else {}
    href = data_uri(raster.pixels, sharp=raster.sharp)
    # without "none" a viewer keeps the pixels square, and leaves a margin where a kernel is not
    return _element("image", {**place, "href": href, "preserveAspectRatio": "none", **sharp})


def _text(text: Text, colour: Colour) -> Html:
    style = {"font-size": text.size, "fill": colour(text.role), "font-weight": "600" if text.bold else None}
    if text.anchor != "start":
        style["text-anchor"] = text.anchor
    if text.halo:
        # the rim is painted first, or it would eat into the letters
        style |= {"stroke": colour("paper"), "stroke-width": 3, "stroke-linejoin": "round", "paint-order": "stroke"}
    if text.turn:
        # SVG turns clockwise, because its y points down
        style["transform"] = f"rotate({_n(-text.turn)} {_n(text.x)} {_n(text.y)})"
    return _element("text", {"x": text.x, "y": text.y, **style}, text.text)


def data_uri(pixels: UInt8[np.ndarray, "h w 3"], *, sharp: bool) -> str:
    """Returns pixels as a data URI: PNG where edges matter, JPEG for pictures."""
    buffer = io.BytesIO()
    if sharp:
        # a kernel has few colours, and a palette of them takes fewer bytes than three channels
        large = pixels.repeat(_CELL, axis=0).repeat(_CELL, axis=1)
        Image.fromarray(large).quantize(256).save(buffer, "PNG", optimize=True)
    else:
        Image.fromarray(pixels).save(buffer, "JPEG", quality=88)
    return f"data:image/{'png' if sharp else 'jpeg'};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _paint(fill: str, stroke: str, width: Number, colour: Colour) -> dict[str, str | Number | None]:
    return {
        "fill": colour(fill) if fill else "none",
        "stroke": colour(stroke) if stroke else None,
        "stroke-width": width if stroke and width != 1 else None,
    }


def _opacity(value: Number) -> Number | None:
    return None if value == 1 else value


def _element(name: str, attributes: Mapping[str, str | Number | None], body: str = "") -> Html:
    """An element of XML, whose attributes differ from HTML's; a body that is not markup is escaped."""
    given = "".join(
        f" {key}={quoteattr(plain(value) if isinstance(value, str) else _n(value))}"
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{given}>{escaped(body)}</{name}>" if body else f"<{name}{given}/>")


def _n(value: Number) -> str:
    """A coordinate to a hundredth of a pixel, without trailing zeros."""
    return f"{value:.2f}".rstrip("0").rstrip(".")
