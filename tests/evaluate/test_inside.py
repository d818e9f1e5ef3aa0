"""Agreement inside, against maps that are kept whole and correlated one by one."""

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn
from torch.func import functional_call

import viscircuits as vc
from micro import pictures, toy
from small import SHAPE, small
from viscircuits.evaluate.inside import layers, medians
from viscircuits.target import Target

TO_LOGIT = vc.parse_target("logit:1")


def maps(model: nn.Module, weights: dict[str, torch.Tensor], images: vc.ImageSet, layers: tuple[str, ...]):
    """Layer -> the module's outputs for all pictures, channels last, as the module itself gives them."""
    outputs, handles = {}, []
    for name in layers:
        hook = lambda module, inputs, output, name=name: outputs.__setitem__(name, output.detach().clone())  # noqa: E731
        handles.append(model.get_submodule(name).register_forward_hook(hook))
    functional_call(model, weights, torch.stack([images[i] for i in range(len(images))]))
    for handle in handles:
        handle.remove()
    return {name: values.movedim(1, -1).double().numpy() for name, values in outputs.items()}


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_each_filter_is_compared_with_itself_within_positions(batch_size):
    model, images = small(width=8).double(), pictures(SHAPE, dtype=torch.float64)
    circuit = vc.Circuit(model, TO_LOGIT, vc.score(model, TO_LOGIT, images, "snip").select(density=0.5))
    table = vc.inside(circuit, images, batch_size=batch_size)
    layers = ("first", "second", "head")
    mine, full = (maps(model, w, images, layers) for w in (circuit.weights, {}))
    expected = {}
    for name in layers:
        for f in circuit.effective.kept[name].any(1).nonzero()[:, 0].tolist():
            a, b = (m[name][..., f] - m[name][..., f].mean(0) for m in (mine, full))
            expected[name, f] = float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))
    got = {(row["layer"], row["filter"]): row["within"] for row in table.to_dicts()}
    assert got.keys() == expected.keys()
    assert got == pytest.approx(expected, abs=1e-10)
    assert dict(table.select("layer", "role").unique().iter_rows()) == {
        "first": "reads the image", "second": "", "head": "target"
    }  # fmt: skip
    assert min(got.values()) < 0.99  # something was removed


def test_the_whole_network_agrees_with_itself_and_the_wrong_sign_shows():
    model, images = small(), pictures(SHAPE, dtype=torch.float32)
    scores = vc.score(model, TO_LOGIT, images, "actgrad")
    whole = vc.inside(vc.Circuit(model, TO_LOGIT, scores.select(density=1.0)), images)
    assert whole["within"].to_list() == pytest.approx([1.0] * len(whole))
    # a filter of two kernels, of which the weaker is kept and the stronger says the opposite
    net = Opposed().eval()
    mask = vc.score(net, Target("b", 0), images.subset(range(4)), "random").select(density=1.0)
    kept = {name: array.clone() for name, array in mask.kept.items()}
    kept["b"][0, 1] = False
    circuit = vc.Circuit(net, Target("b", 0), vc.Mask(kept, mask.relevant, "kernel", mask.input_shape))
    table = vc.inside(circuit, images)
    assert table.filter(layer="b")["within"].to_list() == pytest.approx([-1.0])


class Opposed(nn.Module):
    """b = a - 2 a: without its second kernel it has the other sign."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 2, 1, bias=False), nn.Conv2d(2, 1, 1, bias=False)
        with torch.no_grad():
            self.a.weight[:] = torch.tensor([[1.0, 2.0, 3.0]])[:, :, None, None]
            self.b.weight[:] = torch.tensor([[1.0, -2.0]])[:, :, None, None]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.a(x))


def test_constant_filters():
    """Constant in the circuit: 0; constant in the model: nothing is asked."""
    net = Dead().eval()
    images = pictures((3, 8, 8), dtype=torch.float32)
    mask = vc.score(net, Target("c", 0), images, "random").select(density=1.0)
    full = vc.inside(vc.Circuit(net, Target("c", 0), mask), images)
    assert full.filter(layer="b")["filter"].to_list() == [0]  # the other is dead in the model
    kept = {name: array.clone() for name, array in mask.kept.items()}
    kept["a"][0, 0] = False  # what is left of the first filter is below zero everywhere
    cut = vc.inside(vc.Circuit(net, Target("c", 0), vc.Mask(kept, mask.relevant, "kernel", mask.input_shape)), images)
    assert cut.filter(layer="b")["within"].to_list() == [0.0]


class Dead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 2, 1), nn.Conv2d(2, 2, 1), nn.Conv2d(2, 1, 1)
        with torch.no_grad():
            self.a.weight.zero_()
            self.a.weight[0, 0], self.a.weight[0, 1] = 1.0, 1e-4
            self.a.bias[:] = torch.tensor([-1.0, -100.0])
            self.b.weight[:] = torch.eye(2)[:, :, None, None]
            self.c.weight.fill_(1.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(torch.relu(self.b(torch.relu(self.a(x)))))


@pytest.mark.parametrize("name", ["grouped", "reused", "tokens", "windows", "transposed", "one_and_three"])
def test_layers_of_every_kind(name):
    model, target, images = toy(name)
    scores = vc.score(model, target, images, "random")
    whole = vc.inside(vc.Circuit(model, target, scores.select(density=1.0)), images)
    assert whole["within"].to_list() == pytest.approx([1.0] * len(whole))
    half = vc.Circuit(model, target, scores.select(density=0.7))
    tables = [vc.inside(half, images, batch_size=size) for size in (2, 8)]
    assert tables[0]["within"].to_list() == pytest.approx(tables[1]["within"].to_list(), abs=1e-9)


class Behind(nn.Module):
    """A target behind a norm, an activation and a pool; and a layer that gets the image beside another's output."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.beside = nn.Conv2d(7, 4, 3, padding=1)
        self.last, self.norm, self.relu = nn.Conv2d(4, 3, 1), nn.BatchNorm2d(3), nn.ReLU()

    def forward(self, x):
        x = self.beside(torch.cat([x, torch.relu(self.first(x))], 1))
        return self.relu(self.norm(self.last(torch.relu(x)))).mean((2, 3)).flatten(1)


@pytest.mark.parametrize("target", ["last:1", "norm:1", "relu:1", "logit:1"])
def test_roles_are_told_through_norms_activations_and_pools(target):
    torch.manual_seed(0)
    model, images = Behind().eval(), pictures((3, 8, 8), dtype=torch.float32)
    read = vc.parse_target(target)
    circuit = vc.Circuit(model, read, vc.score(model, read, images, "magnitude").select(density=0.9))
    roles = dict(vc.inside(circuit, images).select("layer", "role").unique().iter_rows())
    assert roles == {"first": "reads the image", "beside": "", "last": "target"}


def test_one_picture_is_refused():
    model, images = small(), pictures(SHAPE, dtype=torch.float32)
    circuit = vc.Circuit(model, TO_LOGIT, vc.score(model, TO_LOGIT, images, "snip").select(density=0.5))
    with pytest.raises(vc.ImageError, match="needs two pictures at least"):
        vc.inside(circuit, images.take(1, 0))


def test_medians_are_of_what_lies_between_image_and_target():
    rows = [
        ("a", 0, 0.9, "reads the image"), ("b", 0, 0.8, ""), ("b", 1, 0.2, ""), ("b", 4, 0.6, ""), ("c", 0, -0.5, ""),
        ("c", 3, 0.1, ""), ("d", 7, 1.0, "target"),
    ]  # fmt: skip
    schema = {"layer": pl.String, "filter": pl.Int64, "within": pl.Float64, "role": pl.String}
    table = pl.DataFrame(rows, schema=schema, orient="row")
    assert layers(table).rows() == [
        ("a", "reads the image", 1, 0.9), ("b", "", 3, 0.6), ("c", "", 2, -0.2), ("d", "target", 1, 1.0)
    ]  # fmt: skip
    assert medians(table) == (0.2, -0.2)
    assert medians(table.filter(pl.col("role") != "")) == (None, None)


def test_a_sweep_looks_into_its_circuits_where_it_is_asked_to():
    model, images = small(), pictures(SHAPE, dtype=torch.float32)
    scoring, held_out = images.split(0.5, seed=0)
    question = {"criteria": ["snip"], "densities": [0.6, 0.4]}
    plain = vc.sweep(vc.Sweep(model, [TO_LOGIT], scoring, held_out, **question))
    table = vc.sweep(vc.Sweep(model, [TO_LOGIT], scoring, held_out, **question, inside=True))
    new = ["inside", "inside_worst", "seconds"]
    ranks = vc.sweep(vc.Sweep(model, [TO_LOGIT], scoring, held_out, ["reconstruct", "random"], [0.5]))
    assert dict(ranks.select("criterion", "n_scoring").iter_rows()) == {"reconstruct": len(scoring), "random": 1}
    assert table.drop(new).equals(plain.drop(new))
    assert plain["inside"].null_count() == plain["inside_worst"].null_count() == plain.height
    scores = vc.score(model, TO_LOGIT, scoring, "snip")
    for row in table.to_dicts():
        circuit = vc.Circuit(model, TO_LOGIT, scores.select(density=row["density"]))
        assert (row["inside"], row["inside_worst"]) == pytest.approx(medians(vc.inside(circuit, held_out)))
    assert table["inside"].max() < 1
