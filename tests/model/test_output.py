"""Which tensor of a model's output is meant, and one number a picture."""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import viscircuits as vc
from model.toys import Compose
from viscircuits.errors import TargetError
from viscircuits.model.output import chosen, named_leaves
from viscircuits.model.trace import trace

SHAPE = (3, 12, 10)
Pair = namedtuple("Pair", ["out", "aux"])


@dataclass
class Answer:
    features: Tensor
    logits: Tensor


def conv(inputs: int = 3, outputs: int = 4) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def pictures(n: int = 4) -> vc.ImageSet:
    return vc.ImageSet.from_tensors(torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(1)))


def returning(form) -> Compose:
    torch.manual_seed(0)
    return Compose(lambda m, x: form(m.a(x).mean((2, 3)), m.b(F.relu(m.a(x))).mean((2, 3))), a=conv(3, 4), b=conv(4, 6))


def test_ways_to_leaves():
    leaf = torch.zeros(1)
    assert list(named_leaves(leaf)) == [""]
    assert list(named_leaves([leaf, {"x": (leaf, 3, None)}, Pair(leaf, "text")])) == ["[0]", "[1][x][0]", "[2][out]"]
    assert list(named_leaves(Answer(leaf, leaf))) == ["[features]", "[logits]"]
    assert chosen(["[0]"]) == "[0]"
    assert chosen(["[aux]", "[out]", "[logits]"]) == "[logits]"
    assert chosen(["[0]", "[1]"]) is None


@pytest.mark.parametrize(
    ("form", "n_channels"),
    [
        (lambda a, b: {"aux": a, "logits": b}, 6),
        (lambda a, b: OrderedDict(aux=b, out=a), 4),
        (lambda a, b: {"out": a, "logits": b}, 6),
        (lambda a, b: Pair(a, b), 4),
        (lambda a, b: (b,), 6),
        (lambda a, b: [{"only": b}], 6),
        (lambda a, b: (b, None), 6),
    ],
    ids=["logits", "out", "both", "named tuple", "one in a tuple", "one in a dict", "none beside"],
)
def test_the_output_proper_is_chosen_by_its_key_or_is_the_only_one(form, n_channels: int):
    model = returning(form)
    alone = returning(lambda a, b: a if n_channels == 4 else b)
    assert trace(model, SHAPE).output("").n_channels == n_channels
    target = vc.Target.logit(2)
    ours, theirs = (vc.score(m, target, pictures()) for m in (model, alone))
    assert ours.n_relevant == theirs.n_relevant
    assert all(torch.equal(ours.sums[name], theirs.sums[name]) for name in theirs.sums)
    circuit = vc.Circuit(model, target, ours.select(density=0.5))
    assert torch.equal(
        circuit.respond(pictures()), vc.Circuit(alone, target, ours.select(density=0.5)).respond(pictures())
    )
    assert torch.allclose(
        circuit.extract()(torch.stack([pictures()[i] for i in range(4)])), circuit.respond(pictures())
    )


@pytest.mark.parametrize(
    "form",
    [lambda a, b: (a, b), lambda a, b: {"one": a, "two": b}, lambda a, b: [(a, b), a]],
    ids=["tuple", "dict", "nested"],
)
def test_several_outputs_without_a_key_are_refused_and_can_be_named(form):
    model = returning(form)
    names = list(named_leaves(form(torch.zeros(1), torch.zeros(1))))
    for target in (vc.Target.logit(2), vc.Loss(predicted=True)):
        with pytest.raises(
            TargetError, match=rf"the model returns {len(names)} tensors .*say which is meant: 'logit\["
        ):
            vc.score(model, target, pictures())
    alone = returning(lambda a, b: b)
    target = vc.parse_target(f"logit{names[1]}:5")
    assert str(target) == f"logit{names[1]}:5"
    assert target == vc.Target(names[1], 5)
    ours, theirs = vc.score(model, target, pictures()), vc.score(alone, vc.Target.logit(5), pictures())
    assert all(torch.equal(ours.sums[name], theirs.sums[name]) for name in theirs.sums)
    circuit = vc.Circuit(model, target, ours.select(density=0.3))
    assert vc.preservation(circuit, pictures()).n_values == 4
    with pytest.raises(TargetError, match="channel 6 is out of range"):
        vc.score(model, vc.Target(names[1], 6), pictures())
    with pytest.raises(TargetError, match=r"layer '\[nine\]' is not in the model"):
        vc.score(model, vc.Target("[nine]", 0), pictures())


@pytest.mark.parametrize(
    "last",
    [
        lambda y: y.squeeze(-1),
        lambda y: y[:, 0],
        lambda y: y.flatten(),
        lambda y: {"out": y.view(-1)},
        lambda y: y.mean(1),
    ],
    ids=["squeeze", "index", "flatten", "key", "mean"],
)
def test_one_number_a_picture_is_one_channel(last):
    def model(end) -> Compose:
        torch.manual_seed(0)
        return Compose(lambda m, x: end(m.f(F.relu(m.a(x)).mean((2, 3)))), a=conv(), f=nn.Linear(4, 1))

    one, kept = model(last), model(lambda y: y)
    target = vc.Target.logit(0)
    ours, theirs = vc.score(one, target, pictures()), vc.score(kept, target, pictures())
    assert ours.n_relevant == theirs.n_relevant == 16
    assert all(torch.equal(ours.sums[name], theirs.sums[name]) for name in theirs.sums)
    circuits = [vc.Circuit(m, target, theirs.select(density=0.5)) for m in (one, kept)]
    assert torch.equal(*(circuit.respond(pictures()) for circuit in circuits))
    batch = torch.stack([pictures()[i] for i in range(4)])
    assert torch.allclose(*(circuit.extract()(batch) for circuit in circuits))
    assert vc.preservation(circuits[0], pictures()).pearson == vc.preservation(circuits[1], pictures()).pearson
    with pytest.raises(TargetError, match="channel 1 is out of range: the model's output has channels 0 to 0"):
        vc.score(one, vc.Target.logit(1), pictures())


def test_the_channel_axis_is_found_where_axes_are_moved_about():
    moves = {
        "swapped": (lambda y: y.swapaxes(1, 3), 3),
        "moved": (lambda y: y.movedim(1, -1), 3),
        "one more": (lambda y: y.unsqueeze(1), 2),
        "one more, seen": (lambda y: y.view(y.shape[0], 1, 4, 12, 10), 2),
        "and back": (lambda y: y.unsqueeze(1).squeeze(1), 1),
        "flat": (lambda y: y.flatten(2).unsqueeze(2), 1),
    }
    for name, (move, axis) in moves.items():
        model = Compose(lambda m, x, move=move: m.end(move(m.a(x))), a=conv(), end=nn.ReLU())
        for layer in ("end", ""):
            output = trace(model, SHAPE).output(layer)
            assert (output.channel_axis, output.n_channels) == (axis, 4), name
        scores = vc.score(model, vc.Target("", 3), pictures())
        assert scores.relevant["a"].any(1).tolist() == [False, False, False, True], name
