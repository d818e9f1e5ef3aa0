"""The circle and corner experiment: do separate circuits compute a feature's answers to different arcs (paper 6.2)?

Arcs over radius and angle, and corners matched to them, are shown in the receptive field. Circuits are found for single
points of both surfaces, and their own surfaces are taken. Beside the paper's pair of arcs (a peak, and another angle)
stands a third, of the peak's angle at another radius: only if the pair at one angle shares more than the pair at two
angles does the angle tell circuits apart. With corners, the other two are an eighth of a turn and quarter turns away.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from torch import nn

from viscircuits import store
from viscircuits.card import Card, Shown, few
from viscircuits.circuit.circuit import Circuit
from viscircuits.errors import ImageError
from viscircuits.probes.patterns import Arc, Corner
from viscircuits.probes.points import DENSITIES, WITHIN, Subcircuit, subcircuit
from viscircuits.probes.stage import Stage
from viscircuits.probes.surface import Peak, Surface, surface
from viscircuits.target import Target
from viscircuits.types import Progress

RADII = tuple(0.15 + 0.05 * i for i in range(12))
"""Up to where the tip of a corner is still in the field, for a thin line."""

ANGLES = tuple(15.0 * i for i in range(24))
"""Evenly, once round."""

FAR = 45.0
"""Degrees from which two angles count as different ones."""

STRONG = 0.5
"""The least response, as a part of the strongest, of further points for which circuits are found."""


@dataclass(frozen=True, eq=False, repr=False)
class Part(Shown):
    """A circuit for one point of a surface, and its own surfaces.

    Args:
        name: "arc" and so on.
        family: "arcs" or "corners": the surface on which the point was chosen.
        peak: the point, and what the model answers there.
        found: the circuit.
        surfaces: "arcs" and "corners" -> what the circuit answers.
    """

    name: str
    family: str
    peak: Peak
    found: Subcircuit
    surfaces: Mapping[str, Surface]

    def _card(self) -> Card:
        point = few([f"{name} {value:g}" for name, value in self.peak.point.items()])
        mask = self.found.circuit.mask
        return Card("Part", {
            "name": self.name, "point": point, "response": f"{self.peak.value:.4g}",
            "keeps": f"{mask.n_kept:,} of {mask.n_relevant:,} relevant {mask.granularity}s",
        })  # fmt: skip

    def differences(self, full: Surface) -> dict[str, float]:
        """Returns how far the circuit is off at its own angle (all radii), its own radius (all angles), far angles."""
        own = self.surfaces[self.family]
        angle, radius = self.peak.point["angle"], self.peak.point["radius"]
        regions = {
            "point": full.near("angle", angle, 0.0) & full.near("radius", radius, 0.0),
            "own angle": full.near("angle", angle, 0.0),
            "own radius": full.near("radius", radius, 0.0),
            "far angles": ~full.near("angle", angle, FAR - 1e-6),
        }
        return {name: full.difference(own, where) for name, where in regions.items()}


@dataclass(frozen=True, eq=False, repr=False)
class CircleAndCorner(Shown):
    """What came of the experiment.

    Args:
        full: "arcs" and "corners" -> the model's surfaces.
        parts: the circuits of single points.
    """

    full: Mapping[str, Surface]
    parts: tuple[Part, ...]

    def _card(self) -> Card:
        target = next(iter(self.full.values())).target
        parts = few([part.name for part in self.parts])
        return Card("CircleAndCorner", {"target": target, "surfaces": few([*self.full]), "circuits": parts})

    def overlaps(self) -> list[dict[str, Any]]:
        """Returns the overlap of every pair of circuits, at one size (`Subcircuit.overlap`)."""
        return [
            {"pair": [one.name, other.name], **asdict(one.found.overlap(other.found))}
            for one, other in combinations(self.parts, 2)
        ]

    def summary(self) -> dict[str, Any]:
        """Returns every number of the experiment as plain JSON."""
        return {
            "surfaces": {name: _described(surface) for name, surface in self.full.items()},
            "parts": [
                {
                    "name": part.name, "stimulus": str(part.found.stimuli[0]), "response": part.peak.value,
                    "density": part.found.circuit.mask.density, "kept": part.found.circuit.mask.n_kept,
                    "difference": part.differences(self.full[part.family]),
                }
                for part in self.parts
            ],
            "overlaps": self.overlaps(),
        }  # fmt: skip

    def save(self, folder: str | Path) -> Path:
        """Writes surfaces, circuits and ``experiment.json`` into a folder, and returns it."""
        root = Path(folder)
        for family, answers in self.full.items():
            answers.save(store.inside(root, "surfaces", f"model__{family}.safetensors"))
        for part in self.parts:
            # names are words with commas; files are not
            name = re.sub(r"\W+", "-", part.name)
            part.found.circuit.save(store.inside(root, "circuits", f"{name}.safetensors"))
            for family, answers in part.surfaces.items():
                answers.save(store.inside(root, "surfaces", f"{name}__{family}.safetensors"))
        store.write_json(root / "experiment.json", self.summary())
        return root


def circle_and_corner(
    model: nn.Module,
    target: Target,
    stage: Stage,
    *,
    radii: Sequence[float] = RADII,
    angles: Sequence[float] = ANGLES,
    arc: Arc | None = None,
    corner: Corner | None = None,
    criterion: str = "actgrad",
    densities: Sequence[float] = DENSITIES,
    within: float = WITHIN,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> CircleAndCorner:
    """Returns the paper's experiment on a target.

    Args:
        model: a network in evaluation mode; it is left exactly as it was.
        target: a channel at one position.
        stage: where stimuli are shown.
        radii, angles: the grid; angles evenly once round.
        arc, corner: what all arcs and all corners have in common: thickness, contrast, colour, anchor.
        criterion, densities, within: of the circuits (`subcircuit`).
        batch_size: pictures at a time; changes no result beyond rounding.
        progress: called as the work goes on.
    """
    axes = {"radius": radii, "angle": angles}
    probes = {"arcs": arc or Arc(), "corners": corner or Corner()}

    def seen(network: nn.Module | Circuit) -> dict[str, Surface]:
        return {
            name: surface(network, target, probe, axes, stage, batch_size=batch_size, progress=progress)
            for name, probe in probes.items()
        }

    full = seen(model)
    parts = []
    for name, family, peak in chosen(full):
        found = subcircuit(
            model, target, [full[family].stimulus_at(peak.point)], stage, criterion=criterion, densities=densities,
            within=within, progress=progress,
        )  # fmt: skip
        parts.append(Part(name, family, peak, found, seen(found.circuit)))
    return CircleAndCorner(full, tuple(parts))


def chosen(full: Mapping[str, Surface]) -> list[tuple[str, str, Peak]]:
    """Returns the points for circuits: up to three of the arcs and three of the corners.

    Responses count from the answer to the empty stage. *Arcs*: the highest peak; the highest peak at an angle at least
    `FAR` away; and the peak's own angle, at the radius furthest from its own. *Corners*: the strongest response of
    either sign; the strongest of that sign an eighth of a turn from it (modulo a quarter); the strongest of that sign
    one to three quarters of a turn from it. Points with less than `STRONG` of the first one's response are left out:
    there is nothing there to find a circuit for; so is a family that the target answers as it does the empty stage.
    """
    arcs, corners = full["arcs"], full["corners"]
    first = arcs.peaks()[0]
    # of either sign, because a detector of arcs may well be pushed down by corners
    tip = max((corners.peaks()[0], corners.peaks(lowest=True)[0]), key=lambda p: abs(p.value - corners.blank))
    if first.value == arcs.blank and tip.value == corners.blank:
        raise ImageError("the target answers all arcs and corners as it does the empty stage; choose another target")
    strong, angle = _points(arcs, first), first.point["angle"]
    # the very same angle, and the radius furthest away: only the radius differs, as much as it can
    alike = [p for p in strong if p.point["angle"] == angle]
    alike.sort(key=lambda p: -abs(p.point["radius"] - first.point["radius"]))
    far = [p for p in arcs.peaks() if p in strong and _apart(arcs, p, first) >= FAR - 1e-6]
    turned = [(p, _apart(corners, p, tip)) for p in _points(corners, tip)]
    eighth = [p for p, turn in turned if math.isclose(turn % 90, 45)]
    quarter = [p for p, turn in turned if math.isclose(turn % 90, 0, abs_tol=1e-6) and turn > 1]
    # a family that the target answers like the empty stage has no peak, only a first point
    wanted = (
        ("arc", "arcs", [first] if first.value != arcs.blank else []),
        ("arc, other angle", "arcs", far),
        ("arc, other radius", "arcs", alike),
        ("corner", "corners", [tip] if tip.value != corners.blank else []),
        ("corner, 1/8 turn", "corners", eighth),
        ("corner, 1/4 turns", "corners", quarter),
    )
    return [(name, family, points[0]) for name, family, points in wanted if points]


def _points(surface: Surface, first: Peak) -> list[Peak]:
    """All points but the first that respond to the same side, strongly enough, from the strongest on."""
    own = first.value - surface.blank
    if own == 0:
        return []
    points = [p for p in surface.points() if p.point != first.point and (p.value - surface.blank) / own >= STRONG]
    return sorted(points, key=lambda p: -(p.value - surface.blank) / own)


def _apart(surface: Surface, one: Peak, other: Peak) -> float:
    return surface.axes[surface.axis("angle")].distance(one.point["angle"], other.point["angle"])


def _described(full: Surface) -> dict[str, store.Json]:
    values = full.values
    whole = full.axes[full.axis("angle")].whole
    peaks: list[store.Json] = [{**peak.point, "value": peak.value} for peak in full.peaks()[:5]]
    return {
        "blank": full.blank, "mean": float(values.mean()), "lowest": float(values.min()),
        "highest": float(values.max()), "above blank": float((values > full.blank).float().mean()),
        "above zero": float((values > 0).float().mean()),
        "repeats a turn": full.harmonics("angle").tolist() if whole else None,
        "peaks": peaks,
    }  # fmt: skip
