"""What commands say on standard error when all is well: the command that one may type next."""

NEXT = "next: "


def no_hint(err: str) -> str:
    """Returns all that was said but for the hint."""
    return "\n".join(line for line in err.strip().splitlines() if not line.startswith(f"{NEXT}viscircuits "))


def hint(err: str) -> str:
    """Returns the command that a hint names."""
    (line,) = (line for line in err.splitlines() if line.startswith(NEXT))
    return line.removeprefix(NEXT)
