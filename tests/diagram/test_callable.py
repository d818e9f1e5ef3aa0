"""``viscircuits.diagram`` is a function and a package at once, in whatever order it is met."""

import importlib
import inspect
import pydoc
import subprocess
import sys

import pytest

import viscircuits as vc

CALL = "import viscircuits as vc\ntry: vc.diagram(None)\nexcept vc.ArgumentError as error: print(error)\n"
IMPORT = "import viscircuits.diagram.geometry.layout\nassert viscircuits.diagram.geometry.layout.arrange\n"
NAMED = "import viscircuits.diagram.content as content\nfrom viscircuits.diagram import walk\nassert content and walk\n"


@pytest.mark.parametrize("before", ["", IMPORT, NAMED, "import viscircuits as vc; vc.preservation_curve\n"])
@pytest.mark.parametrize("after", ["", IMPORT, NAMED])
def test_in_every_order(quick_start, before, after):
    code = before + CALL + after + CALL
    done = subprocess.run([sys.executable, "-c", code], env=quick_start, capture_output=True, text=True)
    told = "circuit: expected a Circuit, got None; make one with Circuit(model, target, mask) or find("
    assert done.stderr == ""
    assert [line.startswith(told) for line in done.stdout.splitlines()] == [True, True]


@pytest.mark.parametrize(("name", "home"), [("diagram", "diagram.extended"), ("report", "report.report")])
def test_what_is_told_is_what_the_function_says(name, home):
    package, function = getattr(vc, name), getattr(importlib.import_module(f"viscircuits.{home}"), name)
    assert inspect.ismodule(package)
    assert inspect.signature(package) == inspect.signature(function)
    assert len(inspect.signature(package).parameters) > 5
    told = pydoc.plain(pydoc.render_doc(package))
    assert f"{name}{inspect.signature(function)}" in told
    for line in inspect.getdoc(function).splitlines():
        assert line.strip() in told
