"""Receptive fields and aligned crops against oracles that never see a graph.

The first oracle puts NaN into one row (or column) of the image at a time and looks where the output is NaN: zero
weights, dead ReLUs and cancellation hide nothing from it, since NaN times zero is NaN. The second is the gradient of a
network with positive weights. Sizes known from the literature come from the usual recursion over a list of windows.
"""

import itertools
import random
from dataclasses import dataclass

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from model.test_architectures import CASES
from model.toys import Compose
from viscircuits.errors import ImageError, TargetError, UnsupportedOperation
from viscircuits.model.field.aligned import aligned_crop, aligned_crops
from viscircuits.model.field.receptive_field import Area, Grid, crop, grid, paste, receptive_field
from viscircuits.model.field.windows import Window
from viscircuits.model.graph import NetGraph
from viscircuits.model.instrument import run
from viscircuits.model.trace import trace

EMPTY = Area(0, 0, 0, 0)
LAYER = "head"


def traced(model: nn.Module, shape: tuple[int, ...]) -> NetGraph:
    return trace(model.double().eval(), shape)


def corners(box: Area) -> tuple[int, int, int, int]:
    return box.top, box.left, box.bottom, box.right


# ---- the oracles -----------------------------------------------------------------------------------------------------


@torch.no_grad()
def reached(model: nn.Module, shape: tuple[int, ...], side: int, channel: int | None = None) -> Tensor:
    """``Bool[size, h, w]``: whether a row (side 0) or column (1) of the image reaches each position of the output."""
    found = []
    for i in range(shape[1 + side]):
        image = torch.randn(1, *shape, dtype=torch.float64)
        image.select(2 + side, i).fill_(torch.nan)
        output = model(image).isnan()[0]
        found.append(output.any(0) if channel is None else output[channel])
    return torch.stack(found)


def oracle(rows: Tensor, columns: Tensor, position: tuple[int, ...]) -> tuple[int, int, int, int]:
    y, x = (found[:, *position].nonzero().flatten().tolist() for found in (rows, columns))
    return (y[0], x[0], y[-1] + 1, x[-1] + 1) if y else corners(EMPTY)


def assert_fields(model: nn.Module, shape: tuple[int, ...], channel: int | None = None) -> NetGraph:
    """The visible boxes of fifty positions of the last layer, and of its corners, are what NaN finds."""
    graph = traced(model, shape)
    rows, columns = (reached(model, shape, side, channel) for side in (0, 1))
    sizes = graph.output(LAYER).map_shape
    positions = [(y, x) for y in range(sizes[0]) for x in range(sizes[1])]
    for at in [positions[0], *random.Random(0).sample(positions, min(50, len(positions))), positions[-1]]:
        box = receptive_field(graph, LAYER, at, channel=channel, visible=True)
        assert corners(box) == oracle(rows, columns, at), (at, box)
    return graph


def last(*modules: nn.Module) -> nn.Sequential:
    """A chain whose last module is called as the tests expect."""
    chain = nn.Sequential()
    for i, module in enumerate(modules):
        chain.add_module(LAYER if i == len(modules) - 1 else str(i), module)
    return chain


# ---- random networks -------------------------------------------------------------------------------------------------


class Residual(nn.Module):
    """A branch beside a shortcut that takes every ``stride``-th place."""

    def __init__(self, stride: int, kernel: int, dilation: int):
        super().__init__()
        self.a = nn.Conv2d(4, 4, kernel, stride, dilation * (kernel // 2), dilation, groups=2)
        self.b = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.short = nn.Conv2d(4, 4, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.b(F.relu(self.a(x)))) + self.short(x))


class Branches(nn.Module):
    """Two windows of different size, side by side, shuffled."""

    def __init__(self, kernel: int):
        super().__init__()
        self.a = nn.Conv2d(4, 2, 1)
        self.b = nn.Conv2d(4, 2, (kernel, 1), padding=(kernel // 2, 0))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat([self.a(x), F.max_pool2d(self.b(x), 3, 1, 1)], 1)
        n, c, h, w = y.shape
        return y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class Shifted(nn.Module):
    """Padded unevenly with zeros, by hand."""

    def __init__(self, *padding: int):
        super().__init__()
        self.padding = padding
        self.conv = nn.Conv2d(4, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, self.padding))


def random_block(draw: random.Random, transposed: bool) -> nn.Module:
    kernel, stride, dilation = draw.randint(1, 4), draw.randint(1, 3), draw.randint(1, 2)
    padding = draw.randint(0, kernel // 2)
    kinds = {
        "conv": lambda: nn.Conv2d(4, 4, kernel, stride, padding, dilation, groups=draw.choice([1, 2, 4])),
        "tall": lambda: nn.Conv2d(4, 4, (kernel, 2), (1, stride), (padding, 2), padding_mode="zeros"),
        "same": lambda: nn.Conv2d(4, 4, kernel, padding="same", dilation=dilation),
        "max": lambda: nn.MaxPool2d(kernel, stride, padding, ceil_mode=draw.random() < 0.5),
        "dilated": lambda: nn.MaxPool2d(kernel, stride, padding, dilation=2, ceil_mode=draw.random() < 0.5),
        "mean": lambda: nn.AvgPool2d(kernel, stride, padding, draw.random() < 0.5, draw.random() < 0.5),
        "residual": lambda: Residual(stride, draw.choice([1, 3]), dilation),
        "branches": lambda: Branches(draw.choice([3, 5])),
        "shifted": lambda: Shifted(*(draw.randint(0, 2) for _ in range(4))),
        "relu": nn.ReLU,
    }
    if transposed:
        kinds["up"] = lambda: nn.ConvTranspose2d(4, 4, kernel, stride, padding, groups=2)
        kinds["up"] = lambda: nn.ConvTranspose2d(4, 4, kernel, stride, padding, stride - 1, 2, dilation=stride)
    return kinds[draw.choice(sorted(kinds))]()


def random_network(seed: int, size: int, transposed: bool) -> tuple[nn.Module, tuple[int, int, int]]:
    """A network of two to five blocks that still has a map at the end, and the shape of its images."""
    draw = random.Random(seed)
    while True:
        torch.manual_seed(seed)
        shape = (4, draw.randint(size, size + 8), draw.randint(size, size + 8))
        blocks = [random_block(draw, transposed) for _ in range(draw.randint(2, 5))]
        model = last(*blocks, nn.Conv2d(4, 2, draw.randint(1, 2))).double().eval()
        try:
            output = model(torch.zeros(1, *shape, dtype=torch.float64))
        except RuntimeError:  # nothing is left after that many strides
            continue
        if min(output.shape[2:]) > 1 and max(output.shape[2:]) < 30:
            return model, shape


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("seed", range(10))
def test_visible_fields_of_random_networks(seed: int):
    model, shape = random_network(seed, size=10, transposed=True)
    graph = assert_fields(model, shape)
    h, w = graph.output(LAYER).map_shape
    for position in [(0, 0), (h // 2, w // 2), (h - 1, w - 1)]:
        visible = receptive_field(graph, LAYER, position, visible=True)
        beyond = receptive_field(graph, LAYER, position).clipped(shape)
        around = beyond.top <= visible.top and beyond.left <= visible.left
        assert visible == EMPTY or (around and visible.bottom <= beyond.bottom and visible.right <= beyond.right)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("seed", range(100, 107))
def test_aligned_crops_of_random_networks_are_exact(seed: int):
    model, shape = random_network(seed, size=40, transposed=seed % 4 == 0)
    assert_crops_exact(model, shape)


def assert_crops_exact(model: nn.Module, shape: tuple[int, ...]) -> bool:
    """Every position of the last layer has the same value on its crop; returns whether there are crops."""
    graph = traced(model, shape)
    images = torch.randn(2, *shape, dtype=torch.float64)
    whole = run(model, graph, images, [LAYER])[LAYER]
    crops = aligned_crops(graph, LAYER)
    if crops is None:
        return False
    assert crops.size < shape[1:] or crops.size[1] < shape[2]
    positions = [(y, x) for y in range(whole.shape[2]) for x in range(whole.shape[3])]
    boxes, places = zip(*(crops.at(position) for position in positions), strict=True)
    assert {box.size for box in boxes} == {crops.size}
    assert all(box == box.clipped(shape) for box in boxes)
    batch = torch.stack([crop(images, box) for box in boxes]).flatten(0, 1)
    outputs = run(model, graph, batch, [LAYER])[LAYER].unflatten(0, (len(boxes), 2))
    for position, (y, x), output in zip(positions, places, outputs, strict=True):
        expected = whole[:, :, *position]
        assert (output[:, :, y, x] - expected).abs().max() <= 1e-10 * whole.abs().max(), position
    return True


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_most_random_networks_have_crops():
    found = [aligned_crops(traced(*pair), LAYER) for pair in (random_network(s, 60, False) for s in range(200, 204))]
    assert sum(crops is not None for crops in found) >= 3


@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize("kernel", [1, 2, 3])
def test_how_many_places_a_window_has(kernel: int, ceil: bool):
    cases = itertools.product((1, 2, 3), range(kernel // 2 + 1), (1, 2), range(6, 13))
    for stride, padding, dilation, size in cases:
        pooled = F.max_pool1d(torch.zeros(1, 1, size), kernel, stride, padding, dilation, ceil)
        window = Window(kernel, stride, padding, padding, dilation, ceil)
        assert window.count(size) == pooled.shape[2], (stride, padding, dilation, size)


# ---- single operations -----------------------------------------------------------------------------------------------


def conv(kernel: int = 3, **options: object) -> nn.Conv2d:
    return nn.Conv2d(2, 2, kernel, **options)


BY_HAND = {
    "reflected": lambda m, x: m.head(F.relu(m.a(x))),
    "rolled": lambda m, x: m.head(torch.roll(m.a(x), (2, -1), (2, 3))),
    "flipped": lambda m, x: m.head(m.a(x).flip(3)),
    "sliced": lambda m, x: m.head(m.a(x)[:, :, 1:-2, ::2]),
    "focus": lambda m, x: m.head(m.a(x)[:, :, ::2, 1::2] + m.a(x)[:, :, 1::2, ::2]),
    "space to depth": lambda m, x: m.head(F.pixel_unshuffle(m.a(x), 2)[:, 3:5]),
    "depth to space": lambda m, x: m.head(F.pixel_shuffle(torch.cat([m.a(x)] * 2, 1), 2).repeat(1, 2, 1, 1)),
    "nearest": lambda m, x: m.head(F.interpolate(m.a(x), scale_factor=2)),
    "bicubic": lambda m, x: m.head(F.interpolate(m.a(x), size=(7, 9), mode="bicubic")),
    "adaptive": lambda m, x: m.head(F.adaptive_max_pool2d(m.a(x), (5, 4))),
    "tokens": lambda m, x: m.head(m.a(x).flatten(2).transpose(1, 2).unflatten(1, (8, 10)).permute(0, 3, 1, 2)),
    "windows": lambda m, x: m.head(window_means(m.a(x))),
    "gated": lambda m, x: m.head(F.relu(y := m.a(x)) * y.mean((2, 3), keepdim=True)),
    "rows": lambda m, x: m.head(m.a(x) + m.a(x).softmax(2)),
    "group norm": lambda m, x: m.head(F.group_norm(m.a(x), 2)),
    "channel norm": lambda m, x: m.head(F.layer_norm(m.a(x).movedim(1, -1), (2,)).permute(0, 3, 1, 2)),
    "written": lambda m, x: m.head(overwritten(m.a(x))),
    "stacked": lambda m, x: m.head(torch.stack([m.a(x)[:, 0], m.a(x)[:, 1].roll(1, 1)], 1)),
    "outer": lambda m, x: m.head(torch.einsum("nchw,nchv->ncwv", m.a(x)[:, :, 4:6], m.a(x)[:, :, 5:7])),
    "product": lambda m, x: m.head(m.a(x)[..., :3] @ m.a(x)[:, :, :3]),
    "split": lambda m, x: m.head(torch.cat(m.a(x).split([3, 2, 3], 2)[::2], 2)),
    "unknown": lambda m, x: m.head(torch.special.sinc(m.a(x))),
    "prefix": lambda m, x: m.head(torch.logcumsumexp(m.a(x), 3)),
}


PROBED = {"unknown", "prefix"}


def window_means(x: Tensor) -> Tensor:
    """Attention within windows of 4 x 5, in short: everything in a window gets something of its mean."""
    n, c, h, w = x.shape
    y = x.view(n, c, h // 4, 4, w // 5, 5).permute(0, 2, 4, 3, 5, 1).reshape(-1, 20, c)
    y = y + y.mean(1, keepdim=True)
    return y.view(n, h // 4, w // 5, 4, 5, c).permute(0, 5, 1, 3, 2, 4).reshape(n, c, h, w)


def overwritten(x: Tensor) -> Tensor:
    x = x.clone()
    x[:, :, 2:4] = x[:, :, 5:7] * 2
    return x


@pytest.mark.parametrize("name", BY_HAND)
def test_visible_fields_of_single_operations(name: str):
    mode = {"padding_mode": "reflect"} if name == "reflected" else {}
    model = Compose(BY_HAND[name], a=conv(padding=1), head=conv(2, padding=1, **mode))
    assert_fields(model, (2, 6, 5) if name in PROBED else (2, 8, 10))


def test_one_channel_of_concatenated_branches():
    model = Compose(
        lambda m, x: m.head(torch.cat([m.a(x), m.b(x)], 1)),
        a=conv(1),
        b=conv(5, padding=2),
        head=nn.Conv2d(4, 4, 3, groups=2),
    )
    graph = traced(model, (2, 12, 10))
    for channel, size in ((0, 3), (1, 3), (2, 7), (3, 7)):
        assert receptive_field(graph, LAYER, (4, 4), channel=channel).size == (size, size)
        assert_fields(model, (2, 12, 10), channel)
    assert receptive_field(graph, LAYER, (4, 4)).size == (7, 7)


def test_the_gradient_of_a_positive_network_has_the_same_support():
    model = last(conv(3, stride=2, padding=1), nn.AvgPool2d(2, 1), nn.ConvTranspose2d(2, 2, 3, 2), conv(2, dilation=2))
    for parameter in model.parameters():
        nn.init.uniform_(parameter, 0.5, 1)
    graph = traced(model, (2, 13, 11))
    image = torch.rand(1, 2, 13, 11, dtype=torch.float64, requires_grad=True)
    output = model(image)[0].sum(0)
    for y in range(output.shape[0]):
        for x in range(output.shape[1]):
            (grad,) = torch.autograd.grad(output[y, x], image, retain_graph=True)
            rows, columns = (grad[0].sum((0, axis)).nonzero().flatten().tolist() for axis in (2, 1))
            expected = (rows[0], columns[0], rows[-1] + 1, columns[-1] + 1)
            assert corners(receptive_field(graph, LAYER, (y, x), visible=True)) == expected


def test_zero_weights_and_dead_units_hide_nothing():
    model = last(conv(3), nn.ReLU(), conv(3))
    for parameter in model.parameters():
        nn.init.constant_(parameter, 0 if parameter.ndim > 1 else -1)
    assert corners(receptive_field(traced(model, (2, 9, 9)), LAYER, (1, 2))) == (1, 2, 6, 7)


def test_a_position_that_sees_only_padding_has_an_empty_box():
    graph = traced(last(nn.Conv2d(2, 2, 1, padding=1)), (2, 5, 5))
    assert receptive_field(graph, LAYER, (0, 3), visible=True) == EMPTY
    assert receptive_field(graph, LAYER, (0, 3)) == Area(-1, 2, 0, 3)
    gaps = traced(last(nn.ConvTranspose2d(2, 2, 1, stride=2)), (2, 5, 5))
    assert [receptive_field(gaps, LAYER, (4, x)).empty for x in range(4)] == [False, True, False, True]


# ---- numbers from the literature -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Walk:
    """A network as the list of its widest path's windows: kernel, stride, padding."""

    name: str
    layer: str
    windows: tuple[tuple[int, int, int], ...]
    size: int | None = None  # as published

    def grid(self) -> Grid:
        """The textbook recursion: r <- r + (k - 1) j,  start <- start - p j,  j <- j s."""
        field, jump, start = 1, 1, 0
        for kernel, stride, padding in self.windows:
            field, start, jump = field + (kernel - 1) * jump, start - padding * jump, jump * stride
        return Grid((start, start), (jump, jump), (field, field))


POOL, FIRE = (3, 2, 0), (3, 1, 1)
C3, P2 = (3, 1, 1), (2, 2, 0)
WALKS = [
    Walk("alexnet", "features.10", ((11, 4, 2), POOL, (5, 1, 2), POOL, *[C3] * 3)),
    Walk("alexnet", "features.12", ((11, 4, 2), POOL, (5, 1, 2), POOL, *[C3] * 3, POOL), 195),
    Walk("vgg16", "features.30", (C3, C3, P2, C3, C3, P2, *[C3] * 3, P2, *[C3] * 3, P2, *[C3] * 3, P2), 212),
    Walk(
        "resnet18",
        "layer4.1.conv2",
        ((7, 2, 3), (3, 2, 1), *[C3] * 4, *[(3, 2, 1), C3, C3, C3] * 3),
        435,
    ),
    Walk("squeezenet1_1", "features.12.expand3x3", ((3, 2, 0), POOL, FIRE, FIRE, POOL, FIRE, FIRE, POOL, *[FIRE] * 4)),
]


@pytest.mark.parametrize("walk", WALKS, ids=lambda walk: f"{walk.name}-{walk.layer}")
def test_known_sizes(walk: Walk):
    with torch.device("meta"):
        model = torchvision.models.get_model(walk.name, weights=None)
    graph = trace(model.to_empty(device="cpu").eval(), (3, 224, 224))
    expected = walk.grid()
    assert walk.size in (None, expected.size[0])
    assert grid(graph, walk.layer) == expected
    assert receptive_field(graph, walk.layer, (3, 2)) == expected.box((3, 2))


WHOLE = {"mobilenet_v3_small", "efficientnet_b0", "regnet_y_400mf", "vit_b_16", "swin_t"}


ARCHITECTURES = [
    pytest.param(case, id=f"{case.name}-{case.layer}") for case in CASES if not case.name.startswith(("alexnet", "vgg"))
]


@pytest.mark.parametrize("case", ARCHITECTURES)
def test_every_architecture_has_fields(case):
    graph = trace(case.model(), (3, case.size, case.size))
    middle = tuple(size // 2 for size in graph.output(case.layer).map_shape)
    box = receptive_field(graph, case.layer, middle, visible=True)
    assert box.whole == (case.name in WHOLE)
    assert not box.empty
    assert box == box.clipped(graph.input_shape)
    if box.whole:
        assert corners(box) == (0, 0, case.size, case.size)
        assert corners(receptive_field(graph, case.layer, middle)) == (0, 0, case.size, case.size)
        assert grid(graph, case.layer) is None
        assert aligned_crop(graph, case.layer, (0, 0)) is None


def test_tokens_see_their_patch_before_attention_and_everything_after():
    graph = trace(torchvision.models.get_model("vit_b_16", image_size=64, weights=None).eval(), (3, 64, 64))
    before, after = "encoder.layers.encoder_layer_0.ln_1", "encoder.layers.encoder_layer_0.ln_2"
    assert receptive_field(graph, before, (1 + 4 * 2 + 3,)) == Area(32, 48, 48, 64)
    assert receptive_field(graph, before, (0,)).empty  # the class token
    assert receptive_field(graph, after, (6,)) == Area(0, 0, 64, 64, whole=True)
    assert receptive_field(graph, "heads.head", ()).whole


# ---- what cannot be answered -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("forward", "why"),
    [
        (lambda m, x: m.head(torch.msort(m.a(x))), "what it reads depends on values"),
        (lambda m, x: m.head((y := m.a(x)).gather(3, y.argsort(3))), "an index, a choice or a complex number"),
        (lambda m, x: m.head(torch.fft.fft(m.a(x), dim=3).real), "an index, a choice or a complex number"),
        (lambda m, x: m.head(torch.nextafter(m.a(x), m.b(x))), "joins several activations"),
        (lambda m, x: m.head(torch.bucketize(m.a(x), torch.zeros(1)).to(x)), "NaN does not"),
    ],
)
def test_a_clear_error_rather_than_a_wrong_box(forward, why):
    graph = traced(Compose(forward, a=conv(), b=conv(), head=conv(1)), (2, 9, 9))
    with pytest.raises(UnsupportedOperation, match=f"no receptive field through .*{why}"):
        receptive_field(graph, LAYER, (0, 0))
    assert receptive_field(graph, "a", (0, 0)) == Area(0, 0, 3, 3)


def test_sorting_reads_all_of_its_axis():
    graph = traced(Compose(lambda m, x: m.head(torch.sort(m.a(x), 3).values), a=conv(), head=conv(1)), (2, 9, 9))
    assert receptive_field(graph, LAYER, (2, 4)) == Area(2, 0, 5, 9)


def test_wrong_questions():
    graph = traced(last(conv(3)), (2, 9, 9))
    with pytest.raises(TargetError, match=r"position \(7, 0\) is not on the map .* \(7, 7\)"):
        receptive_field(graph, LAYER, (7, 0))
    with pytest.raises(TargetError, match="2 axes"):
        receptive_field(graph, LAYER, (1,))
    with pytest.raises(TargetError, match="channels 0 to 1, not 2"):
        receptive_field(graph, LAYER, (0, 0), channel=2)
    with pytest.raises(TargetError, match="layer 'heda' is not in the model; closest: 'head'"):
        receptive_field(graph, "heda", (0, 0))
    sound = traced(last(nn.Conv1d(2, 2, 3)), (2, 9))
    with pytest.raises(UnsupportedOperation, match=r"need images of shape \(c, h, w\)"):
        receptive_field(sound, LAYER, (0,))


# ---- grids, crops, pasting -------------------------------------------------------------------------------------------


def test_grids():
    graph = traced(last(conv(5, stride=2, padding=1), conv(3)), (2, 20, 14))
    assert grid(graph, LAYER) == Grid((-1, -1), (2, 2), (9, 9))
    assert grid(graph, LAYER).box((3, 1)) == receptive_field(graph, LAYER, (3, 1)) == Area(5, 1, 14, 10)
    assert grid(traced(last(nn.ConvTranspose2d(2, 2, 3, 2)), (2, 6, 6)), LAYER) is None  # one pixel, then two


def test_a_crop_at_the_border_is_smaller_or_filled():
    image = torch.arange(24.0).view(1, 4, 6)
    box = Area(-1, 3, 2, 8)
    assert crop(image, box).tolist() == [[[3, 4, 5], [9, 10, 11]]]
    filled = crop(image, box, fill=-1.0)
    assert filled.tolist() == [[[-1] * 5, [3, 4, 5, -1, -1], [9, 10, 11, -1, -1]]]
    assert crop(image.expand(3, 1, 4, 6), box).shape == (3, 1, 2, 3)
    with pytest.raises(ImageError, match="begins before the image"):
        _ = box.slices
    with pytest.raises(ImageError, match="none in common"):
        crop(image, Area(4, 0, 6, 2))


def test_a_stimulus_keeps_its_place_at_the_border():
    stimulus = torch.arange(1.0, 16).view(1, 3, 5)
    background = torch.zeros(1, 4, 6)
    pasted = paste(stimulus, Area(-1, 3, 2, 8), background)
    assert pasted.tolist() == [[[0, 0, 0, 6, 7, 8], [0, 0, 0, 11, 12, 13], [0] * 6, [0] * 6]]
    assert not background.any()
    assert crop(pasted, Area(-1, 3, 2, 8)).tolist() == stimulus[:, 1:, :3].tolist()
    assert paste(stimulus.expand(2, 1, 3, 5), Area(0, 0, 3, 5), background).shape == (2, 1, 4, 6)
    assert paste(stimulus, Area(9, 9, 12, 14), background).tolist() == background.tolist()
    with pytest.raises(ImageError, match="the stimulus has 3 x 5 pixels"):
        paste(stimulus, Area(0, 0, 4, 5), background)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_only_the_field_matters():
    """The purpose of it all: another picture around the field changes nothing."""
    model, shape = random_network(3, size=24, transposed=False)
    graph = traced(model, shape)
    images = torch.randn(2, *shape, dtype=torch.float64)
    h, w = graph.output(LAYER).map_shape
    for position in [(0, w - 1), (h // 2, w // 2), (h - 1, 0)]:
        box = receptive_field(graph, LAYER, position)
        both = torch.stack([images[0], paste(crop(images[0], box, fill=0.0), box, images[1])])
        one, other = run(model, graph, both, [LAYER])[LAYER][:, :, *position]
        assert torch.allclose(one, other, rtol=0, atol=1e-12)


def test_aligned_crops_by_hand():
    # place i reads rows 2i - 1 to 2i + 1; starts are even, so a crop that holds them has four rows, 2i - 2 to 2i + 1
    graph = traced(last(conv(3, stride=2, padding=1)), (2, 20, 20))
    crops = aligned_crops(graph, LAYER)
    assert crops.size == (4, 4)
    assert crops.starts[0] == (0, 0, 2, 4, 6, 8, 10, 12, 14, 16)
    assert crops.places[0] == (0, 1, 1, 1, 1, 1, 1, 1, 1, 1)
    assert aligned_crop(graph, LAYER, (0, 9)) == (Area(0, 16, 4, 20), (0, 1))
    with pytest.raises(TargetError, match="10 x 10"):
        crops.at((10, 0))


@pytest.mark.parametrize(
    "name", ["reflected", "rolled", "nearest", "adaptive", "gated", "unknown", "windows", "tokens"]
)
def test_no_crops_where_they_would_not_be_exact(name: str):
    model = Compose(BY_HAND[name], a=conv(padding=1), head=conv(2, padding=1, padding_mode="reflect"))
    assert aligned_crops(traced(model, (2, 8, 10)), LAYER) is None


def test_learnt_positions_forbid_crops_and_constants_a_channel_do_not():
    class Positions(nn.Module):
        def __init__(self, *shape: int):
            super().__init__()
            self.table = nn.Parameter(torch.randn(shape))
            self.a, self.head = conv(3, padding=1), conv(3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(F.prelu(self.a(x) + self.table, torch.full((2,), 0.1, dtype=x.dtype)))

    assert aligned_crops(traced(Positions(2, 16, 16), (2, 16, 16)), LAYER) is None
    assert assert_crops_exact(Positions(2, 1, 1), (2, 16, 16))


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("resnet18", "layer2.0.downsample"),
        ("resnet18", "layer2.1"),
        ("shufflenet_v2_x1_0", "stage2.1"),
        ("convnext_tiny", "features.2"),
    ],
)
def test_aligned_crops_of_known_networks(name: str, layer: str):
    size = 96 if layer.endswith("downsample") else 160
    model = torchvision.models.get_model(name, weights=None).double().eval()
    graph = trace(model, (3, size, size))
    images = torch.randn(1, 3, size, size, dtype=torch.float64)
    whole = run(model, graph, images, [layer])[layer]
    crops = aligned_crops(graph, layer)
    assert crops is not None
    assert max(crops.size) <= receptive_field(graph, layer, (9, 9)).height + 16
    end = size // 8 - 1
    for position in [(0, 0), (0, end // 2), (end // 2, 7), (end, end)]:
        box, (y, x) = crops.at(position)
        found = run(model, graph, crop(images, box), [layer])[layer][:, :, y, x]
        assert (found - whole[:, :, *position]).abs().max() <= 1e-10 * whole.abs().max()
