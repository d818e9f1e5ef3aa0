"""Which circuit of a study is shown: the smallest that keeps enough, of any criterion, with the scores that draw it."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from viscircuits.errors import StudyError
from viscircuits.study import names
from viscircuits.study.folder import Study

if TYPE_CHECKING:
    from torch import nn

    from viscircuits.circuit.circuit import Circuit
    from viscircuits.saliency.criterion import Criterion
    from viscircuits.scores import Scores

KEEP = 0.9
"""The |r| that a circuit has to keep, unless asked otherwise."""

CONTROL = "random"
"""The criterion that is a control; worst first is one too, of any."""

Entry = dict[str, Any]
"""One measurement of a study: column -> value."""


def measured(study: Study, target: str | None = None, criterion: str | None = None) -> list[Entry]:
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
    criteria = [asked_as(row["criterion"], row["order"]) for row in rows]
    if criterion is not None:
        return _only(rows, "criterion", criterion, criteria)
    return [row for row, name in zip(rows, criteria, strict=True) if not is_control(name)] or rows


def _only(rows: Sequence[Entry], field: str, wanted: str | None, known: Sequence[str]) -> list[Entry]:
    """The rows of which a field is what is wanted; ``known`` is the field of each."""
    if wanted not in known:
        there = ", ".join(map(repr, dict.fromkeys(known)))
        raise StudyError(f"the study has no {field} {wanted!r}; it has {there or 'none'}")
    return [row for row, one in zip(rows, known, strict=True) if one == wanted]


def chosen(rows: Sequence[Entry], density: float | None = None, keep: float = KEEP) -> Entry:
    """Returns the row that is shown.

    Of those with |r| >= keep the one of the smallest density, then the one with the larger |r|, then the first; where
    none keeps so much, or a density is given, the one with the largest |r|.

    Args:
        rows: to choose from, as `measured` gives them; at least one.
        density: the only one wanted, in (0, 1].
        keep: the |r| to keep, in [0, 1].

    Raises:
        StudyError: no row has the density.
    """
    if density is not None:
        # a density that was typed is not to the last digit the one that was computed
        near = [row for row in rows if abs(row["density"] - density) <= 1e-9]
        if not near:
            densities = dict.fromkeys(row["density"] for row in rows)
            known = ", ".join(f"{number:g}" for number in densities)
            raise StudyError(f"the study has no density {density:g}; it has {known}")
        return max(near, key=lambda row: row["pearson"])
    good = [row for row in rows if row["pearson"] >= keep]
    if good:
        return min(good, key=lambda row: (row["density"], -row["pearson"]))
    return max(rows, key=lambda row: row["pearson"])


def circuit_of(study: Study, row: Entry, model: "nn.Module") -> "Circuit":
    """Returns the circuit of a row on its model.

    Args:
        study: a study folder.
        row: one of its measurements.
        model: the one that it was made on.
    """
    return study.circuit(model, row["target"], _filed(row), row["density"])


def scores_of(study: Study, row: Entry) -> "Scores | None":
    """Returns the scores that draw a row's circuit: those that it was selected by, where they are in the study.

    Where these are ranks, all that is kept has nearly the same; then those of the study's first other criterion.
    """
    from viscircuits.scores import Scores

    criteria = [row["criterion"]]
    if is_ranking(row["criterion"]):
        # both orders of a criterion have the same scores
        every = dict.fromkeys(one.partition(":")[0] for one in study.header.spec.criteria)
        criteria = [one for one in every if not is_ranking(one) and not is_control(one)]
    files: list[Path] = []
    for criterion in criteria:
        for density in (None, row["density"]):  # some criteria have scores of their own for every density
            files.append(study.file(names.SCORES, names.scores_name(row["target"], criterion, density)))
    return next((Scores.load(file) for file in files if file.is_file()), None)


def series_of(table: pl.DataFrame) -> list[tuple[str, str]]:
    """Returns the criteria of a table with their orders: criteria as they come, the best before the worst first."""
    criteria = list(dict.fromkeys(table["criterion"]))
    pairs = table.select("criterion", "order").unique().rows()
    return sorted(pairs, key=lambda pair: (criteria.index(pair[0]), pair[1]))


def called(criteria: Iterable[str]) -> Mapping[str, str]:
    """Returns criterion -> what it is called: its name without options, unless another has the same name."""
    without_order = dict.fromkeys(criterion.partition(":")[0] for criterion in criteria)
    plain = {criterion: _name(criterion) for criterion in without_order}
    count = Counter(plain.values())
    return {criterion: name if count[name] == 1 else criterion for criterion, name in plain.items()}


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
    known = _known(criterion)
    return known is not None and known.learned


def is_ranking(criterion: str) -> bool:
    """Returns whether a criterion's scores are places in an order."""
    known = _known(criterion)
    return known is not None and known.ranks


def _known(criterion: str) -> "Criterion | None":
    """A criterion as it is asked for; a study may name one that this version does not have."""
    from viscircuits.saliency.registry import CRITERIA

    return CRITERIA.get(_name(criterion))


def name_of(row: Entry) -> str:
    """Returns the name of the files that show a row's circuit."""
    return names.slug(row["target"], _filed(row), f"{row['density']:g}")


def _filed(row: Entry) -> str:
    """A row's criterion as file names have it."""
    return names.ordered(row["criterion"], row["order"])


def _name(criterion: str) -> str:
    """A criterion without its options and order."""
    return criterion.partition(":")[0].partition(",")[0]
