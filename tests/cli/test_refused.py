"""What the command line refuses before anything runs, and what it makes of the operating system's errors."""

import errno
import sys

import pytest

from viscircuits.cli import main


def _refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *command: str) -> str:
    monkeypatch.setattr(sys, "argv", ["viscircuits", *command])
    with pytest.raises(SystemExit) as stop:
        main.run()
    assert stop.value.code == 1
    *_, line = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize("nothing", ["", "  ", "\t"])
@pytest.mark.parametrize(
    "command",
    [
        ("extract", "shapesnet", "features.10:3", "--out"),
        ("extract", "shapesnet", "features.10:3", "--held-out"),
        ("extract", "shapesnet"),
        ("top", "shapesnet"),
        ("inspect",),
    ],
    ids=" ".join,
)
def test_a_value_of_nothing_is_refused(nothing, command, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    line = _refused(monkeypatch, capsys, *command, nothing)
    assert "is empty; give it a value, or leave it out" in line, line
    assert not list(tmp_path.iterdir())


def test_errors_of_the_system_say_what_to_do(monkeypatch, capsys):
    for number, fix in ((errno.EACCES, "chmod"), (errno.ENOSPC, "free some space"), (errno.EROFS, "--out")):
        monkeypatch.setattr(main, "app", lambda number=number: (_ for _ in ()).throw(OSError(number, "why", "a place")))
        line = _refused(monkeypatch, capsys)
        assert line.startswith("error: why: 'a place'; ")
        assert fix in line
