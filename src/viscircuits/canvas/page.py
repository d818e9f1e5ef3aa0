"""One page that needs no other file and no network: colours in two themes, diagrams that answer their reader.

A page allows one script, ours, by its hash; whatever else may get into it does not run. Styles are allowed inline:
bars and frames of reports carry their measures in attributes. Diagrams have none, so that they can stand in pages
that allow no inline style.
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from importlib import resources
from math import ceil

from viscircuits.canvas.marks import Group, Scene, Text, extent
from viscircuits.canvas.markup import Html, element, escaped, joined
from viscircuits.canvas.palette import PALETTES, Theme
from viscircuits.canvas.svg import inline_svg

CELL = 900
"""Width of a notebook's cell."""

# as in page.css and the script: the room around a drawing, and how large it gets at most
_AROUND, _LARGEST = 24, 1.3
_LOWEST, _HIGHEST = 360, 760
_LETTER, _BESIDE_HEADING = 6.2, 170
_ROW, _ABOVE = 17.4, 96


def write_page(title: str, body: Html, *styles: str) -> str:
    """Returns a page around its content.

    Args:
        title: its name.
        body: its content; text that is no `Html` is escaped here too.
        styles: further style sheets.
    """
    script = inlined("page")
    return filled(
        template("page.html"),
        {
            "/*LIGHT*/": _variables("light"),
            "/*DARK*/": _variables("dark"),
            "/*STYLE*/": "\n".join([template("page.css"), *styles]),
            "/*SCRIPT*/": script,
            # of the text as it stands between the script's tags: one byte more there, and browsers would not run it
            "@HASH@": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            "@TITLE@": escaped(title),
            "@BODY@": escaped(body),
        },
    )


def interactive(scene: Scene, facts: Mapping[str, object]) -> Html:
    """Returns a diagram as a part of a page, with its controls; ``script/attach.js`` makes it answer.

    Hovering tells names and scores; a click, or Enter, isolates the paths through a vertex or edge, and shows it large.

    Args:
        scene: the drawing. Its own lines of text stand above it in the page, where they can wrap on a narrow screen.
        facts: what the panel tells, by names of vertices and edges (see ``script/attach.js``).
    """
    lines = [mark for mark in scene.marks if isinstance(mark, Text)]
    rest = tuple(mark for mark in scene.marks if not isinstance(mark, Text))
    above = max((line.y for line in lines), default=0)
    drawing = replace(scene, height=scene.height - above, marks=(Group(rest, offset=(0, -above)),))
    parts = {
        "@HEADING@": joined([element("p", line.text) for line in lines]),
        "@SVG@": inline_svg(drawing),
        "@DATA@": escaped(json.dumps(facts, ensure_ascii=False)),
    }
    return Html(filled(template("interactive.html"), parts))


def cell_height(scene: Scene) -> int:
    """Returns how high a notebook's frame has to be to show a diagram whole, where it is `CELL` pixels wide.

    A frame may not ask how large it is, so that this is reckoned; in a wider cell the drawing stands in more paper.
    """
    lines = [mark for mark in scene.marks if isinstance(mark, Text)]
    left, top, right, bottom = extent(
        tuple(mark for mark in scene.marks if isinstance(mark, Group) and mark.id == "circuit")
    )
    width, height = right - left + 2 * _AROUND, bottom - top + 2 * _AROUND
    # long lines of the heading wrap; the button of the theme stands to the right of them
    rows = sum(ceil(len(line.text) * _LETTER / (CELL - _BESIDE_HEADING)) for line in lines)
    stage = min(CELL / width, _LARGEST) * height
    return round(_ABOVE + _ROW * rows + min(_HIGHEST, max(_LOWEST, stage)))


def inlined(entry: str) -> str:
    """Returns one of our scripts with all modules it imports, as a single classic script.

    Each module becomes a function that returns what it exports, after those it imports: names of two modules never
    meet. Import maps would need no rewriting, but a policy that allows them by hash allows ``data:`` scripts too.
    """
    modules: dict[str, str] = {}
    _gather(entry, modules)
    return '"use strict";\n' + "\n".join(modules.values())


_IMPORT = re.compile(r'^import (\{[^}]*\}) from "\./(\w+)\.js";$', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=const (\w+))", re.MULTILINE)


def _gather(name: str, modules: dict[str, str]) -> None:
    if name in modules:
        return
    text = template(f"script/{name}.js")
    for _, needed in _IMPORT.findall(text):
        _gather(needed, modules)
    exports = ", ".join(_EXPORT.findall(text))
    body = _EXPORT.sub("", _IMPORT.sub(r"const \1 = module_\2;", text))
    if re.search(r"^(import|export)\b", body, re.MULTILINE):
        raise ValueError(f"{name}.js imports or exports in a form that cannot be inlined")
    modules[name] = f"const module_{name} = (() => {{\n{body}return {{ {exports} }};\n}})();"


def filled(text: str, parts: Mapping[str, str]) -> str:
    """Returns a template with its places filled, in one pass: what is filled in may hold any text."""
    # one place after another would fill what looks like a place in a title, or in a caption out of a file
    return re.sub("|".join(map(re.escape, parts)), lambda place: parts[place[0]], text)


def template(name: str, package: str = "viscircuits.canvas") -> str:
    """Returns the text of a file in a package."""
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")


def _variables(theme: Theme) -> str:
    return "".join(f"--{role}:{colour};" for role, colour in PALETTES[theme].roles.items())
