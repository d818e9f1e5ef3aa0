"""One measurement of a sweep: what names it, its numbers as a flat row, and what keeps it.

Convention: a key is made of texts and a number alone, so that a table that was read back has the same keys.

Not here: the columns of the table (`viscircuits.study.measurements`), and how its numbers are found
(`viscircuits.evaluate.preservation`).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from viscircuits.card import Card, Shown
from viscircuits.circuit.circuit import Circuit
from viscircuits.scores import Scores

Row = dict[str, str | float | int | bool | None]
"""One line of the table: column -> value."""


class Key(NamedTuple):
    """What names one measurement within a sweep."""

    target: str
    criterion: str
    order: str
    density: float


@dataclass(frozen=True, repr=False)
class Measurement(Shown):
    """One circuit and its numbers, as a flat row."""

    key: Key
    row: Row
    circuit: Circuit
    scores: Scores

    def _card(self) -> Card:
        return Card("Measurement", {**self.key._asdict(), "|r|": self.row.get("pearson")})


@runtime_checkable  # so that types can be checked in tests
class Folder(Protocol):
    """What keeps a sweep's scores and circuits beside its table; `viscircuits.study.folder.Study` is one."""

    @property
    def hash(self) -> str:
        """What tells its table from that of another sweep."""
        ...

    @property
    def rungs(self) -> Path:
        """Where a criterion that takes long keeps how far it has come."""
        ...

    def scores(self, target: str, criterion: str, density: float | None) -> Scores | None:
        """Returns scores that are there, whole, and nothing otherwise.

        Args:
            target: text form of the target.
            criterion: its text, without the order.
            density: the density that they were made for; None where they select at any.
        """
        ...

    def add_scores(self, scores: Scores) -> object:
        """Keeps scores."""
        ...

    def holds(self, target: str, criterion: str, order: str, density: float) -> bool:
        """Returns whether a circuit is there, whole.

        Args:
            target: text form of the target.
            criterion: its text, without the order.
            order: "best" or "worst".
            density: kept over relevant structures, in (0, 1].
        """
        ...
