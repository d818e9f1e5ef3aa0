"""Features split by images: planted networks whose parts are known, and numbers worked out the long way."""

import copy

import pytest
import torch

import viscircuits as vc
from viscircuits.errors import ImageError, MaskError, TargetError
from viscircuits.planted.cases import either, mixed, silent
from viscircuits.planted.detectors import CORNER
from viscircuits.planted.pictures import Stroke, draw
from viscircuits.subcircuits.division import Bench, last_within
from viscircuits.subcircuits.split import split

KERNELS = 576


def counts(*kept: int) -> list[float]:
    return [k / KERNELS for k in kept]


FINE = counts(4, 6, 10, 12, 40)


def excited(case, drop: int = 2):
    """The first pictures that hold an object, and which."""
    return [label if label < drop and i < 48 else -1 for i, label in enumerate(case.images.labels)]


@pytest.fixture(scope="module")
def either_split():
    case = either(0)
    return case, split(case.model, case.target, case.images, excited(case), densities=FINE, controls=19)


def test_an_or_of_two_detectors_is_split_into_them(either_split):
    case, found = either_split
    for circuit, part in zip(found.circuits, case.parts.values(), strict=True):
        assert circuit.mask.iou(part) == 1
    assert found.division.iou == 0
    assert set(found.division.iou_by_layer.values()) == {0}
    own, cross = found.division.differences.diagonal(), found.division.differences[[0, 1], [1, 0]]
    assert float(own.max()) < 0.05
    assert float(cross.min()) > 0.95  # nothing is left of the other's response
    assert found.verdict.word == "distinct"
    assert found.verdict.p == found.iou_p == 1 / 20
    assert found.division.least_excess == pytest.approx(min((cross - own).tolist()))


def test_a_criterion_of_whole_sets_splits_it_too():
    case = either(0)
    found = split(
        case.model, case.target, case.images, excited(case), densities=counts(4, 6, 12), controls=1, bands=0,
        criterion="reconstruct",
    )  # fmt: skip
    for circuit, part in zip(found.circuits, case.parts.values(), strict=True):
        assert circuit.mask.iou(part) == 1
    assert found.division.iou == 0
    assert float(found.division.differences.diagonal().max()) < 0.05
    assert float(found.division.differences[[0, 1], [1, 0]].min()) > 0.95
    for control in found.controls:
        assert control.iou > 0.5
        assert abs(control.excess) < 0.05


def test_a_criterion_of_whole_sets_reads_the_highest_places_only():
    case = either(0)
    labels = excited(case)
    given = {"densities": counts(12), "controls": 0, "criterion": "reconstruct"}
    there = split(case.model, case.target, case.images, labels, **given).places
    places = torch.zeros(len(labels), dtype=torch.int64)
    places[torch.tensor(labels) >= 0] = there
    again = split(case.model, case.target, case.images, labels, places=places, **given)
    assert torch.equal(again.places, there)
    places[labels.index(0)] += 1
    with pytest.raises(TargetError, match=r"highest place; 1 of 32 places are others; leave places out"):
        split(case.model, case.target, case.images, labels, places=places, **given)
    with pytest.raises(TargetError, match="has one position for all images"):
        split(case.model, case.target.at("center"), case.images, labels, **given)
    with pytest.raises(MaskError, match="'minmax' would undo that"):
        split(case.model, case.target, case.images, labels, normalise="minmax", **given)


def test_controls_keep_both_detectors(either_split):
    _, found = either_split
    assert len(found.controls) == 19
    sizes = [len(images) for images in found.division.sets]
    for control in found.controls:
        assert [len(images) for images in control.sets] == sizes
        assert sorted(torch.cat(control.sets).tolist()) == list(range(32))
        assert control.iou > 0.8
        assert abs(control.excess) < 0.05
    assert len({tuple(control.sets[0].tolist()) for control in found.controls}) == 19


def test_a_random_division_is_not_distinct(either_split):
    case, _ = either_split
    generator = torch.Generator().manual_seed(4)
    labels = torch.tensor(excited(case))
    labels[labels >= 0] = torch.randint(2, (int((labels >= 0).sum()),), generator=generator)
    found = split(case.model, case.target, case.images, labels.tolist(), densities=FINE, controls=19)
    assert found.verdict.word == "shared"
    assert found.verdict.p > 0.05
    assert all(circuit.mask.iou(case.truth) == 1 for circuit in found.circuits)


def test_meanings_that_share_their_first_layer():
    case = mixed(1)
    found = split(case.model, case.target, case.images, excited(case), densities=FINE, controls=19)
    assert found.verdict.word == "distinct"
    assert found.division.iou_by_layer == {"conv1": 1.0, "conv2": 0.0, "conv3": 0.0, "conv4": 0.0}
    for circuit, part in zip(found.circuits, case.parts.values(), strict=True):
        assert circuit.mask.iou(part) == 1


def test_a_feature_that_two_kinds_of_pictures_share():
    case = silent(2)  # one detector of corners
    kinds = {"bare": CORNER, "with a line": (*CORNER, Stroke("green", "across"))}
    images = draw(kinds, 24, seed=7)
    found = split(case.model, case.target, images, images.labels, densities=FINE, controls=19)
    assert found.verdict.word == "shared"
    assert found.division.iou > 0.9


def test_too_few_images(either_split):
    case, _ = either_split
    few = [label if i < 26 else -1 for i, label in enumerate(excited(case))]
    few[1] = -1
    found = split(case.model, case.target, case.images, few, densities=FINE, controls=19)
    assert str(found.verdict).startswith("cannot tell: too few images: sets of 9 and 8")


@pytest.mark.parametrize("biases", ["masked", "pruned"])
def test_curves_the_long_way(either_split, biases):
    case, _ = either_split
    labels = [9 if i % 12 == 0 else 4 if i % 12 == 1 else -1 for i in range(96)]
    found = split(
        case.model,
        case.target,
        case.images,
        labels,
        densities=counts(3, 300),
        controls=1,
        biases=biases,
        batch_size=7,
        held_out=False,
    )
    assert (found.names, found.densities) == ((4, 9), (1.0, *counts(300, 3)))
    target = case.target.at("max")
    sets = [case.images.subset([i for i, label in enumerate(labels) if label == name]) for name in (4, 9)]
    full = [vc.respond(case.model, vc.Readout(target, vc.trace(case.model, (3, 20, 20))), one) for one in sets]
    for s, own in enumerate(sets):
        scores = vc.score(case.model, target, own)
        for d, density in enumerate(found.densities):
            circuit = vc.Circuit(case.model, target, scores.select(density=density), biases)
            for t, other in enumerate(sets):
                f = full[t].values[:, 0].tolist()
                g = circuit.respond(other, frozen=full[t].frozen)[:, 0].tolist()
                expected = sum(abs(a - b) for a, b in zip(f, g, strict=True)) / sum(map(abs, f))
                assert float(found.curves[d, s, t]) == pytest.approx(expected, abs=1e-5)
    assert len(found.rows()) == 2 * 3 * 2 * 2
    row = found.rows()[5]
    assert row == {
        "division": 0, "density": counts(300)[0], "circuit": 4, "images": 9, "own": False,
        "difference": float(found.curves[1, 0, 1]),
    }  # fmt: skip


def test_circuits_are_measured_on_pictures_they_were_not_found_on(either_split):
    case, found = either_split
    for division in (found.division, *found.controls):
        for scored, measured, both in zip(division.scored, division.measured, division.sets, strict=True):
            assert not set(scored.tolist()) & set(measured.tolist())
            assert abs(len(scored) - len(measured)) <= 1
            assert sorted([*scored.tolist(), *measured.tolist()]) == both.tolist()
    one = split(case.model, case.target, case.images, excited(case), densities=[0.4], controls=0)
    scored, measured = (parts[0].tolist() for parts in (one.division.scored, one.division.measured))
    full = vc.respond(
        case.model, vc.Readout(case.target.at("max"), vc.trace(case.model, (3, 20, 20))), one.images.subset(measured)
    )
    mask = vc.score(case.model, case.target.at("max"), one.images.subset(scored)).select(density=0.4)
    off = vc.Circuit(case.model, case.target.at("max"), mask).respond(one.images.subset(measured), frozen=full.frozen)
    expected = (off - full.values).abs().sum() / full.values.abs().sum()
    assert float(one.curves[1, 0, 0]) == pytest.approx(float(expected), abs=1e-5)


def test_interrupted_work_goes_on(either_split, tmp_path, monkeypatch):
    case, _ = either_split
    asked = {"densities": FINE[:3], "controls": 3, "bands": 1}
    whole = split(case.model, case.target, case.images, excited(case), **asked)
    runs = []

    def stops_after(n):
        def measured(self, *arguments):
            runs.append(1)
            if len(runs) > n:
                raise KeyboardInterrupt
            return own(self, *arguments)

        return measured

    own, kept = Bench._measured, tmp_path / "kept.json"
    monkeypatch.setattr(Bench, "_measured", stops_after(10))
    with pytest.raises(KeyboardInterrupt):
        split(case.model, case.target, case.images, excited(case), **asked, kept=kept)
    runs.clear()
    monkeypatch.setattr(Bench, "_measured", stops_after(1000))
    again = split(case.model, case.target, case.images, excited(case), **asked, kept=kept)
    first = len(runs)
    runs.clear()
    split(case.model, case.target, case.images, excited(case), **asked, kept=kept)
    assert first > 0
    assert not runs
    assert torch.equal(again.curves, whole.curves)
    assert torch.equal(again.control_curves, whole.control_curves)
    assert [c.excess for c in again.controls] == [c.excess for c in whole.controls]
    split(case.model, case.target, case.images, excited(case), **asked, criterion="snip", kept=kept)
    assert runs  # another question is not answered from the file


def test_places_are_followed(either_split):
    case, _ = either_split
    labels = excited(case)
    readout = vc.Readout(case.target.at("max"), vc.trace(case.model, (3, 20, 20)))
    highest = vc.respond(case.model, readout, case.images).frozen[0]
    given = split(case.model, case.target, case.images, labels, places=highest, densities=FINE[:3], controls=0)
    own = split(case.model, case.target, case.images, labels, densities=FINE[:3], controls=0)
    torch.testing.assert_close(given.curves, own.curves)
    assert len(given.control_curves) == 0
    assert given.verdict.word == "cannot tell"
    everywhere = vc.respond(case.model, vc.Readout(case.target, readout.graph), case.images).values
    second = everywhere.topk(2).indices[:, 1]
    other = split(case.model, case.target, case.images, labels, places=second, densities=FINE[:3], controls=0)
    assert not torch.equal(other.curves, own.curves)


def test_nothing_depends_on_the_batch_size_and_the_model_is_left_alone(either_split):
    case, _ = either_split
    labels = excited(case)[:30] + [-1] * 66
    before, random = copy.deepcopy(case.model.state_dict()), torch.get_rng_state()
    one, other = (
        split(case.model, case.target, case.images, labels, densities=FINE[1:3], controls=2, batch_size=size)
        for size in (1, 20)
    )
    torch.testing.assert_close(one.curves, other.curves, atol=1e-6, rtol=1e-3)  # of float32 activations
    assert [c.sets[0].tolist() for c in one.controls] == [c.sets[0].tolist() for c in other.controls]
    assert all(a == b for a, b in zip(one.division.masks, other.division.masks, strict=True))
    assert all(torch.equal(value, before[name]) for name, value in case.model.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    assert all(p.grad is None and p.requires_grad for p in case.model.parameters())
    assert not any(m._forward_hooks for m in case.model.modules())


def test_overlaps_as_rows(either_split):
    _, found = either_split
    rows = found.overlaps()
    assert rows[0] == {"division": 0, "density": 0.0, "layer": "", "iou": 0.0}
    assert {row["layer"] for row in rows} == {"", "conv1", "conv2", "conv3", "conv4"}
    assert {row["division"] for row in rows} == set(range(20))
    alike = {row["density"]: row["iou"] for row in rows if row["division"] == 0 and row["density"]}
    assert alike[1.0] == 1
    assert alike[FINE[1]] == 0  # six kernels each


@pytest.mark.parametrize("n", [1, 2, 5, 16])
def test_last_within_finds_the_crossing_of_every_rising_curve(n):
    for crossing in range(1, n + 1):
        curve = [0.0] * crossing + [1.0] * (n - crossing)
        assert last_within(curve.__getitem__, n, 0.15) == crossing - 1


def test_errors(either_split):
    case, _ = either_split
    one = (case.model, case.target, case.images)
    with pytest.raises(ImageError, match=r"expected one label an image \(96\), got 3"):
        split(*one, [0, 1, 0])
    with pytest.raises(ImageError, match=r"at least two sets of images, got the labels \[3\]"):
        split(*one, [3] * 95 + [-1])
    with pytest.raises(MaskError, match=r"density 1\.5 is out of range"):
        split(*one, excited(case), densities=[1.5])
    with pytest.raises(TargetError, match="has one position for all images"):
        split(case.model, case.target.at("center"), case.images, excited(case))
    dark = vc.ImageSet.from_tensors(torch.zeros(12, 3, 20, 20))
    dead = copy.deepcopy(case.model)
    with torch.no_grad():
        dead.conv4.bias.zero_()
        dead.conv4.weight.zero_()
    with pytest.raises(TargetError, match="is 0 on 12 of 12 images"):
        split(dead, case.target, dark, [0, 1] * 6)


def test_changes_up_and_down_do_not_cancel(shapesnet, shapes):
    images, target = shapes[0], vc.Target("features.6", 7, position="max")
    found = split(shapesnet, target, images, [0, 1] * 6, densities=[0.05], controls=0, held_out=False)
    even, full = images.subset(range(0, 12, 2)), vc.Readout(target, vc.trace(shapesnet, images[0].shape))
    own = vc.respond(shapesnet, full, even)
    circuit = vc.Circuit(shapesnet, target, vc.score(shapesnet, target, even).select(density=0.05))
    change = circuit.respond(even, frozen=own.frozen) - own.values
    assert bool((change > 0).any())
    assert bool((change < 0).any())
    expected = float(change.abs().sum() / own.values.abs().sum())
    assert float(found.curves[1, 0, 0]) == pytest.approx(expected, rel=1e-3)
    silent = vc.Circuit(shapesnet, target, circuit.mask, "pruned").respond(even, frozen=own.frozen) - own.values
    pruned = split(shapesnet, target, images, [0, 1] * 6, densities=[0.05], controls=0, biases="pruned", held_out=False)
    assert float(pruned.curves[1, 0, 0]) == pytest.approx(float(silent.abs().sum() / own.values.abs().sum()), rel=1e-3)
    assert not torch.allclose(silent, change)
