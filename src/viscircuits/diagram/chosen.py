"""Which circuit of a study is shown: the smallest that keeps enough, with the scores it was selected by."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from viscircuits.circuit import Circuit
from viscircuits.errors import StudyError
from viscircuits.scores import Scores
from viscircuits.study import Study, slug

KEEP = 0.9
"""The |r| that a circuit has to keep, unless asked otherwise."""

RANKS = ("learned",)
"""Criteria whose scores are places in an order."""

Row = dict[str, Any]
"""One measurement of a study: column -> value."""


def measured(study: Study, target: str | None = None, criterion: str | None = None) -> list[Row]:
    """Returns the measurements of a target's circuits by one criterion; of the study's first where None."""
    rows = [row for row in study.measurements().to_dicts() if row["order"] == "best"]
    for field, wanted in (("target", target), ("criterion", criterion)):
        known = list(dict.fromkeys(row[field] for row in rows))
        value = wanted if wanted is not None else next(iter(known), None)
        if value not in known:
            raise StudyError(f"the study has no {field} {value!r}; it has {', '.join(map(repr, known)) or 'none'}")
        rows = [row for row in rows if row[field] == value]
    return sorted(rows, key=lambda row: -row["density"])


def chosen(rows: Sequence[Row], density: float | None = None, keep: float = KEEP) -> Row:
    """Returns the row of a density; without one that of the smallest circuit with |r| >= keep, else of the best."""
    if density is not None:
        near = [row for row in rows if abs(row["density"] - density) <= 1e-9]
        if not near:
            known = ", ".join(f"{row['density']:g}" for row in rows)
            raise StudyError(f"the study has no density {density:g}; it has {known}")
        rows = near
    good = [row for row in rows if row["pearson"] >= keep]
    return min(good, key=lambda row: row["density"]) if good else max(rows, key=lambda row: row["pearson"])


def circuit_of(study: Study, row: Row, model: nn.Module) -> Circuit:
    """Returns the circuit of a row on its model."""
    return study.circuit(model, row["target"], row["criterion"], row["density"])


def scores_of(study: Study, row: Row) -> Scores | None:
    """Returns the scores that draw a row's circuit: those that it was selected by, where they are in the study.

    Where these are ranks, all that is kept has nearly the same; then those of the study's first other criterion.
    """
    criteria, density = [row["criterion"]], f"{row['density']:.12g}"
    if _name(row["criterion"]) in RANKS:
        criteria = [one for one in study.header.spec.criteria if _name(one) not in (*RANKS, "random")]
    # some criteria have scores of their own for every density
    names = [(row["target"], one, *rest) for one in criteria for rest in ((), (density,))]
    files = [study.path / "scores" / f"{slug(*name)}.safetensors" for name in names]
    return next((Scores.load(file) for file in files if file.is_file()), None)


def called(criteria: Iterable[str]) -> Mapping[str, str]:
    """Returns criterion -> what it is called: its name without options, unless another has the same name."""
    listed = list(dict.fromkeys(criteria))
    names = {criterion: _name(criterion) for criterion in listed}
    count = Counter(names.values())
    return {criterion: name if count[name] == 1 else criterion for criterion, name in names.items()}


def name_of(row: Row) -> str:
    """Returns the name of the files that show a row's circuit."""
    return slug(row["target"], row["criterion"], f"{row['density']:g}")


def _name(criterion: str) -> str:
    """A criterion without its options."""
    return criterion.partition(",")[0]
