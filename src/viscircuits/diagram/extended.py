"""The extended circuit diagram: a circuit from the pixels to its target in one picture (paper, section 5, figure 4)."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from viscircuits import store
from viscircuits.bounds import checked
from viscircuits.canvas import marks
from viscircuits.canvas.html import framed
from viscircuits.canvas.page import interactive, write_page
from viscircuits.canvas.palette import Theme
from viscircuits.canvas.svg import write_svg
from viscircuits.circuit import Circuit
from viscircuits.data.images import ImageSet, Prepare
from viscircuits.diagram import legend
from viscircuits.diagram.bundles import bundled
from viscircuits.diagram.content import Content
from viscircuits.diagram.drawing import MARGIN, WIDTH, Drawing
from viscircuits.diagram.glyphs import Pictures, headings, vertices
from viscircuits.diagram.inset import Agreement, agreement, inset
from viscircuits.diagram.lines import labels, lines
from viscircuits.diagram.pictures import Source, vertex_pictures
from viscircuits.diagram.walk import content
from viscircuits.errors import MaskError
from viscircuits.plots.plate import blank
from viscircuits.plots.raster import write_png
from viscircuits.scores import Scores
from viscircuits.types import Progress

MOST = 300
"""Edges that are drawn one by one; beyond, they are bundled by pairs of layers."""

_INSET = 150.0


@dataclass(frozen=True)
class Diagram:
    """A drawn circuit; shows itself in a notebook, saves itself as SVG, PNG and an interactive page.

    Attributes:
        content: the vertices and edges that are drawn, as data.
        scene: the picture as marks, before it is painted.
    """

    content: Content
    scene: marks.Scene

    @checked
    def svg(self, theme: Theme = "light") -> str:
        """Returns the picture as an SVG document."""
        return write_svg(self.scene, theme)

    def html(self) -> str:
        """Returns the interactive page: one file that needs nothing else and loads nothing."""
        return write_page(self.scene.title, interactive(self.scene))

    @checked
    def png(self, path: str | Path, theme: Theme = "light", scale: marks.Number = 2) -> Path:
        """Writes the picture as PNG, ``scale`` pixels for each of the SVG's, and returns where."""
        with store.atomic(path) as temporary:
            write_png(self.scene, temporary, theme, scale)
        return Path(path)

    @checked
    def save(self, path: str | Path, theme: Theme = "light") -> tuple[Path, Path, Path]:
        """Writes ``path.svg``, ``path.png`` and ``path.html``, atomically, and returns the three paths."""
        base = Path(path)
        svg, png, html = (base.with_name(base.name + ending) for ending in (".svg", ".png", ".html"))
        for file, text in ((svg, self.svg(theme)), (html, self.html())):
            with store.atomic(file) as temporary:
                temporary.write_text(text, encoding="utf-8")
        return svg, self.png(png, theme), html

    def _repr_svg_(self) -> str:
        return self.svg()

    def _repr_html_(self) -> str:
        height = round(min(1000, self.scene.height * 0.8 + 60))
        return framed(self.html(), self.scene.title, height)


@checked
def diagram(
    circuit: Circuit,
    *,
    scores: Scores | None = None,
    images: ImageSet | None = None,
    pictures: Pictures | Source = "optvis",
    prepare: Prepare | None = None,
    compared: Agreement | None = None,
    most: int = MOST,
    title: str = "",
    about: str = "",
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> Diagram:
    """Returns the extended diagram of a circuit: every effective kernel from the image to the target.

    Args:
        circuit: what to draw.
        scores: the scores it was selected by: the widths of edges; without them Σ|w| of each kernel.
        images: pictures for the inset, which compares the circuit with the full model; take some that were not scored
            on.
        pictures: what filters show. "optvis": what each looks for, rendered on the circuit (about a third of a second a
            filter); "crops": the piece of ``images`` that excites it most; "none": its number; or pictures of your own,
            (layer, channel) -> ``[3, h, w]`` in [0, 1]. A filter that reads the image always shows its kernel.
        prepare: what prepared the images; it tells the colours of pictures (ImageNet's by default).
        compared: what the inset shows, when it is known already.
        most: draw at most this many edges one by one; a larger circuit is bundled by pairs of layers, and says so.
        title: what stands above it.
        about: one line below the title; where "", the network's class, the criterion of the scores (if the circuit
            keeps the best of them), the density and the number of pictures.
        cache: a folder that keeps rendered pictures.
        progress: called as the work goes on.
    """
    drawn = shown(circuit, scores, most)
    empty = 0
    if isinstance(pictures, str):
        rendered = pictures == "optvis"
        pictures = vertex_pictures(
            circuit, drawn, images, source=pictures, prepare=prepare, cache=cache, progress=progress
        )
        empty = sum(map(blank, pictures.values())) if rendered else 0
    if compared is None and images is not None:
        compared = agreement(circuit, images, progress=progress)
    drawing = Drawing(drawn, _filters(circuit, drawn))
    words = _Words(
        title or legend.title(circuit), about or legend.about_circuit(circuit, scores, compared),
        legend.facts(circuit, drawn, compared),
    )  # fmt: skip
    return Diagram(drawn, _composed(drawing, pictures, words, empty, compared))


def shown(circuit: Circuit, scores: Scores | None = None, most: int = MOST) -> Content:
    """Returns what a diagram of the circuit shows: all its kernels one by one, or bundled where they are too many."""
    if most < 1:
        raise MaskError(f"most {most} is out of range; a diagram needs at least one edge")
    whole = content(circuit, scores)
    return whole if len(whole.edges) <= most else bundled(whole)


def _filters(circuit: Circuit, content: Content) -> dict[str, int]:
    layers = circuit.graph.layers
    filters = [m for v in content.vertices for m in v.members or (v,) if m.kind == "filter"]
    return {v.block: layers[v.layer].out_channels for v in filters}


class _Words(NamedTuple):
    """What stands above a circuit."""

    title: str
    about: str
    facts: list[str]


def _composed(
    drawing: Drawing, pictures: Pictures, words: _Words, empty: int, compared: Agreement | None
) -> marks.Scene:
    """Title and numbers above, the circuit in the middle, the key and the inset below."""
    width = max(WIDTH, drawing.plan.width + 2 * MARGIN)
    above, top = legend.header(words.title, words.about, words.facts, MARGIN, width - 2 * MARGIN)
    parts = (lines(drawing), labels(drawing), *headings(drawing), vertices(drawing, pictures))
    middle = marks.Group(parts, "circuit", "circuit", offset=((width - drawing.plan.width) / 2, top + 8))
    bottom = top + 8 + drawing.plan.height + 60
    below: list[marks.Mark] = [marks.Group(tuple(legend.key(drawing, MARGIN, bottom, empty)), "key", "key")]
    if compared is not None:
        below.append(inset(compared, width - MARGIN - _INSET, bottom - 10, _INSET))
    said = " ".join([words.about, *words.facts])
    return marks.Scene(width, bottom + 178, words.title, said, (*above, middle, *below))
