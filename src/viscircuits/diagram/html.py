"""Pieces of HTML; everything that comes from outside is escaped here."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape

import numpy as np
from jaxtyping import Float

from viscircuits.diagram.svg import data_uri
from viscircuits.model.receptive_field import Box


def element(tag: str, *content: str, cls: str = "", **attributes: str) -> str:
    """Returns an element around content that is already HTML."""
    given = {"class": cls, **attributes}
    said = "".join(f' {name}="{escape(value)}"' for name, value in given.items() if value)
    return f"<{tag}{said}>{''.join(content)}</{tag}>"


def table(head: Sequence[str], rows: Iterable[tuple[Sequence[str], bool]], cls: str = "") -> str:
    """Returns a table of cells that are already HTML; a row may be marked."""
    top = element("thead", element("tr", *(element("th", cell, scope="col") for cell in head)))
    body = "".join(
        element("tr", element("th", row[0], scope="row"), *(element("td", cell) for cell in row[1:]),
                cls="marked" if marked else "")
        for row, marked in rows
    )  # fmt: skip
    return element("div", element("table", top, element("tbody", body), cls=cls), cls="wide")


def listed(facts: Mapping[str, str]) -> str:
    """Returns a list of names with their values, any text."""
    pairs = (element("dt", escape(name)) + element("dd", escape(value)) for name, value in facts.items())
    return element("dl", *pairs, cls="facts")


def bar(share: float, text: str) -> str:
    """Returns a number on a bar whose length is a share in [0, 1]."""
    return f'<span class="bar" style="--share:{share:.4f}">{escape(text)}</span>'


def picture(pixels: Float[np.ndarray, "3 h w"], alt: str, box: Box | None = None) -> str:
    """Returns an image, with a rectangle around a part of it."""
    _, height, width = pixels.shape
    scaled = (np.clip(pixels, 0, 1).transpose(1, 2, 0) * 255 + 0.5).astype(np.uint8)
    image = f'<img src="{data_uri(scaled, sharp=False)}" alt="{escape(alt)}">'
    if box is None:
        return image
    edges = (box.left / width, box.top / height, box.width / width, box.height / height)
    left, top, wide, high = (f"{100 * edge:.2f}%" for edge in edges)
    frame = f'<i style="left:{left};top:{top};width:{wide};height:{high}"></i>'
    return element("span", image, frame, cls="framed")


def vector(svg: str, alt: str) -> str:
    """Returns an SVG document as an image, which shares no names with the page."""
    data = base64.b64encode(svg.encode()).decode()
    return f'<img class="plot" src="data:image/svg+xml;base64,{data}" alt="{escape(alt)}">'
