"""A section of a report, as data: what was found about features, told in texts, tables and names of pictures.

A command that finds something writes ``section.json`` beside its tables and pictures; a report makes HTML of it
(`viscircuits.report.section`). It may come from anybody: every type is checked, and pictures have plain names.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from viscircuits import store
from viscircuits.card import Card, Shown, few
from viscircuits.errors import StudyError
from viscircuits.study.names import SECTION

KIND = "section"
FORMAT = 1
"""Version of the file; one of another version is refused."""

Table = tuple[str, Sequence[str], Sequence[Sequence[str]]]
"""What it shows, the heads of its columns, its rows."""


@dataclass(frozen=True, repr=False)
class Section(Shown):
    """What a section says; all texts are plain.

    Attributes:
        title: its heading.
        lead: what was found, in a sentence or two.
        note: how to read it.
        pictures: what each shows -> the name of a picture in the section's folder.
        tables: of each what it shows, the heads of columns, the rows.
        asked: facts to list at the end, the command among them.
    """

    title: str
    lead: str
    note: str = ""
    pictures: Mapping[str, str] = field(default_factory=dict)
    tables: Sequence[Table] = ()
    asked: Mapping[str, str] = field(default_factory=dict)

    def _card(self) -> Card:
        pictures, tables = few([*self.pictures]), few([shows for shows, _, _ in self.tables])
        return Card("Section", {"title": self.title, "lead": self.lead, "pictures": pictures, "tables": tables})

    def save(self, folder: str | Path) -> Path:
        """Writes ``section.json`` into a folder, atomically, and returns its path."""
        tables: list[store.Json] = [
            {"shows": shows, "head": list(head), "rows": list(rows)} for shows, head, rows in self.tables
        ]
        content: dict[str, store.Json] = {
            "kind": KIND, "format": FORMAT, "title": self.title, "lead": self.lead, "note": self.note,
            "pictures": dict(self.pictures), "tables": tables, "asked": dict(self.asked),
        }  # fmt: skip
        store.write_json(Path(folder) / SECTION, content)
        return Path(folder) / SECTION

    @classmethod
    def of(cls, content: store.Json) -> "Section":
        """Returns the section that the content of a file describes; a `StudyError` says what is wrong with it."""
        match content:
            case {
                "kind": "section", "format": int(version), "title": str(title), "lead": str(lead), "note": str(note),
                "pictures": dict(pictures), "tables": list(tables), "asked": dict(asked), **more,
            } if version == FORMAT and not more:  # fmt: skip
                # whatever is not a text here would fail only where a page is made of it, in another's browser
                for name in pictures.values():
                    _check_file_name(name)
                _texts([*asked.values()])
                return cls(title, lead, note, pictures, [*map(_table, tables)], asked)
        raise StudyError(
            f"{SECTION} is damaged or of another version: expected kind {KIND!r}, format {FORMAT}, and of the right "
            "types title, lead, note, pictures, tables, asked"
        )


def _check_file_name(name: object) -> None:
    # a separator would lead out of the folder, and a dot in front to something hidden
    if not isinstance(name, str) or not re.fullmatch(r"[^./\\\x00][^/\\\x00]*", name):
        raise StudyError(f"{SECTION} is damaged: expected the plain name of a picture, got {str(name)[:60]!r}")


def _table(content: object) -> Table:
    match content:
        case {"shows": str(shows), "head": [_, *_] as head, "rows": list(rows)}:
            texts = [_texts(row) for row in rows]
            if all(len(row) == len(head) for row in texts):
                return shows, _texts(head), texts
    raise StudyError(
        f"{SECTION} is damaged: expected tables with shows, head, rows, as many texts in a row as in the head"
    )


def _texts(values: object) -> list[str]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise StudyError(f"{SECTION} is damaged: expected texts, got {type(values).__name__}")
    return values
