"""Reachability on networks small enough to draw, with every kernel counted by hand."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from model.toys import TOYS, Compose
from viscircuits.model.flow.reach import Reach, reach
from viscircuits.model.trace import trace


def found(model: nn.Module, layer: str, channels: list[int], shape=(3, 8, 6), **kept: list[list[int]]) -> Reach:
    """What lies between the image and some channels; ``kept`` are 0/1 arrays, a layer a keyword."""
    graph = trace(model.eval(), shape)
    wanted = torch.zeros(graph.output(layer).n_channels, dtype=torch.bool)
    wanted[channels] = True
    return reach(graph, {layer: wanted}, {name: torch.tensor(array).bool() for name, array in kept.items()})


def rows(result: Reach, layer: str) -> list[list[int]]:
    return result.used[layer].int().tolist()


def counts(result: Reach) -> dict[str, int]:
    return {name: int(array.sum()) for name, array in result.used.items()}


def conv(inputs: int, outputs: int, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, groups=groups)


def test_a_chain():
    model = nn.Sequential(conv(3, 4), nn.ReLU(), conv(4, 2), nn.ReLU(), conv(2, 5))
    whole = found(model, "4", [3])
    assert counts(whole) == {"0": 12, "2": 8, "4": 2}
    assert rows(whole, "4") == [[0, 0], [0, 0], [0, 0], [1, 1], [0, 0]]
    assert whole.connected
    # image --(0: only channel 2 of the image)--> filters 0, 1; filter 2 of layer 0 has no kernel, filter 3 no reader
    part = {
        "0": [[0, 0, 1], [0, 0, 1], [0, 0, 0], [1, 1, 1]],
        "2": [[1, 0, 1, 0], [0, 0, 1, 0]],
        "4": [[1, 1]] * 5,
    }
    some = found(model, "4", [0], **part)
    assert rows(some, "0") == [[0, 0, 1], [0, 0, 0], [0, 0, 0], [0, 0, 0]]  # 1 and 3 lead nowhere
    assert rows(some, "2") == [[1, 0, 0, 0], [0, 0, 0, 0]]  # 2 has nothing to bring
    assert rows(some, "4")[0] == [1, 0]
    cut = found(model, "4", [0], **{**part, "4": [[0, 1]] * 5})
    assert not cut.connected
    assert counts(cut) == {"0": 0, "2": 0, "4": 0}


def test_several_seeds_at_once():
    model = nn.Sequential(conv(3, 4), nn.ReLU(), conv(4, 2))
    graph = trace(model.eval(), (3, 8, 6))
    seeds = {"2": torch.tensor([False, True]), "0": torch.tensor([True, False, False, False])}
    both = reach(graph, seeds, {"2": torch.tensor([[True] * 4, [False, False, True, False]])})
    assert both.used["2"].int().tolist() == [[0, 0, 0, 0], [0, 0, 1, 0]]
    assert both.used["0"].any(1).tolist() == [True, False, True, False]


def test_a_residual_sum_needs_only_one_source():
    model = Compose(
        lambda m, x: m.head(F.relu(m.b(F.relu(y := m.a(x))) + y)), a=conv(3, 2), b=conv(2, 2), head=conv(2, 1)
    )
    assert counts(found(model, "head", [0])) == {"a": 6, "b": 4, "head": 2}
    by_shortcut = found(model, "head", [0], b=[[0, 0], [0, 0]], head=[[0, 1]])
    assert rows(by_shortcut, "a") == [[0, 0, 0], [1, 1, 1]]
    by_branch = found(model, "head", [0], a=[[1, 0, 0], [0, 0, 0]], head=[[0, 1]])
    assert rows(by_branch, "b") == [[0, 0], [1, 0]]
    assert by_branch.connected
    assert not found(model, "head", [0], a=[[1, 0, 0], [0, 0, 0]], b=[[1, 0], [0, 1]], head=[[0, 1]]).connected


def test_concatenation_keeps_blocks_apart():
    model = Compose(
        lambda m, x: m.head(torch.cat([m.a(x), x[:, 1:], m.b(x)], 1)), a=conv(3, 2), b=conv(3, 2), head=conv(6, 1)
    )
    assert counts(found(model, "head", [0])) == {"a": 6, "b": 6, "head": 6}
    part = found(model, "head", [0], head=[[0, 1, 0, 1, 1, 0]])
    assert rows(part, "a") == [[0, 0, 0], [1, 1, 1]]
    assert rows(part, "b") == [[1, 1, 1], [0, 0, 0]]


def test_groups_and_depthwise():
    model = nn.Sequential(conv(3, 4), conv(4, 6, groups=2), conv(6, 6, groups=6), conv(6, 1))
    assert counts(found(model, "3", [0])) == {"0": 12, "1": 12, "2": 6, "3": 6}
    one = found(model, "2", [4])  # filter 4 stands in the second group, which reads channels 2 and 3
    assert counts(one) == {"0": 6, "1": 2, "2": 1}
    assert rows(one, "1")[4] == [1, 1]
    assert rows(one, "0") == [[0] * 3, [0] * 3, [1] * 3, [1] * 3]
    part = found(model, "2", [4], **{"1": [[1, 1]] * 4 + [[0, 1], [1, 1]]})
    assert rows(part, "0") == [[0] * 3, [0] * 3, [0] * 3, [1] * 3]


def test_a_transposed_convolution_with_groups():
    model = nn.Sequential(conv(3, 4), nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2))
    one = found(model, "1", [2])  # group 0 makes channels 0 to 2 of channels 0 and 1
    assert rows(one, "1") == [[0, 0], [0, 0], [1, 1], [0, 0], [0, 0], [0, 0]]
    assert rows(one, "0") == [[1] * 3, [1] * 3, [0] * 3, [0] * 3]


def test_a_gate_keeps_both_its_sources():
    def run(m: Compose, x: Tensor) -> Tensor:
        y = F.relu(m.a(x))
        return m.head(y * torch.sigmoid(m.up(F.relu(m.down(F.adaptive_avg_pool2d(y, 1))))))

    model = Compose(run, a=conv(3, 4), down=nn.Conv2d(4, 2, 1), up=nn.Conv2d(2, 4, 1), head=conv(4, 1))
    assert counts(found(model, "head", [0])) == {"a": 12, "down": 8, "up": 8, "head": 4}
    part = found(model, "head", [0], head=[[1, 0, 0, 0]], up=[[0, 1]] * 4, down=[[1] * 4, [0, 0, 1, 0]])
    assert rows(part, "up") == [[0, 1], [0, 0], [0, 0], [0, 0]]
    assert rows(part, "down") == [[0, 0, 0, 0], [0, 0, 1, 0]]
    assert rows(part, "a") == [[1] * 3, [0] * 3, [1] * 3, [0] * 3]


def test_a_channel_shuffle():
    def run(m: Compose, x: Tensor) -> Tensor:
        y = m.a(x)
        n, c, h, w = y.shape
        return m.head(y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w))

    model = Compose(run, a=conv(3, 6), head=conv(6, 6, groups=6))
    # 0 1 2 | 3 4 5 becomes 0 3 1 4 2 5
    assert [found(model, "head", [c]).used["a"].any(1).nonzero().flatten().tolist() for c in range(6)] == [
        [0], [3], [1], [4], [2], [5],
    ]  # fmt: skip
    built_in = Compose(lambda m, x: m.head(F.channel_shuffle(m.a(x), 2)), a=conv(3, 6), head=conv(6, 6, groups=6))
    assert rows(found(built_in, "head", [1]), "a")[3] == [1, 1, 1]


def test_chunks_and_splits():
    def run(m: Compose, x: Tensor) -> Tensor:
        first, second, third = m.a(x).split([1, 2, 3], 1)
        return m.head(torch.cat([third, m.b(second)], 1)) + first.mean()

    model = Compose(run, a=conv(3, 6), b=conv(2, 1), head=conv(4, 1))
    part = found(model, "head", [0], head=[[0, 1, 0, 1]], b=[[0, 1]])
    assert part.used["a"].any(1).tolist() == [False, False, True, False, True, False]
    whole = found(model, "", [0], head=[[0, 1, 0, 1]], b=[[0, 1]])
    assert whole.used["a"].any(1).tolist() == [True, False, True, False, True, False]


def test_only_some_positions_of_a_flattened_map_matter():
    model = Compose(lambda m, x: m.head(F.relu(m.a(x)).flatten(1)), a=conv(3, 2), head=nn.Linear(2 * 48, 3))
    whole = found(model, "head", [1])
    assert counts(whole) == {"a": 6, "head": 96}
    features = [[0] * 96 for _ in range(3)]
    features[1][47] = 1  # the last position of channel 0
    part = found(model, "head", [1], head=features)
    assert rows(part, "a") == [[1, 1, 1], [0, 0, 0]]
    features[1][48] = 1  # the first position of channel 1
    assert counts(found(model, "head", [1], head=features)) == {"a": 6, "head": 2}
    dead = found(model, "head", [1], a=[[0, 0, 0], [1, 0, 0]])
    assert dead.used["head"][1].tolist() == [False] * 48 + [True] * 48


def test_a_strided_slice_and_channels_of_zeros():
    """The shortcut without parameters of CIFAR ResNets."""

    def run(m: Compose, x: Tensor) -> Tensor:
        y = m.a(x)
        return m.head(F.pad(y[:, :, ::2, ::2], (0, 0, 0, 0, 1, 1)) + m.b(y))

    model = Compose(run, a=conv(3, 2), b=nn.Conv2d(2, 4, 3, stride=2, padding=1), head=conv(4, 1))
    assert counts(found(model, "head", [0])) == {"a": 6, "b": 8, "head": 4}
    shortcut = found(model, "head", [0], b=[[0, 0]] * 4)
    assert rows(shortcut, "head") == [[0, 1, 1, 0]]  # the padded channels hold zeros, nothing of the image
    assert rows(found(model, "head", [0], b=[[0, 0]] * 4, head=[[1, 0, 1, 1]]), "a") == [[0] * 3, [1] * 3]
    assert not found(model, "head", [0], b=[[0, 0]] * 4, head=[[1, 0, 0, 1]]).connected


def test_norms_that_mix_channels():
    def built(norm: nn.Module) -> Compose:
        return Compose(lambda m, x: m.head(m.norm(m.a(x))), a=conv(3, 4), norm=norm, head=conv(4, 4, groups=4))

    assert counts(found(built(nn.BatchNorm2d(4)), "head", [1])) == {"a": 3, "head": 1}
    assert counts(found(built(nn.InstanceNorm2d(4, affine=True)), "head", [1])) == {"a": 3, "head": 1}
    assert counts(found(built(nn.GroupNorm(2, 4)), "head", [1])) == {"a": 6, "head": 1}
    assert counts(found(built(nn.LayerNorm([4, 8, 6])), "head", [1])) == {"a": 12, "head": 1}
    assert counts(found(built(nn.LayerNorm(6)), "head", [1])) == {"a": 3, "head": 1}  # over columns only
    assert counts(found(built(nn.Softmax(1)), "head", [1])) == {"a": 12, "head": 1}
    assert counts(found(built(nn.Softmax(-1)), "head", [1])) == {"a": 3, "head": 1}


@pytest.mark.parametrize(
    ("operation", "filters"),
    [
        (lambda x: F.normalize(x, dim=1), [0, 1, 2, 3]),
        (lambda x: F.normalize(x, dim=2), [1]),
        (lambda x: x.norm(2, [2, 3], keepdim=True) + x[:, :, :1, :1], [1]),
        (lambda x: torch.linalg.vector_norm(x, 1, 1, keepdim=True).expand_as(x), [0, 1, 2, 3]),
        (lambda x: x.max(1, keepdim=True)[0].expand_as(x), [0, 1, 2, 3]),
        (lambda x: x.max(-1, keepdim=True)[0], [1]),
        (lambda x: torch.max(x, x.flip(1)), [1, 2]),
        (lambda x: x.mean((-1, -2), keepdim=True), [1]),
        (lambda x: x.var(1, False, True).expand_as(x), [0, 1, 2, 3]),
        (lambda x: x.sum() * torch.ones_like(x), [0, 1, 2, 3]),
        (lambda x: x.cumsum(3), [1]),
        (lambda x: torch.where(x.flip(1) > 0, x, 0.0), [1, 2]),
        (lambda x: x.roll(1, 1), [0]),
        (lambda x: torch.einsum("nchw,dc->ndhw", x, torch.eye(4)), [0, 1, 2, 3]),
        (lambda x: torch.einsum("nchw,nchw->nch", x, x)[..., None], [1]),
        (lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), [1]),
        (lambda x: F.pixel_shuffle(x, 2).expand(-1, 4, -1, -1), [0, 1, 2, 3]),
        (lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"), [1]),
        (lambda x: F.pad(x, (1, 1, 1, 1), mode="circular"), [1]),
        (lambda x: F.pad(x, (1, 1, 1, 1), value=3.0), [1]),
        (lambda x: (x.flatten(2).transpose(1, 2) @ torch.ones(4, 4)).transpose(1, 2)[..., None], [0, 1, 2, 3]),
        (lambda x: F.scaled_dot_product_attention(x, x, x), [1]),  # attention over rows, within a channel
        (lambda x: F.max_pool2d(x, 2, return_indices=True)[0], [1]),
        (lambda x: F.adaptive_max_pool2d(x, 2), [1]),
    ],
)
def test_which_filters_an_operation_reads(operation, filters: list[int]):
    model = Compose(lambda m, x: m.head(operation(m.a(x))), a=conv(3, 4), head=nn.Conv2d(4, 4, 1, groups=4))
    assert found(model, "head", [1]).used["a"].any(1).nonzero().flatten().tolist() == filters


def test_a_constant_end_is_not_connected():
    model = Compose(lambda m, x: m.head(torch.zeros_like(m.a(x))), a=conv(3, 2), head=conv(2, 1))
    result = found(model, "head", [0])
    assert not result.connected
    assert not any(counts(result).values())


def test_a_network_in_double_precision_with_constants_among_the_wires():
    def run(m: Compose, x: Tensor) -> Tensor:
        y = torch.einsum("nchw,cd->ndhw", m.a(x), torch.ones(2, 2, dtype=x.dtype))
        return m.head(torch.cat([y, torch.ones(2, 1, 8, 6, dtype=x.dtype)], 1))

    model = Compose(run, a=conv(3, 2), head=conv(3, 1)).double()
    assert rows(found(model, "head", [0]), "head") == [[1, 1, 0]]


# ---- laws ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", TOYS)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), keep=st.floats(0.2, 0.9))
def test_effective_is_idempotent_monotone_and_within_what_was_kept(build, seed: int, keep: float):
    model = _ready(build)
    graph = trace(model, model.shape)
    seeds = {"head": torch.arange(graph.output("head").n_channels) == 1}
    generator = torch.Generator().manual_seed(seed)
    kept = {n: torch.rand(layer.shape, generator=generator) < keep for n, layer in graph.layers.items()}
    used = reach(graph, seeds, kept)
    assert all(not bool((array & ~kept[name]).any()) for name, array in used.used.items())
    again = reach(graph, seeds, used.used)
    assert again.connected == used.connected == any(bool(array.any()) for array in used.used.values())
    assert all(torch.equal(array, used.used[name]) for name, array in again.used.items())
    more = {n: array | (torch.rand(array.shape, generator=generator) < 0.2) for n, array in kept.items()}
    wider = reach(graph, seeds, more)
    assert all(not bool((array & ~wider.used[name]).any()) for name, array in used.used.items())
    assert wider.connected or not used.connected


_models: dict[type, nn.Module] = {}


def _ready(build):
    return _models.setdefault(build, build().ready())


@pytest.mark.parametrize("build", TOYS)
def test_needs_and_constants_are_recorded_for_extraction(build):
    model = _ready(build)
    graph = trace(model, model.shape)
    seeds = {"head": torch.arange(graph.output("head").n_channels) == 1}
    result = reach(graph, seeds, nodes=True)
    assert set(result.needed) <= result.varying <= set(graph.axes)
    head = result.needed[graph.output("head").node]
    assert head.movedim(1, 0).flatten(1).any(1).nonzero().tolist() == [[1]]
    assert not reach(graph, seeds).needed


def test_it_works_where_the_caller_switched_gradients_off():
    model = nn.Sequential(conv(3, 4), nn.ReLU(), conv(4, 2)).eval()
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            assert counts(found(model, "2", [1], shape=(3, 9, 9))) == {"0": 12, "2": 4}
            _fresh = nn.Sequential(conv(3, 4), nn.ReLU(), conv(4, 2))
            assert counts(found(_fresh, "2", [1])) == {"0": 12, "2": 4}
