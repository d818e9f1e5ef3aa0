"""A section of a report as HTML: what was found about features. Texts are escaped, pictures are images, nothing else.

Not here: the section as data (`viscircuits.study.section`), which may come from anybody and is checked there.
"""

import re
from collections.abc import Mapping

from viscircuits.canvas.html import listed, table
from viscircuits.canvas.markup import Html, element
from viscircuits.study.section import Section


def section_html(section: Section, addresses: Mapping[str, str]) -> Html:
    """Returns a section as a part of a page; all its texts are escaped.

    Args:
        section: what was found.
        addresses: name of each picture -> its address, which stands in the page itself.
    """
    parts = [element("h2", section.title), element("p", section.lead, cls="lead")]
    if section.note:
        parts.append(element("p", section.note, cls="note"))
    for shows, name in section.pictures.items():
        parts.append(element("figure", element("img", cls="plate", src=addresses[name], alt=shows), cls="sheet"))
    for shows, head, rows in section.tables:
        parts += [element("h3", shows), table(head, [(row, False) for row in rows])]
    if section.asked:
        parts.append(listed(section.asked))
    return element("article", *parts, id=re.sub(r"\W+", "-", f"found {section.title}"))
