"""What commands say on standard error when all is well: how far they are, and the command that one may type next."""

import re

NEXT = "next: "
PROGRESS = re.compile(r"[\w ,.()-]+: [\d,]+ of [\d,]+(, about .* left)?")


def complaints(err: str) -> str:
    """Returns all else that was said."""
    lines = err.strip().splitlines()
    return "\n".join(line for line in lines if not (line.startswith(f"{NEXT}viscircuits ") or PROGRESS.fullmatch(line)))


def hint(err: str) -> str:
    """Returns the command that one may type next."""
    (line,) = (line for line in err.splitlines() if line.startswith(NEXT))
    return line.removeprefix(NEXT)
