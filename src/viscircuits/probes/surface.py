"""Activation surfaces: what a target answers to one family, over some of its parameters (paper 6.2, figure 8)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from viscircuits import store
from viscircuits.card import Card, Shown, few
from viscircuits.circuit.circuit import Circuit
from viscircuits.errors import ImageError, closest
from viscircuits.probes.axis import Axis
from viscircuits.probes.families import JSON, stimulus_from_json
from viscircuits.probes.stage import Stage, responses
from viscircuits.probes.stimulus import Stimulus
from viscircuits.store.checks import TEXT, Fields, listed, number, optional, row
from viscircuits.store.kinds import FLOATS, Array, Kind
from viscircuits.target import Target
from viscircuits.types import Progress

FORMAT = 1
"""Version of the file; a file with another number is refused."""


@dataclass(frozen=True)
class Peak:
    """A point of a surface's grid and the value there."""

    point: Mapping[str, float]
    value: float


@dataclass(frozen=True, eq=False, repr=False)
class Surface(Shown):
    """Responses over a grid of parameters.

    Args:
        target: text form of what was read.
        stimulus: what all stimuli have in common.
        axes: the parameters that differ.
        values: the responses, one axis of the array an axis.
        blank: the response to the empty stage.
    """

    target: str
    stimulus: Stimulus
    axes: tuple[Axis, ...]
    values: Float[Tensor, "..."]
    blank: float

    def _card(self) -> Card:
        axes = [f"{axis.name}: {len(axis.values)} from {axis.values[0]:g} to {axis.values[-1]:g}" for axis in self.axes]
        return Card("Surface", {
            "target": self.target, "stimulus": self.stimulus, "axes": few(axes), "blank": f"{self.blank:.4g}",
            "values": f"{float(self.values.min()):.4g} to {float(self.values.max()):.4g}",
        })  # fmt: skip

    def axis(self, name: str) -> int:
        """Returns the number of an axis."""
        names = [axis.name for axis in self.axes]
        if name not in names:
            raise ImageError(f"the surface has no axis {name!r}{closest(name, names)}; it has {', '.join(names)}")
        return names.index(name)

    def stimulus_at(self, point: Mapping[str, float]) -> Stimulus:
        """Returns the stimulus of a point; axes that are not named stay as in the common stimulus."""
        return self.stimulus.at(point)

    def at(self, **point: float) -> float:
        """Returns the value at any point, linear between its neighbours, round the ends of circular axes."""
        if set(point) != {axis.name for axis in self.axes}:
            raise ImageError(f"expected a value for each of {', '.join(a.name for a in self.axes)}; got {point}")
        values = self.values
        for axis in self.axes:
            low, high, share = axis.between(point[axis.name])
            values = (1 - share) * values[low] + share * values[high]
        return float(values)

    def points(self) -> list[Peak]:
        """Returns all points of the grid, in order."""
        return [self._peak(list(index)) for index in product(*map(range, self.values.shape))]

    def peaks(self, *, lowest: bool = False) -> list[Peak]:
        """Returns the points with no higher (lower) neighbour on the grid, diagonals too, from the best on."""
        values = -self.values if lowest else self.values
        around = values
        for dim, axis in enumerate(self.axes):
            # one axis after the other takes in the diagonals too
            around = torch.stack([_shifted(around, dim, step, axis.circular) for step in (-1, 0, 1)]).amax(0)
        places = (values == around).nonzero()
        order = values[tuple(places.T)].argsort(descending=True, stable=True)
        return [self._peak(index) for index in places[order].tolist()]

    def near(self, name: str, value: float, width: float) -> Bool[Tensor, "..."]:
        """Returns which points of the grid lie close to a value along one axis.

        Args:
            name: the axis.
            value: on it.
            width: how far away, the short way round, is still close.
        """
        dim = self.axis(name)
        axis = self.axes[dim]
        close = torch.tensor([axis.distance(v, value) <= width for v in axis.values])
        return close.view([-1 if d == dim else 1 for d in range(self.values.ndim)]).expand(self.values.shape)

    def harmonics(self, name: str) -> Float[Tensor, " k"]:
        """Returns how much of the variance along a circular axis repeats k times a period, from k = 0 (nothing).

        Squared Fourier coefficients, summed over the other axes, over all that vary; they add up to 1, or are all 0.
        """
        dim = self.axis(name)
        if not self.axes[dim].whole:
            raise ImageError(f"axis {name!r} does not go once round in even steps, so nothing can be said of its waves")
        power = torch.fft.rfft(self.values.double().movedim(dim, -1), dim=-1).abs().square()
        power = power.reshape(-1, power.shape[-1]).sum(0)
        # a mean does not vary
        power[0] = 0
        power[1 : (len(self.axes[dim].values) + 1) // 2] *= 2  # the negative frequencies
        return power / power.sum() if bool(power.sum() > 0) else power

    def difference(self, other: "Surface", where: Bool[Tensor, "..."] | None = None) -> float:
        """Returns how far another surface is off: mean |other - this| over mean |this - blank|, over some points.

        0: the same; 1: as far as an answer that never changes from that to the empty stage.
        Differs: the paper (6.1) divides by mean |this|, which is next to nothing where a response crosses zero.
        """
        if self.axes != other.axes:
            raise ImageError("these surfaces have other axes; make them with the same values")
        points = torch.ones(self.values.shape, dtype=torch.bool) if where is None else where
        own, others = self.values[points].double(), other.values[points].double()
        return float((others - own).abs().mean() / (own - self.blank).abs().mean())

    def save(self, path: str | Path) -> None:
        """Writes the surface as safetensors with a JSON header, atomically."""
        header: dict[str, store.Json] = {
            "target": self.target,
            "stimulus": self.stimulus.to_json(),
            "axes": [[axis.name, list(axis.values), axis.period] for axis in self.axes],
            "blank": self.blank,
        }
        store.save(path, _KIND, {"values": self.values}, header)

    @classmethod
    def load(cls, path: str | Path) -> "Surface":
        """Returns a surface that `save` wrote; a `StudyError` for any other file."""
        tensors, header = store.load(path, _KIND)
        try:
            axes = tuple(Axis(n, tuple(map(float, v)), p and float(p)) for n, v, p in header["axes"])
            stimulus = stimulus_from_json(header["stimulus"])
        except ImageError as error:
            raise store.damaged(path, str(error)) from None
        return cls(header["target"], stimulus, axes, tensors["values"], float(header["blank"]))

    def _peak(self, index: list[int]) -> Peak:
        point = {axis.name: axis.values[i] for axis, i in zip(self.axes, index, strict=True)}
        return Peak(point, float(self.values[tuple(index)]))


def _arrays(fields: Fields, names: Iterable[str]) -> dict[str, Array]:
    return {"values": Array(FLOATS, tuple(len(values) for _, values, _ in fields["axes"]))}


_KIND = Kind(
    "surface",
    "a file of a surface",
    {
        "target": TEXT,
        "stimulus": JSON,
        "axes": listed(row(TEXT, listed(number(), 1), optional(number(0.0, above=True))), 1),
        "blank": number(),
    },
    _arrays,
    (FORMAT,),
)


def surface(
    network: nn.Module | Circuit,
    target: Target,
    stimulus: Stimulus,
    axes: Mapping[str, Sequence[float]],
    stage: Stage,
    *,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> Surface:
    """Returns the surface of a target, in a model or in a circuit, over parameters of a family.

    Args:
        network: a model in evaluation mode, or a circuit of it.
        target: a channel or direction at one position, such as ``Target("features.6", 5, position="center")``.
        stimulus: the family, with all that stays the same.
        axes: parameter -> its values, ascending; one or several parameters.
        stage: where the stimuli are shown (`Stage.of`).
        batch_size: pictures at a time; changes no result beyond rounding.
        progress: called as the work goes on.
    """
    grid = grid_of(stimulus, axes)
    values_of = [axis.values for axis in grid]
    stimuli = [stimulus.at(dict(zip(axes, point, strict=True))) for point in product(*values_of)]
    stimuli.append(replace(stimulus, contrast=0.0))
    *values, blank = responses(network, target, stimuli, stage, batch_size=batch_size, progress=progress)
    shape = tuple(len(axis.values) for axis in grid)
    return Surface(str(target), stimulus, grid, torch.stack(values).view(shape), float(blank))


def grid_of(stimulus: Stimulus, axes: Mapping[str, Sequence[float]]) -> tuple[Axis, ...]:
    """Returns the axes of a surface, checked against the family's parameters."""
    numeric = [f.name for f in fields(stimulus) if f.name == "colour" or isinstance(getattr(stimulus, f.name), float)]
    numeric += [f.name for f in fields(stimulus) if isinstance(getattr(stimulus, f.name), int)]
    for name in axes:
        if name not in numeric:
            raise ImageError(
                f"{type(stimulus).__name__} has no parameter {name!r} to vary{closest(name, numeric)}; it has "
                f"{', '.join(numeric)}"
            )
    if not axes:
        raise ImageError("a surface needs at least one axis")
    return tuple(Axis(name, tuple(map(float, values)), stimulus.periods.get(name)) for name, values in axes.items())


def _shifted(values: Tensor, dim: int, step: int, circular: bool) -> Tensor:
    """The neighbours along an axis; at the ends of one that does not go round, the lowest possible."""
    rolled = values.roll(step, dim)
    if not circular and step:
        # an end has no neighbour there; what was rolled in comes from the other end
        rolled = rolled.index_fill(dim, torch.tensor(0 if step > 0 else values.shape[dim] - 1), -torch.inf)
    return rolled
