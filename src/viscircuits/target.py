"""What is explained: a channel, a neuron, a direction, a class, a weighted sum of those, or the model's loss.

A target is a description only; `viscircuits.readout` reads its values off a run. The text form is what the command line
takes and what ``str`` gives (for a direction, or another reduction, ``str`` gives a name that cannot be read back)::

    features.6:55            channel 55 of a module's output, as a map
    features.6:55@7,3        the neuron of that channel at row 7, column 3
    features.6:55@center     ... at row h // 2, column w // 2
    features.6:55@max        ... at each image's own arg-max in the full model
    logit:207                output 207 of the model
    logit[aux]:7             ... of one of several tensors that it returns: logit[1]:7, or by their keys
    loss                     the cross-entropy of the model, per image (binary, where it has one output)
    loss@predicted           ... for the class that the full model predicts
    a:3 - 0.5*b:7            a weighted sum; each term is one number an image first
"""

import math
import operator
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, SupportsIndex, runtime_checkable

from viscircuits.bounds.arguments import checked
from viscircuits.bounds.ranges import Real, holds
from viscircuits.card import Card, Shown
from viscircuits.errors import TargetError, closest
from viscircuits.meaning import REDUCED, what, where
from viscircuits.model.graph import OUTPUT
from viscircuits.model.output import is_part
from viscircuits.store import digest
from viscircuits.store.checks import shown
from viscircuits.types import REDUCTIONS, Reduction

Position = tuple[int, ...] | Literal["center", "max"] | None
"""Where a channel's map is read: everywhere (None), ``(y, x)``, the centre, or each image's own arg-max."""


def indices(position: Position, shape: Sequence[int]) -> tuple[int, ...]:
    """Returns where on a map of a shape a position stands; for an even size the centre is the later of the middle two.

    Raises:
        TargetError: it is everywhere, or each image's own.
    """
    if isinstance(position, tuple):
        return position
    if position != "center":
        raise TargetError(f"position {position!r} is not one place on a map")
    return tuple(size // 2 for size in shape)


_TERM = re.compile(r"\s*(?P<layer>[^:*\s]+)\s*:\s*(?P<channel>-?\d+)\s*(?:@\s*(?P<position>[\w,\s]+?))?\s*$")
_HELP = "expected layer:channel, layer:channel@y,x, @center or @max, logit:CLASS, loss or loss@predicted"


@runtime_checkable
class _Floats(Protocol):
    """Anything with ``tolist``: a tensor or an array."""

    def tolist(self) -> list[float]: ...


@dataclass(frozen=True, repr=False)
class Target(Shown):
    r"""One number, or one map of numbers, that a module's output holds for each image.

    Args:
        layer: dotted name of any module (its output is read, so a convolution is read before its activation);
            ``""`` is the model's own output.
        channel: index of the channel or feature.
        direction: instead of a channel, one coefficient a channel; scaled to length 1.
        position: where on the map: everywhere, ``(y, x)``, ``"center"``, or ``"max"`` (frozen in the full model).
        reduction: how a map becomes one number an image before gradients are taken: ``sum_abs`` (sum over positions of
            \|A\|, the paper's choice), ``sum`` or ``mean``.
    """

    layer: str
    channel: int | None = None
    direction: tuple[float, ...] | None = None
    position: Position = None
    reduction: Reduction = "sum_abs"

    def __init__(
        self,
        layer: str,
        channel: SupportsIndex | None = None,
        direction: Sequence[float] | _Floats | None = None,
        position: Position | Sequence[SupportsIndex] = None,
        reduction: Reduction = "sum_abs",
    ) -> None:
        if not isinstance(layer, str):
            raise TargetError(
                f"expected the name of a layer, got a {type(layer).__name__}; a module's name is "
                f"next(name for name, module in model.named_modules() if module is layer)"
            )
        if (channel is None) == (direction is None):
            raise TargetError(f"a target needs exactly one of channel and direction; got {channel=} and {direction=}")
        if reduction not in REDUCTIONS:
            raise TargetError(f"unknown reduction {reduction!r}; expected one of {', '.join(REDUCTIONS)}")
        if isinstance(position, str) and position not in ("center", "max"):
            raise TargetError(f"unknown position {position!r}; expected (y, x), 'center' or 'max'")
        if not isinstance(position, str | Iterable | None):
            raise TargetError(f"unknown position {position!r}; expected (y, x), 'center' or 'max'")
        if not isinstance(position, str | None):
            position = tuple(_whole(p, "position") for p in position)
        channel = None if channel is None else _whole(channel, "channel")
        unit = None if direction is None else _unit(direction)
        # an __init__ of its own, because a frozen dataclass would keep a list or a tensor as it was given
        for name, value in zip(
            ("layer", "channel", "direction", "position", "reduction"),
            (layer, channel, unit, position, reduction),
            strict=True,
        ):
            object.__setattr__(self, name, value)

    @classmethod
    @checked
    def logit(cls, index: int, reduction: Reduction = "sum_abs") -> "Target":
        """Returns the target "output number ``index`` of the model"."""
        return cls(OUTPUT, channel=index, reduction=reduction)

    @property
    def terms(self) -> tuple[tuple[float, "Target"], ...]:
        """The target as a weighted sum: itself, once."""
        return ((1.0, self),)

    @checked
    def at(self, position: Position) -> "Target":
        """Returns the same target read elsewhere."""
        return replace(self, position=position)

    def __mul__(self, weight: float) -> "TargetSum":
        return TargetSum(((float(weight), self),))

    __rmul__ = __mul__

    def __add__(self, other: "Target | TargetSum") -> "TargetSum":
        return TargetSum(self.terms + other.terms)

    def __sub__(self, other: "Target | TargetSum") -> "TargetSum":
        return self + other * -1.0

    def __str__(self) -> str:
        # a direction may have thousands of coefficients; a part of their hash tells two apart
        place = self.position if isinstance(self.position, str) else ",".join(map(str, self.position or ()))
        channel = str(self.channel) if self.direction is None else f"direction-{digest(repr(self.direction))[:8]}"
        reduced = f" ({self.reduction})" if self.reduction != "sum_abs" else ""
        layer = f"logit{self.layer}" if self.layer == OUTPUT or is_part(self.layer) else self.layer
        return f"{layer}:{channel}" + (f"@{place}" if place else "") + reduced

    def _card(self) -> Card:
        read = what(self.layer, self.channel, self.direction)
        facts = {"text": self, "reads": read, "place": where(self.position), "as one number": REDUCED[self.reduction]}
        # a model's output is a vector, as a rule, and has no places
        return Card("Target", facts if self.layer or self.position else {**facts, "place": None})


@dataclass(frozen=True, repr=False)
class TargetSum(Shown):
    """A weighted sum of targets, also across layers; each term is reduced to one number an image first."""

    terms: tuple[tuple[float, Target], ...]

    def __post_init__(self) -> None:
        if not self.terms or not all(math.isfinite(weight) for weight, _ in self.terms):
            raise TargetError(f"a sum of targets needs finite weights, got {[w for w, _ in self.terms]}")

    def __mul__(self, weight: float) -> "TargetSum":
        return TargetSum(tuple((weight * w, target) for w, target in self.terms))

    __rmul__ = __mul__

    def __add__(self, other: "Target | TargetSum") -> "TargetSum":
        return TargetSum(self.terms + other.terms)

    def __sub__(self, other: "Target | TargetSum") -> "TargetSum":
        return self + other * -1.0

    def __str__(self) -> str:
        texts = [f"{str(float(weight)).removesuffix('.0')}*{target}" for weight, target in self.terms]
        return " + ".join(texts).replace("+ -", "- ")

    def _card(self) -> Card:
        return Card("TargetSum", {"terms": len(self.terms), "text": self})


@dataclass(frozen=True, repr=False)
class Loss(Shown):
    """The model's cross-entropy, per image; the binary one where the model has one output, a logit.

    Args:
        predicted: take the class the full model predicts instead of the image set's labels.
    """

    predicted: bool = False

    def __str__(self) -> str:
        return "loss@predicted" if self.predicted else "loss"

    def _card(self) -> Card:
        of = "the class that the full model predicts" if self.predicted else "the label of the image"
        return Card("Loss", {"text": self, "reads": f"the model's cross-entropy, for {of}"})


AnyTarget = Target | TargetSum | Loss
"""Whatever can be explained."""


@checked
def parse_target(text: str) -> AnyTarget:
    """Returns the target that a text names; see the module for the forms.

    Raises:
        TargetError: the text has no such form; the message shows the forms and the part that does not fit.
    """
    stripped = text.strip()
    if stripped in ("loss", "loss@predicted"):
        return Loss(predicted=stripped.endswith("predicted"))
    # signs between spaces only: a layer's name may hold a minus, and so may a channel
    pieces = re.split(r"(?:^|\s)([+-])\s+", " " + stripped)
    if len(pieces) == 1 and "*" not in stripped:
        return _parse_term(stripped, text)
    signs = ["+", *pieces[1::2]]
    terms = []
    for sign, piece in zip(signs, pieces[::2], strict=True):
        if piece.strip():
            weight, star, term = piece.rpartition("*")
            if star and not weight.strip():
                raise TargetError(f"cannot read target {text!r}: no number stands before '*'; {_HELP}")
            terms.append(((-1.0 if sign == "-" else 1.0) * _parse_weight(weight, text), _parse_term(term, text)))
    return TargetSum(tuple(terms))


def as_target(given: object) -> AnyTarget:
    """Returns a target as it is, or the one that a text names; a `TargetError` for anything else."""
    if isinstance(given, str):
        return parse_target(given)
    if not isinstance(given, Target | TargetSum | Loss):
        raise TargetError(f"expected a target, or its text such as 'layer4:7', got {given!r}")
    return given


def read_layer(text: str) -> str:
    """Returns the module that a text names; ``logit`` is the model's own output, ``logit[aux]`` a part of it."""
    part = text.removeprefix("logit")
    return part if part == OUTPUT or is_part(part) else text


def _parse_weight(weight: str, text: str) -> float:
    try:
        return float(weight) if weight.strip() else 1.0
    except ValueError:
        raise TargetError(f"cannot read target {text!r}: {weight.strip()!r} is not a number") from None


def _parse_term(term: str, text: str) -> Target:
    match = _TERM.match(term)
    if match is None:
        hint = closest(term.split(":")[0], ["loss", "logit"]) if ":" in term else " (a channel number is missing)"
        raise TargetError(f"cannot read target {text!r}{hint}; {_HELP}")
    return Target(read_layer(match["layer"]), int(match["channel"]), position=_parse_position(match["position"], text))


def _parse_position(position: str | None, text: str) -> Position:
    if position is None or position == "center" or position == "max":
        return position
    if position == "centre":  # both spellings are understood, one is written
        return "center"
    try:
        return tuple(int(p) for p in position.split(","))
    except ValueError:
        raise TargetError(
            f"cannot read the position {position!r} in target {text!r}; expected y,x (row, column), center or max"
        ) from None


def _whole(value: SupportsIndex, name: str) -> int:
    """Returns a plain int from any integer, numpy's and torch's too."""
    if not isinstance(value, bool):  # True is an int to Python, and a channel to nobody
        try:
            return operator.index(value)
        except TypeError:
            pass
    raise TargetError(f"a {name} needs whole numbers, got {value!r}")


def _unit(direction: Sequence[float] | _Floats) -> tuple[float, ...]:
    values = direction.tolist() if isinstance(direction, _Floats) else direction
    if isinstance(values, Sequence) and any(isinstance(v, list) for v in values):
        raise TargetError("a direction needs one coefficient a channel, not a matrix")
    if not isinstance(values, list | tuple) or not all(holds(v, Real()) for v in values):
        raise TargetError(f"a direction needs one finite coefficient a channel, got {shown(direction)}")
    values = [float(v) for v in values]
    # hypot neither overflows nor vanishes where the sum of squares would
    length = math.hypot(*values)
    if not math.isfinite(length) or length == 0:
        raise TargetError("a direction needs finite coefficients that are not all zero")
    if math.isclose(length, 1.0, rel_tol=1e-14):  # of length 1 already; a second division would change the last digits
        return tuple(values)
    return tuple(v / length for v in values)
