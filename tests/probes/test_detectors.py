"""Detectors of a family: a layer with one channel for each, worked out by hand where there are few stimuli."""

import pytest
import torch
from oriented import ANGLES, FIELD, SIZE, Oriented, stage

from viscircuits.errors import ImageError, TargetError
from viscircuits.probes.detectors import Detectors, detectors, standard_families
from viscircuits.probes.drawing import variants
from viscircuits.probes.patterns import Corner, Line, Ring
from viscircuits.target import Target


def test_bars_prefer_lines_of_their_angle():
    model = Oriented()
    place = stage(model, Target("bars", 0))
    ranges = {"thickness": (0.2, 0.3), "x": (-0.1, 0.1)}
    families = {f"{a:g}": variants(Line(angle=a, length=1.8), ranges, 10) for a in ANGLES}
    families["ring"] = variants(Ring(), ranges, 10)
    found = detectors(model, "bars", families, place, batch_size=7)
    for channel, angle in enumerate(ANGLES):
        first = found.ranked(f"{angle:g}")[0]
        assert first.channel == channel
        assert first.index > 0.4
        assert found.best(channel, f"{angle:g}") in families[f"{angle:g}"]
    assert all(p.index < 0 for p in found.ranked("ring"))
    whole = detectors(model, "bars", families, place)
    assert torch.allclose(whole.index, found.index, atol=1e-5)


def test_by_hand():
    """Ten stimuli a family, so that the highest tenth is the highest one."""
    line, ring = torch.zeros(3, 10), torch.zeros(3, 10)
    line[0, 3], ring[0, 4] = 5.0, 2.0  # above a blank of 1: 4 and 1
    line[1], ring[1] = -3.0, -2.0  # below a blank of 0 whatever is shown
    line[2, 0], ring[2, 9] = 0.0, 0.2  # weak
    stimuli = [Ring()] * 10
    found = Detectors(
        "a", {"line": stimuli, "ring": stimuli}, {"line": line, "ring": ring}, torch.tensor([1.0, 0.0, 0.0])
    )
    assert torch.allclose(found.strength, torch.tensor([[4.0, 1.0], [0.0, 0.0], [0.0, 0.2]]))
    assert found.index[0].tolist() == pytest.approx([0.6, -0.6])
    assert found.index[1].tolist() == [0.0, 0.0]
    assert [p.channel for p in found.ranked("line")] == [0, 1, 2]
    best = found.ranked("line")[0]
    assert (best.rival, best.rival_strength, best.strength) == ("ring", 1.0, 4.0)
    three = Detectors("a", {"line": stimuli, "ring": stimuli}, {"line": line + 1, "ring": ring + 1}, found.blank + 1)
    assert torch.allclose(three.index, found.index)  # a bias changes nothing
    scaled = Detectors("a", found.families, {n: 7 * a for n, a in found.answers.items()}, 7 * found.blank)
    assert torch.allclose(scaled.index, found.index)


def test_weak_channels_prefer_nothing():
    line = torch.tensor([[10.0], [8.0], [6.0], [0.5]])
    found = Detectors("a", {"l": [Ring()], "r": [Ring()]}, {"l": line, "r": 0 * line}, torch.zeros(4))
    assert found.index[:, 0].tolist() == [1.0, 1.0, 1.0, 0.0]  # 0.5 is less than a tenth of 6


def test_positions():
    model = Oriented()
    place = stage(model, Target("bars", 0, position=(0, 0)))
    families = {"line": [Line(length=1.8)], "ring": [Ring()]}
    at, anywhere = (detectors(model, "bars", families, place, position=p) for p in ((0, 0), "max"))
    with torch.no_grad():
        maps = model.bars(place.prepared([Line(length=1.8)]))[0]
    assert torch.allclose(at.answers["line"][:, 0], maps[:, 0, 0], atol=1e-6)
    assert torch.allclose(anywhere.answers["line"][:, 0], maps.amax((1, 2)), atol=1e-6)
    with pytest.raises(TargetError, match=r"position \(99, 0\) is not on maps of"):
        detectors(model, "bars", families, place, position=(99, 0))
    vector = detectors(model, "head", families, stage(model, Target.logit(0)))
    assert vector.blank.shape == (2,)


def test_standard_families():
    families = standard_families(20, seed=3, pixels=FIELD)
    assert {len(stimuli) for stimuli in families.values()} == {20}
    arcs, corners = families["arc"], families["corner"]
    for arc, corner in zip(arcs, corners, strict=True):
        assert isinstance(corner, Corner)
        assert arc == type(arc)(**{**vars(arc), "radius": corner.radius, "angle": corner.angle, "x": corner.x})
    assert {s.contrast for s in arcs} == {-1.0, 1.0}
    assert families == standard_families(20, seed=3, pixels=FIELD)
    model = Oriented()
    detectors(model, "bars", families, stage(model, Target("bars", 0)))  # fine waves are left out of small fields


def test_what_cannot_be_compared():
    model = Oriented()
    place = stage(model, Target("bars", 0))
    with pytest.raises(ImageError, match=r"expected at least two families with stimuli, got \{'a': 1\}"):
        detectors(model, "bars", {"a": [Ring()]}, place)
    with pytest.raises(ImageError, match=r"got \{'a': 1, 'b': 0\}"):
        detectors(model, "bars", {"a": [Ring()], "b": []}, place)
    found = detectors(model, "bars", {"ring": [Ring()], "line": [Line()]}, place)
    with pytest.raises(ImageError, match=r"no family 'rings' here; closest: 'ring'"):
        found.ranked("rings")
    with pytest.raises(ImageError, match=r"no family 'rings' here"):
        found.best(0, "rings")
    assert SIZE > FIELD
