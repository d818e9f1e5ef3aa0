"""Counts how the house is kept: lengths, comments, docstrings, names, escapes from the type checker.

``python tests/house.py [FOLDER]`` prints one line for each part of ``src/viscircuits``, or for each file of a folder.
"""

import ast
import io
import re
import sys
import tokenize
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1] / "src" / "viscircuits"
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
PARAMETERS = 3
"""From so many parameters on, a public function has a section ``Args``."""
TOOLS = re.compile(r"#\s*(noqa|pyright:|type:|fmt:|pragma|!|----)")
"""Comments for tools and rules across the page are none."""
IGNORES = re.compile(r"#\s*(noqa|pyright: ignore|type: ignore)")


@dataclass
class Counts:
    """What one file, or several, hold."""

    files: int = 0
    lines: int = 0
    comments: int = 0
    nested: list[str] = field(default_factory=list)
    without_args: list[str] = field(default_factory=list)
    functions: int = 0
    any: list[str] = field(default_factory=list)
    ignores: list[str] = field(default_factory=list)

    def __iadd__(self, other: "Counts") -> "Counts":
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)
        return self


def files(folder: Path | None = None) -> list[Path]:
    """Every file of Python below a folder, or in the whole house."""
    return sorted((folder or ROOT).rglob("*.py"))


def counts(path: Path) -> Counts:
    """The counts of one file."""
    text = path.read_text()
    tree = ast.parse(text)
    place = path.relative_to(ROOT).as_posix()
    found = Counts(files=1, lines=len(text.splitlines()))
    names: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            if IGNORES.search(token.string):
                found.ignores.append(f"{place}:{token.start[0]}")
            if not TOOLS.match(token.string):
                found.comments += 1
        elif token.type == tokenize.NAME and token.string == "Any" and "import" not in token.line:
            names.add(token.start[0])
    names |= {node.lineno for node in _annotations(tree) if re.search(r"\bAny\b", str(node.value))}
    found.any = [f"{place}:{line}" for line in sorted(names)]
    found.nested = [f"{place}:{line}" for line in sorted(set(_nested(tree)))]
    for function in _public_functions(tree):
        if not _is_command(path, function) and len(_parameters(function)) >= PARAMETERS:
            found.functions += 1
            if "Args:" not in (ast.get_docstring(function) or ""):
                found.without_args.append(f"{place}:{function.lineno} {function.name}")
    return found


def _annotations(tree: ast.AST) -> Iterator[ast.Constant]:
    """Types that are written as texts."""
    for node in ast.walk(tree):
        for type_ in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            if isinstance(type_, ast.Constant) and isinstance(type_.value, str):
                yield type_


def _nested(tree: ast.AST) -> Iterator[int]:
    """Lines of comprehensions inside comprehensions, and of conditional expressions inside conditional expressions."""
    for node in ast.walk(tree):
        for kinds in (COMPREHENSIONS, (ast.IfExp,)):
            if isinstance(node, kinds):
                yield from (inner.lineno for inner in ast.walk(node) if inner is not node and isinstance(inner, kinds))


def _public_functions(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from (f for f in node.body if isinstance(f, ast.FunctionDef) and not f.name.startswith("_"))


def _parameters(function: ast.FunctionDef) -> list[str]:
    given = function.args
    names = [one.arg for one in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return [name for name in names if name not in ("self", "cls")]


def _is_command(path: Path, function: ast.FunctionDef) -> bool:
    """Commands describe their options where they declare them."""
    return path.parent.name in ("circuits", "features") and path.parents[1].name == "cli" and function.name == path.stem


def public_classes() -> dict[str, list[str]]:
    """Name of a public class or type alias -> the files that define one."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in files():
        place = path.relative_to(ROOT).as_posix()
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(place)
            elif isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
                name = node.targets[0].id
                if re.fullmatch(r"[A-Z][a-z]\w*", name):
                    found[name].append(place)
    return found


def long_files(most: int = 300) -> list[str]:
    """Files of more lines."""
    sizes = {path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in files()}
    return [f"{place}: {size}" for place, size in sorted(sizes.items(), key=lambda one: -one[1]) if size > most]


def full_folders(most: int = 12) -> list[str]:
    """Folders of more files, beside ``__init__``."""
    held = Counter(path.parent.relative_to(ROOT).as_posix() for path in files() if path.stem != "__init__")
    return [f"{folder}: {count}" for folder, count in held.items() if count > most]


def main() -> None:
    """Prints the table."""
    folder = ROOT / (sys.argv[1] if len(sys.argv) > 1 else "")
    parts: dict[str, Counts] = defaultdict(Counts)
    for path in [folder] if folder.is_file() else files(folder):
        inside = path.relative_to(folder if folder.is_dir() else folder.parent)
        parts[inside.parts[0] if folder == ROOT else inside.as_posix()] += counts(path)
    whole = Counts()
    print(f"{'':34}{'lines':>7}{'comments/100':>13}{'no Args':>8}{'nested':>7}{'Any':>5}{'ignores':>8}")
    for name, part in [*parts.items(), ("all", whole)]:
        if part is not whole:
            whole += part
        density = 100 * part.comments / max(part.lines, 1)
        print(f"{name:34}{part.lines:>7}{density:>13.1f}{len(part.without_args):>8}{len(part.nested):>7}"
              f"{len(part.any):>5}{len(part.ignores):>8}")  # fmt: skip
    for title, places in (("without Args", whole.without_args), ("nested", whole.nested), ("Any", whole.any),
                          ("ignores", whole.ignores)):  # fmt: skip
        if folder != ROOT and places:
            print(f"\n{title}: {'; '.join(places)}")
    print("\nlong:", *long_files(), sep="\n  ")
    print("\nfull:", *full_folders(), sep="\n  ")
    print("\ntwice:", *(f"{n}: {', '.join(p)}" for n, p in public_classes().items() if len(p) > 1), sep="\n  ")


if __name__ == "__main__":
    main()
