"""One page that needs no other file and no network: colours in two themes, diagrams that answer their reader."""

import re
from html import escape
from importlib import resources

from viscircuits.diagram.marks import Scene
from viscircuits.diagram.palette import PALETTES, Theme
from viscircuits.diagram.svg import inline_svg


def write_page(title: str, body: str, *styles: str) -> str:
    """Returns a page around HTML that is already escaped.

    Args:
        title: its name, any text.
        body: its content.
        styles: names of further style sheets of this package.
    """
    return filled(
        template("page.html"),
        {
            "/*LIGHT*/": _variables("light"),
            "/*DARK*/": _variables("dark"),
            "/*STYLE*/": "\n".join(map(template, ("page.css", *styles))),
            "/*SCRIPT*/": template("page.js"),
            "@TITLE@": escape(title),
            "@BODY@": body,
        },
    )


def interactive(scene: Scene) -> str:
    """Returns a diagram as a part of a page, with its controls.

    Hovering tells names and scores; a click, or Enter, isolates the paths through a vertex or edge.
    """
    return filled(template("interactive.html"), {"@WIDTH@": f"{scene.width:.0f}", "@SVG@": inline_svg(scene)})


def filled(text: str, parts: dict[str, str]) -> str:
    """Returns a template with its places filled, in one pass: what is filled in may hold any text."""
    return re.sub("|".join(map(re.escape, parts)), lambda place: parts[place[0]], text)


def template(name: str) -> str:
    """Returns a file of this package."""
    return resources.files("viscircuits.diagram").joinpath(name).read_text(encoding="utf-8")


def _variables(theme: Theme) -> str:
    return "".join(f"--{role}:{colour};" for role, colour in PALETTES[theme].roles.items())
