"""The first minutes: mistakes answered at once, help that is short to type, progress in a log, a page at the end."""

import subprocess
import sys
from pathlib import Path

import pytest
import torchvision

import viscircuits as vc
from viscircuits.cli import console, early
from viscircuits.cli.circuits import demo
from viscircuits.model.zoo import zoo

HEAVY = ("torch", "torchvision", "polars", "matplotlib")
CODE = f"""
import sys
from viscircuits.cli.main import run
try:
    run()
finally:
    print(*sorted(set({HEAVY}) & sys.modules.keys()), file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("extrct",), "No such command"),
        (("extract", "shapesnet", "features.10:5", "-i", ".", "--sed", "1"), "No such option"),
        (("extract", "alexnt", "features.10:5", "-i", "."), "closest: 'alexnet'"),
        (("extract", "shapesnet", "features.10:5", "-i", ".", "-c", "snp"), "closest: 'snip'"),
        (("extract", "shapesnet", "features.10:5", "-i", ".", "-d", "1.5"), "density 1.5 is out of range"),
        (("extract", "shapesnet", "features.10:5", "-i", ".", "--device", "gpu"), "unknown device 'gpu'"),
        (("extract", "shapesnet", "features.10:5", "-i", "nowhere"), "no folder 'nowhere'"),
        (("report", "studies", "-d", "nan"), "density nan is out of range"),
        (("top", "rsnet18", "layer1", "-i", "."), "no model 'rsnet18'"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_a_mistake_is_answered_before_anything_heavy_is_imported(command, words, quick_start, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", CODE, *command], env=quick_start, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode in (1, 2)
    *lines, heavy = done.stderr.splitlines()
    assert words in " ".join(lines), lines
    assert not heavy


def test_what_is_known_early_is_what_is_known_later():
    assert tuple(vc.CRITERIA) == early.CRITERIA
    listed = (Path(zoo.__file__).parent / "torchvision.txt").read_text().split()
    if not torchvision.__version__.startswith(f"{early.TORCHVISION}."):
        pytest.skip(f"the names are those of torchvision {early.TORCHVISION}")
    assert ["shapesnet", *listed] == list(zoo.names())


def test_criteria_are_read_in_any_case_of_letters():
    assert [early.criterion(text) for text in ("SNIP", "Force,rounds=3", "ActGrad:worst")] == [
        "snip", "force,rounds=3", "actgrad:worst",
    ]  # fmt: skip


@pytest.mark.parametrize("command", ["extract", "demo", "top"])
def test_help_has_a_short_option(command, command_line):
    status, short, _ = command_line(command, "-h")
    assert (status, short) == command_line(command, "--help")[:2]


def test_an_extra_is_named_in_full(command_line):
    assert "viscircuits[umap]" in "".join(command_line("polysemantic", "--help")[1].split()).replace("│", "")


def test_a_log_tells_now_and_then_how_far_the_work_is(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr("viscircuits.cli.console.time.monotonic", lambda: now[0])
    lines = console.Lines()
    for done in range(101):
        now[0] = done * 1.0
        lines.report("circuits", done, 100)
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 10
    assert told[0] == "circuits: 10 of 100, about 90 s left"
    assert told[-1] == "circuits: 100 of 100"


@pytest.mark.slow
def test_the_demo_ends_with_the_path_of_a_report(command_line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, err = command_line("demo", "--no-open")
    assert status == 0
    page = Path(out.splitlines()[-1])
    assert page == Path("studies/demo/report.html")
    assert page.stat().st_size > 100_000
    assert "next: viscircuits extract" in err


def test_a_page_is_opened_only_where_a_browser_has_a_window(monkeypatch):
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.get", lambda: type("B", (), {"open": staticmethod(opened.append)}))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    demo._open(Path("report.html"))
    assert not opened
    monkeypatch.setenv("DISPLAY", ":0")
    demo._open(Path("report.html"))
    assert opened == [Path("report.html").resolve().as_uri()]
