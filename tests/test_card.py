"""Objects show themselves in a few lines, and in a small table without anything that a page would run."""

import copy
import dataclasses
import importlib
import inspect
import pickle
import pkgutil
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

import viscircuits as vc
from small import SHAPE, small
from viscircuits.activations.top import TopActivations
from viscircuits.card import Card, Shown, few, sized
from viscircuits.data.images import ImageSet
from viscircuits.data.shapes import generate
from viscircuits.evaluate.faithfulness import Faithful
from viscircuits.evaluate.interval import Interval
from viscircuits.evaluate.measurement import Key, Measurement
from viscircuits.model.field.receptive_field import Area
from viscircuits.model.zoo.zoo import Loaded
from viscircuits.optvis.objective import objective
from viscircuits.optvis.rendering import Picture
from viscircuits.optvis.spectrum import Spectrum
from viscircuits.planted.optimum import Optimum
from viscircuits.planted.wiring import Channel, Wiring
from viscircuits.probes.axis import Axis
from viscircuits.probes.detectors import Detectors
from viscircuits.probes.experiment import CircleAndCorner, Part
from viscircuits.probes.patterns import Arc
from viscircuits.probes.points import Overlap, Subcircuit
from viscircuits.probes.surface import Peak, Surface
from viscircuits.readout import bound
from viscircuits.report.report import Report
from viscircuits.store import spelled
from viscircuits.study.findings import Findings
from viscircuits.study.section import Section
from viscircuits.study.spec import Header, Pictures, Spec
from viscircuits.subcircuits.algebra import WHOLE, Overlaps, difference
from viscircuits.subcircuits.division import Division
from viscircuits.subcircuits.per_image import ImageScores
from viscircuits.subcircuits.per_set import SetScores
from viscircuits.subcircuits.polysemantic import Clusters, Polysemantic
from viscircuits.subcircuits.split import Split
from viscircuits.train.shapesnet import Trained

HOSTILE = """<img src=x onerror=alert(1)>"'&</td>\x1b[31m\u202e\n\ud800"""
"""A name that a page would run, a terminal would obey, and no file could hold."""

SHOW_PICTURES = ("Diagram", "Report", "Rendering", "Picture")


def test_a_card_fits_a_look():
    card = Card("Scores", {"criterion": "snip", "target": "features.10:5", "kernels": 6912})
    assert card.text() == "Scores(criterion: snip; target: features.10:5; kernels: 6912)"
    assert Card("Mask").text() == "Mask()"
    assert Card("Mask", {"why": None, "what": "", "none": 0}).text() == "Mask(none: 0)"


def test_lines_end_between_facts():
    text = Card("Study", {f"name {i}": "two words" for i in range(10)}).text()
    assert [line.count("two words") for line in text.splitlines()] == [5, 5]
    assert all(line.endswith(("two words;", "two words)")) for line in text.splitlines())


def test_long_facts_take_six_lines_at_most_and_are_cut():
    text = Card("Study", {f"name {i}": "x" * 90 for i in range(20)}).text()
    assert len(text.splitlines()) == 6
    assert max(map(len, text.splitlines())) <= 110
    assert text.endswith("...)")
    assert len(Card("Target", {"sum": "a:1 + " * 1000}).html()) < 1000
    for long in ("y" * 1000, "many words " * 100):
        lines = Card("Study", {"folder": long, "other": 1}).text().splitlines()
        assert len(lines) <= 6
        assert max(map(len, lines)) <= 110


def test_names_of_others_are_no_markup():
    html = Card("<b>", {"<i>": "<script>alert(1)</script> & more"}).html()
    assert "<script>" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in html
    assert "style=" not in html
    check_text(Card(HOSTILE, {HOSTILE: HOSTILE}).text())
    check_html(Card(HOSTILE, {HOSTILE: HOSTILE}).html())


def test_many_names_are_counted():
    assert few("abc") == "a, b, c"
    assert few("abcdefg") == "a, b, c, d and 3 more"
    assert sized((3, 64, 48)) == "3 × 64 × 48"


def test_what_is_half_made_shows_itself():
    made = object.__new__(vc.Mask)
    assert repr(made).startswith("Mask(cannot be shown: AttributeError")
    check_html(made._repr_html_())


# ---- every public object ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def objects(tmp_path_factory) -> dict[str, object]:
    """One of each kind, small, with hostile names wherever a name comes from somebody else."""
    model = small()
    images = ImageSet.from_tensors(torch.rand(6, *SHAPE), [0, 1, 2, 0, 1, 2])
    target = vc.Target("second", 1)
    scores = vc.score(model, target, images, "snip")
    mask = scores.select(density=0.5)
    circuit = vc.Circuit(model, target, mask)
    readout, compensated = circuit.readout, circuit.compensated(images)
    response = vc.respond(model, readout, images)
    reference = vc.Reference(response, HOSTILE)
    preserved = vc.preservation(circuit, images)
    own, interval = dataclasses.replace(preserved, reason=HOSTILE), Interval(0.1, 0.9, 0.95)
    faithful = Faithful(0.5, own, own, interval, interval, 0.1, 0.2)
    sets = (torch.tensor([0, 1, 2]), torch.tensor([3, 4, 5]))
    division = Division(sets, sets, (0.5, 0.4), (mask, ~mask), torch.rand(2, 2), (0.1,))
    top = TopActivations(HOSTILE, (16, 16), torch.rand(6, 4), torch.zeros(6, 4, dtype=torch.int64),
                         torch.zeros(6, 4, dtype=torch.int64), HOSTILE)  # fmt: skip
    clusters = Clusters(3, torch.tensor([0, 0, 1, -1]), 0.4)
    split = Split(model, target, images, (0, 1), (1.0, 0.5), 0.15, division, (division,) * 3, torch.rand(2, 2, 2),
                  torch.rand(3, 2, 2, 2), torch.rand(6), torch.zeros(6, dtype=torch.int64))  # fmt: skip
    each = ImageScores(dataclasses.replace(scores, criterion=HOSTILE), torch.rand(6, scores.n_relevant))
    each_set = SetScores(model, target, images, HOSTILE, granularity="kernel", seed=0)
    surface = Surface(HOSTILE, Arc(), (Axis(HOSTILE, (0.0, 1.0)),), torch.rand(2), 0.5)
    found = Subcircuit((Arc(), Arc()), scores, circuit, 0.2)
    part = Part(HOSTILE, "arcs", Peak({HOSTILE: 1.0}, 0.4), found, {"arcs": surface})
    pictures = Pictures(source="here", count=9, hash="0" * 16)
    text = HOSTILE.replace("\ud800", "")
    spec = Spec(model=text, weights=text, fingerprint=text, input_shape=SHAPE, targets=(text, "a:1"), scoring=pictures,
                held_out=pictures, criteria=(text,), densities=(0.5, 0.1))  # fmt: skip
    header = Header(format=1, viscircuits=text, torch=text, created=text, command=text, spec=spec)
    study = vc.Study.create(tmp_path_factory.mktemp("study"), spec)
    study.release()
    study.add_circuit(circuit, "snip", 0.5)
    picture = Picture(torch.rand(3, 20, 30), HOSTILE, 0.5, 3, HOSTILE, Area(2, 3, 9, 12))
    drawn = vc.diagram(circuit, pictures="none", title=text)
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "<img onerror=1>.png").write_bytes(b"this is no picture: showing a set decodes none")
    direction = vc.Target("second", direction=torch.arange(1.0, 2001), position="max", reduction="mean")
    measured = Measurement(Key(HOSTILE, "snip", "best", 0.5), {}, circuit, scores)
    graph = dataclasses.replace(circuit.graph, fault=HOSTILE, model=HOSTILE)
    one = [
        scores, dataclasses.replace(scores, criterion=HOSTILE, target=HOSTILE, contrast=True, density=0.1),
        mask, circuit, circuit.graph, graph, readout, response, reference,
        dataclasses.replace(circuit, biases="pruned"), compensated, compensated.compensation,
        images, images.in_memory(), images.labelled([0] * 6, [HOSTILE]), next(images.batches(4)),
        ImageSet.from_files(folder / "<img onerror=1>.png", lambda picture: torch.zeros(SHAPE)),
        target, direction, vc.Target(HOSTILE, 3, position=(2, 3)), vc.Target.logit(2), vc.Loss(),
        sum([vc.Target(HOSTILE, n) for n in range(200)], 0.5 * target), objective(target), objective(direction) * 2.0,
        vc.KernelMap(HOSTILE, 1, 2), own, faithful, interval,
        vc.Faithfulness(HOSTILE, "kernel", (faithful,) * 30, 5, "masked"),
        vc.Minimality(0.9, ((HOSTILE, (1, 2)), ("b", (0, 0))), (0.1, 0.2), 2),
        vc.Stability((0.4, 0.5), (1.0,), 0.2, 0.3, 0.1), measured,
        vc.Sweep(model, [target, target * 2.0], images, images), study, vc.Study(Path("/gone", HOSTILE), header),
        spec, header, Findings(Path("/gone", HOSTILE), {HOSTILE: HOSTILE}), Section(HOSTILE, HOSTILE),
        picture, vc.Rendering((picture,) * 30), vc.Rendering((picture._replace(image=torch.rand(7, 9, 9)),)),
        drawn, Report(text, {HOSTILE: drawn}), top, clusters, Polysemantic(top, (clusters,) * 9, 2), split, division,
        each, each_set, split.verdict,
        difference(mask, ~mask), Overlaps((HOSTILE, "b"), {WHOLE: torch.rand(2, 2)}, {WHOLE: torch.rand(2, 2)}),
        surface, Detectors(HOSTILE, {HOSTILE: [Arc()]}, {HOSTILE: torch.rand(6, 1)}, torch.rand(6)), found, part,
        Overlap(0.4, 0.1, 7, {HOSTILE: 0.5}), CircleAndCorner({HOSTILE: surface}, (part,)),
        vc.zoo.load("shapesnet"), Loaded(model, HOSTILE), generate(3, seed=0),
        Spectrum(torch.rand(3, 9, 5), torch.rand(3)),
        importlib.import_module("viscircuits.planted").CASES["either"](0), Optimum((mask,), (0.5,), 9),
        Channel(1, {HOSTILE: torch.rand(3, 3)}), Wiring(model, target, {HOSTILE: Channel(1, {})}, {HOSTILE: 1}),
        Trained(vc.zoo.load("shapesnet").model, 0.9, {HOSTILE: 0.5}, {HOSTILE: 1}, 3.0, ()), *vc.CRITERIA.values(),
        vc.Fourier(), vc.Maco(images=images), vc.Accentuation(image=torch.rand(*SHAPE)),
    ]  # fmt: skip
    # only now: networks are traced by their names
    model.__class__ = type(text, (type(model),), {})
    return {f"{number} {type(thing).__name__}": thing for number, thing in enumerate(one)}


def check_text(text: str) -> None:
    lines = text.splitlines()
    assert len(lines) <= 6
    assert max(map(len, lines)) <= 110
    assert all(line.isprintable() for line in lines)


class Parsed(HTMLParser):
    """The tags of a page and their attributes."""

    def __init__(self, html: str):
        super().__init__()
        self.found: list[tuple[str, tuple[str, str]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str]]) -> None:
        self.found += [(tag, attribute) for attribute in attrs or [("", "")]]


def check_html(html: str, pictures: bool = False) -> None:
    html.encode()
    may = {"table": [""], "caption": [""], "tbody": [""], "tr": [""], "th": ["scope"], "td": [""], "div": ["align"]}
    if pictures:
        may |= {"p": [""], "img": ["src", "alt"]}
    for tag, (name, value) in Parsed(html).found:
        assert name in may[tag], (tag, name)
        assert name != "src" or value.startswith("data:image/png;base64,")
    assert "<script" not in html


def test_every_object_fits_a_look(objects):
    for name, thing in objects.items():
        text = repr(thing)
        assert "cannot be shown" not in text, (name, text)
        lines = text.splitlines()
        assert len(lines) <= 6, name
        assert not isinstance(thing, Shown) or max(map(len, lines)) <= 110, name
        assert len(text) <= 660, name
        assert all(line.isprintable() for line in lines), name


def test_every_card_is_small_and_runs_nothing(objects):
    for name, thing in objects.items():
        kind = name.split()[1]
        if not isinstance(thing, Shown | Picture | Loaded):
            continue
        if kind in ("Diagram", "Report"):  # they show their picture, in a frame without the notebook's rights
            assert ' sandbox="allow-scripts"' in thing._repr_html_()
            check_html(thing._safely().html())
            continue
        html = thing._repr_html_()
        assert "cannot be shown" not in html, (name, html)
        check_html(html, pictures=kind in SHOW_PICTURES)
        assert len(html.encode()) <= 40_000 or kind in SHOW_PICTURES, name


def test_cards_are_quick_and_leave_things_alone(objects, monkeypatch):
    """No model runs, no picture is read, nothing is hashed, and nothing big is looked through."""

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("a card ran a model, read a picture or hashed one")

    for name in ("first", "read", "digest"):
        for source in ("Files", "Held", "Items"):
            monkeypatch.setattr(f"viscircuits.data.sources.{source}.{name}", forbidden)
    monkeypatch.setattr(torch.nn.Module, "__call__", forbidden)
    for name, thing in objects.items():
        if not isinstance(thing, Shown) or name.split()[1] in SHOW_PICTURES:
            continue
        known = set(vars(thing))
        repr(thing)  # what is counted once may be kept
        assert set(vars(thing)) - known <= {"n_kept", "n_relevant", "layers", "iou", "sets", "verdict"}, name
        began = time.process_time()
        html = thing._repr_html_()
        assert time.process_time() - began < 0.05, name
        assert "cannot be shown" not in html, name


def test_showing_changes_nothing_else(objects):
    target = vc.Target("a", 1)
    assert len({target, vc.Target("a", 1), 1.0 * target, vc.Loss(), vc.Loss()}) == 3
    assert str(target) == "a:1"
    assert copy.copy(objects["0 Scores"]) == objects["0 Scores"]
    assert pickle.loads(pickle.dumps(target * 2.0)) == target * 2.0


def test_a_study_shows_what_is_there(objects, tmp_path):
    study, gone = (thing for thing in objects.values() if isinstance(thing, vc.Study))
    assert 'circuits</div></th><td><div align="left">1<' in study._repr_html_()
    assert "not measured yet" in study._repr_html_()
    assert "(gone)" in repr(gone)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.safetensors").touch()
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "circuits").symlink_to(tmp_path / "elsewhere")
    assert ">circuits<" not in vc.Study(tmp_path / "study", study.header)._repr_html_()


def test_an_image_set_tells_its_hash_only_once_it_is_known(tmp_path):
    images = ImageSet.from_tensors(torch.rand(3, *SHAPE))
    assert repr(images) == "ImageSet(images: 3; size: 3 × 16 × 16; from: tensors)"
    assert repr(images.labelled([0, 1, 0])).endswith("from: tensors; classes: 2 (0, 1))")
    known = images.hash
    assert f"hash: {known}" in repr(images)


@pytest.mark.parametrize(
    ("target", "meaning"),
    [
        ("features.6:7", "reads: channel 7 of the output of features.6; place: everywhere"),
        ("features.6:7@2,4", "place: at row 2, column 4"),
        ("features.6:7@max", "place: where each image has its maximum in the full model"),
        ("features.6:7@centre", "text: features.6:7@center"),
        ("logit:3", "reads: number 3 of the model's output"),
        ("logit[aux]:3", "reads: number 3 of the model's output [aux]"),
        ("loss", "reads: the model's cross-entropy, for the label of the image"),
        ("a:1 - 0.5*b:2", "TargetSum(terms: 2; text: 1*a:1 - 0.5*b:2)"),
    ],
)
def test_a_target_says_what_it_means(target, meaning):
    assert meaning in repr(vc.parse_target(target)).replace("\n ", "")


def test_keys_do_not_depend_on_what_is_shown():
    """The keys of rendered pictures that are kept: an earlier version made them of these very texts."""
    target = vc.Target("conv2", 3, position=(1, 2))
    whole = "Target(layer='conv2', channel=3, direction=None, position=(1, 2), reduction='sum_abs')"
    assert spelled(target) == whole
    assert spelled(objective(target)) == f"Activation(target={whole})"
    kernel = vc.KernelMap("conv2", 1, 0, position="center")
    text = "KernelMap(layer='conv2', out=1, source=0, position='center')"
    assert spelled(2.0 * kernel) == f"Combination(terms=((2.0, {text}),))"
    both = objective(target) - kernel
    assert spelled(both) == f"Combination(terms=((1.0, Activation(target={whole})), (-1.0, {text})))"
    assert spelled(vc.Loss()) == "Loss(predicted=False)"
    signed = [spelled(vc.Target("a", direction=[1.0, zero])) for zero in (0.0, -0.0)]
    assert signed[1] == "Target(layer='a', channel=None, direction=(1.0, -0.0), position=None, reduction='sum_abs')"
    assert signed[0] != signed[1]
    long = [vc.Target("a", direction=[1.0, *[0.0] * 400, last]) for last in (1e-9, 2e-9)]
    assert spelled(long[0]) != spelled(long[1])


def test_nothing_is_kept_under_what_is_shown(tmp_path, monkeypatch):
    def forbidden(_: object) -> str:
        raise AssertionError("what an object shows became a key")

    monkeypatch.setattr(Shown, "__repr__", forbidden)
    model = small()
    graph = vc.trace(model, SHAPE)
    assert bound(vc.Target("first", 1), graph) is bound("first:1", graph)
    for _ in range(2):
        vc.render(model, [vc.Target("first", 1), vc.KernelMap("first", 1, 0)], size=16, steps=1, cache=tmp_path)
    assert len([*tmp_path.iterdir()]) == 2


# ---- and none is forgotten -------------------------------------------------------------------------------------------

SHORT = {"Fourier", "Maco", "Accentuation", "Interval", "Means", "Scales"}
"""Public, and short as they are: options (of which caches make keys), three numbers, or a text of their own."""

INNER = {
    "Files", "Items", "Held", "StoredCircuit", "Vertex", "Edge", "Agreement", "Execution", "KernelCall", "Watching",
    "Tally",
    "KernelUse", "Reach", "Private", "Look", "Network", "Seen", "Summit", "Start", "Strip", "Canvas",
    "Portrait", "Exhibit", "Gathering", "Opened", "Subject", "Pass", "Gates", "Ladder", "Standing",
    "Training", "Kind", "Bench", "Layer", "Moments",
}  # fmt: skip
"""What passes between our own functions only; whoever prints one of these is at work on this package."""


def classes() -> list[type]:
    """Every public class of the package."""
    found = []
    for module in pkgutil.walk_packages(vc.__path__, "viscircuits."):
        if module.name.endswith(("__main__", "fused_triton")):  # starts the program; needs a package of its own
            continue
        members = vars(importlib.import_module(module.name)).items()
        found += [c for name, c in members if inspect.isclass(c) and c.__module__ == module.name and name[0] != "_"]
    return found


def test_every_public_class_shows_itself(objects):
    tested = {type(thing).__name__ for thing in objects.values()}
    for name in vc.__all__:
        public = getattr(vc, name)
        if inspect.isclass(public) and not issubclass(public, Exception):
            assert issubclass(public, Shown) or name in SHORT, f"{name} has no card; see viscircuits.card.Shown"
            assert name in tested, f"{name} is in no test here"


def test_whatever_holds_arrays_or_networks_shows_itself(objects):
    tested = {type(thing).__name__ for thing in objects.values()}
    every, printing = classes(), set()
    assert len(every) > 150
    for one in every:
        if issubclass(one, Shown):
            own = [name for name in ("__repr__",) if getattr(one, name) is not getattr(Shown, name)]
            assert not own, f"{one.__name__}: a dataclass that is Shown needs repr=False"
            if one not in (Shown,) and not inspect.isabstract(one):
                assert one.__name__ in tested | {"Question", "Dimmed"}, f"{one.__name__} is in no test here"
        elif dataclasses.is_dataclass(one) and one.__dataclass_params__.repr:
            kinds = [str(part.type) for part in dataclasses.fields(one) if part.repr]
            if any(word in kind for kind in kinds for word in ("Tensor", "ndarray", "Module", "ImageSet")):
                printing.add(one.__name__)
    assert printing - SHORT == INNER, f"print arrays or networks, or no longer do: {(printing - SHORT) ^ INNER}"
