"""Findings of strangers: a section is rebuilt from data that is checked; what is damaged is left out, with a line."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from viscircuits.errors import StudyError
from viscircuits.report.findings import sections, write_findings
from viscircuits.study.names import SECTION, slug
from viscircuits.study.section import Section
from viscircuits.study.spec import typed


def told(study: Path, name: str, section: Section | None = None, command: str = "") -> Path:
    """A folder of findings with one picture."""
    folder = study / "findings" / name
    folder.mkdir(parents=True)
    Image.new("RGB", (4, 4), "red").save(folder / "a.png")
    (section or Section("title", "lead", pictures={"red": "a.png"})).save(folder)
    (folder / "findings.json").write_text(json.dumps({"created": "2026", "command": command}))
    return folder


def test_a_section_is_rebuilt_from_data(tmp_path):
    told(tmp_path, "a", Section("<b>", "&", "note", {"red": "a.png"}, [("t", ["x"], [["<i>"]])], {"who": "<u>"}))
    (section,) = sections(tmp_path)
    assert section.startswith("<article id=")
    assert "data:image/png;base64," in section
    assert not re.search("<[biu]>", section)


def test_sections_of_older_versions_are_left_out_with_their_command(tmp_path, caplog):
    folder = told(tmp_path, "a", command="viscircuits top net 'a b' $(id) `id`; rm x\n>y")
    (folder / SECTION).rename(folder / "section.html")
    (line,) = sections(tmp_path)
    assert "findings/a is left out: its section is section.html" in line
    assert "<code>viscircuits top net 'a b' '$(id)' '`id`;' rm x '&gt;y'</code>" in line
    assert "findings/a is left out" in caplog.text
    assert [typed(text) for text in ("rm -rf x", "'", "viscircuits top a")] == ["", "", "viscircuits top a"]
    assert line in write_findings(tmp_path).read_text()


def test_an_svg_stands_as_an_image(tmp_path):
    folder = told(tmp_path, "a", Section("t", "l", pictures={"drawn": "a.svg"}))
    (folder / "a.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" onload="pwned=1"></svg>')
    (section,) = sections(tmp_path)
    assert '<img class="plate" src="data:image/svg+xml,%3Csvg' in section
    assert "<svg" not in section


def with_fields(**fields: object) -> Callable[[Path], None]:
    """Writes other values into the section's file."""

    def write(folder: Path) -> None:
        section = json.loads((folder / SECTION).read_text())
        (folder / SECTION).write_text(json.dumps(section | fields))

    return write


def with_rows(*rows: list[object]) -> Callable[[Path], None]:
    return with_fields(tables=[{"shows": "t", "head": ["a"], "rows": rows}])


def with_content(name: str, content: bytes) -> Callable[[Path], object]:
    """Writes something else into a file."""
    return lambda folder: (folder / name).write_bytes(content)


def as_a_pipe(name: str) -> Callable[[Path], None]:
    """Makes a pipe of a file, which nobody writes into."""

    def make(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return make


def behind_a_link(name: str) -> Callable[[Path], None]:
    """Moves a file, or the whole folder, out of the study; a link leads to it."""

    def move(folder: Path) -> None:
        outside = folder.parents[2] / "outside"
        shutil.move(folder / name, outside)
        (folder / name).symlink_to(outside)

    return move


def ring_of_links(folder: Path) -> None:
    (folder / "a.png").unlink()
    (folder / "a.png").symlink_to("b.png")
    (folder / "b.png").symlink_to("a.png")


def too_large(folder: Path) -> None:
    with (folder / "a.png").open("r+b") as file:
        file.truncate(65 * 2**20)


DAMAGE = {
    "no JSON": with_content(SECTION, b"{"),
    "no UTF-8": with_content(SECTION, b"\xff"),
    "5,000 digits": with_content(SECTION, b"1" * 5000),
    "deep lists": with_content(SECTION, b"[" * 100_000),
    "another type": with_fields(lead=["x"]),
    "another version": with_fields(format=2),
    "a field more": with_fields(html="<b>"),
    "a cell that is no text": with_rows([1]),
    "a row too long": with_rows(["", ""]),
    "a fact that is no text": with_fields(asked={"a": {}}),
    "a way up": with_fields(pictures={"red": "../a.png"}),
    "a path": with_fields(pictures={"red": "/etc/passwd"}),
    "a parent": with_fields(pictures={"red": ".."}),
    "no name": with_fields(pictures={"red": ""}),
    "a number for a name": with_fields(pictures={"red": 1}),
    "a picture behind a link": behind_a_link("a.png"),
    "a section behind a link": behind_a_link(SECTION),
    "a header behind a link": behind_a_link("findings.json"),
    "a folder behind a link": behind_a_link(""),
    "a ring of links": ring_of_links,
    "a pipe for a picture": as_a_pipe("a.png"),
    "a pipe for a section": as_a_pipe(SECTION),
    "a pipe for a header": as_a_pipe("findings.json"),
    "no header": lambda folder: (folder / "findings.json").unlink(),
    "a header that is a list": with_content("findings.json", b"[]"),
    "no picture": with_content("a.png", b"<svg onload=pwned=1>"),
    "PostScript": with_content("a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n"),
    "too large": too_large,
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damaged_findings_are_left_out_and_the_others_shown(tmp_path, what):
    study = tmp_path / "study"
    folder = told(study, "bad")
    told(study, "good")
    assert all(one.startswith('<article id="found-title"') for one in sections(study))
    DAMAGE[what](folder)
    found = sections(study)
    assert sorted(one.startswith('<article id="found-title"') for one in found) == [False, True]
    (bad,) = (one for one in found if "left-out" in one)
    assert "findings/bad is left out: " in bad
    assert "<img" not in bad
    assert "<svg" not in bad


def test_findings_are_not_written_through_links_that_lead_out(tmp_path, command_line):
    outside, pictures = tmp_path / "outside", tmp_path / "pictures"
    outside.mkdir()
    pictures.mkdir()
    Image.new("RGB", (32, 32)).save(pictures / "a.png")
    for link in ("findings", "findings/top__features.3", "findings/top__features.3/top"):
        study = tmp_path / slug(link)
        (study / link).parent.mkdir(parents=True)
        (study / link).symlink_to(outside)
        asked = ("shapesnet", "features.3", "-i", pictures, "-n", 2, "--channel", 5)
        status, _, said = command_line("top", *asked, "-o", study)
        assert status != 0
        assert "leads out of" in said.replace("\n", " ")
        assert not list(outside.iterdir())


def test_folders_without_findings_are_no_findings(tmp_path):
    (tmp_path / "findings" / "unfinished").mkdir(parents=True)
    with pytest.raises(StudyError, match="no findings"):
        write_findings(tmp_path)
