"""Pictures and sections of what was found about features: what is drawn is what was measured."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgba

import viscircuits as vc
from viscircuits.activations.top import TopActivations, population, top_activations
from viscircuits.errors import StudyError
from viscircuits.planted.cases import either
from viscircuits.plots.kinship import kinship
from viscircuits.plots.plate import NOISE, Plate, Strip, colour_of
from viscircuits.plots.sheets import all_ranked, contact_sheet
from viscircuits.report.findings import sections, write_findings
from viscircuits.report.gathering import Gallery, liveliest, per_row, renderings, strips
from viscircuits.report.plates import cluster_map, split_plate
from viscircuits.study.section import Section
from viscircuits.subcircuits.algebra import overlaps
from viscircuits.subcircuits.polysemantic import flat_map, polysemantic
from viscircuits.subcircuits.split import split


def texts(plate: Plate) -> list[str]:
    return [text.get_text() for text in plate.figure.texts]


def shown(plate: Plate) -> list[np.ndarray]:
    return [np.asarray(image.get_array()) for axes in plate.figure.axes for image in axes.images]


@pytest.fixture(scope="module")
def scene(shapesnet, shapes):
    images = shapes[0]
    return Gallery(vc.trace(shapesnet, images[0].shape), images, vc.zoo.load("shapesnet").prepare)


@pytest.fixture(scope="module")
def found(shapesnet, scene):
    top = top_activations(shapesnet, ["features.6"], scene.images, 12)["features.6"]
    return polysemantic(shapesnet, top, scene.images, min_cluster_size=2)


def first(top: TopActivations, n: int) -> TopActivations:
    """The n highest; more than there are by repeating them."""
    wanted = torch.arange(n) % top.n
    return replace(top, values=top.values[:, wanted], images=top.images[:, wanted], places=top.places[:, wanted])


def test_pieces_are_cut_where_the_channel_looks(scene, found):
    top = found.top
    (piece,) = scene.cut("features.3", 5, [(2, (6, 7))])
    box = vc.receptive_field(scene.graph, "features.3", (6, 7))
    mean, std = 0.54, 0.24
    expected = scene.images[2][:, *box.slices] * std + mean
    np.testing.assert_allclose(piece, expected.numpy(), atol=1e-5)
    (row,) = strips(scene, top, [9], across=3)
    assert row.title == "features.6:9"
    assert len(row.pictures) <= 3
    drawn = shown(contact_sheet([row], "a sheet"))
    assert len(drawn) == len(row.pictures)
    np.testing.assert_allclose(drawn[0], np.clip(row.pictures[0], 0, 1).transpose(1, 2, 0))
    assert [per_row(first(top, n)) for n in (3, 8, 12, 24)] == [3, 8, 12, 6]
    eight = contact_sheet([Strip("eight", "", [row.pictures[0]] * 8)] * 3, "a sheet")
    assert len(shown(eight)) == 24
    assert len({round(axes.get_position().x0, 3) for axes in eight.figure.axes}) == 8  # none beside another
    lively = liveliest(top, 5)
    assert sorted(top.values[:, 0].topk(5).indices.tolist()) == lively


def test_a_map_shows_every_picture_in_the_colour_of_its_cluster(scene, found, shapesnet):
    channel = found.channels[0].channel
    (vectors,) = population(shapesnet, found.top, scene.images, [channel])
    flat = flat_map(vectors)
    plate = cluster_map(scene, found, channel, flat)
    labels = found.of(channel).labels
    drawn = {}
    for points in plate.figure.axes[0].collections:
        assert isinstance(points, PathCollection)
        drawn[tuple(points.get_facecolor()[0])] = np.asarray(points.get_offsets())
    assert len(drawn) == len(labels.unique())
    for number in labels.unique().tolist():
        np.testing.assert_allclose(drawn[to_rgba(colour_of(number))], flat[labels == number].numpy(), rtol=1e-6)
    assert colour_of(-1) == NOISE
    sizes = found.of(channel).sizes
    assert f"cluster 0: {sizes[0]} pictures" in texts(plate)
    assert texts(plate)[1].startswith("its 12 most exciting pictures (12 of 12: all of them, ranked): ")
    more = cluster_map(scene._replace(images=scene.images.subset([*range(12), 0])), found, channel, flat)
    assert texts(more)[1].startswith("its 12 most exciting pictures: ")


def test_all_pictures_ranked_are_no_choice():
    assert [all_ranked(n, 1200) for n in (50, 1199)] == ["", ""]
    assert [all_ranked(n, 1200) for n in (1200, 3000)] == ["1,200 of 1,200: all of them, ranked"] * 2


@pytest.fixture(scope="module")
def done():
    case = either(0)
    labels = [label if label < 2 and i < 48 else -1 for i, label in enumerate(case.images.labels)]
    densities = [k / 576 for k in (4, 6, 12)]
    return split(case.model, case.target, case.images, labels, densities=densities, controls=2, bands=1)


def test_a_split_as_a_page(done):
    own = Gallery(vc.trace(done.model, (3, 20, 20)), done.images, None)
    plate = split_plate(done, own, {0: "corners"})
    said = texts(plate)
    assert {"cannot tell", "corners: 16 pictures", "set 1: 16 pictures"} <= set(said)
    for density, off in zip(done.division.densities, done.division.differences.diagonal(), strict=True):
        share = f"{100 * density:.3g} %"  # a share is a percentage: "keeps 1 of the kernels" would be all of them
        assert f"its circuit keeps {share} of the kernels and is off by {float(off):.2f} on its own pictures" in said
    curves, shared = plate.figure.axes[:2]
    lines = [line.get_ydata() for line in curves.lines]
    for s in range(2):
        assert any(np.array_equal(line, done.curves[:, s, s].numpy()) for line in lines)
        assert any(np.array_equal(line, done.curves[:, s, 1 - s].numpy()) for line in lines)
    arrows = [line.get_xdata()[0] for line in curves.lines if line.get_marker() == "^"]
    assert arrows == list(done.division.densities)
    dots = [line.get_xdata()[0] for line in shared.lines if line.get_marker() == "o"]
    assert dots == [done.division.iou, *done.division.iou_by_layer.values()]
    first = done.division.sets[1]
    best = int(first[done.values[first].argmax()])
    (piece,) = own.cut("conv4", 1, [(best, divmod(int(done.places[best]), own.graph.output("conv4").map_shape[1]))])
    np.testing.assert_allclose(shown(plate)[10], np.clip(piece, 0, 1).transpose(1, 2, 0))
    assert len(shown(plate)) == 2 * 10


def test_each_circuit_is_rendered(done, monkeypatch):
    seen = []

    def rendered(circuit, units, **_):
        seen.append(circuit.mask.n_kept)
        return {units[0]: np.zeros((3, 4, 4), dtype=np.float32)}

    monkeypatch.setattr("viscircuits.report.gathering.rendered", rendered)
    assert len(renderings(done)) == 3
    assert seen == [576, *(mask.n_kept for mask in done.division.masks)]


def test_overlaps_stand_in_the_order_of_their_tree(shapesnet, shapes):
    targets = [vc.Target("features.6", channel) for channel in (1, 5, 9, 13)]
    masks = {
        str(target): scores.select(density=0.2)
        for target, scores in zip(targets, vc.score_all(shapesnet, targets, shapes[0], "magnitude"), strict=True)
    }
    both = overlaps(masks)
    plate = kinship(both, ["features.3"], "four")
    order = list(both.order("features.3"))
    matrix, tree = plate.figure.axes[2:4]
    np.testing.assert_allclose(np.asarray(matrix.images[0].get_array()), both.iou["features.3"][order][:, order])
    assert [label.get_text() for label in matrix.get_yticklabels()] == [both.names[i] for i in order]
    joins = [line.get_xdata()[1] for line in tree.lines]
    assert joins == both.linkage("features.3")[:, 2].tolist()
    with pytest.raises(StudyError, match="no overlaps of layer 'nowhere'"):
        kinship(both, ["nowhere"])


def test_sections_stand_alone_in_the_order_they_were_found(tmp_path):
    plate = Plate(1, 1)
    plate.strip(Strip("a", "b", [np.zeros((3, 2, 2), dtype=np.float32)]), 0, 0, 0.5)
    for name, created in (("early", "2026-01-01"), ("late", "2026-01-02")):
        folder = tmp_path / "findings" / name
        folder.mkdir(parents=True)
        plate.save(folder / "picture.png")
        Section(
            f"<b>{name}</b>", "lead & more", pictures={"seen": "picture.png"}, tables=[("t", ["x"], [("<i>",)])]
        ).save(folder)
        (folder / "findings.json").write_text(json.dumps({"created": created}))
    (tmp_path / "findings" / "unfinished").mkdir()
    first, second = sections(tmp_path)
    assert "&lt;b&gt;early&lt;/b&gt;" in first
    assert "&lt;b&gt;late" in second
    assert "lead &amp; more" in first
    assert "<i>" not in first
    page = write_findings(tmp_path).read_text()
    assert first in page
    assert page.index(first) < page.index(second)
    with pytest.raises(StudyError, match="not a study folder"):
        write_findings(tmp_path / "findings")
