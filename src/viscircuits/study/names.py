"""Names of all that a study's folder holds, each said here and nowhere else; and how a text becomes part of one.

::

    study.json               what was asked, of which model and pictures, with which versions
    measurements.parquet     one row a circuit
    scores/ circuits/        safetensors files, named after target, criterion and density
    preservation.png, .svg   the curve
    pictures/cache/          rendered pictures
    diagrams/ report.html    circuits drawn, and the whole story on a page
    .rungs/                  how far a criterion that trains has come, until its scores are there
    findings/NAME/           what was found about features (`viscircuits.study.findings`)

Names hold no character that a shell, a browser or Windows takes for something else.
"""

import re
from pathlib import Path

from viscircuits.store.digests import digest

STUDY = "study.json"
MEASUREMENTS = "measurements.parquet"
SCORES = "scores"
CIRCUITS = "circuits"
CURVE = "preservation"
"""Name of the curve, without its ending."""

PICTURES = ("pictures", "cache")
DIAGRAMS = "diagrams"
REPORT = "report.html"
RUNGS = ".rungs"

FINDINGS = "findings"
"""Where findings stand in a study's folder."""

HEADER = "findings.json"
SECTION = "section.json"
OLD_SECTION = "section.html"
"""What held a section before `SECTION`; it is not read."""

TOP = "top"
"""Where top activations are kept in a folder of findings."""

_LONGEST = 60
"""Characters of one part of a file name; most file systems take 255 in all."""

_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
"""Names that Windows keeps for devices, with any ending."""


def slug(*parts: str) -> str:
    """Returns parts as one file name; a part that is too long, or has other characters, is told apart by a hash.

    So is a name that would be a folder (``..``), hidden, empty or a device.
    """
    name = "__".join(_slug(part) for part in parts if part)
    if name and not name.startswith(".") and not name.endswith(".") and not _RESERVED.match(name):
        return name
    return f"_{name.strip('.')}-{digest(name)[:8]}"


def _slug(part: str) -> str:
    plain = part.replace("*", "x").replace("@", "-at-").replace(":", "-").replace(" ", "")
    # ASCII alone: file systems fold other letters in their own ways, so that two names would be one file
    safe = re.sub(r"[^\w.,+-]", "_", plain, flags=re.ASCII)
    return safe if safe == plain and len(safe) <= _LONGEST else f"{safe[:_LONGEST]}-{digest(part)[:8]}"


def scores_name(target: str, criterion: str, density: float | None) -> str:
    """Returns the name of a file of scores.

    Args:
        target: as text.
        criterion: with its options, without its order, which has the same scores.
        density: in (0, 1], where the criterion has scores of its own for each; else None.
    """
    return f"{slug(target, criterion, '' if density is None else _number(density))}.safetensors"


def circuit_name(target: str, criterion: str, density: float) -> str:
    """Returns the name of a circuit's file.

    Args:
        target: as text.
        criterion: with its options; see `ordered`.
        density: in (0, 1].
    """
    return f"{slug(target, criterion, _number(density))}.safetensors"


def ordered(criterion: str, order: str) -> str:
    """Returns a criterion and an order as the name of a circuit's file has them: ``actgrad``, ``actgrad-worst``."""
    return criterion if order == "best" else f"{criterion}-{order}"


def _number(density: float) -> str:
    # twelve digits: densities that differ on purpose have names of their own, and 0.1 + 0.2 has that of 0.3
    return f"{density:.12g}"


def study_of(out: Path | None, model: str) -> Path:
    """Returns the folder of a study of findings: the given one, or that of the model."""
    return out or Path("studies") / slug(model.replace("/", "-"))


def is_hidden(name: str) -> bool:
    """Returns whether a file is none of a study's own: temporary, a claim, or of somebody's file manager."""
    return name.startswith(".")
