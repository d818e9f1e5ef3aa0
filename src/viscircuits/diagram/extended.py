"""The extended circuit diagram: a circuit from the pixels to its target in one picture (paper, section 5, figure 4)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from viscircuits import store
from viscircuits.bounds.arguments import checked
from viscircuits.canvas import marks
from viscircuits.canvas.html import framed
from viscircuits.canvas.markup import Html
from viscircuits.canvas.page import cell_height, interactive, write_page
from viscircuits.canvas.palette import Theme
from viscircuits.canvas.svg import write_svg
from viscircuits.card import Card, Shown
from viscircuits.circuit.circuit import Circuit
from viscircuits.data.images import ImageSet, Prepare
from viscircuits.diagram import legend
from viscircuits.diagram.content import Content, bundled
from viscircuits.diagram.drawing import MARGIN, WIDTH, Drawing
from viscircuits.diagram.gathering import (
    PictureSource,
    agreement,
    exciting_crops,
    original_pictures,
    vertex_pictures,
)
from viscircuits.diagram.glyphs import FilterPictures, headings, vertices
from viscircuits.diagram.inset import Agreement, inset
from viscircuits.diagram.lines import labels, lines
from viscircuits.diagram.panel import panel_facts
from viscircuits.diagram.walk import content
from viscircuits.errors import MaskError
from viscircuits.plots.plate import Rgb, blank
from viscircuits.plots.raster import write_png
from viscircuits.scores import Scores
from viscircuits.types import Progress

MOST = 300
"""Edges that are drawn one by one; beyond, they are bundled by pairs of layers."""

_INSET = 150.0

_CROPS = 3
"""Pieces of images a filter that the page holds."""

PanelPictures = Literal["circuit", "model"]
"""What the page's panel shows of filters: their pictures in the circuit, or beside them those in the full model."""


@dataclass(frozen=True, repr=False)
class Diagram(Shown):
    """A drawn circuit; shows itself in a notebook, saves itself as SVG, PNG and an interactive page.

    Attributes:
        content: the vertices and edges that are drawn, as data.
        scene: the picture as marks, before it is painted.
        crops: (layer, channel) -> the pieces of images that excite a filter most, which the page shows closely.
        originals: (layer, channel) -> a filter's picture in the full model, which the page shows beside the circuit's.
    """

    content: Content
    scene: marks.Scene
    crops: Mapping[tuple[str, int], Sequence[Rgb]] = field(default_factory=dict, repr=False)
    originals: FilterPictures = field(default_factory=dict, repr=False)

    @checked
    def svg(self, theme: Theme = "light") -> str:
        """Returns the picture as an SVG document."""
        return write_svg(self.scene, theme)

    def html(self) -> str:
        """Returns the interactive page: one file that needs nothing else and loads nothing."""
        return write_page(self.scene.title, self.part())

    def part(self) -> Html:
        """Returns the diagram as a part of a page, with its controls and what its panel tells."""
        return interactive(self.scene, panel_facts(self.content, self.crops, self.originals))

    @checked
    def png(self, path: str | Path, theme: Theme = "light", scale: marks.Number = 2) -> Path:
        """Writes the picture as PNG, and returns where.

        Args:
            path: the file.
            theme: the colours.
            scale: pixels for each of the SVG's.
        """
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

    def _card(self) -> Card:
        edges = sum(edge.count for edge in self.content.edges)
        return Card("Diagram", {
            "title": self.scene.title, "size": f"{self.scene.width:.0f} × {self.scene.height:.0f} pixels",
            "vertices": len(self.content.vertices), "edges": len(self.content.edges), "kernels": f"{edges:,}",
        })  # fmt: skip

    def _repr_svg_(self) -> str:
        return self.svg()

    def _repr_html_(self) -> str:
        return framed(self.html(), self.scene.title, cell_height(self.scene))


@checked
def diagram(
    circuit: Circuit,
    *,
    scores: Scores | None = None,
    images: ImageSet | None = None,
    pictures: FilterPictures | PictureSource = "optvis",
    panel: PanelPictures = "circuit",
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
        panel: what the page's panel shows of filters. "circuit": their pictures in the circuit; "model": beside them
            those in the full model, which takes about as long again. The target's always stands beside it, in the
            drawing too, unless ``pictures`` are "none" or your own.
        prepare: what prepared the images; it tells the colours of pictures (ImageNet's by default).
        compared: what the inset shows, when it is known already.
        most: draw at most this many edges one by one; a larger circuit is bundled by pairs of layers, and says so.
        title: what stands above it.
        about: one line below the title; where "", the network's class, the criterion of the scores (if the circuit
            keeps the best of them), the density and the number of pictures.
        cache: a folder that keeps rendered pictures.
        progress: called as the work goes on.

    Raises:
        MaskError: ``most`` is below 1, or the scores are those of another network or target.
        ImageError: crops are asked for without images.
    """
    drawn = shown(circuit, scores, most)
    source = pictures if isinstance(pictures, str) else None
    originals: FilterPictures = {}
    if panel == "model" or source in ("optvis", "crops"):
        # where the drawing has no pictures of ours, the panel alone was asked for
        originals = original_pictures(
            circuit, drawn, images, every=panel == "model", source="crops" if source == "crops" else "optvis",
            prepare=prepare, cache=cache, progress=progress,
        )  # fmt: skip
    empty = 0
    if isinstance(pictures, str):
        pictures = vertex_pictures(
            circuit, drawn, images, source=pictures, prepare=prepare, cache=cache, progress=progress
        )
        # a piece of a picture may be of one colour; only of a rendering does it mean that nothing was found
        empty = sum(map(blank, pictures.values())) if source == "optvis" else 0
    crops: Mapping[tuple[str, int], Sequence[Rgb]] = {}
    if images is not None and source != "none":
        crops = exciting_crops(circuit, drawn, images, _CROPS, prepare=prepare, progress=progress)
    if compared is None and images is not None:
        compared = agreement(circuit, images, progress=progress)
    drawing = Drawing(drawn, _filters(circuit, drawn), _beside(drawn, pictures, originals))
    words = _Words(
        title or legend.title(circuit), about or legend.about_circuit(circuit, scores, compared),
        legend.facts(circuit, drawn, compared),
    )  # fmt: skip
    scene = _composed(drawing, pictures, originals, words, empty, compared)
    return Diagram(drawn, scene, crops, originals)


def shown(circuit: Circuit, scores: Scores | None = None, most: int = MOST) -> Content:
    """Returns what a diagram of the circuit shows: all its kernels one by one, or bundled where they are too many.

    Args:
        circuit: what to draw.
        scores: those it was selected by; without them widths show Σ|w|.
        most: kernels that are drawn one by one; more are bundled.

    Raises:
        MaskError: ``most`` is below 1, or the scores are those of another network or target.
    """
    if most < 1:
        raise MaskError(f"most {most} is out of range; a diagram needs at least one edge")
    whole = content(circuit, scores)
    return whole if len(whole.edges) <= most else bundled(whole)


def _filters(circuit: Circuit, content: Content) -> dict[str, int]:
    layers = circuit.graph.layers
    filters = [m for v in content.vertices for m in v.members or (v,) if m.kind == "filter"]
    return {v.block: layers[v.layer].out_channels for v in filters}


def _beside(content: Content, pictures: FilterPictures, originals: FilterPictures) -> bool:
    """Whether the target has both pictures; one that is drawn as a kernel or a number has nothing to compare."""
    target = content.by_id[content.target]
    unit = target.layer, target.channel
    return target.kind != "bundle" and unit in pictures and unit in originals


class _Words(NamedTuple):
    """What stands above a circuit."""

    title: str
    about: str
    facts: list[str]


def _composed(
    drawing: Drawing, pictures: FilterPictures, originals: FilterPictures, words: _Words, empty: int,
    compared: Agreement | None,
) -> marks.Scene:  # fmt: skip
    """Title and numbers above, the circuit in the middle, the key and the inset below."""
    # wide circuits get a wider picture: squeezed columns would leave no room for lines between them
    width = max(WIDTH, drawing.width + 2 * MARGIN)
    above, top = legend.header(words.title, words.about, words.facts, MARGIN, width - 2 * MARGIN)
    parts = (lines(drawing), labels(drawing), *headings(drawing), vertices(drawing, pictures, originals))
    middle = marks.Group(parts, "circuit", "circuit", offset=((width - drawing.width) / 2, top + 8))
    bottom = top + 8 + drawing.plan.height + 60
    below: list[marks.Mark] = [marks.Group(tuple(legend.key(drawing, MARGIN, bottom, empty)), "key", "key")]
    if compared is not None:
        below.append(inset(compared, width - MARGIN - _INSET, bottom - 10, _INSET))
    said = " ".join([words.about, *words.facts])
    return marks.Scene(width, bottom + 178, words.title, said, (*above, middle, *below))
