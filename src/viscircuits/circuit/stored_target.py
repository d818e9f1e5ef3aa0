"""The target in a circuit file: plain JSON, and the check for it.

Convention: a loss is an object; any other target is a list of ``[weight, fields]``, which ends in ``"sum"`` where it is
a sum, because a sum of one term is another target than the term.

Not here: the text form (`viscircuits.target`), which does not say everything of a direction.
"""

from typing import Any

from viscircuits import store
from viscircuits.errors import TargetError
from viscircuits.store.checks import FLAG, TEXT, Check, listed, number, one_of, optional, record, row, shown, whole
from viscircuits.target import AnyTarget, Loss, Target, TargetSum
from viscircuits.types import REDUCTIONS


def target_to_json(target: AnyTarget) -> list[store.Json] | dict[str, store.Json]:
    """Returns a target as plain JSON; `target_from_json` is the inverse."""
    if isinstance(target, Loss):
        return {"loss": True, "predicted": target.predicted}
    terms: list[store.Json] = [[weight, _fields(term)] for weight, term in target.terms]
    return [*terms, "sum"] if isinstance(target, TargetSum) else terms


def target_from_json(value: Any) -> AnyTarget:
    """Returns the target that `target_to_json` wrote; a `TargetError` for any other value."""
    if not JSON.holds(value):
        raise TargetError(f"expected {JSON.expected}, got {shown(value)}")
    if isinstance(value, dict):
        return Loss(predicted=value["predicted"])
    terms = tuple((item[0], Target(**item[1])) for item in value if item != "sum")
    return TargetSum(terms) if value[-1] == "sum" else terms[0][1]


def _is_json(value: object) -> bool:
    if isinstance(value, dict):
        return record(loss=one_of(True), predicted=FLAG).holds(value)
    if isinstance(value, list) and value[-1:] == ["sum"]:
        return listed(row(number(), _TERM_JSON), 1, len(value) - 1).holds(value[:-1])
    # a target that is no sum is its only term
    return listed(row(number(), _TERM_JSON), 1, 1).holds(value)


_INDEX = whole(-(2**63))
_FIELDS = {
    "layer": TEXT,
    "channel": optional(_INDEX),
    "direction": optional(listed(number())),
    "position": Check(
        "a position", lambda value: value in (None, "center", "max") or listed(_INDEX, most=3).holds(value)
    ),
    "reduction": one_of(*REDUCTIONS),
}
_TERM_JSON = record(**_FIELDS)

JSON = Check("a target, as circuit.save writes it", _is_json)
"""The check for what `target_to_json` gives."""


def _fields(term: Target) -> dict[str, store.Json]:
    fields: dict[str, store.Json] = {}
    for key in _FIELDS:
        value = getattr(term, key)
        fields[key] = list(value) if isinstance(value, tuple) else value
    return fields
