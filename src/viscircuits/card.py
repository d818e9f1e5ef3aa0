"""How our objects show themselves: a line or two in a terminal, a small table in a notebook.

A card holds names and numbers that fit one look, never arrays: who prints an object wants to know which one it is.
Not here: pictures of circuits and of filters (`viscircuits.diagram`, `viscircuits.optvis`), which show themselves.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

_WIDTH = 110
"""Characters of a line; a fact that does not fit goes to the next."""

_LINES = 6
"""Lines of a text at most."""

_LONGEST = 400
"""Characters of a fact; a sum of fifty targets is cut."""


@dataclass(frozen=True)
class Card:
    """What an object is called and what there is to say of it.

    Attributes:
        title: the class, and what makes this one different from others of it.
        facts: name -> value, in the order in which they matter.
    """

    title: str
    facts: Mapping[str, object] = field(default_factory=dict)

    def text(self) -> str:
        """Returns ``Title(name: value, ...)`` in at most six lines."""
        lines, line = [], f"{self.title}("
        pieces = [f"{name}: {_cut(value)}" for name, value in self.facts.items()]
        for place, piece in enumerate(pieces):
            piece += ")" if place == len(pieces) - 1 else ", "
            if len(line) + len(piece) > _WIDTH and line.strip():
                lines.append(line.rstrip())
                line = "  "
            line += piece
        lines.append(line if pieces else f"{line})")
        return "\n".join(lines if len(lines) <= _LINES else [*lines[: _LINES - 1], "  ...)"])

    def html(self) -> str:
        """Returns a table of one row a fact, with everything in it escaped."""
        rows = "".join(
            f"<tr><th>{escape(name)}</th><td>{escape(_cut(fact))}</td></tr>" for name, fact in self.facts.items()
        )
        return f"<table><caption>{escape(self.title)}</caption><tbody>{rows}</tbody></table>"


def few(names: Sequence[object], most: int = 4) -> str:
    """Returns the first names of many, and how many more there are: ``a, b, c, d and 7 more``."""
    shown = ", ".join(map(str, names[:most]))
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _cut(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
