"""Shared fixtures: one seed, one thread, and the folder of real data where there is one."""

import os
import sys
from pathlib import Path

import pytest
import torch
from jaxtyping import install_import_hook

PACKAGE = Path(__file__).parents[1] / "src/viscircuits"
SLOW = Path(__file__).with_name("slow.txt")
"""Of each test that is left out by default, beside those marked so, the seconds that it takes and its name."""

# Many tests start a Python of their own. Where bytecode is not kept, each of them compiles torch again, for 10 seconds.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


@pytest.fixture(autouse=True)
def _repeatable():
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of weights and pictures; the test is skipped where it is absent."""
    folder = Path(__file__).parents[1] / os.environ.get("VISCIRCUITS_DATA", "../shared/data")
    if not folder.is_dir():
        pytest.skip(f"no data folder {folder}; set VISCIRCUITS_DATA")
    return folder.resolve()


def pytest_configure(config: pytest.Config) -> None:
    """Checks types while tests run: in the modules that know arrays, whose shapes nothing else checks.

    Plain types are the type checker's; with the slow tests they are looked at too, in all modules.
    """
    every = sorted(path for path in PACKAGE.rglob("*.py") if path.stem != "__init__")
    if config.option.markexpr == "not slow":
        every = [path for path in every if "jaxtyping" in path.read_text()]
    names = [".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in every]
    install_import_hook(names, "beartype.beartype")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests of ``slow.txt``: checks that take some seconds each, of which hundreds make minutes."""
    listed = set(SLOW.read_text().splitlines())
    slow = {line.partition(" ")[2] for line in listed}
    for item in items:
        if item.nodeid.partition("tests/")[2] in slow:
            item.add_marker(pytest.mark.slow)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--overwrite", action="store_true", help="write the golden texts anew instead of comparing")


@pytest.fixture(scope="session")
def shapesnet() -> torch.nn.Module:
    """The built-in network; shared, so take a copy before changing it."""
    from viscircuits.model.zoo import zoo

    return zoo.load("shapesnet").model


@pytest.fixture(scope="session")
def shapes():
    """24 pictures with labels as the built-in network takes them, split in two halves."""
    from viscircuits.data.images import ImageSet
    from viscircuits.data.shapes import generate
    from viscircuits.model.zoo import zoo

    drawn = generate(24, seed=5)
    prepared = zoo.load("shapesnet").prepare(drawn.images)
    return ImageSet.from_tensors(prepared, drawn.labels.tolist()).split(0.5, seed=0)


@pytest.fixture
def command_line(monkeypatch, capsys):
    """Runs the command line in this process; returns (exit status, standard output, standard error)."""
    import sys
    import warnings

    from viscircuits.cli import console
    from viscircuits.cli.main import run

    monkeypatch.setattr(console.out, "_width", 100)  # whatever the terminal's, as in `quick_start`
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # so that it is put back

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["viscircuits", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            run()
        call.error = stop.value.__context__
        return (int(stop.value.code or 0), *capsys.readouterr())

    return call


@pytest.fixture(scope="session")
def quick_start() -> dict[str, str]:
    """An environment in which processes start fast: compiled Python is kept, one thread, a terminal of fixed width."""
    import tempfile

    kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    cache = Path(tempfile.gettempdir()) / "viscircuits-pycache"
    return kept | {"PYTHONPYCACHEPREFIX": str(cache), "OMP_NUM_THREADS": "1", "COLUMNS": "100"}


@pytest.fixture(scope="session")
def browser():
    """A real browser, installed where there is none; the test is skipped where that fails."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed; uv sync --group dev")

    from browser import MISSING, launched

    with playwright.sync_playwright() as started:
        chromium = launched(started)
        if chromium is None:
            pytest.skip(MISSING)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser):
    """Opens a file in the browser; in the end the page must have complained of nothing and asked for nothing else."""
    pages = []

    def open_page(file: Path, **options):
        page = browser.new_page(viewport={"width": 1280, "height": 900}, **options)
        wrong, asked = [], []
        page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(file.as_uri())
        pages.append((page, file, wrong, asked))
        return page

    yield open_page
    for page, file, wrong, asked in pages:
        page.close()
        assert not wrong
        assert [url for url in asked if not url.startswith("data:")] == [file.as_uri()]
