"""Tracing: what a graph knows about awkward models, and what it says about those it cannot follow."""

import gc
import re
import weakref
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.toys import TOYS, Compose
from viscircuits.errors import ModelError, TargetError, UnsupportedOperation
from viscircuits.model.flow.reach import reach
from viscircuits.model.graph import OUTPUT, KernelLayer
from viscircuits.model.instrument import run
from viscircuits.model.trace import trace

SHAPE = (3, 8, 6)


def conv(inputs: int = 3, outputs: int = 3, **options) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, **options)


def relevant(model: nn.Module, layer: str, channel: int, shape=SHAPE) -> dict[str, Tensor]:
    graph = trace(model, shape)
    return dict(reach(graph, {layer: torch.arange(graph.output(layer).n_channels) == channel}).used)


def outputs_agree(model: nn.Module, shape=SHAPE) -> None:
    """Whatever the graph says about a module's output holds for what a hook reads, values included."""
    graph = trace(model, shape)
    images = torch.randn(2, *shape)
    read = run(model, graph, images, graph.outputs)
    values = {}
    constants = {node.name: node for node in graph.nodes if node.op == "placeholder"}
    for node in graph.nodes:
        if node.op == "placeholder":
            values[node] = graph.constants.get(node.name, images)
        elif node.op == "call_function":
            args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), lambda n: values[n])
            values[node] = node.target(*args, **kwargs)
    assert constants
    for name, output in graph.outputs.items():
        assert tuple(read[name].shape[1:]) == output.shape, name
        torch.testing.assert_close(values[output.node], read[name], msg=name)


# ---- layers and outputs ----------------------------------------------------------------------------------------------


def test_layers_stand_in_the_order_of_first_execution():
    model = Compose(
        lambda m, x: m.a(m.c(m.b(x))), a=conv(4, 5), b=conv(3, 6, groups=3), c=nn.ConvTranspose2d(6, 4, 2, groups=2)
    )
    graph = trace(model, SHAPE)
    assert list(graph.layers) == ["b", "c", "a"]
    assert graph.layers["b"] == KernelLayer("b", "conv", "b.weight", "b.bias", 6, 3, 3, (3, 3))
    assert graph.layers["c"] == KernelLayer("c", "conv_transpose", "c.weight", "c.bias", 4, 6, 2, (2, 2))
    assert graph.layers["b"].sources.tolist() == [[0], [0], [1], [1], [2], [2]]
    assert graph.layers["c"].sources.tolist() == [[0, 1, 2], [0, 1, 2], [3, 4, 5], [3, 4, 5]]
    assert graph.layers["a"].n_kernels == 20
    assert graph.input_shape == SHAPE


def test_transposed_weights_are_read_out_first():
    layer = trace(Compose(lambda m, x: m.a(x), a=nn.ConvTranspose2d(6, 4, 2, groups=2)), (6, 5, 4)).layers["a"]
    weight = torch.arange(6 * 2 * 4.0).view(6, 2, 2, 2)
    first = layer.out_first(weight)
    assert torch.equal(first[3, 1], weight[3 + 1, 1])  # channel 3 is number 1 of group 1, which reads inputs 3, 4, 5
    assert torch.equal(layer.stored(first), weight)


@pytest.mark.parametrize("build", TOYS)
def test_what_the_graph_says_of_outputs_is_what_hooks_read(build):
    outputs_agree(build().ready().float(), build.shape)


class Several(nn.Module):
    """Returns its first output before it has computed the second."""

    def __init__(self, form):
        super().__init__()
        self.first, self.second, self.form = conv(3, 4), conv(4, 2), form

    def forward(self, x: Tensor):
        x = self.first(x)
        return self.form(x, self.second(x))


@pytest.mark.parametrize(
    "form",
    [lambda a, b: (a, b), lambda a, b: {"out": a, "aux": b}, lambda a, b: [(a, b), 3]],
    ids=["tuple", "dict", "nested"],
)
def test_the_first_of_several_outputs_is_read(form):
    def last(m: Compose, x: Tensor):
        rest = out = m.body(x)
        while not isinstance(out, Tensor):
            out = out["out"] if isinstance(out, dict) else out[0]
        return {"logits": m.head(F.relu(out)), "rest": rest}

    model = Compose(last, body=Several(form), head=conv(4, 3))
    graph = trace(model, SHAPE)
    assert graph.output("body").n_channels == 4
    assert graph.output(OUTPUT).n_channels == 3
    outputs_agree(model)
    assert {n: int(a.sum()) for n, a in relevant(model, "body", 1).items() if bool(a.any())} == {"body.first": 3}


def test_channels_last_outputs():
    def tokens(m: Compose, x: Tensor) -> Tensor:
        y = m.patch(x).flatten(2).transpose(1, 2)
        y = y + m.mlp(m.norm(y))
        return m.head(y.mean(1))

    model = Compose(
        tokens, patch=nn.Conv2d(3, 5, 2, 2), norm=nn.LayerNorm(5), mlp=nn.Linear(5, 5), head=nn.Linear(5, 4)
    )
    graph = trace(model, SHAPE)
    axes = {name: (graph.output(name).channel_axis, graph.output(name).map_shape) for name in graph.outputs}
    assert axes == {
        "patch": (1, (4, 3)),
        "norm": (2, (12,)),
        "mlp": (2, (12,)),
        "head": (1, ()),
        OUTPUT: (1, ()),
    }
    outputs_agree(model)


def test_the_channel_axis_survives_windows_and_positions():
    def windows(m: Compose, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        y = m.patch(x).permute(0, 2, 3, 1)  # channels last, [n, h, w, 5]
        y = m.view(y.reshape(n, h // 2, 2, w * 5 // 5, 5))
        y = m.join(y.reshape(n, h * w, 5) + torch.zeros(n, h * w, 1))
        return m.back(y.transpose(1, 2).reshape(n, 5, h, w) * 2)

    model = Compose(windows, patch=conv(3, 5), view=nn.ReLU(), join=nn.ReLU(), back=nn.ReLU())
    for any_batch in (False, True):
        graph = trace(model, SHAPE, any_batch=any_batch)
        found = {name: graph.output(name).channel_axis for name in ("patch", "view", "join", "back")}
        assert found == {"patch": 1, "view": 4, "join": 2, "back": 1}


def test_the_channel_axis_survives_a_mean_or_a_choice_before_it():
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        y = m.patch(x).permute(0, 2, 3, 1)  # channels last, [n, h, w, 5]
        return m.mean(y.mean(1)).sum(1) + m.choice(y[:, :, 0]).sum(1) + m.gone(y.amax(3)).sum((1, 2))[:, None]

    model = Compose(forward, patch=conv(3, 5), mean=nn.ReLU(), choice=nn.ReLU(), gone=nn.ReLU())
    graph = trace(model, SHAPE)
    assert {n: graph.output(n).channel_axis for n in ("mean", "choice", "gone")} == {"mean": 2, "choice": 2, "gone": 1}


def test_layer_norm_over_all_axes_leaves_the_channels_where_they_are():
    model = Compose(lambda m, x: m.norm(m.a(x)), a=conv(3, 4), norm=nn.LayerNorm([4, 8, 6]))
    assert trace(model, SHAPE).output("norm").channel_axis == 1


def test_modules_used_twice_are_one_layer_and_two_outputs():
    model = Compose(lambda m, x: m.head(F.relu(m.conv(F.relu_(m.conv(x))))), conv=conv(), head=conv(3, 2))
    graph = trace(model, SHAPE)
    assert graph.layers["conv"].calls == 2
    assert {"conv@0", "conv@1"} <= set(graph.outputs)
    with pytest.raises(TargetError, match=r"layer 'conv' runs 2 times; name the call: 'conv@0' to 'conv@1'"):
        graph.output("conv")
    assert int(relevant(model, "conv@0", 1)["conv"].sum()) == 3
    assert int(relevant(model, "conv@1", 1)["conv"].sum()) == 9
    outputs_agree(model)


def test_a_reused_block_names_the_calls_of_its_children():
    block = nn.Sequential(conv(), nn.ReLU(inplace=True))
    model = Compose(lambda m, x: m.head(m.block(m.block(x))), block=block, head=conv(3, 2))
    assert {"block@0", "block@1", "block.0@0", "block.0@1"} <= set(trace(model, SHAPE).outputs)
    outputs_agree(model)


def test_one_module_under_two_names():
    shared = conv()
    model = Compose(lambda m, x: m.head(m.b(F.relu(m.a(x)))), a=shared, b=shared, head=conv(3, 2))
    graph = trace(model, SHAPE)
    assert list(graph.layers) == ["a", "head"]
    assert graph.layers["a"].calls == 2
    assert set(graph.outputs) == {"a@0", "a@1", "head", OUTPUT}
    assert int(relevant(model, "head", 0)["a"].sum()) == 9
    outputs_agree(model)


def test_tied_weights_are_one_layer():
    model = Compose(lambda m, x: m.head(m.b(F.relu(m.a(x)))), a=conv(), b=conv(), head=conv(3, 2))
    model.b.weight = model.a.weight
    graph = trace(model, SHAPE)
    assert list(graph.layers) == ["a", "head"]
    assert graph.layers["a"].calls == 2
    assert {"a", "b"} <= set(graph.outputs)
    outputs_agree(model)


def test_a_weight_that_means_two_things_is_refused():
    model = Compose(lambda m, x: F.conv_transpose2d(F.relu(m.a(x)), m.a.weight), a=nn.Conv2d(3, 5, 3))
    with pytest.raises(
        UnsupportedOperation, match=r"conv_transpose2d in module .*'a\.weight' in another way \(conv_transpose"
    ):
        trace(model, SHAPE)
    grouped = Compose(lambda m, x: F.conv2d(m.a(x[:, :1]), m.a.weight, padding=1, groups=4), a=conv(1, 4))
    with pytest.raises(UnsupportedOperation, match=r"\(conv, 4 groups\) than an earlier call \(conv, 1 groups\)"):
        trace(grouped, SHAPE)


def test_filters_that_are_buffers_carry_signals_and_are_not_scored():
    model = Compose(lambda m, x: F.conv2d(m.a(x), m.blur, groups=4), a=conv(3, 4))
    model.register_buffer("blur", torch.ones(4, 1, 3, 3) / 9)
    graph = trace(model, SHAPE)
    assert graph.not_scored == ("blur",)
    assert graph.layers["blur"].groups == 4
    assert relevant(model, OUTPUT, 2)["a"].any(1).tolist() == [False, False, True, False]


def test_a_convolution_of_constants_is_a_constant():
    model = Compose(lambda m, x: m.head(x) + m.grid(torch.ones(1, 2, 8, 6)), grid=conv(2, 3), head=conv())
    assert list(trace(model, SHAPE).layers) == ["head"]


def test_writing_in_place_through_a_view_counts():
    def overwritten(m: Compose, x: Tensor) -> Tensor:
        y = m.a(x)
        y[:, :2] = m.b(x)
        y[:, 3:].relu_()
        return m.head(y)

    model = Compose(overwritten, a=conv(3, 4), b=conv(3, 2), head=conv(4, 4, groups=4))
    assert {n: a.any(1).tolist() for n, a in relevant(model, "head", 1).items() if n != "head"} == {
        "a": [False] * 4,
        "b": [False, True],
    }
    assert relevant(model, "head", 2)["a"].any(1).tolist() == [False, False, True, False]
    outputs_agree(model)


# ---- inputs ----------------------------------------------------------------------------------------------------------


def test_a_model_that_refuses_one_image():
    def picky(m: Compose, x: Tensor) -> Tensor:
        if x.shape[0] == 1:
            raise ValueError("one image is not enough")
        return m.a(x)

    assert list(trace(Compose(picky, a=conv()), SHAPE).layers) == ["a"]


def test_one_channel_long_images_in_double_precision():
    model = Compose(lambda m, x: m.b(m.a(x).flatten(1)), a=nn.Conv2d(1, 2, (5, 1)), b=nn.Linear(2 * 16 * 3, 4)).double()
    graph = trace(model, [1, 20, 3])
    assert graph.input_shape == (1, 20, 3)
    assert graph.output("a").shape == (2, 16, 3)
    assert graph.output("a").node.meta["val"].dtype == torch.float64


def test_nested_containers():
    inner = nn.ModuleDict({"x": nn.ModuleList([nn.Sequential(conv(), nn.ReLU())])})
    model = Compose(lambda m, x: m.inner["x"][0](x), inner=inner)
    assert list(trace(model, SHAPE).layers) == ["inner.x.0.0"]
    outputs_agree(model)


def test_a_model_without_parameters_has_no_layers():
    assert dict(trace(Compose(lambda m, x: x * 2), SHAPE).layers) == {}


# ---- what is wrong is said -------------------------------------------------------------------------------------------


def test_modules_that_emit_nothing_and_names_that_are_not_there():
    model = Compose(lambda m, x: m.same(m.a(x)), a=conv(), same=nn.Identity(), unused=conv())
    graph = trace(model, SHAPE)
    for name in ("same", "unused"):
        with pytest.raises(TargetError, match=f"layer '{name}' exists but computes nothing of its own"):
            graph.output(name)
    with pytest.raises(
        TargetError, match=r"layer 'sam' is not in the model; closest: .*\(list them: viscircuits targets MODEL\)"
    ):
        graph.output("sam")


def test_a_branch_on_the_values_of_a_tensor():
    model = Compose(lambda m, x: m.a(x) if x.sum() > 0 else x, a=conv())
    with pytest.raises(
        UnsupportedOperation, match=r"cannot be traced on images of shape \(3, 8, 6\).*does not branch on the values"
    ):
        trace(model, SHAPE)


def test_images_that_do_not_fit():
    with pytest.raises(
        UnsupportedOperation, match=r"cannot be traced on images of shape \(4, 8, 6\).*a size that the model takes"
    ):
        trace(nn.Sequential(conv()).eval(), (4, 8, 6))


def test_any_number_of_images_and_a_model_that_fixes_it():
    model = Compose(lambda m, x: torch.cat([m.a(x), torch.zeros(len(x), 1, 8, 6)], 1), a=conv())
    assert trace(model, SHAPE)
    with pytest.raises(
        UnsupportedOperation, match=r"nor fixes the number of images \(as len\(x\) does; take x\.shape\[0\]\)"
    ):
        trace(model, SHAPE, any_batch=True)


def test_an_operation_without_a_rule_is_named_with_module_and_line():
    class Spectral(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.fft.fft2(x).real

    model = Compose(lambda m, x: m.head(m.spectral(m.a(x))), a=conv(), spectral=Spectral(), head=conv())
    with pytest.raises(UnsupportedOperation) as caught:
        relevant(model, "head", 0)
    assert re.search(
        r"no rule for the operation '_?fft\w*' \(module 'spectral', File \".*test_trace\.py\", line \d+\)",
        str(caught.value),
    )
    assert trace(model, SHAPE).output("a")  # the graph itself can still be asked for what comes before
    assert relevant(model, "a", 0)


def test_an_index_that_depends_on_the_image():
    model = Compose(
        lambda m, x: m.head(m.a(x).gather(1, m.a(x).argmax(1, keepdim=True).expand_as(x))), a=conv(), head=conv()
    )
    with pytest.raises(UnsupportedOperation, match=r"'argmax' \(module"):
        relevant(model, "head", 0)
    model = Compose(lambda m, x: m.head(m.a(x)[:, m.a(x)[0, :, 0, 0].long() % 3]), a=conv(), head=conv())
    with pytest.raises(
        UnsupportedOperation, match=r"(cannot follow channels through this use of|no rule for the operation) '\w+' \(m"
    ):
        relevant(model, "head", 0)


def test_weights_that_are_computed():
    model = Compose(lambda m, x: m.a(x), a=nn.utils.parametrizations.weight_norm(conv()))
    with pytest.raises(
        UnsupportedOperation, match=r"conv2d in module 'a', File .* computes its weight .*fold it into a plain"
    ):
        relevant(model, "a", 0)


def test_training_mode():
    model = Compose(lambda m, x: m.a(x), a=conv())
    model.a.train()
    with pytest.raises(
        ModelError, match=r"must be in evaluation mode, but its module 'a' is training; call model\.eval\(\) first"
    ):
        trace(model, SHAPE)
    with pytest.raises(ModelError, match="but the model is training"):
        trace(model.train(), SHAPE)


# ---- cache and traces left -------------------------------------------------------------------------------------------


def test_graphs_are_kept_until_the_model_changes():
    model = nn.Sequential(conv(), nn.ReLU(), conv(3, 2)).eval()
    graph = trace(model, SHAPE)
    assert trace(model, list(SHAPE)) is graph
    assert trace(model, (3, 9, 6)) is not graph
    assert trace(model, SHAPE) is graph
    model[0].weight.data.zero_()
    assert trace(model, SHAPE) is graph
    model[0] = conv().eval()  # same type, same name, same shapes
    assert trace(model, SHAPE) is not graph
    wide = trace(model, SHAPE)
    model[2] = nn.Conv2d(3, 2, 3, padding=1, stride=2).eval()
    assert trace(model, SHAPE).output("2").map_shape == (4, 3) != wide.output("2").map_shape
    model[2].stride = (1, 1)
    assert trace(model, SHAPE).output("2").map_shape == (8, 6)
    model[2].weight = nn.Parameter(torch.zeros(7, 3, 3, 3))
    model[2].bias = nn.Parameter(torch.zeros(7))
    assert trace(model, SHAPE).output("2").n_channels == 7


def test_the_cache_follows_a_flag_and_ties():
    model = Compose(lambda m, x: m.b(m.a(x)) if m.deep else m.a(x), a=conv(), b=conv())
    model.deep = True
    assert list(trace(model, SHAPE).layers) == ["a", "b"]
    model.deep = False
    assert list(trace(model, SHAPE).layers) == ["a"]
    model.deep = True
    model.b.weight = model.a.weight
    assert list(trace(model, SHAPE).layers) == ["a"]


@pytest.mark.parametrize("any_batch", [False, True])
def test_the_cache_does_not_keep_a_model_alive(any_batch: bool):
    model = nn.Sequential(conv(), nn.ReLU()).eval()
    graph = trace(model, SHAPE, any_batch=any_batch)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
    assert graph.output("0").n_channels == 3


class Counting(nn.Module):
    """Writes to a buffer in every forward."""

    seen: ClassVar[int] = 0

    def __init__(self):
        super().__init__()
        self.a = conv()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.a(x)


def test_tracing_leaves_no_trace():
    model = nn.Sequential(Counting(), nn.BatchNorm2d(3), nn.Dropout()).eval()
    model[0].a.weight.requires_grad_(False)
    heard = []
    model[1].register_forward_hook(lambda *args: heard.append(1))
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.get_rng_state()
    keys = {name: set(vars(module)) for name, module in model.named_modules()}
    hooks = {name: len(module._forward_hooks) for name, module in model.named_modules()}
    graph = trace(model, SHAPE)
    with pytest.raises(UnsupportedOperation):
        trace(model, (7, 8, 6))
    assert graph.output(OUTPUT).n_channels == 3  # not the counter
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert keys == {name: set(vars(module)) for name, module in model.named_modules()}
    assert hooks == {name: len(module._forward_hooks) for name, module in model.named_modules()}
    assert [p.requires_grad for p in model.parameters()] == [False, True, True, True]
    assert all(p.grad is None for p in model.parameters())
    assert not any(module.training for module in model.modules())


def test_the_caller_may_have_switched_gradients_off():
    for mode in (torch.no_grad(), torch.inference_mode()):
        model = nn.Sequential(conv(), nn.ReLU(), conv()).eval()
        with mode:
            assert list(trace(model, SHAPE).layers) == ["0", "2"]
        assert sum(int(a.sum()) for a in relevant(model, "2", 0).values()) == 12
