"""How curves and pages look, set on each of their parts; and the lock under which matplotlib draws.

matplotlib's rcParams belong to the whole process: they are the user's, whose figures other threads may be drawing, and
they are never set here. Its fonts and layouts are made for one thread, so that our own threads draw one after another.
"""

from collections.abc import Callable, Sequence
from functools import cache, wraps
from threading import RLock
from typing import ParamSpec, TypedDict, TypeVar

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.text import Text

from viscircuits.canvas.markup import plain

FONTS = ("Helvetica Neue", "Arial", "DejaVu Sans")
"""The fonts of curves and pages, the best first; matplotlib brings the last one along."""

SIZE = 10
"""Points of letters, unless told otherwise."""


class _Plain(TypedDict):
    parse_math: bool
    usetex: bool


AS_IT_IS: _Plain = {"parse_math": False, "usetex": False}
"""Of text that may come from a file: neither formulas nor TeX."""

# one that its own thread may take again: functions that draw call each other
_LOCK = RLock()
_EDGE, _LABEL, _TICK = "#666666", "#222222", "#444444"

P = ParamSpec("P")
R = TypeVar("R")


def drawing(function: Callable[P, R]) -> Callable[P, R]:
    """Returns a function that is run by one thread at a time, as all are that draw."""

    @wraps(function)
    def alone(*args: P.args, **kwargs: P.kwargs) -> R:
        with _LOCK:
            return function(*args, **kwargs)

    return alone


@cache
def font(names: Sequence[str] = FONTS) -> str:
    """Returns the first font of these that is installed."""
    installed = {entry.name for entry in fontManager.ttflist}
    # one name and not a list: matplotlib warns of every name in a list that is not installed
    return next((name for name in names if name in installed), names[-1])


def dressed(axes: Axes) -> Axes:
    """Returns new axes in our colours, letters and lines."""
    axes.spines[["top", "right"]].set_visible(False)
    for spine in axes.spines.values():
        spine.set_edgecolor(_EDGE)
    axes.tick_params(which="both", color=_TICK, labelcolor=_TICK, labelsize=SIZE, labelfontfamily=font())
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set(color=_LABEL, size=SIZE)
        axis.get_offset_text().set(color=_TICK, size=SIZE)
    return axes


def lettered(figure: Figure) -> Figure:
    """Returns a figure with all its texts in our font, and as they are but for control characters.

    What stands at ticks is matplotlib's, numbers as a rule.
    """
    axes = [axis for one in figure.axes for axis in (one.xaxis, one.yaxis)]
    numbers = {text for axis in axes for text in axis.findobj(Text)} - {axis.label for axis in axes}
    # labels of axes are among what an axis finds, and are ours
    for text in figure.findobj(Text):
        text.set(fontfamily=font(), **({} if text in numbers else {"text": plain(text.get_text()), **AS_IT_IS}))
    return figure
