"""The list of contents of a page: links to its chapters and sections.

It is read off the page's own markup, so that it names what stands there and nothing else. Not here: that markup, which
`viscircuits.report.chapter` and `viscircuits.report.section` write; what has no heading of its own is not listed.
"""

import re
from collections.abc import Mapping, Sequence
from html import unescape

from viscircuits.canvas.markup import Html, element, joined

_ARTICLE = re.compile(r'<article id="([^"]*)"><h2>(.*?)</h2>')
_PART = re.compile(r'<h3 id="([^"]*)">(.*?)</h3>')

_LONG = 12
"""Entries from which on the list is folded, so that what was found stands on the first screen."""


def contents(articles: Sequence[Html], notes: Mapping[str, str] | None = None) -> Html:
    """Returns the contents of a page.

    Args:
        articles: what the page is made of, in its order.
        notes: name of an article's place -> what stands behind its link.
    """
    headings = [(place.groups(), article) for article in articles if (place := _ARTICLE.match(article))]
    chapters = sum(bool(_PART.search(article)) for _, article in headings)
    items = []
    for (anchor, title), article in headings:
        # the parts of several chapters would be the same lines again and again
        parts = _PART.findall(article) if chapters == 1 else []
        below = [element("ul", *(element("li", _link(*part)) for part in parts))] if parts else []
        note = (notes or {}).get(unescape(anchor), "")
        items.append(element("li", joined([_link(anchor, title), *([" ", note] if note else []), *below])))
    unfolded = "open" if len(items) < _LONG else ""
    links = element("details", element("summary", "Contents"), element("ol", *items), open=unfolded)
    return element("nav", links, **{"aria-label": "contents"})


def _link(anchor: str, title: str) -> Html:
    # both stand in markup as they were escaped there, and are escaped again here
    return element("a", unescape(title), href=f"#{unescape(anchor)}")
