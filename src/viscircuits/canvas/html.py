"""Pieces of pages: tables, lists of facts, bars and pictures."""

import base64
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from viscircuits.canvas.markup import Html, element, joined
from viscircuits.canvas.svg import data_uri
from viscircuits.model.field.receptive_field import Area

FRAME = "allow-scripts"
"""What a page in a notebook may do: run its own script, and nothing with the notebook."""


def table(head: Sequence[str], rows: Iterable[tuple[Sequence[str], bool]], cls: str = "") -> Html:
    """Returns a table.

    Args:
        head: the names of the columns.
        rows: the cells of each row, and whether it is marked.
        cls: class of the table.
    """
    top = element("thead", element("tr", *(element("th", cell, scope="col") for cell in head)))
    body = (_row(cells, marked) for cells, marked in rows)
    # a box of its own around the table: a wide one scrolls in it, and the page does not
    return element("div", element("table", top, element("tbody", *body), cls=cls), cls="wide")


def _row(cells: Sequence[str], marked: bool) -> Html:
    """A row; its first cell is its heading."""
    first, *others = cells
    rest = [element("td", cell) for cell in others]
    return element("tr", element("th", first, scope="row"), *rest, cls="marked" if marked else "")


def listed(facts: Mapping[str, str]) -> Html:
    """Returns a list of names with their values."""
    pairs = (joined([element("dt", name), element("dd", value)]) for name, value in facts.items())
    return element("dl", *pairs, cls="facts")


def bar(share: float, text: str) -> Html:
    """Returns a number on a bar whose length is a share in [0, 1]."""
    return element("span", text, cls="bar", style=f"--share:{share:.4f}")


def picture(pixels: Float[np.ndarray, "3 h w"], alt: str, box: Area | None = None) -> Html:
    """Returns an image, with a rectangle around a part of it.

    Args:
        pixels: the image, in [0, 1].
        alt: what is read in its place.
        box: the part; none where None.
    """
    _, height, width = pixels.shape
    # half a step is added because astype cuts off; else every picture would come out a little darker
    scaled = (np.clip(pixels, 0, 1).transpose(1, 2, 0) * 255 + 0.5).astype(np.uint8)
    image = element("img", src=data_uri(scaled, sharp=False), alt=alt)
    if box is None:
        return image
    # in shares of the image, so that the frame stays where it belongs at whatever size the page shows the image
    edges = (box.left / width, box.top / height, box.width / width, box.height / height)
    left, top, wide, high = (f"{100 * edge:.2f}%" for edge in edges)
    frame = element("i", style=f"left:{left};top:{top};width:{wide};height:{high}")
    return element("span", image, frame, cls="framed")


def vector(svg: str, alt: str) -> Html:
    """Returns an SVG document as an image, which shares no names with the page and runs nothing."""
    data = base64.b64encode(svg.encode()).decode()
    return element("img", cls="plot", src=f"data:image/svg+xml;base64,{data}", alt=alt)


def framed(page: str, title: str, height: int) -> Html:
    """Returns a page in a frame for a notebook, whose rights it does not have.

    Args:
        page: the whole page.
        title: what the frame is called, for those who do not see it.
        height: in pixels; the width is the notebook's.
    """
    style = f"width:100%;height:{height}px;border:0"
    return element("iframe", srcdoc=page, sandbox=FRAME, style=style, title=title)
