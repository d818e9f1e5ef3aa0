"""matplotlib's SVG with letters that stay letters, and the same bytes for the same figure, whatever the rcParams say.

``figure.savefig(..., backend="module://viscircuits.plots.vector")`` finds `FigureCanvas` here.
"""

import base64
import hashlib
import io
import re
from collections.abc import Mapping
from typing import Literal, Protocol, runtime_checkable

from matplotlib.backend_bases import GraphicsContextBase
from matplotlib.backends.backend_mixed import MixedModeRenderer
from matplotlib.backends.backend_svg import FigureCanvasSVG, RendererSVG
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.text import Text
from PIL import Image

from viscircuits.plots.style import FONTS

_POINTS = 72
_MARK = "viscircuits sans"
_IMAGE = re.compile(r"data:image/png;base64,\s*([\w+/=\s]+)")
_FAMILIES = ", ".join([*map(repr, FONTS), "sans-serif"])


def svg(figure: Figure, dpi: int | Literal["figure"] = "figure", *, small: bool = False) -> str:
    """Returns a figure as an SVG document.

    Args:
        figure: the figure.
        dpi: pixels an inch of the pictures in it.
        small: write those pictures as JPEG that take fewer bytes so, as photographs do.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, dpi=dpi, format="svg", backend=f"module://{__name__}", metadata={"Date": None})
    return _IMAGE.sub(_smaller, buffer.getvalue()) if small else buffer.getvalue()


def _smaller(address: re.Match[str]) -> str:
    """The address of a picture as PNG or JPEG, whichever is shorter."""
    png, jpeg = base64.b64decode(address[1]), io.BytesIO()
    with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
        if image.getextrema()[-1] != (255, 255):  # see-through pixels would come out black
            return address[0]
        image.convert("RGB").save(jpeg, "JPEG", quality=80, subsampling=0, optimize=True)
    kind, content = min(("png", png), ("jpeg", jpeg.getvalue()), key=lambda one: len(one[1]))
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


class _Renderer(RendererSVG):
    """As with ``svg.fonttype`` "none" and a fixed ``svg.hashsalt``."""

    def _make_id(self, type: str, content: object) -> str:
        # matplotlib salts these with a random number, unless the rcParams fix one: other bytes at every run
        return f"{type}{hashlib.sha256(f'viscircuits{content}'.encode()).hexdigest()[:10]}"

    def draw_text(
        self,
        gc: GraphicsContextBase,
        x: float,
        y: float,
        s: str,
        prop: FontProperties,
        angle: float,
        ismath: bool | Literal["TeX"] = False,
        mtext: Text | None = None,
    ) -> None:
        if not ismath:
            # a copy, because the text that it belongs to is drawn again elsewhere
            prop = prop.copy()
            prop.set_family(_MARK)  # what is written, in place of the one font that it was measured with
        clip = self._get_clip_attrs(gc)
        if clip:
            self.writer.start("g", **clip)
        self._draw_text_as_text(gc, x, y, s, prop, angle, ismath, mtext)
        if clip:
            self.writer.end("g")


@runtime_checkable
class _Writable(Protocol):
    def write(self, text: str, /) -> object: ...


class FigureCanvas(FigureCanvasSVG):
    """What ``savefig`` calls."""

    def print_svg(
        self,
        filename: _Writable,
        *,
        bbox_inches_restore: object = None,
        metadata: Mapping[str, object] | None = None,
        **_: object,
    ) -> None:
        """Writes the figure, as matplotlib's own canvas does, with our renderer.

        Args:
            filename: an open file.
            bbox_inches_restore: what puts a bounding box back that ``savefig`` has changed.
            metadata: of the document.
        """
        buffer, dpi = io.StringIO(), self.figure.dpi
        self.figure.dpi = _POINTS
        width, height = self.figure.get_size_inches()
        inner = _Renderer(width * _POINTS, height * _POINTS, buffer, image_dpi=dpi, metadata=metadata)  # pyright: ignore
        renderer = MixedModeRenderer(self.figure, width, height, dpi, inner, bbox_inches_restore=bbox_inches_restore)
        self.figure.draw(renderer)  # pyright: ignore
        renderer.finalize()
        # a list of fonts cannot be given to matplotlib as one family: it would quote the list as a single name
        filename.write(buffer.getvalue().replace(repr(_MARK), _FAMILIES))
