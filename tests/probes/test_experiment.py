"""The circle and corner experiment: which points are chosen, what is compared, what is written."""

import json

import pytest
import torch

from viscircuits.circuit.circuit import Circuit
from viscircuits.model.zoo import zoo
from viscircuits.probes.axis import Axis
from viscircuits.probes.experiment import chosen, circle_and_corner
from viscircuits.probes.patterns import Arc, Corner
from viscircuits.probes.stage import Stage
from viscircuits.probes.surface import Surface
from viscircuits.target import Target

RADII = (0.2, 0.4, 0.6)
ANGLES = tuple(45.0 * i for i in range(8))


def made(stimulus: Arc | Corner, heights: dict[tuple[float, float], float], blank: float) -> Surface:
    values = torch.full((3, 8), blank)
    for (radius, angle), height in heights.items():
        values[RADII.index(radius), ANGLES.index(angle)] = blank + height
    return Surface("a:0", stimulus, (Axis("radius", RADII), Axis("angle", ANGLES, 360.0)), values, blank)


def test_chosen_points():
    arcs = made(Arc(), {(0.2, 90.0): 10.0, (0.6, 90.0): 6.0, (0.4, 225.0): 7.0, (0.4, 0.0): 4.0}, blank=-8.0)
    heights = {(0.6, 0.0): -10.0, (0.2, 45.0): -6.0, (0.6, 225.0): -7.0, (0.4, 180.0): -5.5, (0.2, 90.0): 9.0}
    corners = made(Corner(), heights, blank=2.0)
    found = [
        (name, tuple(peak.point.values()), peak.value) for name, _, peak in chosen({"arcs": arcs, "corners": corners})
    ]
    assert found == [
        ("arc", (0.2, 90.0), 2.0),
        ("arc, other angle", (0.4, 225.0), -1.0),
        ("arc, other radius", (0.6, 90.0), -2.0),
        ("corner", (0.6, 0.0), -8.0),
        ("corner, 1/8 turn", (0.6, 225.0), -5.0),
        ("corner, 1/4 turns", (0.4, 180.0), -3.5),  # not 9 above the blank: that is the other side
    ]


def test_points_without_response_are_left_out():
    arcs = made(Arc(), {(0.2, 90.0): 10.0, (0.4, 225.0): 4.0}, blank=0.0)
    corners = made(Corner(), {(0.6, 0.0): 3.0}, blank=0.0)
    assert [name for name, _, _ in chosen({"arcs": arcs, "corners": corners})] == ["arc", "corner"]


@pytest.fixture(scope="module")
def done():
    model, prepare = zoo.load("shapesnet")
    target = Target("features.6", 21, position="center")
    stage = Stage.of(model, target, (3, 64, 64), mean=prepare.mean, std=prepare.std)
    told: list[tuple[str, int, int]] = []
    found = circle_and_corner(
        model, target, stage, radii=(0.3, 0.5, 0.7), angles=ANGLES, densities=(0.5, 0.1, 0.02),
        progress=lambda *report: told.append(report),
    )  # fmt: skip
    return model, found, told


def test_on_the_built_in_network(done, tmp_path):
    model, found, told = done
    full = found.full
    assert {family: surface.values.shape for family, surface in full.items()} == {"arcs": (3, 8), "corners": (3, 8)}
    assert full["arcs"].blank == pytest.approx(full["corners"].blank)
    assert found.parts[0].name == "arc"
    assert ("probes", 25, 25) in told
    for part in found.parts:
        differences = part.differences(full[part.family])
        assert differences["point"] == pytest.approx(part.found.difference, abs=1e-4)
        assert differences["point"] <= 0.15
        assert full[part.family].at(**part.peak.point) == pytest.approx(part.peak.value)
        assert part.found.scores.target == "features.6:21@center"
    overlaps = found.overlaps()
    assert len(overlaps) == len(found.parts) * (len(found.parts) - 1) // 2
    assert all(0 <= row["chance"] < row["iou"] <= 1 for row in overlaps)  # one feature: more than chance
    root = found.save(tmp_path / "out")
    assert json.loads((root / "experiment.json").read_text()) == json.loads(json.dumps(found.summary()))
    again = Surface.load(root / "surfaces" / "model__arcs.safetensors")
    assert torch.equal(again.values, full["arcs"].values)
    circuit = Circuit.load(root / "circuits" / "arc.safetensors", model)
    assert circuit.mask == found.parts[0].found.circuit.mask


def test_overlap_counts_nothing_that_scored_zero(done):
    _, found, _ = done
    one, other = found.parts[0].found, found.parts[-1].found
    for part in (one, other):
        assert int(sum((sums > 0).sum() for sums in part.scores.sums.values())) == part.n_positive
    assert one.overlap(other).count <= min(one.n_positive, other.n_positive)
    assert one.overlap(one).iou == 1.0


def test_the_picture(done, tmp_path):
    from viscircuits.errors import StudyError
    from viscircuits.plots.surface import surfaces

    _, found, _ = done
    row = {"model": found.full["arcs"], "arc": found.parts[0].surfaces["arcs"]}
    curve = surfaces([row], marks={(0, "arc"): found.parts[0].peak.point}, title="shapesnet")
    axes = curve.figure.axes
    assert [a.get_title("left") for a in axes[:2]] == ["model", "arc"]
    assert [t.get_text() for t in axes[0].get_xticklabels()] == ["0°", "90°", "180°", "270°"]
    assert axes[0].images[0].get_array().shape == (3, 8)
    assert axes[0].images[0].norm.vcenter == found.full["arcs"].blank
    assert axes[0].images[0].get_clim() == axes[1].images[0].get_clim()
    (mark,) = axes[1].lines
    angle, radius = found.parts[0].peak.point["angle"], found.parts[0].peak.point["radius"]
    assert (mark.get_xdata()[0], mark.get_ydata()[0]) == (ANGLES.index(angle), (0.3, 0.5, 0.7).index(radius))
    assert curve.save(tmp_path / "s")[0].is_file()
    with pytest.raises(StudyError, match=r"no surface to draw"):
        surfaces([])
