"""Where channels come from: against the wiring described by hand, and against running the network with one change."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import micro
from model.toys import TOYS, Compose
from viscircuits.model.flow.provenance import CutChannel, Provenance, provenance
from viscircuits.model.trace import trace

KERNELS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.Linear)
Sources = set[tuple[str, int]]


def asked(model: nn.Module, shape) -> dict[str, list[Sources]]:
    """Kernel layer -> for each input channel, the (layer or "image", channel) behind it, through all joins."""
    graph = trace(model, shape)
    found = provenance(graph, [graph.output("").node])
    return {
        name: [set().union(*(resolved(found, s) for s in stems)) for stems in inputs(found, node)]
        for node, name in graph.kernel_calls.items()
    }


def inputs(found: Provenance, node) -> list[frozenset[CutChannel]]:
    layer = found.graph.layers[found.graph.kernel_calls[node]]
    return [found.input_stems(node, c)[0] for c in range(layer.in_channels)]


def resolved(found: Provenance, stem: CutChannel) -> Sources:
    if found.is_join(stem.node):
        operands = found.input_stems(*stem)
        assert len(operands) > 1
        return {source for stems in operands for s in stems for source in resolved(found, s)}
    return {(found.graph.kernel_calls.get(stem.node, "image"), stem.channel)}


def described(toy, name: str, widths: dict[str, int]) -> list[Sources]:
    return [
        {(source, c) for source in block}
        for block in toy.feeds[name]
        for c in range(max(widths[source] for source in block))
    ]


@pytest.mark.parametrize("toy", TOYS)
def test_as_described_by_hand(toy):
    model = toy().ready()
    found = asked(model, toy.shape)
    modules = {n: m for n, m in model.named_modules() if isinstance(m, KERNELS)}
    widths = {"image": toy.shape[0]} | {
        n: getattr(m, "out_channels", None) or m.out_features for n, m in modules.items()
    }
    depthwise = {n for n, m in modules.items() if getattr(m, "groups", 1) > 1}
    assert found.keys() == toy.feeds.keys()
    assert found == {name: described(toy, name, widths) for name in found}
    assert depthwise or toy.__name__ not in ("Gated", "Grouped")


def perturbed(model: nn.Module, image: Tensor) -> dict[str, list[Sources]]:
    """The same by brute force: every kernel layer puts out what it did, but for one channel; whose inputs change?"""
    layers = {n: m for n, m in model.named_modules() if isinstance(m, KERNELS)}
    axis = {n: -1 if isinstance(m, nn.Linear) else 1 for n, m in layers.items()}
    outputs, before = watched(model, image, layers, {})
    found = {n: [set() for _ in range(x.shape[axis[n]])] for n, x in before.items()}
    sources = {"image": image} | outputs
    for source, value in sources.items():
        along = axis.get(source, 1)
        for channel in range(value.shape[along]):
            for trial in range(4):  # a ReLU may hide one change
                other = value.clone()
                noise = torch.randn(other.select(along, channel).shape, generator=torch.Generator().manual_seed(trial))
                other.select(along, channel).add_(20 * noise.to(other))
                frozen = outputs | ({} if source == "image" else {source: other})
                _, after = watched(model, other if source == "image" else image, layers, frozen)
                for name, x in after.items():
                    moved = (x != before[name]).movedim(axis[name], 0).flatten(1).any(1)
                    for c in moved.nonzero().flatten().tolist():
                        found[name][c].add((source, channel))
    return found


def watched(model: nn.Module, image: Tensor, layers, frozen) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    outputs, arriving, hooks = {}, {}, []

    def hook(name):
        def put(module, given, output):
            arriving[name] = given[0].clone()
            outputs[name] = output.clone()
            return frozen[name].clone() if name in frozen else None

        return put

    for name, module in layers.items():
        hooks.append(module.register_forward_hook(hook(name)))
    with torch.no_grad():
        model(image.clone())
    for handle in hooks:
        handle.remove()
    return outputs, arriving


@pytest.mark.parametrize("name", ["plain", "grouped", "same", "in_place", "transposed", "one_and_three", "gated"])
def test_against_one_change_at_a_time(name):
    model, _, images = micro.toy(name)
    image = images[0][None]
    assert asked(model, tuple(image.shape[1:])) == perturbed(model, image)


def test_a_norm_over_channels_mixes_them():
    model, _, images = micro.toy("tokens")
    found = asked(model, tuple(images[0].shape))
    assert found["mlp1"] == [{("patch", c) for c in range(5)}] * 5 == perturbed(model, images[0][None])["mlp1"]
    # of the class token's position only mlp2 is read; a channel is followed as a whole
    assert found["head"] == [{("patch", c), ("mlp2", c)} for c in range(5)]


@pytest.mark.parametrize("toy", TOYS)
def test_toys_against_one_change_at_a_time(toy):
    model = toy().ready()
    assert asked(model, toy.shape) == perturbed(model, model.images(1))


def conv(inputs: int, outputs: int, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, groups=groups)


def test_joins_say_what_they_do_and_keep_operands_apart():
    model = Compose(
        lambda m, x: m.c(F.relu(m.a(x) + x) * torch.sigmoid(m.b(x).mean((2, 3), keepdim=True))),
        a=conv(3, 3), b=conv(3, 1), c=conv(3, 2),
    )  # fmt: skip
    graph = trace(model, (3, 6, 6))
    found = provenance(graph, [graph.output("c").node])
    node = {name: node for node, name in graph.kernel_calls.items()}
    ((gate,),) = found.input_stems(node["c"], 2)
    assert (found.symbol(gate.node), gate.channel) == ("×", 2)
    (total,), (one,) = found.input_stems(*gate)
    assert one == CutChannel(node["b"], 0)  # the gate's only channel, spread over all
    assert (found.symbol(total.node), total.channel) == ("+", 2)
    (branch,), (image,) = found.input_stems(*total)
    assert (branch, image.node.op, image.channel) == (CutChannel(node["a"], 2), "placeholder", 2)
    assert found.output_stems(graph.output("c").node, 1) == {CutChannel(node["c"], 1)}


def test_a_signal_joined_with_itself_has_one_stem():
    model = Compose(lambda m, x: m.b((y := m.a(x)) * torch.sigmoid(y)), a=conv(3, 2), b=conv(2, 1))
    assert asked(model, (3, 6, 6))["b"] == [{("a", 0)}, {("a", 1)}]


def test_flattened_maps_and_shuffled_groups():
    model = Compose(
        lambda m, x: m.fc(F.channel_shuffle(F.relu(m.a(x)), 2).flatten(1)), a=nn.Conv2d(3, 4, 3), fc=nn.Linear(16, 2)
    )
    behind = asked(model, (3, 4, 4))["fc"]
    assert [next(iter(s))[1] for s in behind] == [0] * 4 + [2] * 4 + [1] * 4 + [3] * 4


def test_filters_that_are_buffers_are_part_of_the_way():
    class Blur(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("kernel", torch.ones(3, 1, 3, 3))

        def forward(self, x):
            return F.conv2d(x, self.kernel, padding=1, groups=3)

    model = Compose(lambda m, x: m.b(m.blur(F.relu(m.a(x)))), a=conv(3, 3), blur=Blur(), b=conv(3, 2))
    graph = trace(model, (3, 6, 6))
    found = provenance(graph, [graph.output("b").node])
    node = next(n for n, name in graph.kernel_calls.items() if name == "b")
    assert [{(graph.kernel_calls[s.node], s.channel) for s in stems} for stems in inputs(found, node)] == [
        {("a", 0)}, {("a", 1)}, {("a", 2)},
    ]  # fmt: skip


def test_works_where_gradients_are_switched_off():
    model = TOYS[0]().ready()
    with torch.inference_mode():
        first = asked(model, TOYS[0].shape)
    assert first == asked(model, TOYS[0].shape)
    assert all(p.grad is None for p in model.parameters())
