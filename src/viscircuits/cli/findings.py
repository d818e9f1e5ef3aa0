"""How a command that finds something about features ends: it writes all of it, and prints where it stands.

Not here: the folder of findings (`viscircuits.study.findings`), and what the command found.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.text import Text

from viscircuits import store
from viscircuits.cli.command import typed
from viscircuits.cli.console import out, print_next
from viscircuits.report.findings import write_findings
from viscircuits.study.findings import Findings
from viscircuits.study.names import STUDY
from viscircuits.study.section import Table


def finish(
    findings: Findings, found: Mapping[str, store.Json], title: str, lead: str, *, note: str = "",
    pictures: Mapping[str, Path] = {}, tables: Sequence[Table] = (), then: Sequence[object] = (),
) -> None:  # fmt: skip
    """Writes what was found with the command that was typed, and prints where it stands.

    Args:
        findings: the folder.
        found: what came of it, in short.
        title: of the section of the report.
        lead: what was found, in a sentence or two.
        note: how to read it.
        pictures: what each shows -> a picture that was saved in the folder.
        tables: of each what it shows, the heads of columns, the rows.
        then: the command that goes on from here, without its ``viscircuits``.
    """
    findings.finish(found, title, lead, command=typed(), note=note, pictures=pictures, tables=tables)
    # soft_wrap, because a path that is cut cannot be copied
    out.print(Text(str(findings.path), style="bold"), soft_wrap=True)
    if not (findings.study / STUDY).exists():  # otherwise `viscircuits report` writes the page
        out.print(Text(str(write_findings(findings.study))), soft_wrap=True)
    if then:
        print_next(*then)
