"""The documentation's Python snippets run, in order, one namespace a page, in an empty folder."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", "docs/all-of-viscircuits.md", "docs/criteria.md", "docs/subcircuits.md"]
SNIPPET = re.compile(r"(<!-- not run: [^\n]*-->\n)?```python\n(.*?)```", re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_snippets_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snippets = [code for skipped, code in SNIPPET.findall((ROOT / page).read_text()) if not skipped]
    assert snippets
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    names: dict[str, object] = {}
    for number, code in enumerate(snippets):
        exec(compile(code, f"{page}, snippet {number}", "exec"), names)


def test_readme_picture_is_what_its_lines_make() -> None:
    readme = (ROOT / "README.md").read_text()
    assert "](docs/circuit.svg)" in readme
    assert 'Path("docs/circuit.svg").write_text(picture.svg()' in readme
    assert (ROOT / "docs/circuit.svg").stat().st_size > 10_000


@pytest.mark.parametrize("page", ["README.md", *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/**/*.md"))])
def test_commands_name_the_callables_that_their_studies_are_of(page: str) -> None:
    text = (ROOT / page).read_text().replace("\\\n", " ")
    for name, study in re.findall(r"viscircuits extract (\w+:\w+) .* -o (\S+)$", text, re.MULTILINE):
        shown = re.findall(rf"viscircuits (?:diagram|report|compare) {study} .*", text)
        assert shown
        assert all(f" --model {name} " in line for line in shown)


def test_the_two_commands_stand_in_the_readme_and_in_ci() -> None:
    assert "uv run viscircuits demo" in (ROOT / "README.md").read_text()
    test_command = "uv run pytest"
    assert test_command in (ROOT / "README.md").read_text()
    assert f"\n{test_command} " in (ROOT / ".ci/run").read_text()
