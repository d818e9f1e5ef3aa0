"""The finished diagram: whole, readable by machines and people, the same every time, alone in its file."""

import re
import warnings
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

from viscircuits.canvas.marks import Disc, Group, Scene, Text
from viscircuits.canvas.palette import PALETTES, balance_role, heat_map, image_kernel
from viscircuits.canvas.svg import inline_svg, write_svg
from viscircuits.circuit.circuit import Circuit
from viscircuits.diagram.extended import Diagram
from viscircuits.diagram.extended import diagram as drawn_with_pictures
from viscircuits.diagram.gathering import agreement, vertex_pictures
from viscircuits.diagram.inset import Agreement, inset
from viscircuits.diagram.walk import content
from viscircuits.errors import MaskError
from viscircuits.evaluate.preservation import Reference, preservation
from viscircuits.execution.response import Response
from viscircuits.saliency.registry import score
from viscircuits.target import Target

SVG = "{http://www.w3.org/2000/svg}"
TARGET = Target("features.6", 7)


@pytest.fixture(scope="module")
def scores(shapesnet, shapes):
    return score(shapesnet, TARGET, shapes[0], criterion="actgrad")


@pytest.fixture(scope="module")
def circuit(shapesnet, scores):
    return Circuit(shapesnet, TARGET, scores.select(density=0.08))


@pytest.fixture(scope="module")
def drawn(circuit, scores, shapes) -> Diagram:
    return diagram(circuit, scores=scores, images=shapes[1])


@pytest.fixture(scope="module")
def root(drawn) -> ElementTree.Element:
    return ElementTree.fromstring(drawn.svg())


def diagram(*arguments, pictures="none", **options) -> Diagram:
    """Filters show their numbers: most of what is tested here needs no pictures, which take time."""
    return drawn_with_pictures(*arguments, pictures=pictures, **options)


def groups(root: ElementTree.Element, kind: str) -> list[ElementTree.Element]:
    return [g for g in root.iter(f"{SVG}g") if kind in g.get("class", "").split()]


def texts(root: ElementTree.Element) -> list[str]:
    return ["".join(t.itertext()) for t in root.iter(f"{SVG}text")]


def test_everything_is_in_the_svg(drawn, root, circuit):
    assert len(drawn.content.edges) == circuit.effective.n_kept > 20
    assert len(groups(root, "edge")) == len(drawn.content.edges)
    assert {g.get("id") for g in groups(root, "vertex")} == {v.id for v in drawn.content.vertices}
    ids = [e.get("id") for e in root.iter() if e.get("id")]
    assert len(ids) == len(set(ids))
    for edge in groups(root, "edge"):
        assert {edge.get("data-source"), edge.get("data-target")} <= {v.id for v in drawn.content.vertices}
    titles = ["".join(g.find(f"{SVG}title").itertext()) for g in groups(root, "vertex")]
    assert any(title.startswith("features.6:7 (target)") for title in titles)


def test_text_is_text_and_tells_the_numbers(drawn, root, circuit, shapes):
    said = " ".join(texts(root))
    mask = circuit.mask
    assert f"{mask.n_kept:,} of {mask.n_relevant:,} relevant kernels kept" in said
    assert f"{circuit.effective.n_kept:,} of them on a path from image to target" in said
    assert f"effective density {100 * circuit.effective_density:.3g} %" in said
    kept = preservation(circuit, shapes[1])
    both = f"|r| = {kept.pearson:.3f}, {kept.pearson_within:.3f} within positions, on {len(shapes[1])} images"
    assert both in said
    assert "Circuit of features.6:7" in said
    assert {"features.0", "features.3", "features.6", "image"} <= set(texts(root))


def lines_below_the_title(drawn: Diagram) -> list[str]:
    return [text.text for text in drawn.scene.marks if isinstance(text, Text)]


def test_it_says_network_criterion_density_pictures(drawn, circuit, scores, shapes):
    """What is known of a circuit in Python: its network's class, what chose it, its density, how many pictures."""
    title, about, *_ = lines_below_the_title(drawn)
    assert (title, about) == ("Circuit of features.6:7", "ShapesNet, actgrad, density 8.02 %, measured on 12 pictures")
    assert about in drawn.scene.description
    assert lines_below_the_title(diagram(circuit, scores=scores))[1] == "ShapesNet, actgrad, density 8.02 %"
    assert lines_below_the_title(diagram(circuit))[1] == "ShapesNet, density 8.02 %"
    given = diagram(circuit, scores=scores, images=shapes[1], title="mine", about="a <net> & more")
    assert lines_below_the_title(given)[:2] == ["mine", "a <net> & more"]
    assert len(lines_below_the_title(given)) == len(lines_below_the_title(drawn))


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda scores: scores.select(density=0.08, order="worst"), "actgrad, worst first"),
        (lambda scores: scores.select(cumulative=0.9), "actgrad"),
        (lambda scores: scores.select(density=1.0), "actgrad"),
        (lambda scores: ~scores.select(density=0.08), "actgrad, worst first"),
        (lambda scores: scores.select(density=0.08) - scores.select(density=0.02), ""),
        (lambda scores: scores.select(density=0.02) | scores.select(density=0.02, order="worst"), ""),
    ],
)
def test_a_criterion_is_named_only_where_it_chose_the_circuit(shapesnet, scores, made, said):
    drawn = diagram(Circuit(shapesnet, TARGET, made(scores)), scores=scores, pictures="none")
    about = lines_below_the_title(drawn)[1]
    assert about.startswith(f"ShapesNet, {said}, density" if said else "ShapesNet, density")


def test_another_criterions_scores_do_not_name_the_circuit(circuit, shapesnet, shapes):
    """They draw its widths, and the key says so; what chose it is not known."""
    other = score(shapesnet, TARGET, shapes[0], criterion="magnitude")
    drawn = diagram(circuit, scores=other)
    assert lines_below_the_title(drawn)[1] == "ShapesNet, density 8.02 %"
    assert "magnitude score" in drawn.svg()


def test_a_line_too_long_is_shortened_in_the_middle(circuit):
    drawn = diagram(circuit, about="squeezenet1_1, actgrad, measured on 20 pictures of " + "/a/long/path" * 40 + "/end")
    about = lines_below_the_title(drawn)[1]
    assert about.startswith("squeezenet1_1, actgrad, measured on")
    assert about.endswith("/end")
    assert about.count("…") == 1
    assert 150 < len(about) < drawn.scene.width / 6


def test_widths_grow_with_scores_and_colours_with_balance(drawn, root):
    top = max(e.score for e in drawn.content.edges)
    by_ends = {(e.source, e.target): e for e in drawn.content.edges}
    pairs = []
    for group in groups(root, "edge"):
        edge = by_ends[group.get("data-source"), group.get("data-target")]
        path = group.find(f"{SVG}path")
        pairs.append((edge.score, float(path.get("stroke-width", 1))))
        assert path.get("stroke") == PALETTES["light"].roles[balance_role(edge.balance)]
    widths = [w for _, w in sorted(pairs)]
    assert widths == sorted(widths)
    score, width = pairs[len(pairs) // 2]
    assert width == pytest.approx(max(0.9, max(widths) * (score / top) ** 0.5), abs=0.01)


def test_only_exact_balance_is_grey():
    assert balance_role(0.0) == "even"
    assert (balance_role(1e-3), balance_role(-1e-3)) == ("excite1", "inhibit1")
    assert (balance_role(1.0), balance_role(-1.0), balance_role(0.7)) == ("excite10", "inhibit10", "excite7")
    light = PALETTES["light"].roles
    assert (light["excite10"], light["inhibit10"]) == (PALETTES["light"].red, PALETTES["light"].blue)
    assert len(set(light.values())) >= 21


def test_kernel_pictures():
    red, white, blue = heat_map(np.array([[2.0, 0.0, -2.0]]))[0]
    assert red[0] > 180 > 60 > red[2]
    assert blue[2] > 150 > 60 > blue[0]
    assert tuple(white) == (247, 247, 247)
    assert (heat_map(np.zeros((2, 2))) == 247).all()
    rgb = image_kernel(np.array([[[1.0, 0.0]], [[-1.0, 0.0]], [[0.0, 0.0]]]))
    assert rgb.tolist() == [[[255, 0, 128], [128, 128, 128]]]
    assert image_kernel(np.ones((1, 2, 2))).shape == (2, 2, 3)


def flattened(marks, dx=0.0, dy=0.0):
    for mark in marks:
        if isinstance(mark, Group):
            yield from flattened(mark.marks, dx + mark.offset[0], dy + mark.offset[1])
        elif isinstance(mark, Text):
            yield mark, dx, dy


def test_nothing_leaves_the_page_and_labels_are_apart(drawn):
    scene = drawn.scene
    boxes = []
    for text, dx, dy in flattened(scene.marks):
        width = len(text.text) * text.size * 0.55
        x = text.x + dx - {"start": 0, "middle": width / 2, "end": width}[text.anchor]
        if not text.turn:
            boxes.append((x, text.y + dy - text.size * 0.8, x + width, text.y + dy, text.text))
    for left, top, right, bottom, said in boxes:
        assert 0 <= left < right <= scene.width, said
        assert 0 <= top < bottom <= scene.height, said
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1], (a[4], b[4])
    assert scene.width == 1280


def test_the_page_stands_alone(drawn):
    page = drawn.html()
    for name in ("http-equiv", '"http://www.w3.org/2000/svg"'):  # the second is a name too, and no address
        page = page.replace(name, "")
    assert "http" not in page
    assert not re.search(r"(?:src|href)=[\"'](?!data:|#)", page)
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|import\(", page)
    assert page.count("<script>") == page.count("</script>") == 1
    assert not re.search(r"/\*[A-Z]+\*/|@[A-Z]+@", page)
    assert len(page) < 400_000
    for theme in PALETTES.values():
        assert f"--paper:{theme.paper};" in page
    used = set(re.findall(r"var\(--([a-z0-9]+)\)", page)) - {"feature", "kernel", "width"}
    assert used <= set(PALETTES["light"].roles)


def test_kernels_without_room_are_in_the_page_only(circuit, scores, drawn):
    crowded = diagram(circuit, scores=scores, most=10_000)
    hidden = [m for m in walk(crowded.scene.marks) if isinstance(m, Group) and m.hidden]
    assert crowded.svg().count('class="kernel"') == len(crowded.content.edges) - len(hidden)
    assert crowded.html().count('class="kernel"') == len(crowded.content.edges) - len(hidden)
    assert crowded.html().count('class="kernel crowded"') == len(hidden)


def walk(marks):
    for mark in marks:
        yield mark
        if isinstance(mark, Group):
            yield from walk(mark.marks)


def test_filters_that_nothing_drives_are_counted(circuit, scores, monkeypatch):
    units = [("features.3", 0), ("features.3", 1), ("features.6", 7)]
    found = {unit: np.full((3, 8, 8), 0.5, np.float32) for unit in units}
    found["features.6", 7][0, 0, 0] = 1
    monkeypatch.setattr("viscircuits.diagram.extended.vertex_pictures", lambda *_, **__: found)
    monkeypatch.setattr("viscircuits.diagram.extended.original_pictures", lambda *_, **__: {})
    said = "2 blank filters: nothing was found that drives them"
    assert said in texts(ElementTree.fromstring(diagram(circuit, scores=scores, pictures="optvis").svg()))
    assert (
        said not in diagram(circuit, scores=scores, pictures="crops").svg()
    )  # a piece of a picture may be of one colour


def test_beyond_the_limit_it_bundles_and_says_so(circuit, scores):
    n = circuit.effective.n_kept
    whole, few = diagram(circuit, scores=scores, most=n), diagram(circuit, scores=scores, most=n - 1)
    assert len(whole.content.edges) == n
    assert len(few.content.edges) == 3  # image to features.0, to .3, to .6
    said = " ".join(texts(ElementTree.fromstring(few.svg())))
    assert f"{n} kernels are bundled into 3 lines" in said
    assert "bundled" not in " ".join(texts(ElementTree.fromstring(whole.svg())))
    assert {str(e.count) for e in few.content.edges} <= set(texts(ElementTree.fromstring(few.svg())))
    with pytest.raises(MaskError, match=r"most 0 is out of range"):
        diagram(circuit, most=0)


def test_a_disconnected_circuit_says_so(shapesnet, scores):
    circuit = Circuit(shapesnet, TARGET, scores.select(count=1))
    assert circuit.disconnected
    drawn = diagram(circuit, scores=scores)
    assert [v.name for v in drawn.content.vertices] == ["features.6:7"]
    assert "no path leads from the image to the target" in drawn.svg()
    assert "width" not in " ".join(texts(ElementTree.fromstring(drawn.svg())))  # no key to what is not there


def test_files(drawn, tmp_path):
    paths = drawn.save(tmp_path / "made" / "circuit")
    assert [p.name for p in paths] == ["circuit.svg", "circuit.png", "circuit.html"]
    assert paths[0].read_text() == drawn.svg()
    assert paths[2].read_text() == drawn.html()
    with Image.open(paths[1]) as picture:
        assert np.allclose(picture.size, (2 * drawn.scene.width, 2 * drawn.scene.height), atol=1)
        pixels = np.asarray(picture.convert("RGB"))
    assert (pixels[2, 2] == 255).all()
    assert (pixels < 250).any(2).mean() > 0.02
    again = diagram_png(drawn, tmp_path / "again.png")
    assert again == paths[1].read_bytes()


def diagram_png(drawn, path) -> bytes:
    return drawn.png(path).read_bytes()


def test_the_same_twice_and_dark(circuit, scores, shapes, drawn):
    again = diagram(circuit, scores=scores, images=shapes[1])
    assert again.svg() == drawn.svg()
    dark = drawn.svg("dark")
    assert PALETTES["dark"].paper in dark
    assert PALETTES["light"].paper not in dark


def test_it_shows_itself(drawn):
    assert drawn._repr_svg_() == drawn.svg()
    frame = ElementTree.fromstring(drawn._repr_html_())
    assert frame.tag == "iframe"
    assert frame.get("srcdoc") == drawn.html().replace("\n", " ").replace("\t", " ") or "<svg" in frame.get("srcdoc")


def test_the_inset_tells_the_truth(circuit, shapes):
    both = agreement(circuit, shapes[1])
    correlation = np.corrcoef(both.full.ravel(), both.circuit.ravel())[0, 1]
    assert correlation == pytest.approx(both.preservation.signed, abs=1e-9)
    assert np.allclose(both.circuit, circuit.respond(shapes[1]))
    assert both.preservation == preservation(circuit, shapes[1])
    single = Circuit(circuit.model, replace(circuit.target, position="center"), circuit.mask)
    assert "within" in both.text
    assert "within" not in agreement(single, shapes[1]).text  # there it is the same


def numbers_of(group: Group) -> list[str]:
    return [mark.text for mark in group.marks if isinstance(mark, Text)]


def measured_as(full: torch.Tensor, circuit: torch.Tensor) -> Agreement:
    kept = Reference(Response(full, (None,)), "a:0").compare(circuit)
    return Agreement(full.double().numpy(), circuit.double().numpy(), kept)


def test_the_axes_of_the_inset_carry_numbers():
    full = torch.linspace(-3, 1234.4, 60).reshape(6, 10)
    group = inset(measured_as(full, 0.01 * full), 100.0, 50.0, 150.0)
    assert numbers_of(group)[:4] == ["−3", "1,234", "−0.03", "12.3"]
    across, up = ([t for t in group.marks if isinstance(t, Text) and bool(t.turn) == turned] for turned in (0, 1))
    assert [(t.x, t.anchor) for t in across[:2]] == [(105, "start"), (245, "end")]
    assert [(t.y, t.anchor) for t in up[:2]] == [(195, "start"), (55, "end")]
    assert {t.y for t in across[:2]} == {212}  # below the axis, above its name
    (discs,) = [mark for mark in group.marks if isinstance(mark, Disc)]
    assert {min(x for x, _ in discs.centres), max(x for x, _ in discs.centres)} == {105, 245}


def test_the_inset_of_a_constant_circuit_has_one_number():
    group = inset(measured_as(torch.rand(4, 5), torch.full((4, 5), 2.5)), 0.0, 0.0, 150.0)
    (text,) = [mark for mark in group.marks if isinstance(mark, Text) and mark.text == "2.5"]
    assert (text.y, text.anchor) == (75, "middle")


def test_an_inverted_and_weak_circuit_is_told():
    full = torch.randn(6, 10)
    both = measured_as(full, -0.2 * full + 0.1 * torch.randn(6, 10))
    kept = both.preservation
    assert kept.signed < -0.8
    assert both.text == (
        f"r = −{kept.pearson:.3f}, inverted, {kept.pearson_within:.3f} within positions, sd ratio {kept.sd_ratio:.2g}, "
        f"on 6 images"
    )
    words = numbers_of(inset(both, 0.0, 0.0, 150.0))
    assert words[-2:] == [f"r = −{kept.pearson:.3f}", "inverted"]


def test_an_upright_circuit_of_full_strength_is_told_as_ever():
    full = torch.randn(6, 1)
    both = measured_as(full, full + 0.1 * torch.randn(6, 1))
    assert both.text == f"|r| = {both.preservation.pearson:.3f} on 6 images"
    assert numbers_of(inset(both, 0.0, 0.0, 150.0))[-1] == f"r = {both.preservation.signed:.3f}"
    cut = Reference(Response(full, (None,)), "a:0").compare(full, disconnected=True)
    assert Agreement(full.numpy(), full.numpy(), cut).text == "|r| = 0.000 (disconnected) on 6 images"


def test_names_may_hold_anything(drawn):
    awkward = Scene(100, 50, 'a<b>&"c', "d\u00e9j\u00e0 <script>", (Text(5, 20, "</script> & <b>"),))
    assert ElementTree.fromstring(write_svg(awkward)).get("aria-label") == 'a<b>&"c'
    assert "<script>" not in inline_svg(awkward)
    told = Diagram(
        drawn.content, replace(drawn.scene, title="</title><script>alert(1)</script> @SVG@ /*STYLE*/")
    ).html()
    assert told.count("<script>") == 1


def test_pictures_are_the_most_exciting_pieces(circuit, scores, shapes, shapesnet):
    found = content(circuit, scores)
    pictures = vertex_pictures(circuit, found, shapes[0], source="crops", batch_size=5)
    filters = {(v.layer, v.channel) for v in found.vertices if v.kind == "filter" and v.kernel is None}
    assert pictures.keys() == filters
    assert all(p.shape[0] == 3 and p.min() >= 0 and p.max() <= 1 for p in pictures.values())
    assert {k: p.shape for k, p in pictures.items()} == {
        k: p.shape for k, p in vertex_pictures(circuit, found, shapes[0], source="crops", batch_size=12).items()
    }
    # the target's field is 29 pixels wide: 5 + 2 * (2 + 2 * 2) at conv2's place, twice as far apart at conv3's
    sizes = {layer: p.shape[1] for (layer, _), p in pictures.items()}
    assert sizes["features.3"] < sizes["features.6"] <= 64
    drawn = diagram(circuit, scores=scores, pictures=pictures)
    assert drawn.svg().count("data:image/jpeg") + drawn.svg().count("data:image/png") > len(pictures)


def test_the_model_and_the_random_state_are_untouched(circuit, scores, shapes):
    before = {n: t.clone() for n, t in circuit.model.state_dict().items()}
    state = torch.random.get_rng_state()
    hooks = sum(len(m._forward_hooks) for m in circuit.model.modules())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vertex_pictures(circuit, content(circuit, scores), shapes[0], source="crops")
        diagram(circuit, scores=scores, images=shapes[1]).html()
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(before[n], t) for n, t in circuit.model.state_dict().items())
    assert hooks == sum(len(m._forward_hooks) for m in circuit.model.modules())
    assert all(p.grad is None for p in circuit.model.parameters())
