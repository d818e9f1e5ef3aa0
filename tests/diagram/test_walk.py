"""What is drawn of a circuit: every effective kernel once, from where its channel stems from; joins as they are."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import micro
from model.toys import TOYS, Compose, Concat, Gated, Residual
from viscircuits.circuit.circuit import Circuit
from viscircuits.diagram.content import Content, bundled
from viscircuits.diagram.walk import content
from viscircuits.errors import MaskError
from viscircuits.mask import expand_relevant
from viscircuits.readout import Readout
from viscircuits.saliency.registry import score
from viscircuits.scores import Scores
from viscircuits.target import AnyTarget, Loss, Target, parse_target


def scored(model: nn.Module, target: AnyTarget, shape, granularity="kernel", seed=0) -> Scores:
    """Random scores, made here: the test needs no pictures."""
    from viscircuits.model.trace import trace

    graph = trace(model, shape)
    relevant = expand_relevant(graph, Readout(target, graph).relevant_kernels, granularity)
    generator = torch.Generator().manual_seed(seed)
    sums = {n: torch.rand(r.shape, generator=generator) * r for n, r in relevant.items()}
    return Scores(sums, relevant, 1, granularity, "random", str(target), tuple(shape))


def circuit(model: nn.Module, target: AnyTarget, shape, density: float, **options) -> tuple[Circuit, Scores]:
    scores = scored(model, target, shape, **options)
    return Circuit(model, target, scores.select(density=density)), scores


def connected(model: nn.Module, target: AnyTarget, shape, density: float, **options) -> tuple[Circuit, Scores]:
    drawn = (circuit(model, target, shape, density, seed=seed, **options) for seed in range(50))
    return next((made, scores) for made, scores in drawn if not made.disconnected)


def named(found: Content) -> set[tuple[str, str]]:
    return {(found.by_id[e.source].name, found.by_id[e.target].name) for e in found.edges}


def wired(found: Content) -> set[tuple[str, str]]:
    return {(found.by_id[w.source].name, found.by_id[w.target].name) for w in found.wires}


@pytest.mark.parametrize("toy", TOYS)
@pytest.mark.parametrize("density", [0.3, 0.6, 1.0])
def test_every_effective_kernel_is_drawn_once(toy, density):
    model = toy().ready()
    made, scores = circuit(model, Target("head", 1), toy.shape, density)
    found = content(made, scores)
    drawn = {e.kernel: e for e in found.edges}
    effective = {
        (name, int(o), int(made.graph.layers[name].sources[o, i]))
        for name, kept in made.effective.kept.items()
        for o, i in kept.nonzero()
    }
    assert len(drawn) == len(found.edges) == made.effective.n_kept
    assert drawn.keys() == effective
    for (layer, o, i), edge in drawn.items():
        row = (made.graph.layers[layer].sources[o] == i).nonzero().item()
        assert edge.score == pytest.approx(float(scores.means[layer][o, row]))
        weight = made.graph.layers[layer].out_first(model.get_parameter(made.graph.layers[layer].weight).detach())[
            o, row
        ]
        assert edge.total == pytest.approx(float(weight.sum()), rel=1e-5)
        assert edge.balance == pytest.approx(float(weight.sum() / weight.abs().sum()), rel=1e-5)
    assert found.by_id[found.target].name == "head:1"
    assert found.by_id[found.target].is_target


def reaches(found: Content) -> set[str]:
    """Vertices on a path from an image channel to the target, by definition."""
    links = [*found.edges, *found.wires]
    forward = {v.id for v in found.vertices if v.block == "image"}
    back = {found.target}
    for _ in found.vertices:
        forward |= {link.target for link in links if link.source in forward}
        back |= {link.source for link in links if link.target in back}
    return (forward & back) | {found.target}


@pytest.mark.parametrize("toy", TOYS)
def test_nothing_is_drawn_off_the_paths(toy):
    for seed in range(4):
        made, scores = circuit(toy().ready(), Target("head", 1), toy.shape, 0.35, seed=seed)
        found = content(made, scores)
        if made.disconnected:
            assert ([v.name for v in found.vertices], found.edges, found.wires) == (["head:1"], (), ())
        else:
            assert reaches(found) == {v.id for v in found.vertices}


def test_a_concatenation_keeps_its_offsets():
    made, scores = circuit(Concat().ready(), Target("head", 0), Concat.shape, 1.0)
    into = {s for s, t in named(content(made, scores)) if t == "head:0"}
    assert into == {f"b:{i}" for i in range(4)} | {f"a:{i}" for i in range(3)} | {f"c:{i}" for i in range(5)}
    assert not content(made, scores).wires


def test_a_residual_sum_is_a_join_where_two_signals_meet():
    model = Residual().ready()
    made, scores = circuit(model, Target("head", 0), Residual.shape, 1.0)
    found = content(made, scores)
    joins = {v.channel: v for v in found.vertices if v.kind == "join"}
    assert {v.sign for v in joins.values()} == {"+"}
    assert set(joins) == set(range(5))
    assert {(s, t.split(":")[1]) for s, t in wired(found)} == {(f"{n}:{c}", str(c)) for n in "ac" for c in range(5)}
    assert {s for s, t in named(found) if t == "head:0"} == {v.name for v in joins.values()}


def test_a_join_with_one_signal_is_left_out():
    model = Residual().ready()
    made, _ = circuit(model, Target("head", 0), Residual.shape, 1.0)
    kept = {n: k.clone() for n, k in made.mask.kept.items()}
    kept["c"][[0, 1]] = False  # their sums have the shortcut only
    found = content(Circuit(model, made.target, type(made.mask)(kept, made.mask.relevant, "kernel", Residual.shape)))
    assert {v.channel for v in found.vertices if v.kind == "join"} == {2, 3, 4}
    assert {s for s, t in named(found) if t == "head:0" and s.startswith("a")} == {"a:0", "a:1"}
    assert found.measure == "Σ|w|"


def test_a_gate_joins_both_its_sources():
    made, scores = circuit(Gated().ready(), Target("head", 0), Gated.shape, 1.0)
    found = content(made, scores)
    gates = [v for v in found.vertices if v.kind == "join"]
    assert {v.sign for v in gates} == {"×"}
    for gate in gates:
        into = {found.by_id[w.source].name for w in found.wires if w.target == gate.id}
        assert into == {f"b:{gate.channel}", f"h:{gate.channel}"}


def test_targets_that_are_no_filter_have_a_vertex_of_their_own():
    model = Residual().ready()
    block = content(circuit(model, Target("nc", 2), Residual.shape, 1.0)[0])
    assert block.by_id[block.target].name == "c:2"  # a norm of its own: still the filter
    pair = parse_target("a:0 - 0.5*c:1")
    found = content(circuit(model, pair, Residual.shape, 1.0)[0])
    assert found.by_id[found.target].kind == "target"
    assert {s for s, t in wired(found) if t == "target"} == {"a:0", "c:1"}
    total = Compose(lambda m, x: m.sum(m.b(y := m.a(x)) + y), a=nn.Conv2d(3, 3, 1), b=nn.Conv2d(3, 3, 1), sum=nn.ReLU())
    found = content(circuit(total, Target("sum", 1), (3, 6, 6), 1.0)[0])
    assert found.by_id[found.target].name == "sum:1"
    assert [found.by_id[w.source].sign for w in found.wires if w.target == found.target] == ["+"]


def test_logits_and_loss():
    model, _, images = micro.toy("head", torch.float32)
    shape = tuple(images[0].shape)
    logit = content(circuit(model, Target.logit(2), shape, 0.8)[0])
    assert logit.by_id[logit.target].name == "fc2:2"
    loss = content(circuit(model, Loss(), shape, 1.0)[0])
    assert {s for s, t in wired(loss) if t == "target"} == {f"fc2:{i}" for i in range(4)}


@pytest.mark.parametrize("granularity", ["filter", "weight"])
def test_other_granularities(granularity):
    toy = TOYS[0]
    model = toy().ready()
    made, scores = connected(model, Target("head", 1), toy.shape, 0.6, granularity=granularity)
    found = content(made, scores)
    assert found.edges
    assert reaches(found) == {v.id for v in found.vertices}
    for edge in found.edges:
        layer, out, channel = edge.kernel
        kept = made.mask.kept[layer][out]
        assert bool(kept if granularity == "filter" else kept[channel].any())
        if granularity == "weight":  # what is not kept is zero in the picture too
            assert not edge.weights[~made.mask.kept[layer][out, channel].numpy()].any()
            assert edge.score == pytest.approx(float(scores.means[layer][out, channel].sum()))


def test_a_layer_that_runs_twice_stands_twice():
    model, _, images = micro.toy("reused", torch.float32)
    found = content(circuit(model, Target.logit(0), tuple(images[0].shape), 1.0)[0])
    blocks = {v.block for v in found.vertices}
    assert {"twice@0", "twice@1", "tied@0", "tied@1", "fc@0", "fc@1"} <= blocks
    assert ("twice@0:1", "twice@1:2") in named(found)


def test_a_flattened_map_is_one_edge_a_channel():
    model = Compose(lambda m, x: m.fc(F.relu(m.a(x)).flatten(1)), a=nn.Conv2d(3, 2, 3), fc=nn.Linear(8, 2))
    found = content(circuit(model, Target.logit(1), (3, 4, 4), 1.0)[0])
    into = [e for e in found.edges if e.target == found.target]
    assert [e.count for e in into] == [4, 4]
    weight = model.fc.weight[1].detach().view(2, 4)
    assert [e.total for e in into] == pytest.approx(weight.sum(1).tolist(), abs=1e-6)
    assert [e.magnitude for e in into] == pytest.approx(weight.abs().sum(1).tolist())


def test_filters_on_the_image_carry_their_kernel():
    toy = TOYS[0]
    model = toy().ready()
    made, scores = connected(model, Target("head", 1), toy.shape, 0.6)
    found = content(made, scores)
    first = [v for v in found.vertices if v.kernel is not None]
    assert {v.layer for v in first} == {"a"}
    for v in first:
        expected = (model.a.weight[v.channel] * made.mask.kept["a"][v.channel][:, None, None]).detach().float()
        effective = made.effective.kept["a"][v.channel]
        assert np.allclose(v.kernel[effective], expected[effective])


def test_mixing_norms_are_one_join_for_all_that_read_them():
    model, _, images = micro.toy("tokens", torch.float32)
    found = content(circuit(model, Target("mlp1", 0), tuple(images[0].shape), 1.0)[0])
    (mix,) = [v for v in found.vertices if v.kind == "join"]
    assert mix.sign == "mix"
    assert len([w for w in found.wires if w.target == mix.id]) == 5
    (edge,) = [e for e in found.edges if e.target == found.target]
    assert (edge.source, edge.count) == (mix.id, 5)


def test_scores_of_another_network_or_target_are_refused():
    toy = TOYS[0]
    made, scores = circuit(toy().ready(), Target("head", 1), toy.shape, 0.5)
    other = scored(toy().ready(), Target("b", 1), toy.shape)
    with pytest.raises(MaskError, match=r"scores \(of target b:1\) have no layer 'c'"):
        content(made, other)
    wrong = type(scores)(
        {"a": torch.ones(2, 3)}, {"a": torch.ones(2, 3).bool()}, 1, "kernel", "snip", "head:1", toy.shape
    )
    with pytest.raises(MaskError, match=r"scores of layer 'a', shape \(2, 3\), do not fit"):
        content(made, wrong)


def test_bundles_lose_nothing_but_detail():
    for toy in TOYS:
        made, scores = circuit(toy().ready(), Target("head", 1), toy.shape, 0.8)
        whole = content(made, scores)
        few = bundled(whole)
        assert sum(e.count for e in few.edges) == few.bundled == len(whole.edges)
        assert sum(e.score for e in few.edges) == pytest.approx(sum(e.score for e in whole.edges))
        pairs = {(whole.by_id[e.source].block, whole.by_id[e.target].block) for e in whole.edges}
        assert {(few.by_id[e.source].block, few.by_id[e.target].block) for e in few.edges} == pairs
        for e in few.edges:
            own = [
                k
                for k in whole.edges
                if (whole.by_id[k.source].block, whole.by_id[k.target].block)
                == (few.by_id[e.source].block, few.by_id[e.target].block)
            ]
            assert e.balance == pytest.approx(sum(k.total for k in own) / sum(k.magnitude for k in own))
        assert few.by_id[few.target].is_target
        assert reaches(few) == {v.id for v in few.vertices}


def test_the_model_is_untouched(shapesnet, shapes):
    before = {n: t.clone() for n, t in shapesnet.state_dict().items()}
    target = Target("features.8", 25)
    scores = score(shapesnet, target, shapes[0], criterion="actgrad")
    found = content(Circuit(shapesnet, target, scores.select(density=0.1)), scores)
    assert found.edges
    assert all(torch.equal(before[n], t) for n, t in shapesnet.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in shapesnet.parameters())


def residual_chain(depth: int) -> nn.Module:
    def run(m: nn.Module, x: Tensor) -> Tensor:
        x = m.stem(x)
        for block in m.blocks:
            x = F.relu(block(x) + x)
        return m.head(x)

    layers = {"stem": nn.Conv2d(3, 2, 1), "blocks": nn.ModuleList(nn.Conv2d(2, 2, 1) for _ in range(depth))}
    return Compose(run, **layers, head=nn.Conv2d(2, 1, 1))


def test_very_deep_networks():
    found = content(circuit(residual_chain(120), Target("head", 0), (3, 4, 4), 1.0)[0])
    assert len(found.edges) == 6 + 120 * 4 + 2
    assert sum(v.kind == "join" for v in found.vertices) == 240
