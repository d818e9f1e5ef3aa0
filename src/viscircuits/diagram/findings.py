"""What was found about features, as sections of a report: one for each folder of findings in a study's folder.

A command that finds something writes ``findings/NAME/section.html`` beside its tables and pictures; it needs no other
file and loads nothing, so that a report takes it in as it is.
"""

import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from viscircuits import __version__, store
from viscircuits.diagram.html import element, listed, table
from viscircuits.diagram.page import write_page
from viscircuits.diagram.plate import inlined
from viscircuits.errors import StudyError

FOLDER = "findings"
"""Where findings stand in a study's folder."""

SECTION = "section.html"
HEADER = "findings.json"


def section(
    title: str,
    lead: str,
    *,
    pictures: Mapping[str, Path] = {},
    tables: Sequence[tuple[str, Sequence[str], Sequence[Sequence[str]]]] = (),
    note: str = "",
    asked: Mapping[str, str] = {},
) -> str:
    """Returns a section of a report; all texts are plain.

    Args:
        title: its heading.
        lead: what was found, in a sentence or two.
        pictures: what each shows -> a saved page of pictures.
        tables: of each what it shows, the heads of columns, the rows.
        note: how to read it.
        asked: facts to list at the end, the command among them.
    """
    parts = [element("h2", escape(title)), element("p", escape(lead), cls="lead")]
    if note:
        parts.append(element("p", escape(note), cls="note"))
    for said, file in pictures.items():
        parts.append(element("figure", element("img", cls="plate", src=inlined(file), alt=said)))
    for said, head, rows in tables:
        cells = [([escape(cell) for cell in row], False) for row in rows]
        parts += [element("h3", escape(said)), table([escape(name) for name in head], cells)]
    if asked:
        parts.append(listed(asked))
    return element("article", *parts, id=re.sub(r"\W+", "-", f"found {title}"))


def sections(study: str | Path) -> list[str]:
    """Returns the sections of a study's findings, in the order in which they were found; those unfinished have none."""
    found = []
    for file in (Path(study) / FOLDER).glob(f"[!.]*/{SECTION}"):
        header = store.read_json(file.with_name(HEADER))
        created = header.get("created", "") if isinstance(header, dict) else ""
        found.append((created, file.parent.name, file.read_text(encoding="utf-8")))
    return [html for *_, html in sorted(found)]


def write_findings(study: str | Path, folder: str | Path | None = None) -> Path:
    """Writes ``report.html`` of a study that holds findings and no measurements, atomically, and returns its path.

    Args:
        study: the study's folder.
        folder: where to write; the study's folder where None.
    """
    page = Path(study if folder is None else folder) / "report.html"
    with store.atomic(page) as temporary:
        temporary.write_text(_page(study), encoding="utf-8")
    return page


def _page(study: str | Path) -> str:
    parts = sections(study)
    if not parts:
        raise StudyError(f"{str(study)!r} is not a study folder: it has no study.json, and no findings")
    title = f"Findings in {Path(study).resolve().name}"
    head = element(
        "div", element("h1", escape(title)), listed({"shown with": f"viscircuits {__version__}"}), cls="title"
    )
    return write_page(title, "\n".join([head, *parts]), "report.css", "findings.css")
