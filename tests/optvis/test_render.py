"""Rendering as a whole: what is reached, that nothing depends on company, and that the model is left alone."""

import copy

import pytest
import torch
from torch import Tensor, nn

import viscircuits as vc
from micro import Plain, randomised, toy
from viscircuits.circuit.circuit import Circuit
from viscircuits.data.colours import Colours, probe
from viscircuits.data.images import ImageSet
from viscircuits.errors import ImageError, ModelError, TargetError, ViscircuitsError
from viscircuits.mask import Mask, expand_relevant
from viscircuits.model.field.receptive_field import Area
from viscircuits.optvis.ascent import likeness
from viscircuits.optvis.objective import KernelMap, objective
from viscircuits.optvis.parameterisation import Accentuation, Fourier, Maco, Pixels
from viscircuits.optvis.render import render
from viscircuits.optvis.rendering import Rendering
from viscircuits.optvis.start import before_relu
from viscircuits.optvis.transforms import STANDARD, Crop, Jitter
from viscircuits.readout import Readout
from viscircuits.target import parse_target

SIZE = (2, 8, 8)
PREPARE = vc.zoo.load("shapesnet").prepare


def circuit(model: nn.Module, target: str, shape: tuple[int, ...], every: int, **options) -> Circuit:
    """Keeps one kernel in ``every``."""
    parsed = parse_target(target)
    graph = vc.trace(model, shape)
    relevant = expand_relevant(graph, Readout(parsed, graph).relevant_kernels, "kernel")
    kept = {n: r & (torch.arange(r.numel()).view(r.shape) % every == 0) for n, r in relevant.items()}
    return Circuit(model, parsed, Mask(kept, relevant, "kernel", shape), **options)


def same(a: Rendering, b: Rendering, tolerance: float = 0.0) -> bool:
    return torch.allclose(a.images, b.images, rtol=0, atol=tolerance) and a.notes == b.notes


def test_pictures_and_values(shapesnet):
    """The value told is that of the picture handed over, as the network itself says."""
    rendering = render(shapesnet, ["features.8:5", "logit:3"], prepare=PREPARE, steps=30)
    assert (len(rendering), rendering.images.shape) == (2, (2, 3, 64, 64))
    assert 0 <= rendering.images.min() < rendering.images.max() <= 1
    colours, _ = probe(PREPARE)
    with torch.no_grad():
        prepared = colours.prepared(rendering.images)
        expected = [shapesnet.features[:9](prepared)[0, 5].mean(), shapesnet(prepared)[1, 3]]
    assert rendering.values == pytest.approx([float(v) for v in expected], rel=1e-5)
    start = render(shapesnet, ["features.8:5", "logit:3"], prepare=PREPARE, steps=1)
    assert rendering.values[0] > start.values[0] + 0.4
    assert rendering.values[1] > start.values[1] + 1


def test_deterministic_by_seed(shapesnet):
    def once(seed: int = 0) -> Rendering:
        return render(shapesnet, "features.8:5", size=64, steps=5, seed=seed)

    first = once()
    torch.manual_seed(99)
    before = torch.get_rng_state()
    assert same(first, once())
    assert torch.get_rng_state().equal(before)
    assert not same(first, once(1), 1e-3)


@pytest.mark.parametrize("kind", ["fourier", "pixels", "maco", "accentuation"])
def test_company_changes_nothing(kind: str):
    """Eight pictures at once, in threes, or alone; in float64, where rounding stays small."""
    model, _, images = toy("plain")
    how = {"maco": Maco(images=images), "accentuation": Accentuation(image=images[0].float())}.get(kind, kind)
    what = ["conv3:1", "logit:2", "conv2:0@1,1", "bn:3@max", "-1*bn:2", "relu@1:1", "fc1:2", KernelMap("conv2", 2, 1)]
    options = {"colours": Colours.unchanged(2), "size": SIZE, "steps": 12, "parameterisation": how}
    together = render(model, what, batch_size=8, **options)
    assert same(together, render(model, what, batch_size=3, **options), 1e-6)
    alone = [render(model, [one], **options).images for one in what]
    assert torch.allclose(together.images, torch.cat(alone), rtol=0, atol=1e-6)


def test_a_full_circuit_is_the_model(shapesnet):
    full, sparse = (circuit(shapesnet, "features.8:5", (3, 64, 64), every) for every in (1, 3))
    plain = render(shapesnet, "features.8:5", prepare=PREPARE, steps=10)
    assert same(render(full, prepare=PREPARE, steps=10), plain)
    masked = render(sparse, prepare=PREPARE, steps=10)
    assert not same(masked, plain, 0.02)
    twin = copy.deepcopy(shapesnet)
    twin.load_state_dict(twin.state_dict() | sparse.weights)
    assert same(masked, render(twin, "features.8:5", prepare=PREPARE, steps=10))
    assert masked.values[0] > render(sparse, prepare=PREPARE, steps=1).values[0]


def test_a_circuit_tells_its_own_size_and_other_units(shapesnet):
    sparse = circuit(shapesnet, "features.8:5", (3, 48, 48), 2)
    assert render(sparse, steps=2).images.shape == (1, 3, 48, 48)
    assert render(sparse, ["features.3:0", "features.6:1"], size=32, steps=2).images.shape == (2, 3, 32, 32)


def test_lowering(shapesnet):
    what = ["features.8:5", "logit:3"]
    start, low = (render(shapesnet, what, prepare=PREPARE, steps=steps, sign=-1) for steps in (1, 30))
    assert all(b < a - 0.2 for a, b in zip(start.values, low.values, strict=True))
    negated = render(shapesnet, [-objective(one) for one in what], prepare=PREPARE, steps=30)
    assert torch.allclose(negated.images, low.images, atol=1e-6)
    assert negated.values == pytest.approx([-v for v in low.values], rel=1e-4)


@pytest.mark.parametrize("name", ["plain", "in_place", "reused", "transposed", "gated", "tokens", "windows"])
def test_every_kind_of_network_and_nothing_left_behind(name: str):
    model, target, images = toy(name)
    before = copy.deepcopy(model.state_dict())
    shape = tuple(images[0].shape)
    rendering = render(model, [target], size=shape, steps=15, transforms=(Jitter(0.05),))
    assert rendering.values[0] > render(model, [target], size=shape, steps=1).values[0]
    untouched(model, before)


def untouched(model: nn.Module, before: dict[str, Tensor]) -> None:
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(after[name].equal(before[name]) for name in before)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks or m.training for m in model.modules())


def test_the_model_is_left_alone_when_something_breaks(shapesnet):
    model = copy.deepcopy(shapesnet)
    before = copy.deepcopy(model.state_dict())

    def interrupt(what: str, done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        render(model, "features.8:5", size=64, steps=5, progress=interrupt)
    untouched(model, before)
    with pytest.raises(TargetError, match=r"features.8:5 is nan at step 0; check the network's weights and colours"):
        render(model, "features.8:5", size=64, steps=5, colours=Colours((0.5,) * 3, (float("nan"),) * 3))
    untouched(model, before)


def test_progress(shapesnet):
    told = []
    render(shapesnet, ["features.3:0", "features.3:1", "features.3:2"], size=32, steps=2, batch_size=2,
           progress=lambda *step: told.append(step))  # fmt: skip
    assert told == [("render", i, 4) for i in (1, 2, 3, 4)]


class Dead(nn.Module):
    """Channel 0 is off for grey pictures, channel 1 for all pictures, channel 2 is on; two ReLUs behind each other."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 1)
        self.relu = nn.ReLU()
        self.after = nn.Conv2d(3, 3, 1, bias=False, groups=3)
        with torch.no_grad():
            self.conv.weight.copy_(torch.tensor([1.0, 0.0, 1.0]).view(3, 1, 1, 1))
            self.conv.bias.copy_(torch.tensor([-0.6, -1.0, 0.0]))
            self.after.weight.fill_(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.relu(self.conv(x)))


def test_dead_starts():
    """Behind the ReLU itself: what goes into it. Further on: another start. Nothing helps a filter without weights."""
    model = Dead().eval()
    rendering = render(model, ["relu:0", "after:0", "after:1", "relu:1", "after:2"], size=(1, 16, 16), steps=40,
                       parameterisation="pixels")  # fmt: skip
    notes = rendering.notes
    assert notes[0] == "no gradient at the start; follows conv:0, which goes into the ReLU"
    assert notes[1].startswith("no gradient at the start; started again from seed ")
    assert notes[2] == notes[3] == "no gradient at any of 6 starts: nothing to draw"
    assert (rendering.images[2:4] == 0.5).all()
    assert notes[4] == ""
    assert rendering.values[0] > 0.05  # of relu:0 itself
    assert rendering.values[1] > 0.01
    assert rendering.values[2] == rendering.values[3] == 0


def test_a_gradient_that_vanishes_is_told():
    low = render(Dead().eval(), "relu:2", size=(1, 16, 16), steps=40, sign=-1, colours=Colours((0.45,), (1.0,)),
                 parameterisation=Pixels(learning_rate=1.0))  # fmt: skip
    assert low.values == (0,)
    assert low.notes[0].startswith("the gradient vanished on the way")


def test_before_relu():
    plain = vc.trace(randomised(Plain()), SIZE)
    assert before_relu(objective("relu@0:1@2,3"), plain) == objective("bn:1@2,3")
    assert before_relu(objective("2*relu@1:1 - relu@0:0"), plain) == objective("2*conv2:1 - 1*bn:0")
    assert before_relu(-objective("relu@0:1"), plain) == -objective("bn:1")
    assert before_relu(objective("conv2:1"), plain) is None
    assert before_relu(objective("relu@0:1 + logit:0"), plain) is None
    assert before_relu(objective("relu@0:1") + KernelMap("conv2", 0, 0), plain) is None


def test_variants(shapesnet):
    both = render(shapesnet, ["features.8:5", "features.8:7"], size=64, steps=4, variants=2, seed=3, batch_size=3)
    assert [(p.objective, p.seed) for p in both] == [
        ("features.8:5", 3), ("features.8:5", 4), ("features.8:7", 3), ("features.8:7", 4)
    ]  # fmt: skip
    alone = render(shapesnet, "features.8:7", size=64, steps=4, seed=4)
    assert torch.allclose(both.images[3], alone.images[0], atol=1e-4)


def test_diversity_drives_variants_apart(shapesnet):
    def alike(diversity: float) -> float:
        found = render(shapesnet, "features.6:5", prepare=PREPARE, steps=40, variants=3, diversity=diversity)
        with torch.no_grad():
            return float(likeness(shapesnet.features[:7](probe(PREPARE)[0].prepared(found.images))).mean())

    assert alike(2.0) < alike(0.0) - 0.05


def test_likeness_by_hand():
    maps = torch.tensor([[[1.0, 1.0], [0.0, 0.0]], [[0.0, 2.0], [0.0, 0.0]], [[0.0, 0.0], [3.0, 0.0]]])
    assert likeness(maps).tolist() == pytest.approx([0.5, 0.5, 0.0])  # the first two respond in the same channel
    assert likeness(torch.eye(2)).tolist() == [0, 0]  # outputs without positions
    assert likeness(maps[:1]).tolist() == [0]


def test_cropped_to_the_receptive_field(shapesnet):
    centre, fixed, most, whole = render(
        shapesnet, ["features.3:4@center", "features.0:1@0,0", "features.3:4@max", "features.3:4"], prepare=PREPARE,
        steps=5, crop=True,
    )  # fmt: skip
    assert centre.window == Area(26, 26, 41, 41)  # rows 7 to 9 of the pool, 14 to 19 of conv1, 2 * 14 - 2 to 2 * 19 + 2
    assert centre.cropped().equal(centre.image[:, 26:41, 26:41])
    assert fixed.window == Area(0, 0, 3, 3)  # five wide, less two of padding
    assert whole.window is None
    with torch.no_grad():
        answers = shapesnet.features[:4](probe(PREPARE)[0].prepared(most.image[None]))[0, 4]
    place = divmod(int(answers.argmax()), answers.shape[1])
    edges = [(max(0, 4 * p - 6), min(64, 4 * p + 9)) for p in place]
    assert most.window == Area(edges[0][0], edges[1][0], edges[0][1], edges[1][1])
    canvas = render(shapesnet, "features.3:4@center", size=64, canvas=128, steps=1, crop=True)[0]
    assert (canvas.image.shape, canvas.window) == ((3, 128, 128), Area(52, 52, 82, 82))


def test_only_the_receptive_field_is_drawn(shapesnet):
    """A neuron's picture keeps its start outside the field, so the crop is right (no jitter here)."""
    options = {"prepare": PREPARE, "transforms": (), "crop": True, "parameterisation": Pixels()}
    start, end = (render(shapesnet, "features.3:4@center", steps=steps, **options)[0] for steps in (1, 9))
    changed = (end.image - start.image).abs().amax(0) > 0.01
    rows, columns = changed.nonzero().unbind(1)
    assert (rows.min(), columns.min()) >= (end.window.top, end.window.left)
    assert (rows.max(), columns.max()) < (end.window.bottom, end.window.right)
    assert changed.sum() > 100


def test_canvas_and_crops(shapesnet):
    large = render(shapesnet, "logit:3", prepare=PREPARE, canvas=96, steps=30, transforms=(Crop(0.5, 0.8), *STANDARD))
    assert large.images.shape == (1, 3, 96, 96)
    assert large.values[0] > render(shapesnet, "logit:3", prepare=PREPARE, canvas=96, steps=1).values[0] + 1


def test_saved_and_for_pillow(shapesnet, tmp_path):
    rendering = render(shapesnet, ["features.3:4@center", "features.3:5"], prepare=PREPARE, steps=2, crop=True)
    files = rendering.save(tmp_path / "new")
    assert [f.name for f in files] == ["000-features.3_4_center.png", "001-features.3_5.png"]
    back = ImageSet.from_files(files[1], PREPARE)[0]
    assert torch.allclose(probe(PREPARE)[0].pictures(back), rendering.images[1], atol=0.6 / 255)
    assert [picture.size for picture in rendering.to_pil()] == [(15, 15), (64, 64)]
    grey = render(Dead().eval(), "after:2", size=(1, 9, 7), steps=2)
    assert (grey.to_pil()[0].size, grey.to_pil()[0].mode) == ((7, 9), "L")
    grey.save(tmp_path)


def test_errors(shapesnet):
    with pytest.raises(ImageError, match=r"expected prepare=, or size= in pixels"):
        render(shapesnet, "logit:3")
    with pytest.raises(TargetError, match="only a circuit has one of its own"):
        render(shapesnet, size=64)
    with pytest.raises(TargetError, match="got an empty list"):
        render(shapesnet, [], size=64)
    with pytest.raises(TargetError, match="channel 99 is out of range"):
        render(shapesnet, ["logit:3", "logit:99"], size=64)
    with pytest.raises(ViscircuitsError, match="steps 0 is out of range"):
        render(shapesnet, "logit:3", size=64, steps=0)
    with pytest.raises(ImageError, match="canvas of at least the 64 pixels that are seen, got 32"):
        render(shapesnet, "logit:3", size=64, canvas=32)
    with pytest.raises(ModelError, match="must be in evaluation mode"):
        render(copy.deepcopy(shapesnet).train(), "logit:3", size=64)


def test_colours_given_beside_a_prepare_that_does_more(shapesnet):
    def crooked(picture) -> Tensor:
        return PREPARE(picture) ** 3

    with pytest.raises(ImageError, match="pass colours= instead"):
        render(shapesnet, "logit:3", prepare=crooked, steps=1)
    own = render(shapesnet, "logit:3", prepare=crooked, colours=probe(PREPARE)[0], steps=2)
    assert same(own, render(shapesnet, "logit:3", prepare=PREPARE, steps=2))


def test_options_as_objects(shapesnet):
    strong = render(shapesnet, "logit:3", size=64, steps=20, parameterisation=Fourier(limit=float("inf")))
    held = render(shapesnet, "logit:3", size=64, steps=20, parameterisation=Fourier(limit=0.1))
    assert strong.images.std() > 2 * held.images.std()
