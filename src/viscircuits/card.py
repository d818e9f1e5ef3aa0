"""How our objects show themselves: a line or two in a terminal, a small table in a notebook.

A card holds names and numbers that fit one look, never arrays: who prints an object wants to know which one it is.
Not here: pictures of circuits and of filters (`viscircuits.diagram`, `viscircuits.optvis`), which show themselves.

`Shown` gives a class both forms of its card. Neither raises, runs a model, reads a picture or writes anything. Texts
may come from strangers, as names in a study's file do: what a terminal or a page would act upon is spelled out.
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

_WIDTH = 110
"""Characters of a line."""

_LINES = 6
"""Lines of a text at most."""

_LONGEST = 400
"""Characters of a fact; a sum of fifty targets is cut."""

_HELD = "\N{NO-BREAK SPACE}"
"""A space at which no line ends; facts have none of their own."""


@dataclass(frozen=True)
class Card:
    """What an object is called and what there is to say of it.

    Attributes:
        title: the class, and what makes this one different from others of it.
        facts: name -> value, in the order in which they matter; those that are None or "" are left out.
    """

    title: str
    facts: Mapping[str, object] = field(default_factory=dict)

    def text(self) -> str:
        """Returns ``Title(name: value; ...)`` in at most six lines."""
        title, room = plain(self.title), _WIDTH - len(self.title) - 4
        facts = [f"{name}: {value}" for name, value in self._rows()]
        # what fits a line stands on one, so that only between facts, and in very long ones, lines end
        facts = [fact.replace(" ", _HELD) if len(fact) < room else fact for fact in facts]
        lines = textwrap.wrap(
            f"{title}({'; '.join(facts)})", _WIDTH, subsequent_indent="  ", break_on_hyphens=False,
            max_lines=_LINES, placeholder=" ...)",
        )  # fmt: skip
        return "\n".join(lines).replace(_HELD, " ")

    def html(self) -> str:
        """Returns a table of one row a fact, with everything in it escaped."""
        rows = "".join(
            f'<tr><th scope="row">{_left(name)}</th><td>{_left(value)}</td></tr>' for name, value in self._rows()
        )
        return f"<table><caption>{_left(plain(self.title))}</caption><tbody>{rows}</tbody></table>"

    def _rows(self) -> list[tuple[str, str]]:
        return [(plain(name), plain(value)) for name, value in self.facts.items() if value not in (None, "")]


class Shown:
    """What shows itself as its card: a text by ``repr``, a table in a notebook.

    A dataclass of this kind is made with ``repr=False``: its own ``repr`` would stand before this one.
    """

    __slots__ = ()

    def _card(self) -> Card:
        raise NotImplementedError

    def __repr__(self) -> str:
        return self._safely().text()

    def _repr_html_(self) -> str:
        return self._safely().html()

    def _safely(self) -> Card:
        try:
            return self._card()
        # whatever it is: a debugger shows objects that are half made, and an error there would hide the one looked for
        except Exception as error:
            return Card(type(self).__name__, {"cannot be shown": f"{type(error).__name__}: {error}"})


def few(names: Sequence[object], most: int = 4) -> str:
    """Returns the first names of many, and how many more there are: ``a, b, c, d and 7 more``."""
    shown = ", ".join(map(str, names[:most]))
    return shown if len(names) <= most else f"{shown} and {len(names) - most:,} more"


def sized(shape: Sequence[int]) -> str:
    """Returns the axes of a picture or an array: ``3 × 64 × 64``."""
    return " × ".join(map(str, shape))


def _left(text: str) -> str:
    # notebooks set cells to the right, as for numbers; where they forbid styles, this old attribute still holds
    return f'<div align="left">{escape(text)}</div>'


def plain(value: object) -> str:
    """Returns a value as a text on one line, cut, of characters that show and do nothing else."""
    text = " ".join(str(value).split())
    if not text.isprintable():
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
