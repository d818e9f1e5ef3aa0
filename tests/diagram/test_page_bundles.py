"""A bundle opens into its kernels; filters beside those of the full model; in a real browser."""

import base64

import numpy as np
import pytest
import torch

from diagram.test_page import vertex, whole
from viscircuits.canvas.palette import heat_map
from viscircuits.circuit.circuit import Circuit
from viscircuits.diagram.content import bundled
from viscircuits.diagram.extended import diagram
from viscircuits.diagram.panel import OPENED, panel_facts
from viscircuits.diagram.walk import content
from viscircuits.errors import ViscircuitsError
from viscircuits.saliency.registry import score
from viscircuits.target import Target

TARGET = Target("features.6", 7)


@pytest.fixture(scope="module")
def circuit(shapesnet) -> Circuit:
    return whole(shapesnet, TARGET, (3, 64, 64))


@pytest.fixture
def bundles(circuit, visit, tmp_path):
    (tmp_path / "circuit.html").write_text(diagram(circuit, pictures="none", most=5).html())
    return visit(tmp_path / "circuit.html")


def line(page, nth: int):
    page.locator(".edge .hit").nth(nth).dispatch_event("click")
    return page.locator(".panel")


def test_a_bundle_keeps_its_kernels_the_heaviest_first(circuit):
    single = content(circuit)
    for edge in bundled(single).edges:
        assert len(edge.members) == edge.count
        assert sum(kernel.magnitude for kernel in edge.members) == pytest.approx(edge.magnitude)
        weights = [kernel.magnitude for kernel in edge.members]
        assert weights == sorted(weights, reverse=True)
        assert all(kernel in single.edges for kernel in edge.members)
    assert not any(edge.members for edge in single.edges)


def test_a_line_opens_into_its_kernels(bundles, circuit):
    edges = {f"{e.source}>{e.target}": e for e in bundled(content(circuit)).edges}
    panel = line(bundles, 1)
    one = bundles.locator(".edge").nth(1)
    edge = edges[f"{one.get_attribute('data-source')}>{one.get_attribute('data-target')}"]
    rows = panel.locator(".links").first.locator(".row")
    assert rows.count() == min(OPENED, edge.count)
    heaviest = edge.members[0]
    _, out, column = heaviest.kernel
    assert rows.first.inner_text().startswith(f"{'RGB'[column]} → {out}\n")
    painted = "el => [...el.getContext('2d').getImageData(0, 0, el.width, el.height).data].filter((_, i) => i % 4 < 3)"
    seen = np.array(rows.first.locator("canvas").evaluate(painted), np.uint8)
    assert (seen == heat_map(heaviest.weights).ravel()).all()
    rest = edge.count - OPENED
    assert panel.locator(".more").inner_text() == f"and {rest:,} kernels of smaller weight"
    assert rows.first.locator("canvas").bounding_box()["width"] >= 30
    box = panel.bounding_box()
    widths = [row.bounding_box() for row in rows.all()[:5]]
    assert all(row["x"] >= box["x"] and row["x"] + row["width"] <= box["x"] + box["width"] for row in widths)


def test_a_bundles_lists_unfold(bundles):
    bundles.locator(".vertex.bundle").nth(2).click()
    folds = bundles.locator(".panel .fold")
    assert folds.count() == 2
    assert folds.first.locator("canvas").count() == 0
    folds.first.locator("summary").click()
    folds.first.locator("canvas").first.wait_for()
    assert folds.first.locator("canvas").count() == OPENED
    for _ in range(2):  # closed and opened again it is the same list
        folds.first.locator("summary").click()
    assert folds.first.locator("canvas").count() == OPENED
    assert not bundles.evaluate("[...document.querySelectorAll('.panel [style]')].length")


def test_the_keyboard_opens_a_line(bundles):
    for _ in range(4):
        bundles.keyboard.press("Tab")
    bundles.keyboard.press("ArrowLeft")
    bundles.keyboard.press("Enter")
    assert bundles.locator(".panel canvas").count() > 10


def test_opened_it_fits_a_phone(circuit, visit, tmp_path):
    (tmp_path / "circuit.html").write_text(diagram(circuit, pictures="none", most=5).html())
    page = visit(tmp_path / "circuit.html", has_touch=True)
    page.set_viewport_size({"width": 390, "height": 800})
    line(page, 1)
    assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")
    assert not page.evaluate("(el => el.scrollWidth > el.clientWidth)(document.querySelector('.panel'))")


class Flat(torch.nn.Module):
    """A linear layer that reads each channel of a map at four places."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = torch.nn.Conv2d(3, 2, 3), torch.nn.Linear(8, 1)

    def forward(self, x):
        return self.head(self.conv(x).flatten(1))


def test_weights_of_one_pair_are_told_apart():
    drawn = diagram(whole(Flat().eval(), Target("head", 0), (3, 4, 4)), pictures="none")
    facts = panel_facts(drawn.content, {}, {})["edges"]
    names = [kernel["name"] for edge in facts.values() for kernel in edge.get("kernels", ())]
    assert len(names) == 8
    assert sorted(names)[:2] == ["0 → 0, input 0", "0 → 0, input 1"]
    (one,) = {len(base64.b64decode(k["pixels"])) for edge in facts.values() for k in edge.get("kernels", ())}
    assert one == 3


@pytest.fixture(scope="module")
def sparse(shapesnet, shapes) -> Circuit:
    return Circuit(shapesnet, TARGET, score(shapesnet, TARGET, shapes[0]).select(density=0.05))


def test_the_target_stands_beside_that_of_the_full_model(sparse, shapes, visit, tmp_path):
    drawn = diagram(sparse, images=shapes[1], pictures="crops")
    assert drawn.originals.keys() == {("features.6", 7)}
    page_file = tmp_path / "circuit.html"
    page_file.write_text(drawn.html())
    assert "full model</text>" in drawn.svg()
    assert drawn.scene.width == 1280
    page = visit(page_file)
    target = vertex(page, "features.6:7")
    own, full = (target.locator("image").nth(n).bounding_box() for n in (0, 1))
    assert (own["y"], own["height"]) == (full["y"], full["height"])
    assert own["x"] + own["width"] < full["x"]
    target.click()
    pair = page.locator(".panel .pair figure")
    assert [figure.inner_text() for figure in pair.all()] == ["in the circuit", "in the full model"]
    boxes = [figure.locator("img").bounding_box() for figure in pair.all()]
    assert boxes[0]["width"] == pytest.approx(boxes[1]["width"], abs=1)
    assert boxes[0]["height"] == pytest.approx(boxes[1]["height"], abs=1)
    other = next(v for v in drawn.content.vertices if v.layer == "features.3")
    page.locator(f'.vertex[data-id="{other.id}"]').dispatch_event("click")
    assert page.locator(".panel .pair").count() == 0
    assert page.locator(".panel .crops img").count() == 3


def test_the_panel_of_the_model_shows_all(sparse, shapes, visit, tmp_path):
    drawn = diagram(sparse, images=shapes[1], pictures="crops", panel="model")
    units = {(v.layer, v.channel) for v in drawn.content.vertices if v.kind == "filter" and v.kernel is None}
    assert drawn.originals.keys() == units
    (tmp_path / "circuit.html").write_text(drawn.html())
    page = visit(tmp_path / "circuit.html")
    other = next(v for v in drawn.content.vertices if v.layer == "features.3")
    page.locator(f'.vertex[data-id="{other.id}"]').dispatch_event("click")
    assert page.locator(".panel .pair img").count() == 2
    assert drawn.svg() == diagram(sparse, images=shapes[1], pictures="crops").svg()  # the drawing is the same


def test_a_drawing_without_pictures_has_nothing_beside(sparse):
    plain = diagram(sparse, pictures="none")
    assert not plain.originals
    assert "full model</text>" not in plain.svg()


def test_another_panel_is_refused(sparse):
    with pytest.raises(ViscircuitsError, match="unknown panel 'modl'; closest: 'model'"):
        diagram(sparse, pictures="none", panel="modl")
