"""Markup, told apart from text by its type: what is put into a page is escaped, unless this package made it.

`Html` is made in this package alone, from names of elements that stand in its code and from what was escaped. Anything
that comes of it by the methods of ``str`` (formatting, adding, joining) is text again: a slip shows as ``&lt;b&gt;`` on
the page, and does no harm.
"""

import re
from collections.abc import Sequence
from html import escape
from typing import final

_UNWRITABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
"""What XML cannot hold, UTF-8 cannot write, or a terminal takes as a command."""

_EMPTY = ("img", "br")
"""Elements without content or end."""


@final
class Html(str):
    """Markup that this package made."""

    __slots__ = ()


def escaped(content: str) -> Html:
    """Returns content as markup: markup as it is, any other text escaped."""
    # quotes do nothing between tags; in attributes, where they do, `element` escapes them too
    return content if isinstance(content, Html) else Html(escape(plain(content), quote=False))


def plain(text: str) -> str:
    """Returns text without control characters and half characters; a sign stands for each."""
    # half characters come out of file names that are not UTF-8: writing the page would fail on one
    return _UNWRITABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def joined(parts: Sequence[str], by: str = "") -> Html:
    """Returns several pieces as one, with another between them."""
    # str.join gives a plain str, even of markup
    return Html(escaped(by).join(map(escaped, parts)))


def element(tag: str, *content: str, cls: str = "", **attributes: str) -> Html:
    """Returns an element; content that is not markup is escaped, attributes always are.

    Args:
        tag: its name.
        content: what stands in it.
        cls: its class.
        attributes: by name; an empty one is left out.
    """
    # an attribute is text whatever its type: markup in it is escaped once more, so that no tag opens inside a tag
    given = {"class": cls, **attributes}
    said = "".join(f' {name}="{escape(plain(value))}"' for name, value in given.items() if value)
    return Html(f"<{tag}{said}>" if tag in _EMPTY else f"<{tag}{said}>{joined(content)}</{tag}>")
