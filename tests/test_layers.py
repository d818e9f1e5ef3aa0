"""Who may import whom: downwards only, no cycles, every third-party package in its one home; an honest public API."""

import ast
import importlib
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import viscircuits

ROOT = Path(viscircuits.__file__).parent
LAYERS = (  # a part imports those in the lines above it; sets hold peers, of which none imports another
    {"version", "card", "errors", "types", "arrays", "store", "bounds"},
    {"model", "data"},
    "meaning", "target", "readout", "mask", "scores", "execution", "circuit", "activations", "saliency",
    "study",
    {"evaluate", "subcircuits", "optvis", "probes", "planted", "train"},
    "canvas", "plots", "diagram", "report",
    "runs",
    {"cli", "__main__"},
)  # fmt: skip
MAY = {("__main__", "cli")}  # beside what the layers allow
HOMES = {  # folders and files
    "matplotlib": ("plots/",),
    "typer": ("cli/",),
    "rich": ("cli/",),
    "sklearn": ("subcircuits/",),
    "scipy": ("subcircuits/",),
    "umap": ("subcircuits/",),
    "triton": ("saliency/engine/fused_triton.py",),
    "PIL": ("data/", "model/zoo/", "canvas/", "plots/", "diagram/", "report/"),
    "polars": ("evaluate/", "study/", "plots/", "report/", "cli/"),
    "pydantic": ("study/",),
}
FILES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py"))


def imports(file: str, *, run_late: bool = True) -> set[str]:
    """The dotted names a file imports; without ``run_late`` only those imported when it is."""
    found, stack = set(), [ast.parse((ROOT / file).read_text())]
    while stack:
        node = stack.pop()
        late = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if not run_late and (late or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")):
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: write the whole name"
            assert node.module != "__future__", f"{file}:{node.lineno}"
            assert node.names[0].name != "*", f"{file}:{node.lineno}"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        stack.extend(ast.iter_child_nodes(node))
    return found


def part(name: str) -> str:
    return name.split(".")[1] if name.startswith("viscircuits.") else ""


def module(name: str) -> str | None:
    """The file of a dotted name of ours, or of the module that holds it."""
    path = "/".join(name.split(".")[1:])
    parent = path.rpartition("/")[0]
    return next(
        (f for f in (f"{path}.py", f"{path}/__init__.py", f"{parent}.py", f"{parent}/__init__.py") if f in FILES), None
    )


def level(top: str) -> int:
    return next(i for i, names in enumerate(LAYERS) if top == names or (isinstance(names, set) and top in names))


@pytest.mark.parametrize("file", [f for f in FILES if f != "__init__.py"])
def test_imports(file):
    own = file.split("/")[0].removesuffix(".py")
    assert any(own == names or own in names for names in LAYERS), f"{own} has no layer; give it one in ARCHITECTURE.md"
    for name in imports(file):
        home = HOMES.get(name.split(".")[0])
        assert home is None or any(file.startswith(place) for place in home), f"{file} imports {name}"
        other = part(name)
        if other in ("", own, "CallablePackage") or (own, other) in MAY:
            continue
        assert level(other) <= level(own), f"{file} imports upwards: {name}"
        assert level(other) < level(own) or level(own) < 2, f"{file} imports its peer {name}"


def test_no_cycles():
    graph = {
        file: {f for name in imports(file, run_late=False) if (f := module(name))} - {file, "__init__.py"}
        for file in FILES
    }
    assert sum(map(len, graph.values())) > 100
    list(TopologicalSorter(graph).static_order())  # raises CycleError with the cycle


GATHERING = {"diagram/gathering.py", "report/gathering.py"}
"""The only files among those that draw which may run a model; the others take data."""

RUNNING = ("execution", "activations", "optvis", "saliency", "model.trace", "model.instrument", "model.zoo")


def test_files_that_draw_take_data():
    drawing = [file for file in FILES if file.split("/")[0] in ("canvas", "plots", "diagram", "report")]
    prefixes = tuple(f"viscircuits.{running}." for running in RUNNING)
    assert {file for file in drawing if any(name.startswith(prefixes) for name in imports(file))} == GATHERING
    for running in RUNNING:  # a part that was moved away would never be found again
        assert any(f.removesuffix(".py").replace("/", ".").startswith(running) for f in FILES), running
    gathering = tuple(f"viscircuits.{file.removesuffix('.py').replace('/', '.')}." for file in GATHERING)
    faces = {file for file in drawing if any(name.startswith(gathering) for name in imports(file))} - GATHERING
    assert faces == {"diagram/extended.py", "report/report.py", "report/plates.py"}  # they ask, and hand on what comes


def test_public_names_resolve_to_what_type_checkers_see():
    source = ast.parse((ROOT / "__init__.py").read_text())
    block = next(node for node in source.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    seen = {alias.asname: node.module for node in block.body for alias in node.names}
    homes = {n: h.removesuffix(f".{n}") if n == "zoo" else h for n, h in viscircuits._HOMES.items()}
    assert seen == homes
    assert list(viscircuits.__all__) == list(viscircuits._HOMES)
    for name, home in seen.items():
        if name == "zoo":
            expected = importlib.import_module(f"{home}.{name}")
        elif home.startswith(f"viscircuits.{name}."):  # a package that can be called
            expected = importlib.import_module(f"viscircuits.{name}")
        else:
            expected = getattr(importlib.import_module(home), name)
        assert getattr(viscircuits, name) is expected
        assert name in dir(viscircuits)
    with pytest.raises(AttributeError, match=r"module 'viscircuits' has no attribute 'circuits'"):
        _ = viscircuits.circuits
