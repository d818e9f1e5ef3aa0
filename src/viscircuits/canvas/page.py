"""One page that needs no other file and no network: colours in two themes, diagrams that answer their reader.

A page allows one script, ours, by its hash; whatever else may get into it does not run. Styles are allowed inline:
bars, frames and diagrams carry their measures in attributes.
"""

import base64
import hashlib
import re
from importlib import resources

from viscircuits.canvas.marks import Scene
from viscircuits.canvas.markup import Html, escaped
from viscircuits.canvas.palette import PALETTES, Theme
from viscircuits.canvas.svg import inline_svg


def write_page(title: str, body: Html, *styles: str) -> str:
    """Returns a page around its content.

    Args:
        title: its name.
        body: its content; text that is no `Html` is escaped here too.
        styles: further style sheets.
    """
    script = template("page.js")
    return filled(
        template("page.html"),
        {
            "/*LIGHT*/": _variables("light"),
            "/*DARK*/": _variables("dark"),
            "/*STYLE*/": "\n".join([template("page.css"), *styles]),
            "/*SCRIPT*/": script,
            "@HASH@": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            "@TITLE@": escaped(title),
            "@BODY@": escaped(body),
        },
    )


def interactive(scene: Scene) -> Html:
    """Returns a diagram as a part of a page, with its controls.

    Hovering tells names and scores; a click, or Enter, isolates the paths through a vertex or edge.
    """
    return Html(filled(template("interactive.html"), {"@WIDTH@": f"{scene.width:.0f}", "@SVG@": inline_svg(scene)}))


def filled(text: str, parts: dict[str, str]) -> str:
    """Returns a template with its places filled, in one pass: what is filled in may hold any text."""
    return re.sub("|".join(map(re.escape, parts)), lambda place: parts[place[0]], text)


def template(name: str, package: str = "viscircuits.canvas") -> str:
    """Returns the text of a file in a package."""
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")


def _variables(theme: Theme) -> str:
    return "".join(f"--{role}:{colour};" for role, colour in PALETTES[theme].roles.items())
