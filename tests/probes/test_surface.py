"""Surfaces: a network whose preferred angles are known; circular axes; what is saved is what is loaded."""

import math

import pytest
import torch
from oriented import ANGLES, FIELD, SIZE, Oriented, stage

from viscircuits.circuit.circuit import Circuit
from viscircuits.errors import ImageError, StudyError, TargetError
from viscircuits.mask import Mask
from viscircuits.model.field.receptive_field import Area
from viscircuits.probes.axis import Axis
from viscircuits.probes.patterns import Arc, Line, Ring
from viscircuits.probes.points import subcircuit
from viscircuits.probes.stage import Stage, responses
from viscircuits.probes.surface import Surface, surface
from viscircuits.target import Target

TURN = [15.0 * i for i in range(12)]
LINE = Line(length=1.8, thickness=0.25)


def bar(channel: int) -> Target:
    return Target("bars", channel, position=(7, 7))


def made(values: list[list[float]], period: float | None = 360.0) -> Surface:
    table = torch.tensor(values)
    axes = (Axis("radius", (0.2, 0.4, 0.6)[: len(table)]), Axis("angle", (0.0, 90.0, 180.0, 270.0), period))
    return Surface("a:0@center", Arc(), axes, table, 0.0)


@pytest.mark.parametrize("channel", range(4))
def test_a_bar_filter_prefers_its_own_angle(channel: int):
    model, target = Oriented(), bar(channel)
    found = surface(model, target, LINE, {"angle": TURN}, stage(model, target))
    best, *others = found.peaks()
    assert best.point == {"angle": ANGLES[channel]}
    assert not others or others[0].value < best.value / 3
    assert found.axes[0].period == 180
    assert found.blank == pytest.approx(-1.0, abs=1e-5)  # filters without a mean see nothing in a grey
    twice = responses(
        model, target, [Line(angle=a + t) for a in (20.0, 70.0) for t in (0.0, 180.0)], stage(model, target)
    )
    assert twice[0::2].tolist() == pytest.approx(twice[1::2].tolist(), abs=1e-5)
    halves = responses(model, target, [Line(angle=ANGLES[channel] + t) for t in (0.0, 90.0)], stage(model, target))
    assert halves[0] > 3 * halves[1]


def test_values_are_the_models_own():
    model, target = Oriented(), Target("either", 0, position=(3, 9))
    place = stage(model, target)
    assert place.box == Area(3, 9, 3 + FIELD, 9 + FIELD)
    found = surface(model, target, LINE, {"contrast": [-1.0, 1.0], "angle": TURN}, place, batch_size=5)
    stimuli = [found.stimulus_at(peak.point) for peak in found.points()]
    pictures = place.prepared(stimuli)
    assert pictures.shape == (24, 1, SIZE, SIZE)
    assert float(pictures.abs().max()) == pytest.approx(1.0)  # (picture - 0.5) / 0.5
    assert float(pictures[:, :, :3].abs().max()) == float(pictures[:, :, :, :9].abs().max()) == 0.0
    with torch.no_grad():
        expected = model.either(torch.relu(model.bars(pictures)))[:, 0, 3, 9]
    assert torch.allclose(found.values.flatten(), expected, atol=1e-5)
    assert found.values.shape == (2, 12)
    whole = surface(model, target, LINE, {"contrast": [-1.0, 1.0], "angle": TURN}, place)
    assert torch.allclose(whole.values, found.values, atol=1e-5)


def test_the_model_is_left_alone():
    model, target = Oriented(), bar(0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.get_rng_state()
    surface(model, target, LINE, {"angle": TURN}, stage(model, target))
    subcircuit(model, target, [LINE], stage(model, target))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.get_rng_state().equal(random)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert not any(m._forward_hooks or m.training for m in model.modules())


def test_subcircuits_of_two_meanings_are_separate():
    """0-or-90 degrees: the circuit of one angle is one bar and its kernel, answers it alone, and shares nothing."""
    model, target = Oriented(), Target("either", 0, position="center")
    place = stage(model, target)
    parts = [subcircuit(model, target, [LINE.at({"angle": a})], place) for a in (0.0, 90.0)]
    full = surface(model, target, LINE, {"angle": TURN}, place)
    assert sorted(p.point["angle"] for p in full.peaks()[:2]) == [0.0, 90.0]
    for part, own, other in ((parts[0], 0, 2), (parts[1], 2, 0)):
        mask = part.circuit.mask
        assert [array.nonzero().tolist() for array in mask.kept.values()] == [[[own, 0]], [[0, own]]]
        assert part.difference < 1e-5
        alone = surface(part.circuit, target, LINE, {"angle": TURN}, place)
        assert full.difference(alone, full.near("angle", ANGLES[own], 0.0)) < 1e-5
        assert full.difference(alone, full.near("angle", ANGLES[other], 0.0)) == pytest.approx(1.0)
        assert alone.harmonics("angle")[1] > full.harmonics("angle")[1]  # once a half turn; the model twice
    assert full.harmonics("angle").argmax() == 2
    shared = parts[0].overlap(parts[1])
    assert (shared.iou, shared.count) == (0.0, 2)
    assert shared.layers == {"bars": 0.0, "either": 0.0}
    same = parts[0].overlap(subcircuit(model, target, [LINE.at({"angle": 5.0})], place))
    assert same.iou == 1.0


def test_a_circuit_is_read_at_the_target_of_the_probe():
    model = Oriented()
    everywhere = Target("either", 0)
    relevant = {"bars": torch.zeros(4, 1, dtype=torch.bool), "either": torch.zeros(3, 4, dtype=torch.bool)}
    relevant["bars"][:], relevant["either"][0] = True, True
    circuit = Circuit(model, everywhere, Mask(relevant, relevant, "kernel", (1, SIZE, SIZE)))
    target = everywhere.at("center")
    place = stage(model, target)
    own, full = (surface(n, target, LINE, {"angle": TURN}, place) for n in (circuit, model))
    assert torch.allclose(own.values, full.values, atol=1e-6)
    assert full.difference(own) < 1e-6
    with pytest.raises(TargetError, match=r"the circuit computes either:0, not either:1@center"):
        responses(circuit, Target("either", 1, position="center"), [LINE], place)


def test_a_class_has_the_whole_picture():
    model, target = Oriented(), Target.logit(1)
    place = stage(model, target)
    assert place.box.size == (SIZE, SIZE)
    with torch.no_grad():
        expected = model(place.prepared([LINE]))[:, 1]
    assert torch.allclose(responses(model, target, [LINE], place), expected, atol=1e-6)


def test_circular_axes():
    axis = Axis("angle", (0.0, 90.0, 180.0, 270.0), 360.0)
    assert axis.circular
    assert axis.whole
    assert axis.between(45.0) == (0, 1, 0.5)
    assert axis.between(315.0) == (3, 0, 0.5)
    assert axis.between(-45.0) == (3, 0, 0.5)
    assert axis.between(360.0) == (0, 1, 0.0)
    assert (axis.distance(350.0, 10.0), axis.distance(0.0, 180.0), axis.distance(-10.0, 710.0)) == (20.0, 180.0, 0.0)
    assert not Axis("angle", (0.0, 90.0, 180.0), 360.0).whole
    straight = Axis("radius", (0.2, 0.4))
    assert straight.between(0.4) == (1, 1, 0.0)
    assert straight.between(0.25)[2] == pytest.approx(0.25)
    with pytest.raises(ImageError, match=r"0.5 is beyond axis 'radius', which goes from 0.2 to 0.4"):
        straight.between(0.5)
    with pytest.raises(ImageError, match=r"the same after 360, so 0 and 360 cannot both be on it; end before 360"):
        Axis("angle", (0.0, 180.0, 360.0), 360.0)
    with pytest.raises(ImageError, match=r"needs ascending, finite, different values"):
        Axis("radius", (0.2, 0.2))


def test_interpolation_and_peaks_go_round():
    found = made([[4.0, 0.0, 1.0, 2.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 3.0, 0.0]])
    assert found.at(radius=0.2, angle=315.0) == 3.0
    assert found.at(radius=0.3, angle=0.0) == pytest.approx(2.0)
    assert found.at(radius=0.5, angle=135.0) == pytest.approx(0.75)
    tops = found.peaks()
    assert [(p.value, p.point) for p in tops[:2]] == [
        (4.0, {"radius": 0.2, "angle": 0.0}),
        (3.0, {"radius": 0.6, "angle": 180.0}),
    ]
    assert 2.0 not in [p.value for p in tops]  # at 270 degrees: its neighbour round the end is higher
    straight = made([[4.0, 0.0, 1.0, 2.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 3.0, 0.0]], None)
    assert [p.value for p in straight.peaks()][:3] == [4.0, 3.0, 2.0]
    assert made([[-4.0, 0.0, 1.0, -2.0]]).peaks(lowest=True)[0].value == -4.0
    near = found.near("angle", 350.0, 45.0)
    assert near.any(0).tolist() == [True, False, False, False]
    with pytest.raises(ImageError, match=r"expected a value for each of radius, angle"):
        found.at(radius=0.2)
    with pytest.raises(ImageError, match=r"no axis 'angel'; closest: 'angle'"):
        found.near("angel", 0.0, 1.0)


def test_harmonics():
    axis = Axis("angle", tuple(15.0 * i for i in range(24)), 360.0)
    turn = torch.tensor(axis.values).deg2rad()
    values = 5 + 2 * torch.cos(turn + 1) + torch.sin(4 * turn)
    found = Surface("a:0", Arc(), (axis,), values, 0.0).harmonics("angle")
    assert len(found) == 13
    assert found[1] == pytest.approx(0.8)
    assert found[4] == pytest.approx(0.2)
    assert found.sum() == pytest.approx(1.0)
    fastest = Surface("a:0", Arc(), (axis,), torch.cos(12 * turn) + torch.cos(turn), 0.0).harmonics("angle")
    assert (float(fastest[12]), float(fastest[1])) == pytest.approx((2 / 3, 1 / 3))  # cos² is 1 there, 1/2 else
    assert Surface("a:0", Arc(), (axis,), torch.ones(24), 0.0).harmonics("angle").sum() == 0
    with pytest.raises(ImageError, match=r"does not go once round in even steps"):
        made([[1.0, 2.0, 3.0, 4.0]], None).harmonics("angle")


def test_saved_and_loaded(tmp_path):
    model, target = Oriented(), bar(1)
    axes = {"thickness": [0.1, 0.3], "angle": TURN}
    found = surface(model, target, Line(contrast=-0.5), axes, stage(model, target))
    found.save(tmp_path / "a.safetensors")
    again = Surface.load(tmp_path / "a.safetensors")
    assert (again.target, again.stimulus, again.axes, again.blank) == (
        found.target, found.stimulus, found.axes, found.blank,
    )  # fmt: skip
    assert torch.equal(again.values, found.values)
    assert again.difference(found) == 0
    stage(model, target)
    from viscircuits import store

    store.write_tensors(tmp_path / "b.safetensors", {"values": found.values}, {"kind": "scores", "format": 1})
    with pytest.raises(StudyError, match=r"is not a file of a surface of format 1, but scores of format 1"):
        Surface.load(tmp_path / "b.safetensors")


def test_what_cannot_be_probed():
    model = Oriented()
    place = stage(model, bar(0))
    with pytest.raises(TargetError, match=r"a probe reads one number: take @center or @y,x"):
        surface(model, Target("bars", 0), LINE, {"angle": TURN}, place)
    with pytest.raises(TargetError, match=r"bars:0@max has no fixed position to place stimuli at"):
        stage(model, Target("bars", 0, position="max"))
    with pytest.raises(ImageError, match=r"Line has no parameter 'radius' to vary; it has .*thickness"):
        surface(model, bar(0), LINE, {"radius": [0.1]}, place)
    with pytest.raises(ImageError, match=r"at least one axis"):
        surface(model, bar(0), LINE, {}, place)
    with pytest.raises(ImageError, match=r"expected 1 means and deviations, one a channel; got 3, 3"):
        Stage((1, 4, 4), Area(0, 0, 4, 4), (0.0,) * 3, (1.0,) * 3)
    with pytest.raises(ImageError, match=r"the receptive field is empty"):
        Stage((1, 4, 4), Area(0, 0, 0, 0), (0.0,), (1.0,))
    with pytest.raises(ImageError, match=r"as it does the empty stage"):
        subcircuit(
            model, Target("either", 1, position="center"), [Line(contrast=0.0)], stage(model, Target("either", 1))
        )
    other = surface(model, bar(0), Ring(), {"radius": [0.5, 0.7]}, place)
    with pytest.raises(ImageError, match=r"other axes"):
        other.difference(surface(model, bar(0), Ring(), {"radius": [0.5, 0.8]}, place))
    assert math.isfinite(other.blank)
