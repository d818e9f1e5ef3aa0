r"""Which channels of a layer prefer one family of stimuli to all others ("circle detectors").

For channel c and family f, the *strength* is by how much the highest tenth of the family's stimuli raise the channel
above its answer to the empty stage, on average, and 0 where they lower it::

    strength[c, f] = relu(mean of the highest tenth of (response - blank))
    index[c, f]    = (strength[c, f] - best other) / (strength[c, f] + best other)      in [-1, 1]

1: no other family moves the channel upwards; 0: another does it as well; -1: this one does not. A tenth rather than
the highest alone, because a maximum grows with the number of stimuli. A channel that answers weakly to all families,
less than `WEAK` of the layer's median, has an index of 0: it prefers nothing here. The index depends on the families
that it is compared with: rings against squares asks another question than rings against gratings.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from viscircuits.card import Card, Shown, few
from viscircuits.data.stream import Batch
from viscircuits.errors import ImageError, TargetError, closest
from viscircuits.execution.loop import to_model
from viscircuits.execution.response import Rows
from viscircuits.model.guard.clean import clean
from viscircuits.model.instrument import run
from viscircuits.model.output import with_channels
from viscircuits.model.trace import trace
from viscircuits.probes.drawing import variants
from viscircuits.probes.patterns import Arc, Corner, Grating, Line, Ring, Square, Texture
from viscircuits.probes.stage import Stage
from viscircuits.probes.stimulus import Stimulus
from viscircuits.target import indices
from viscircuits.types import Progress

WEAK = 0.1
"""A best strength below this part of the layer's median one is noise, and its preferences mean nothing."""


@dataclass(frozen=True)
class Preference:
    """One channel's preference for a family."""

    channel: int
    index: float
    strength: float
    rival: str  # the best other family
    rival_strength: float


@dataclass(frozen=True, eq=False, repr=False)
class Detectors(Shown):
    """The answers of all channels of a layer to families of stimuli.

    Args:
        layer: the module whose output was read.
        families: name -> its stimuli.
        answers: name -> response of every channel to each of them.
        blank: response of every channel to the empty stage.
    """

    layer: str
    families: Mapping[str, Sequence[Stimulus]]
    answers: Mapping[str, Float[Tensor, "c n"]]
    blank: Float[Tensor, " c"]

    def _card(self) -> Card:
        families = [f"{name}: {len(stimuli)} stimuli" for name, stimuli in self.families.items()]
        return Card("Detectors", {"layer": self.layer, "channels": f"{len(self.blank):,}", "families": few(families)})

    @property
    def strength(self) -> Float[Tensor, "c f"]:
        """How much each family raises each channel; see the module."""
        columns: list[Tensor] = []
        for answers in self.answers.values():
            # of the family's own number, so that families of unlike sizes compare
            tenth = max(1, round(answers.shape[1] / 10))
            columns.append((answers - self.blank[:, None]).topk(tenth, dim=1).values.mean(1).relu())
        return torch.stack(columns, 1)

    @property
    def index(self) -> Float[Tensor, "c f"]:
        """The selectivity of each channel for each family, in [-1, 1]; see the module."""
        strength = self.strength
        rival = self._rivals(strength).values
        best = strength.amax(1, keepdim=True)
        # a channel that nothing drives is 0/0; with the smallest number below, it is 0
        index = (strength - rival) / (strength + rival).clamp_min(torch.finfo(strength.dtype).tiny)
        return torch.where(best < WEAK * best.median(), torch.zeros_like(index), index)

    def ranked(self, family: str) -> list[Preference]:
        """Returns all channels, from the one that prefers the family most; equal ones by strength."""
        names, own = list(self.families), self._number(family)
        index, strength = self.index, self.strength
        rivals = self._rivals(strength)
        preferences = [
            Preference(
                c, float(index[c, own]), float(strength[c, own]), names[int(rivals.indices[c, own])],
                float(rivals.values[c, own]),
            )
            for c in range(len(index))
        ]  # fmt: skip
        return sorted(preferences, key=lambda p: (-p.index, -p.strength, p.channel))

    def best(self, channel: int, family: str) -> Stimulus:
        """Returns the stimulus of a family that a channel answers most."""
        self._number(family)
        return self.families[family][int(self.answers[family][channel].argmax())]

    def _number(self, family: str) -> int:
        names = list(self.families)
        if family not in names:
            raise ImageError(f"no family {family!r} here{closest(family, names)}; there are {', '.join(names)}")
        return names.index(family)

    @staticmethod
    def _rivals(strength: Float[Tensor, "c f"]) -> torch.return_types.max:
        """The best other family of each, and which it is."""
        f = strength.shape[1]
        # the family itself is no rival; minus infinity, because strengths can all be zero
        others = strength[:, None, :].expand(-1, f, f).masked_fill(torch.eye(f, dtype=torch.bool), -torch.inf)
        return others.max(2)


@clean
@torch.no_grad()
def detectors(
    model: nn.Module,
    layer: str,
    families: Mapping[str, Sequence[Stimulus]],
    stage: Stage,
    *,
    position: tuple[int, ...] | Literal["center", "max"] = "center",
    batch_size: int = 32,
    progress: Progress | None = None,
) -> Detectors:
    """Returns which channels of a layer prefer which family.

    Args:
        model: a network in evaluation mode; it is left exactly as it was.
        layer: any module.
        families: name -> stimuli; at least two families, best with matched parameters (`standard_families`).
        stage: where they are shown.
        position: where on the maps channels are read; ``"max"`` takes each map's highest value, for stimuli of which
            a part is what a channel looks for.
        batch_size: pictures at a time; changes no result beyond rounding.
        progress: called as the work goes on.
    """
    if len(families) < 2 or not all(families.values()):
        raise ImageError(
            f"expected at least two families with stimuli, got { ({n: len(s) for n, s in families.items()}) }"
        )
    graph = trace(model, stage.shape)
    output = graph.output(layer)
    everything = [stimulus for stimuli in families.values() for stimulus in stimuli]
    # any stimulus without contrast is the empty stage
    everything.append(Ring(contrast=0.0))
    rows = Rows(len(everything))
    for pictures in stage.batches(everything, batch_size, progress, "probes"):
        shown = to_model(Batch(pictures, None, 0), model, graph).images
        maps = with_channels(run(model, graph, shown, [layer])[layer]).movedim(output.channel_axis, 1)
        rows.add(_read(maps, position).float())
    answers = rows.tensor.T
    sizes = [len(stimuli) for stimuli in families.values()]
    *parts, blank = answers.split([*sizes, 1], dim=1)
    return Detectors(layer, families, dict(zip(families, parts, strict=True)), blank[:, 0])


def standard_families(n: int = 200, *, seed: int = 0, pixels: int = 64) -> dict[str, list[Stimulus]]:
    """Returns ``n`` random stimuli of each family, light and dark, matched in radius, angle, thickness and place.

    Args:
        n: stimuli a family.
        seed: of the draw.
        pixels: shorter side of the field in which they will be drawn; no wave is finer than it can show.
    """
    finest = min(5.0, pixels / 3)
    size = {"radius": (0.25, 0.75), "thickness": (0.08, 0.3)}
    place = {"x": (-0.15, 0.15), "y": (-0.15, 0.15)}
    turn = {"angle": (0.0, 360.0)}
    wave = {"frequency": (0.3 * finest, finest), "contrast": (0.3, 1.0)}
    kinds: dict[str, tuple[Stimulus, dict[str, tuple[float, float]]]] = {
        "arc": (Arc(), size | turn | place),
        "corner": (Corner(), size | turn | place),
        "ring": (Ring(), size | place),
        "square": (Square(), size | turn | place),
        "line": (Line(), {"thickness": size["thickness"], "length": (0.6, 1.8)} | turn | place),
        "grating": (Grating(), wave | turn | {"phase": (0.0, 360.0)}),
        "texture": (Texture(), wave | {"seed": (0.0, 1e6)}),
    }
    made = {}
    for name, (stimulus, ranges) in kinds.items():
        drawn = variants(stimulus, ranges, n, seed=seed)
        # light and dark in turn: a channel may answer one sign alone
        made[name] = [replace(s, contrast=s.contrast * (1 - 2 * (i % 2))) for i, s in enumerate(drawn)]
    return made


def _read(maps: Float[Tensor, "n c ..."], position: tuple[int, ...] | str) -> Float[Tensor, "n c"]:
    sizes = tuple(maps.shape[2:])
    if position == "max" or not sizes:
        return maps.flatten(2).amax(2) if sizes else maps
    index = position if isinstance(position, tuple) else indices("center", sizes)
    if len(index) != len(sizes) or not all(0 <= i < size for i, size in zip(index, sizes, strict=True)):
        raise TargetError(f"position {position} is not on maps of {sizes}")
    return maps[(slice(None), slice(None), *index)]
