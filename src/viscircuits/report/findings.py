"""What was found about features, as sections of a report: one for each folder of findings in a study's folder.

Folders may come from anybody. Of each, ``findings.json``, ``section.json`` and the pictures that it names are read:
only regular files in the study's folder, wherever links lead, and up to a size. A folder that is damaged, or whose
section is the piece of HTML that older versions wrote, is left out, and a line says so.
"""

import base64
import io
import logging
import os
import stat
from pathlib import Path
from urllib.parse import quote

from viscircuits import store
from viscircuits.canvas.html import listed
from viscircuits.canvas.markup import Html, element, joined, plain
from viscircuits.canvas.page import template, write_page
from viscircuits.data.reading.decoding import identified
from viscircuits.errors import StudyError
from viscircuits.report.outline import contents
from viscircuits.report.section import section_html
from viscircuits.study.names import FINDINGS, HEADER, OLD_SECTION, REPORT, SECTION
from viscircuits.study.section import Section
from viscircuits.study.spec import typed
from viscircuits.version import __version__

_KINDS = {"PNG": "png", "JPEG": "jpeg", "MPO": "jpeg", "WEBP": "webp"}
"""Format -> its name in the address of an image."""

_PLAIN = " !$'()*+,-./:;=?@_{}~"
"""What stands for itself in the address of an image, beside letters and digits."""

_LONGEST = 16 * 2**20
"""Bytes of a header or a section."""

_LARGEST = 64 * 2**20
"""Bytes of a picture."""

_TOLD = 400
"""Characters of a reason."""

_MOST = 256 * 2**20
"""Bytes of a section's pictures together."""

log = logging.getLogger(__name__)


def sections(study: str | Path) -> list[Html]:
    """Returns the sections of a study's findings, in the order in which they were found; those unfinished have none.

    In the place of one that cannot be shown stands a line that says why, and the command that makes it anew.
    """
    dated = []
    for folder in sorted(Path(study, FINDINGS).glob("[!.]*/")):
        if not any(os.path.lexists(folder / name) for name in (SECTION, OLD_SECTION)):
            continue
        created = command = ""
        try:
            created, command = _told(study, folder)
            html = _shown(study, folder)
        except StudyError as error:
            html = _left_out(folder.name, str(error), command)
        dated.append((created, folder.name, html))
    return [html for *_, html in sorted(dated)]


def _shown(study: str | Path, folder: Path) -> Html:
    """The section in a folder."""
    if not os.path.lexists(folder / SECTION):
        raise StudyError(f"its section is {OLD_SECTION}, as older versions wrote it, and is not taken over as it is")
    section = Section.of(_json(study, folder / SECTION))
    left, addresses = _MOST, dict[str, str]()
    for name in section.pictures.values():
        content = _content(study, folder / name, min(left, _LARGEST))
        left -= len(content)
        addresses[name] = _inlined(name, content)
    return section_html(section, addresses)


def _left_out(name: str, reason: str, command: str) -> Html:
    """The line in the place of a section."""
    where, again = f"{FINDINGS}/{name}", "run the command that made it again"
    reason = reason if len(reason) <= _TOLD else f"{reason[:_TOLD]}…"  # it may hold names out of the file
    line = joined([f"{where} is left out: {reason}; {again}", *([": ", element("code", command)] if command else [])])
    log.warning("%s is left out: %s; %s%s", plain(where), plain(reason), again, f": {command}" * bool(command))
    return element("article", element("p", line, cls="note"), cls="left-out")


def _told(study: str | Path, folder: Path) -> tuple[str, str]:
    """When findings were made and by which command, "" where that is not known."""
    header = _json(study, folder / HEADER)
    if not isinstance(header, dict):
        raise StudyError(f"{HEADER} holds no header")
    return _text(header.get("created")), typed(_text(header.get("command")))


def _text(value: store.Json) -> str:
    return value if isinstance(value, str) else ""


def _json(study: str | Path, file: Path) -> store.Json:
    try:
        return store.parsed(_content(study, file, _LONGEST).decode("utf-8"))
    except (ValueError, RecursionError):
        raise StudyError(f"{file.name} is not valid JSON") from None


def _content(study: str | Path, file: Path, most: int) -> bytes:
    """The bytes of a regular file that lies in the study's folder."""
    try:
        place = file.resolve(strict=True)
        if not place.is_relative_to(Path(study).resolve()):
            raise StudyError(f"{file.name} is a link that leads out of the study's folder")
        # a pipe would keep its reader waiting
        with open(os.open(place, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as stream:
            # asked of what is open, and not of its name, which another process may exchange in between
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise StudyError(f"{file.name} is no regular file")
            content = stream.read(most + 1)
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: links that lead to one another
        raise StudyError(f"cannot read {file.name} ({getattr(error, 'strerror', None) or error})") from None
    if len(content) > most:
        raise StudyError(f"{file.name} is larger than {most:,} bytes")
    return content


def _inlined(name: str, content: bytes) -> str:
    """A picture as the address of an image, in which SVG runs nothing and loads nothing."""
    if name.lower().endswith(".svg") and b"<svg" in content[:4096]:
        # letter by letter and not in base64: its pictures are, and a second time would make a page a third larger
        # SVG names its own language by an address of the network, and whoever looks for such in a page shall find none
        return f"data:image/svg+xml,{quote(content, safe=_PLAIN)}".replace("http", "%68ttp")
    return f"data:image/{_kind(name, content)};base64,{base64.b64encode(content).decode()}"


def _kind(name: str, content: bytes) -> str:
    try:
        with identified(io.BytesIO(content), tuple(kind for kind in _KINDS if kind != "MPO")) as image:
            return _KINDS[str(image.format)]
    except Exception:  # on damaged bytes Pillow raises almost anything
        raise StudyError(f"{name} is no PNG, JPEG, WebP or SVG picture") from None


def write_findings(study: str | Path, folder: str | Path | None = None) -> Path:
    """Writes ``report.html`` of a study that holds findings and no measurements, atomically, and returns its path.

    Args:
        study: the study's folder.
        folder: where to write; the study's folder where None.
    """
    page = Path(study if folder is None else folder) / REPORT
    with store.atomic(page) as temporary:
        temporary.write_text(_page(study), encoding="utf-8")
    return page


def _page(study: str | Path) -> str:
    parts = sections(study)
    if not parts:
        raise StudyError(f"{str(study)!r} is not a study folder: it has no study.json, and no findings")
    title = f"Findings in {Path(study).resolve().name}"
    head = element("div", element("h1", title), listed({"shown with": f"viscircuits {__version__}"}), cls="title")
    return write_page(title, joined([head, contents(parts), *parts], "\n"), *styles())


def styles() -> list[str]:
    """Returns the style sheets of reports and findings."""
    return [template(name, "viscircuits.report") for name in ("report.css", "findings.css")]
