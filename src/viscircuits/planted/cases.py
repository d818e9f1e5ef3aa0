"""The planted cases: networks whose circuits are known because they were written down.

What is said of each is proven by measurement in its tests: the true circuit alone keeps the target, every one of its
kernels is needed, and the rest of the network adds nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from torch import nn

from viscircuits.card import Card, Shown, few
from viscircuits.data.images import ImageSet
from viscircuits.mask import Mask
from viscircuits.planted.detectors import (
    ACROSS,
    CHEVRON,
    CORNER,
    CORNER_UP,
    EVERYWHERE,
    chevron,
    corner,
    join,
    red_lines,
    tap,
)
from viscircuits.planted.pictures import Stroke, draw
from viscircuits.planted.wiring import COLOURS, Channel, Wiring, build
from viscircuits.target import Target

OCTAVES = 2
"""Hidden channels are scaled by 1/4 to 4."""

N_IMAGES = 96
"""Pictures to score on, and pictures to measure on."""


@dataclass(frozen=True, eq=False, repr=False)
class Planted(Shown):
    """A network, a target, and the circuit that is known to compute it.

    Attributes:
        name: of the case.
        model: in evaluation mode, float32.
        target: a channel of the last convolution.
        images: labelled pictures to score on.
        held_out: as many others to measure on.
        alternatives: every right circuit, all of one size; more than one where a detector has a copy. A mixture of two
            alternatives is wrong.
        parts: pieces by name: what answers to each class of pictures, the copies, the suppressing branch, or the decoy
            (which is no part of the truth).
    """

    name: str
    model: nn.Module
    target: Target
    images: ImageSet
    held_out: ImageSet
    alternatives: tuple[Mask, ...]
    parts: Mapping[str, Mask]

    def _card(self) -> Card:
        return Card("Planted", {
            "name": self.name, "target": self.target,
            "true kernels": f"{self.truth.n_kept:,} of {self.truth.n_relevant:,}",
            "right circuits": len(self.alternatives), "parts": few([*self.parts]), "images": f"{len(self.images):,}",
        })  # fmt: skip

    @property
    def truth(self) -> Mask:
        """Exactly the kernels that are needed; the first of the alternatives."""
        return self.alternatives[0]


def either(seed: int, *, octaves: int = OCTAVES) -> Planted:
    """Returns two independent detectors joined by an OR: the target answers to red corners and to blue chevrons."""
    units = red_lines("a") | corner("a", lines="a") | chevron("b") | join(a=1.0, b=1.0)
    network = build(units, 3 * seed, octaves)
    parts = {"corner": network.mask("a"), "chevron": network.mask("b")}
    classes = {"corner": CORNER, "chevron": CHEVRON, "neither": ()}
    return _case("either", network, classes, seed, (network.mask("a", "b"),), parts)


def copy(seed: int, *, octaves: int = OCTAVES) -> Planted:
    """Returns a detector with a redundant copy: the target adds up two equal detectors of corners; one would do."""
    first, second = (red_lines(prefix) | corner(prefix, lines=prefix) for prefix in "ab")
    network = build(first | second | join(a=1.0, b=1.0), 3 * seed, octaves)
    parts = {"first": network.mask("a"), "second": network.mask("b")}
    return _case("copy", network, {"corner": CORNER, "neither": ()}, seed, tuple(parts.values()), parts)


def suppressed(seed: int, *, octaves: int = OCTAVES) -> Planted:
    """Returns a detector with an inhibitory branch: red corners count, unless a green line crosses them."""
    units = red_lines("a") | corner("a", lines="a") | join(a=1.0)
    units |= {
        "s across": Channel(1, {"green": ACROSS}, bias=-0.1),
        "s wide": Channel(2, {"s across": 0.4 * EVERYWHERE}),
        "a pooled": Channel(3, {**units["a pooled"].inputs, "s wide": -0.3 * EVERYWHERE}),
    }
    line = Stroke("green", "across", 0.3, 1.2)
    classes = {"corner": CORNER, "crossed": (*CORNER, line), "line": (line,), "neither": ()}
    network = build(units, 3 * seed, octaves)
    # the suppressing branch belongs to the truth: without it crossed corners would count
    truth, excite = network.mask("a", "s"), network.mask("a")
    return _case("suppressed", network, classes, seed, (truth,), {"excite": excite, "suppress": truth - excite})


def silent(seed: int, *, octaves: int = OCTAVES) -> Planted:
    """Returns a detector beside a branch of large weights that no picture wakes: its first ReLU is never active."""
    decoy = {
        "d asleep": Channel(1, {colour: 4 * ACROSS for colour in COLOURS}, bias=-40.0, sealed=True),
        "d deep": Channel(2, {"d asleep": 4 * tap(0, 0)}, sealed=True),
        "d pooled": Channel(3, {"d deep": 4 * EVERYWHERE}, sealed=True),
    }
    return _with_decoy("silent", decoy, {"d": 4.0}, seed, octaves)


def cancelling(seed: int, *, octaves: int = OCTAVES) -> Planted:
    """Returns a detector beside two strong branches, active and equal, of which the target takes the difference."""
    decoy = {name: replace(unit, sealed=True) for name, unit in (chevron("d+") | chevron("d-")).items()}
    return _with_decoy("cancelling", decoy, {"d+": 1.0, "d-": -1.0}, seed, octaves)


def mixed(seed: int, *, octaves: int = OCTAVES) -> Planted:
    """Returns a channel with two meanings of unlike strength that share their first layer: corners up and down."""
    units = red_lines("l") | corner("a", lines="l") | corner("b", lines="l", down=-1) | join(a=1.0, b=0.6)
    network = build(units, 3 * seed, octaves)
    parts = {"down": network.mask("l", "a"), "up": network.mask("l", "b")}
    classes = {"down": CORNER, "up": CORNER_UP, "neither": ()}
    return _case("mixed", network, classes, seed, (network.mask("l", "a", "b"),), parts)


CASES: dict[str, Callable[..., Planted]] = {
    "either": either,
    "copy": copy,
    "suppressed": suppressed,
    "silent": silent,
    "cancelling": cancelling,
    "mixed": mixed,
}
"""Name -> ``(seed, *, octaves) -> Planted``; the same seed gives the same case."""


def _with_decoy(
    name: str, decoy: Mapping[str, Channel], gains: Mapping[str, float], seed: int, octaves: int
) -> Planted:
    units = red_lines("a") | corner("a", lines="a") | dict(decoy) | join(a=1.0, **gains)
    network = build(units, 3 * seed, octaves)
    classes = {"corner": CORNER, "chevron": CHEVRON, "neither": ()}
    return _case(name, network, classes, seed, (network.mask("a"),), {"decoy": network.mask(*gains)})


def _case(
    name: str,
    network: Wiring,
    classes: Mapping[str, tuple[Stroke, ...]],
    seed: int,
    alternatives: tuple[Mask, ...],
    parts: Mapping[str, Mask],
) -> Planted:
    # three streams a seed: network, pictures to score on, pictures to measure on
    images, held_out = (draw(classes, N_IMAGES, 3 * seed + part) for part in (1, 2))
    return Planted(name, network.model, network.target, images, held_out, alternatives, parts)
