"""``viscircuits inspect``: what is in a study folder."""

from pathlib import Path
from typing import Annotated

import typer


def inspect(study: Annotated[Path, typer.Argument(metavar="STUDY", help="A study folder.")]) -> None:
    """Print what a study was asked, what came of it, and its files."""
    from viscircuits.cli.console import out, print_next, print_table
    from viscircuits.cli.tables import print_study
    from viscircuits.study.folder import Study

    shown = Study.open(study)
    header, spec = shown.header, shown.header.spec
    facts = {
        "model": spec.model + (f" ({spec.weights})" if spec.weights else ""),
        "fingerprint": spec.fingerprint,
        "targets": ", ".join(map(spec.titled, spec.targets)),
        "scored on": f"{spec.scoring.count} pictures of {spec.scoring.source} ({spec.scoring.hash})",
        "measured on": f"{spec.held_out.count} pictures of {spec.held_out.source} ({spec.held_out.hash})",
        "criteria": ", ".join(spec.criteria),
        "circuits": f"of {spec.granularity}s, {spec.biases}" + (", min-max scores" if spec.normalise else ""),
        "seed": str(spec.seed),
        "made with": f"viscircuits {header.viscircuits}, torch {header.torch}, {header.created}",
        "command": header.command,
    }
    print_table(str(study), [("", False), ("", False)], facts.items())
    out.print()
    print_study(shown)
    groups: dict[str, tuple[int, int]] = {}
    for name, size in shown.files():
        folder = name.partition("/")[0] + "/" if "/" in name else name
        count, total = groups.get(folder, (0, 0))
        groups[folder] = (count + 1, total + size)
    out.print()
    rows = [(name, f"{count}", f"{size / 1000:,.0f} kB") for name, (count, size) in groups.items()]
    print_table("files", [("", False), ("files", True), ("size", True)], rows)
    print_next("diagram", study)
