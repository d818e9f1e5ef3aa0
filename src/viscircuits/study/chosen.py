"""Which circuit of a study is shown: the smallest that keeps enough, of any criterion, with the scores that draw it."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import polars as pl
from torch import nn

from viscircuits.circuit import Circuit
from viscircuits.errors import StudyError
from viscircuits.scores import Scores
from viscircuits.study.folder import Study, slug

KEEP = 0.9
"""The |r| that a circuit has to keep, unless asked otherwise."""

RANKS = ("learned",)
"""Criteria that train gates for the response; their scores are places in an order."""

CONTROL = "random"
"""The criterion that is a control; worst first is one too, of any."""

Row = dict[str, Any]
"""One measurement of a study: column -> value."""


def measured(study: Study, target: str | None = None, criterion: str | None = None) -> list[Row]:
    """Returns the measurements of a target from which one is chosen, in the order of `Study.measurements`.

    Controls are no candidates, unless one is asked for or there is nothing else.

    Args:
        study: a study folder.
        target: whose circuits; those of the study's first target where None.
        criterion: those of one criterion alone; ``NAME:worst`` for a control of it.
    """
    rows = study.measurements().to_dicts()
    targets = [row["target"] for row in rows]
    rows = _only(rows, "target", next(iter(targets), None) if target is None else target, targets)
    names = [asked_as(row["criterion"], row["order"]) for row in rows]
    if criterion is not None:
        return _only(rows, "criterion", criterion, names)
    return [row for row, name in zip(rows, names, strict=True) if not is_control(name)] or rows


def _only(rows: Sequence[Row], field: str, wanted: str | None, names: Sequence[str]) -> list[Row]:
    if wanted not in names:
        known = ", ".join(map(repr, dict.fromkeys(names)))
        raise StudyError(f"the study has no {field} {wanted!r}; it has {known or 'none'}")
    return [row for row, name in zip(rows, names, strict=True) if name == wanted]


def chosen(rows: Sequence[Row], density: float | None = None, keep: float = KEEP) -> Row:
    """Returns the row that is shown.

    Of those with |r| >= keep the one of the smallest density, then the one with the larger |r|, then the first; where
    none keeps so much, or a density is given, the one with the largest |r|.
    """
    if density is not None:
        near = [row for row in rows if abs(row["density"] - density) <= 1e-9]
        if not near:
            known = ", ".join(f"{number:g}" for number in dict.fromkeys(row["density"] for row in rows))
            raise StudyError(f"the study has no density {density:g}; it has {known}")
        return max(near, key=lambda row: row["pearson"])
    good = [row for row in rows if row["pearson"] >= keep]
    if good:
        return min(good, key=lambda row: (row["density"], -row["pearson"]))
    return max(rows, key=lambda row: row["pearson"])


def circuit_of(study: Study, row: Row, model: nn.Module) -> Circuit:
    """Returns the circuit of a row on its model."""
    return study.circuit(model, row["target"], _filed(row), row["density"])


def scores_of(study: Study, row: Row) -> Scores | None:
    """Returns the scores that draw a row's circuit: those that it was selected by, where they are in the study.

    Where these are ranks, all that is kept has nearly the same; then those of the study's first other criterion.
    """
    criteria, density = [row["criterion"]], f"{row['density']:.12g}"
    if is_trained(row["criterion"]):
        asked = dict.fromkeys(one.partition(":")[0] for one in study.header.spec.criteria)  # both orders have the same
        criteria = [one for one in asked if not is_trained(one) and not is_control(one)]
    # some criteria have scores of their own for every density
    names = [(row["target"], one, *rest) for one in criteria for rest in ((), (density,))]
    files = [study.file("scores", f"{slug(*name)}.safetensors") for name in names]
    return next((Scores.load(file) for file in files if file.is_file()), None)


def series_of(table: pl.DataFrame) -> list[tuple[str, str]]:
    """Returns the criteria of a table with their orders: criteria as they come, the best before the worst first."""
    criteria = list(dict.fromkeys(table["criterion"]))
    pairs = table.select("criterion", "order").unique().rows()
    return sorted(pairs, key=lambda pair: (criteria.index(pair[0]), pair[1]))


def called(criteria: Iterable[str]) -> Mapping[str, str]:
    """Returns criterion -> what it is called: its name without options, unless another has the same name."""
    listed = list(dict.fromkeys(criterion.partition(":")[0] for criterion in criteria))
    names = {criterion: _name(criterion) for criterion in listed}
    count = Counter(names.values())
    return {criterion: name if count[name] == 1 else criterion for criterion, name in names.items()}


def titled(name: str, order: str) -> str:
    """Returns what the circuits of a criterion and an order are called."""
    return name if order == "best" else f"{name}, worst first"


def asked_as(criterion: str, order: str) -> str:
    """Returns how a criterion and an order are asked for: ``actgrad``, ``actgrad:worst``."""
    return criterion if order == "best" else f"{criterion}:{order}"


def is_control(criterion: str) -> bool:
    """Returns whether a criterion, as it is asked for, is a control."""
    return _name(criterion) == CONTROL or criterion.endswith(":worst")


def is_trained(criterion: str) -> bool:
    """Returns whether a criterion trains gates for the response."""
    return _name(criterion) in RANKS


def name_of(row: Row) -> str:
    """Returns the name of the files that show a row's circuit."""
    return slug(row["target"], _filed(row), f"{row['density']:g}")


def _filed(row: Row) -> str:
    """A row's criterion as file names have it."""
    return row["criterion"] if row["order"] == "best" else f"{row['criterion']}-{row['order']}"


def _name(criterion: str) -> str:
    """A criterion without its options and order."""
    return criterion.partition(":")[0].partition(",")[0]
