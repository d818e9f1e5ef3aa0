"""Every criterion against its oracle, identities that hold by theory, and the model left untouched."""

import copy
import functools
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from cifar_resnet20 import ResNet20
from micro import MICRO_IMAGE, TOYS, MicroNet, Plain, pictures, randomised
from micro import toy as new_toy
from oracles import Table, force, kernel_weights, oracle, pooled, relevance, rows_first
from viscircuits.data.images import ImageSet
from viscircuits.errors import ImageError, MaskError, TargetError, UnsupportedOperation
from viscircuits.saliency.registry import score
from viscircuits.scores import Scores
from viscircuits.target import AnyTarget, Loss, Target, parse_target

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")

CRITERIA = ("actgrad", "snip", "gradient", "activation", "magnitude")
GRANULARITIES = ("weight", "kernel", "filter")
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}  # of the layer's maximum; design section 4


toy = functools.cache(new_toy)  # tracing a network is what takes long; scoring leaves no trace on it, as is tested


RUNS = [(torch.float64, 1), (torch.float64, 7), (torch.float64, 32), (torch.float32, 7)]


def stacked(images: ImageSet) -> Tensor:
    return torch.stack([images[i] for i in range(len(images))])


@functools.cache
def expected(name: str, dtype: torch.dtype) -> dict[tuple[str, str], Table]:
    """Three pictures, each of them three times; the oracle is slow."""
    model, target, images = toy(name, dtype)
    table = oracle(model, target, stacked(images)[:3], list(images.labels[:3]))
    return {key: {n: (1 if key[0] == "magnitude" else 3) * a for n, a in part.items()} for key, part in table.items()}


@functools.cache
def expected_relevance(name: str) -> dict[str, Tensor]:
    model, target, images = toy(name)
    return relevance(model, target, images[0].shape, labels=False)


def assert_close(got: Scores, table: Table, dtype: torch.dtype) -> None:
    for name, values in got.sums.items():
        reference = table[name].detach() * got.relevant[name]
        largest = float(reference.abs().max())
        assert largest > 0, f"{name}: nothing to compare"
        assert values.shape == reference.shape
        assert float((values - reference).abs().max()) <= TOLERANCE[dtype] * largest, name


@pytest.mark.parametrize("name", TOYS)
@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_criterion_is_its_definition(name, criterion, granularity):
    runs = RUNS if granularity == "kernel" else [(torch.float64, 7), (torch.float32, 7)]
    for dtype, batch_size in runs:
        model, target, images = toy(name, dtype)
        images = images.subset((0, 1, 2, 1, 0, 2, 2, 1, 0))
        got = score(model, target, images, criterion, granularity=granularity, batch_size=batch_size)
        assert_close(got, expected(name, dtype)[criterion, granularity], dtype)


@pytest.mark.parametrize("name", TOYS)
def test_relevant_kernels_are_those_with_a_derivative(name):
    model, target, images = toy(name)
    got = score(model, target, images, "magnitude").relevant
    want = expected_relevance(name)
    assert list(got) == [n for n in got if n in want]
    assert set(got) == set(want)
    assert all(torch.equal(got[n], want[n]) for n in want)


@pytest.mark.parametrize(
    ("name", "granularity", "density"),
    [
        ("plain", "kernel", 0.3),
        ("plain", "weight", 0.05),
        ("plain", "filter", 0.4),
        ("reused", "kernel", 0.3),
        ("tied", "kernel", 0.4),
        ("transposed", "kernel", 0.3),
        ("transposed", "weight", 0.1),
        ("gated", "filter", 0.5),
        ("windows", "kernel", 0.3),
        ("tokens", "kernel", 1.0),
    ],
)
def test_force_is_its_definition(name, granularity, density):
    model, target, images = toy(name)
    images = images.subset(range(3))
    for batch_size in (2, 32):
        got = score(model, target, images, "force", granularity=granularity, density=density, batch_size=batch_size)
        m = sum(int(r.sum()) for r in got.relevant.values())
        k = max(1, round(density * m))
        scores, mask = force(model, target, stacked(images), list(images.labels), got.relevant, k, granularity)
        for layer, values in scores.items():
            assert torch.allclose(got.sums[layer], values, rtol=0, atol=1e-10 * max(1e-30, float(values.max())))
        kept = got.select(density=density).kept
        assert all(torch.equal(kept[n], mask[n]) for n in mask)
        assert sum(int(kept[n].sum()) for n in kept) == k


def test_force_lets_kernels_come_back():
    """The gradient is that of the mask, with the model's own weight: a removed kernel still has a score."""
    model, target, images = toy("plain")
    got = score(model, target, images, "force", density=0.5)
    mask = got.select(density=0.5)
    removed = {n: mask.relevant[n] & ~kept for n, kept in mask.kept.items()}
    assert any(bool((got.sums[n][r] > 0).any()) for n, r in removed.items())
    assert got.select(density=0.5) != score(model, target, images, "snip").select(density=0.5)


# ---- a real architecture ---------------------------------------------------------------------------------------------


def resnet20(images: ImageSet, weights: Path | None = None) -> None:
    model = randomised(ResNet20()).double()
    if weights is not None:
        model.load_state_dict(load_file(weights))
    target = Target("layer3.0.conv1", channel=5)
    table = oracle(model, target, stacked(images), None, taps=False)
    for criterion in ("actgrad", "snip"):
        for batch_size in (1, 2)[: len(images)]:
            assert_close(
                score(model, target, images, criterion, batch_size=batch_size),
                table[criterion, "kernel"],
                torch.float64,
            )


def test_resnet20_with_random_weights():
    resnet20(pictures((3, 8, 8), n=1))


@pytest.mark.data
def test_resnet20_with_trained_weights(data_dir):
    resnet20(pictures((3, 16, 16), n=2), data_dir / "weights/resnet20-cifar10.safetensors")


# ---- targets of every kind -------------------------------------------------------------------------------------------

KINDS: dict[str, AnyTarget] = {
    "channel": Target("conv2", channel=3),
    "neuron": Target("conv2", channel=3, position=(1, 2)),
    "center": Target("conv2", channel=3, position="center"),
    "max": Target("conv2", channel=3, position="max"),
    "direction": Target("conv2", direction=[1.0, 0.0, -2.0, 3.0, 0.5]),
    "direction max": Target("conv2", direction=[1.0, 0.0, -2.0, 3.0, 0.5], position="max"),
    "after relu": Target("relu@1", channel=3),
    "norm": Target("bn", channel=0),
    "linear": Target("fc1", channel=4),
    "logit": Target.logit(2),
    "sum_abs": Target("conv3", channel=1, reduction="sum_abs"),
    "sum": Target("conv3", channel=1, reduction="sum"),
    "mean": Target("conv3", channel=1, reduction="mean"),
    "two layers": 2.0 * Target("conv3", channel=1, position="max") - 0.5 * Target("conv1", channel=0, reduction="mean"),
    "overwritten later": Target("conv2", channel=3) + Target("conv3", channel=1),  # a ReLU in place stands between
    "same layer": Target("conv2", channel=0, reduction="sum") + Target("conv2", channel=1, reduction="mean"),
    "two logits": Target.logit(0) - Target.logit(3),
    "loss": Loss(),
    "loss predicted": Loss(predicted=True),
}


@pytest.mark.parametrize("kind", KINDS)
def test_target_of_every_kind(kind):
    model, _, images = toy("plain")
    target, images = KINDS[kind], images.subset(range(6))
    table = oracle(model, target, stacked(images), list(images.labels), taps=False)
    for criterion in ("actgrad", "snip"):
        for batch_size in (1, 5):
            assert_close(
                score(model, target, images, criterion, batch_size=batch_size),
                table[criterion, "kernel"],
                torch.float64,
            )


@pytest.mark.parametrize("kind", ["max", "loss predicted"])
def test_what_the_full_model_fixes_stays_fixed_under_force(kind):
    model, _, images = toy("plain")
    images = images.subset(range(3))
    got = score(model, KINDS[kind], images, "force", density=0.2)
    k = max(1, round(0.2 * got.n_relevant))
    scores, _ = force(model, KINDS[kind], stacked(images), list(images.labels), got.relevant, k, "kernel")
    assert all(torch.allclose(got.sums[n], scores[n], rtol=1e-9, atol=1e-12) for n in scores)


# ---- identities ------------------------------------------------------------------------------------------------------


def test_a_number_worked_out_by_hand():
    """MicroNet, target conv2:0 with sum_abs, its one picture.

    conv1 gives h0 = relu(2x - 1) = [1 3 0 | 0 1 5 | 3 0 1] and h1 = relu(2 - x) = [1 0 2 | 2 1 0 | 0 2 1].
    conv2's kernels of channel 0 are [1 0 | 0 1] and [0 -1 | 1 0]; their maps are [2 8 | 0 2] and [2 -1 | -1 2].
    Channel 0 is [4 7 | -1 4], so f = 16 and the gradient is its sign, g = [1 1 | -1 1].

    ActGrad conv2: (2 + 8 + 0 + 2) / 4 = 3 and (2 + 1 + 1 + 2) / 4 = 1.5.
    SNIP conv2: dW00 = 1 + 3 - 0 + 1 = 5, dW11 = 1 + 5 - 0 + 1 = 7, so (5 + 7) / 4 = 3 for the first kernel;
    dW01 = 0 + 2 - 1 + 0 = 1, dW10 = 2 + 1 - 0 + 2 = 5, so (1 + 5) / 4 = 1.5 for the second.

    Gradient at h0, behind its ReLU: [1 1 0 | 0 2 1 | 0 0 1] (where h0 > 0); the map 2x is [2 4 0 | 0 2 6 | 4 0 2], so
    the products are 2 + 4 + 4 + 6 + 2 = 18: ActGrad 18 / 9 = 2, SNIP 18.
    Gradient at h1, behind its ReLU: [0 0 -1 | 1 2 0 | 0 1 0]; the map -x is [-1 -2 0 | 0 -1 -3 | -2 0 -1]: only the
    centre meets, 2 * -1: ActGrad 2 / 9, SNIP 2.
    """
    model, images, target = MicroNet().eval(), ImageSet.from_tensors(MICRO_IMAGE), Target("conv2", channel=0)
    actgrad = score(model, target, images, "actgrad").sums
    assert actgrad["conv2"].tolist() == [[3.0, 1.5], [0.0, 0.0]]
    assert torch.allclose(actgrad["conv1"], torch.tensor([[2.0], [2 / 9]]))
    snip = score(model, target, images, "snip").sums
    assert snip["conv2"].tolist() == [[3.0, 1.5], [0.0, 0.0]]
    assert snip["conv1"].tolist() == [[18.0], [2.0]]
    # filters: |a g| of the filter's own map is (4 + 7 + 1 + 4) / 4; magnitude is the mean over all eight weights
    assert score(model, target, images, "actgrad", granularity="filter").sums["conv2"].tolist() == [4.0, 0.0]
    assert score(model, target, images, "magnitude", granularity="filter").sums["conv2"].tolist() == [0.5, 0.0]
    assert score(model, target, images, "magnitude").sums["conv2"].tolist() == [[0.5, 0.5], [0.0, 0.0]]


def test_snip_is_the_change_seen_by_finite_differences():
    model, _, images = toy("plain")
    target, one = parse_target("fc2:1"), images.subset([3])
    got = score(model, target, one, "snip", granularity="weight")
    for name, parameter in kernel_weights(model).items():
        flat = parameter.data.flatten()
        for i in range(0, flat.numel(), 5):
            values = []
            for step in (1e-6, -1e-6):  # a share of the weight: d f / d log|w| = w df/dw
                other = copy.deepcopy(model)
                kernel_weights(other)[name].data.view(-1)[i] *= 1 + step
                with torch.no_grad():
                    values.append(float(other(one[0][None])[0, 1].abs()))
            slope = abs(values[0] - values[1]) / 2e-6
            assert float(got.sums[name].flatten()[i]) == pytest.approx(slope, abs=1e-7)


class _Points(nn.Module):
    """The same small network as 1x1 convolutions on a 1x1 picture, or as linear layers."""

    def __init__(self, linear: bool) -> None:
        super().__init__()
        self.linear = linear
        self.a = nn.Linear(3, 4) if linear else nn.Conv2d(3, 4, 1)
        self.b = nn.Linear(4, 2) if linear else nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.a(x.flatten(1) if self.linear else x))).flatten(1)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_net_of_points_equals_a_linear_net(criterion):
    linear, conv = (randomised(_Points(kind)).double() for kind in (True, False))
    images = pictures((3, 1, 1))
    for granularity in GRANULARITIES:
        one = score(linear, Target.logit(1), images, criterion, granularity=granularity)
        two = score(conv, Target.logit(1), images, criterion, granularity=granularity)
        for name in one.sums:
            assert torch.allclose(one.sums[name], two.sums[name].view_as(one.sums[name]), rtol=1e-12)


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_activation_is_actgrad_with_gradient_one(granularity):
    """The sum of a convolution's own output has gradient one everywhere in that layer."""
    model, _, images = toy("grouped")
    target = Target("grouped", channel=4, reduction="sum")
    actgrad = score(model, target, images, "actgrad", granularity=granularity).sums["grouped"]
    activation = score(model, target, images, "activation", granularity=granularity).sums["grouped"]
    assert torch.allclose(actgrad, activation, rtol=1e-12)


@pytest.mark.parametrize("criterion", ["actgrad", "snip", "gradient", "activation"])
def test_scores_of_single_pictures_add_up(criterion):
    model, target, images = toy("gated")
    whole = score(model, target, images, criterion)
    single = [score(model, target, images.subset([i]), criterion) for i in range(len(images))]
    for name, values in whole.sums.items():
        assert torch.allclose(values, sum(s.sums[name] for s in single), rtol=1e-10)
        assert torch.allclose(whole.means[name], values / 8)


def test_snip_gradients_of_opposite_pictures_do_not_cancel():
    model = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False)).eval()
    images = ImageSet.from_tensors(torch.stack([torch.ones(1, 2, 2), -torch.ones(1, 2, 2)]))
    got = score(model, Target("0", channel=0, reduction="sum"), images, "snip").sums["0"]
    assert torch.allclose(got, 8 * model[0].weight.detach().abs().view(1, 1))


def test_random_depends_on_the_seed_alone():
    model, target, images = toy("plain")
    one, same = (
        score(model, target, images, "random", seed=3),
        score(model, target, images.subset([1]), "random", seed=3),
    )
    other = score(model, target, images, "random", seed=4)
    for name, relevant in one.relevant.items():
        assert torch.equal(one.sums[name], same.sums[name])
        assert not torch.equal(one.sums[name], other.sums[name])
        assert bool((one.sums[name][relevant] > 0).all())
        assert bool((one.sums[name][~relevant] == 0).all())


class _TwoTokens(nn.Module):
    """Two tokens, and tokens first: in a trace, with its two images, it looks as if images came first."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.flatten(2).transpose(0, 1).reshape(2, len(x), 4)).sum(0)


def test_images_that_cannot_be_told_apart_are_refused_never_mixed_up():
    model, images = randomised(_TwoTokens()).double(), pictures((2, 2, 2))
    with pytest.raises(UnsupportedOperation, match=r"took 2 rows for 8 images.* use batch_size=1"):
        score(model, Target.logit(0), images, "snip")
    table = oracle(model, Target.logit(0), stacked(images), None)
    assert_close(score(model, Target.logit(0), images, "snip", batch_size=1), table["snip", "kernel"], torch.float64)
    assert_close(score(model, Target.logit(0), images, "actgrad"), table["actgrad", "kernel"], torch.float64)


# ---- no trace left ---------------------------------------------------------------------------------------------------


def state(model: nn.Module) -> dict[str, object]:
    """Everything about a model that scoring could disturb."""
    found: dict[str, object] = {"rng": torch.get_rng_state().numpy().tobytes(), "grad": torch.is_grad_enabled()}
    found["state"] = {n: (t.data_ptr(), t._version, t.clone().view(torch.uint8)) for n, t in _tensors(model)}
    for name, p in model.named_parameters():
        found[name] = (p.requires_grad, p.grad, p.is_leaf)
    for name, module in model.named_modules():
        hooks = {k: dict(v) for k, v in vars(module).items() if "hooks" in k and v is not None}
        found["module " + name] = (list(vars(module)), hooks, module.training, list(module._parameters))
    return found


def _tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    return [(n, t if t.ndim else t[None]) for n, t in model.state_dict().items()]


def same(before: dict[str, object], after: dict[str, object]) -> bool:
    tensors, others = before["state"], after["state"]
    return (
        tensors.keys() == others.keys()
        and all(tensors[n][:2] == others[n][:2] and torch.equal(tensors[n][2], others[n][2]) for n in tensors)
        and all(before[key] == after[key] for key in before.keys() | after.keys() if key != "state")
    )


@pytest.mark.parametrize("name", ["plain", "reused", "in_place", "functional"])
def test_the_model_is_untouched(name):
    model, target, images = new_toy(name)
    next(model.parameters()).requires_grad_(False)
    pixels = stacked(images).clone()
    before = state(model)
    for criterion in (*CRITERIA, "force", "random"):
        score(model, target, images, criterion, density=0.3 if criterion == "force" else None)
        assert same(before, state(model)), criterion
    assert torch.equal(stacked(images), pixels)


class _FailsLater(Plain):
    """Works when it is traced, and in the full model; fails in the middle of a scoring pass."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn(self.conv1(x)))
        if self.fuse and torch.is_grad_enabled():
            raise ValueError("out of luck")
        return self.conv3(self.conv2(x))

    fuse = False


@pytest.mark.parametrize("criterion", ["actgrad", "snip", "force"])
def test_the_model_is_untouched_after_an_exception(criterion):
    model = randomised(_FailsLater()).double()
    target, images = Target("conv3", channel=1, position="max"), pictures()
    score(model, target, images, criterion, density=0.3)  # traced by now
    model.fuse = True
    before = state(model)
    with pytest.raises(ValueError, match="out of luck"):
        score(model, target, images, criterion, density=0.3)
    assert same(before, state(model))


def test_scoring_within_inference_mode_or_no_grad_changes_nothing():
    model, target, images = new_toy("plain")
    target = target.at("max")
    plain = score(model, target, images, "actgrad")
    for mode in (torch.inference_mode, torch.no_grad):
        fresh, _, images = new_toy("plain")
        with mode():
            again = score(fresh, target, images, "actgrad")
        assert all(torch.equal(plain.sums[n], again.sums[n]) for n in plain.sums)


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"criterion": "actgard"}, MaskError, "unknown criterion 'actgard'; closest: 'actgrad'"),
        ({"criterion": "force"}, MaskError, "force depends on the density"),
        ({"criterion": "force", "density": 0.0}, MaskError, r"density 0.0 is out of range"),
        ({"criterion": "force", "density": 1.5}, MaskError, r"density 1.5 is out of range"),
        (
            {"target": Target("conv2", channel=5)},
            TargetError,
            "channel 5 is out of range: layer 'conv2' has channels 0 to 4",
        ),
        ({"target": Target("conv2", channel=-1)}, TargetError, "channel -1 is out of range"),
        ({"target": Target("conv22", channel=0)}, TargetError, "layer 'conv22' is not in the model; closest: 'conv2'"),
        ({"target": Target("conv2", direction=[1.0, 2.0])}, TargetError, "needs 5 coefficients, got 2"),
        ({"target": Target("fc1", channel=0, position="max")}, TargetError, "has no positions"),
        (
            {"target": Target("conv2", channel=0, position=(0, 99))},
            TargetError,
            r"position \(0, 99\) is outside the map",
        ),
        ({"target": Target("conv2", channel=0, position=(1,))}, TargetError, r"position \(1,\) is outside the map"),
        ({"target": Target("relu", channel=0)}, TargetError, "layer 'relu' runs 4 times; name the call: 'relu@0'"),
        ({"batch_size": 0}, ImageError, "batch_size 0 is out of range"),
    ],
)
def test_errors_say_what_is_wrong(options, error, text):
    model, target, images = toy("plain")
    with pytest.raises(error, match=text):
        score(model, **{"target": target, "images": images, **options})


def test_the_loss_needs_labels_in_range():
    model, _, images = toy("plain")
    unlabelled = ImageSet.from_tensors(stacked(images))
    with pytest.raises(ImageError, match="the loss needs labels"):
        score(model, Loss(), unlabelled)
    score(model, Loss(predicted=True), unlabelled)
    with pytest.raises(ImageError, match="label 4 is out of range: the model has 4 outputs"):
        score(model, Loss(), unlabelled.labelled([4] * 8))


def test_a_target_that_is_not_finite_is_refused():
    model, target, images = new_toy("plain")
    model.conv2.weight.data[0, 0] = float("inf")
    with pytest.raises(ImageError, match="is not finite on some images"):
        score(model, target, images)


def test_pooling_is_the_mean_of_means():
    weights = torch.arange(24.0).view(2, 3, 2, 2)
    assert pooled(weights, "kernel").tolist() == [[1.5, 5.5, 9.5], [13.5, 17.5, 21.5]]
    assert pooled(weights, "filter").tolist() == [5.5, 17.5]


def test_the_oracle_knows_transposed_layouts():
    """A transposed convolution's kernel (o, i) is what input channel i alone sends to output channel o."""
    model, _, _ = toy("transposed")
    rows = rows_first(model, "up", model.up.weight)
    x = torch.zeros(1, 4, 1, 1, dtype=torch.float64)
    x[0, 3] = 1.0  # the second group's second channel feeds outputs 3 to 5
    y = F.conv_transpose2d(x, model.up.weight, groups=2)[0].detach()
    assert torch.equal(y[3:], rows[3:, 1])
    assert not bool(y[:3].any())
