"""`reconstruct` against removal done literally, a greedy search done literally, and controls."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

import viscircuits as vc
from micro import TOYS, pictures, toy
from small import SHAPE, small
from viscircuits.data.shapes import generate
from viscircuits.errors import MaskError
from viscircuits.model.calls import KernelCall
from viscircuits.model.instrument import keeping_copies, run
from viscircuits.planted import CASES, recovery
from viscircuits.saliency.engine.joint import blocks as sizes
from viscircuits.saliency.engine.joint.blocks import by_filter, input_blocks, matrix_bytes
from viscircuits.saliency.engine.joint.elimination import Layer, eliminated, hull
from viscircuits.saliency.engine.joint.moments import Moments, moments
from viscircuits.saliency.engine.joint.paths import Ranking
from viscircuits.saliency.engine.passes import Pass
from viscircuits.saliency.engine.rounds import schedule
from viscircuits.scores import Scores, kept_count
from viscircuits.target import Target

ALL = 10**6
"""More positions than any map here has: then nothing is drawn."""


@pytest.mark.parametrize("name", TOYS)
def test_the_cost_is_that_of_removing_kernels_from_the_layer(name):
    """Every kind of layer: what a call loses is computed by the layer's own function, with the weights removed."""
    model, target, images = toy(name)
    job = Pass(model, [target], images.subset((0, 1, 2)), batch_size=2)
    (readout,) = job.readouts
    found = moments(job, "", None, positions=ALL, seed=3)
    losses, slopes, removed = {}, {}, {}
    generator = torch.Generator().manual_seed(1)
    for layer, relevant in job.relevant[0].items():
        removed[layer] = relevant & (torch.rand(relevant.shape, generator=generator) < 0.6)
        removed[layer][tuple(relevant.nonzero()[0])] = True  # one at least

    def see(call: KernelCall) -> Tensor:
        """What the layer's own function makes of the removed weights alone, and the gradient of what it put out."""
        layer, axis = call.layer, call.channel_axis
        if layer.name not in removed:
            return call.output
        parts = removed[layer.name].reshape(*layer.shape, *[1] * len(layer.kernel_size))
        gone = layer.stored(layer.out_first(call.weight) * parts)
        loss = call.function(call.x.detach().clone(), gone, None, **call.options)
        losses.setdefault(layer.name, []).append(loss.movedim(axis, -1).reshape(-1, layer.out_channels))
        output = call.output + torch.zeros((), dtype=torch.float64, requires_grad=True)
        rows = slopes.setdefault(layer.name, [])
        output.register_hook(lambda g: rows.append(g.movedim(axis, -1).reshape(-1, layer.out_channels)))
        return output.clone()  # an activation in place may follow

    for i in range(3):
        with keeping_copies():  # some write over what their gradients need
            outputs = run(model, job.graph, images[i][None], readout.layers, see=see)
            response = readout.response(outputs, readout.freeze(outputs))[0]
            signs = torch.from_numpy(np.random.default_rng([3, i]).integers(0, 2, len(response)) * 2 - 1)
            (response * signs).sum().backward()
    for name_, relevant in job.relevant[0].items():
        layer, own = job.graph.layers[name_], found[name_]
        loss, slope = torch.cat(losses[name_]), torch.cat(slopes[name_])
        mean = loss.mean(0)
        second = loss.T @ loss / len(loss) - 0.9 * torch.outer(mean, mean)
        share = layer.out_channels // layer.groups
        same_group = torch.block_diag(*[torch.ones(share, share)] * layer.groups)
        expected = float((slope.T @ slope / 3 * second * same_group).sum())
        weight = job.weight(name_)[0].reshape(*layer.shape, -1)
        matrices = Layer(weight, own.covariance(0.1), own.gradients, relevant, layer.groups)
        assert expected > 0, name_
        assert abs(float(matrices.cost(removed[name_])) / expected - 1) < 1e-10, name_


def one_by_one(layer: Layer, removed: Tensor) -> tuple[list[int], list[float]]:
    """The order of a greedy search that tries every removal, and what each adds to the cost."""
    gone, order, costs = removed.clone(), [], [float(layer.cost(removed))]
    while bool((left := layer.relevant & ~gone).any()):
        tried = {}
        for k in left.flatten().nonzero()[:, 0].tolist():
            more = gone.clone()
            more.view(-1)[k] = True
            tried[k] = float(layer.cost(more))
        order.append(min(tried, key=lambda k: tried[k]))
        costs.append(tried[order[-1]])
        gone.view(-1)[order[-1]] = True
    return order, np.diff(costs).tolist()


def drawn(out: int, width: int, taps: int, groups: int = 1, per_group: int = 1, seed: int = 0) -> Layer:
    """A layer whose filters and inputs depend on each other."""
    generator = torch.Generator().manual_seed(seed)

    def moments_of(n: int, d: int) -> Tensor:
        x = torch.randn(n, 2 * d, d, generator=generator, dtype=torch.float64)
        x = x + x.roll(1, 2)
        return x.mT @ x

    weight = torch.randn(out, width, taps, generator=generator, dtype=torch.float64)
    relevant = torch.rand(out, width, generator=generator) < 0.8
    inputs = moments_of(groups * per_group, width // per_group * taps)
    return Layer(weight, inputs, moments_of(1, out)[0], relevant, groups)


@pytest.mark.parametrize(
    ("out", "width", "taps", "groups", "per_group"),
    [(4, 5, 1, 1, 1), (3, 4, 4, 1, 1), (6, 2, 9, 3, 1), (6, 1, 4, 6, 1), (4, 6, 2, 2, 3)],
)
@pytest.mark.parametrize("from_the_start", [0.0, 0.3])
def test_kernels_go_as_in_a_search_that_tries_every_removal(out, width, taps, groups, per_group, from_the_start):
    layer = drawn(out, width, taps, groups, per_group)
    removed = layer.relevant & (torch.rand(layer.relevant.shape) < from_the_start)
    order, rises = one_by_one(layer, removed)
    slopes = eliminated(layer, removed)
    expected = torch.zeros(out * width, dtype=torch.float64)
    expected[order] = torch.from_numpy(np.maximum(hull(np.array(rises)), 0))
    torch.testing.assert_close(slopes.flatten(), expected, rtol=1e-6, atol=1e-6)
    ranked = slopes.flatten().argsort(stable=True)
    assert [k for k in ranked.tolist() if k in set(order)] == order  # ties of the hull in order of removal


def test_the_hull_lies_below_the_curve_and_touches_it():
    rises = np.random.default_rng(0).normal(size=60)
    curve, lower = np.cumsum(rises), np.cumsum(hull(rises))
    assert (lower <= curve + 1e-12).all()
    assert (np.diff(hull(rises)) >= 0).all()
    assert lower[-1] == pytest.approx(curve[-1])
    # no line between two points of the curve passes below it
    points = np.concatenate([[0.0], curve])
    for a in range(60):
        for b in range(a + 1, 61):
            line = points[a] + (points[b] - points[a]) * (np.arange(a, b + 1) - a) / (b - a)
            assert (np.concatenate([[0.0], lower])[a : b + 1] <= line + 1e-9).all()


def test_filters_one_by_one_are_layers_whose_filters_share_nothing():
    layer = drawn(6, 4, 3, groups=2, per_group=2)
    apart = replace(layer, gradients=layer.gradients.diagonal().diag())
    together = eliminated(apart)
    for part, rows in layer.filters():
        assert eliminated(part)[0].argsort(stable=True).tolist() == together[rows][0].argsort(stable=True).tolist()


def test_kernels_that_cancel_cost_nothing_together():
    """Toy on paper: x and x again with weights 2 and -2, beside something else."""
    weight = torch.tensor([[[2.0], [-2.0], [1.0]]], dtype=torch.float64)
    inputs = torch.tensor([[[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]], dtype=torch.float64)
    layer = Layer(weight, inputs, torch.ones(1, 1, dtype=torch.float64), torch.ones(1, 3, dtype=torch.bool))
    assert layer.alone().tolist() == [[4.0, 4.0, 1.0]]
    assert float(layer.cost(torch.tensor([[True, True, False]]))) == 0.0
    # the third goes first, though: a greedy search does not see two steps ahead
    assert one_by_one(layer, torch.zeros(1, 3, dtype=torch.bool)) == ([2, 0, 1], [1.0, 4.0, -4.0])
    slopes = eliminated(layer)[0]
    assert slopes.tolist() == pytest.approx([1 / 3] * 3)  # the hull of 1, 4, -4
    assert slopes.argsort().tolist() == [2, 0, 1]


@pytest.mark.parametrize("case", ["cancelling", "either", "silent", "mixed"])
def test_planted_circuits_are_found(case):
    planted = CASES[case](seed=0)
    found = recovery(vc.score(planted.model, planted.target, planted.images, "reconstruct"), planted)
    assert found.recall == 1.0


def test_another_features_circuit_keeps_less():
    """The wrong target is the control. On a network this small it comes close, so the bar is low."""
    model, prepare = vc.zoo.load("shapesnet")
    images = vc.ImageSet.from_tensors(prepare(generate(60, seed=4).images))
    target, other = Target("features.8", 50), Target("features.8", 3)
    own, wrong = (vc.score(model, t, images.take(40, 0), "reconstruct").select(density=0.1) for t in (target, other))
    read = {"features.8": own.kept["features.8"]}
    keeps = [
        vc.preservation(vc.Circuit(model, target, mask.within(own.relevant)), images).pearson_within
        for mask in (own, replace(own, kept={n: k & own.relevant[n] for n, k in wrong.kept.items()} | read))
    ]
    assert keeps[0] > 0.9
    assert keeps[0] > keeps[1] + 0.05


@pytest.mark.parametrize("rounds", [1, 4])
def test_batches_threads_and_another_run_change_no_mask(rounds):
    model, images = small(), pictures(SHAPE, dtype=torch.float32)
    target, before = Target("second", 2), torch.get_num_threads()
    text = f"reconstruct,rounds={rounds},positions=20"  # of 256, so that what is drawn counts
    reference = vc.score(model, target, images, text, seed=5, batch_size=8).sums
    try:
        for threads, size in ((1, 1), (2, 3), (2, 8)):
            torch.set_num_threads(threads)
            again = vc.score(model, target, images, text, seed=5, batch_size=size).sums
            assert all(torch.equal(array, again[name]) for name, array in reference.items())
    finally:
        torch.set_num_threads(before)


def test_what_is_drawn_follows_the_seed():
    model, images = small(), pictures(SHAPE, dtype=torch.float32)
    job = Pass(model, [Target("second", 2)], images)
    one, other, same = (moments(job, "", None, positions=5, seed=seed)["first"] for seed in (0, 1, 0))
    assert torch.equal(one.inputs, same.inputs)
    assert not torch.equal(one.inputs, other.inputs)


def test_few_positions_give_nearly_the_moments_of_all():
    model, images = small(), pictures(SHAPE, dtype=torch.float64)
    job = Pass(model.double(), [Target("second", 2)], images)
    some, every = (moments(job, "", None, positions=p, seed=0)["second"] for p in (60, ALL))
    for drawn_, all_ in ((some.covariance(0.1), every.covariance(0.1)), (some.gradients, every.gradients)):
        assert float((drawn_ - all_).norm() / all_.norm()) < 0.3
    assert every.inputs[0, -1, -1] == 8 * 16 * 16  # patches


class Shared(torch.nn.Module):
    """One layer on a large map and on a small one, as heads of detectors are."""

    def __init__(self):
        super().__init__()
        self.head = torch.nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x):
        small = torch.nn.functional.avg_pool2d(x, 8)
        return self.head(x).mean((2, 3)) + self.head(small).mean((2, 3))


def test_calls_on_maps_of_several_sizes_weigh_what_they_are():
    torch.manual_seed(0)
    images = vc.ImageSet.from_tensors(torch.rand(40, 3, 32, 32))
    job = Pass(Shared().eval(), [vc.parse_target("logit:1")], images)
    some, every = (moments(job, "", None, positions=p, seed=0)["head"] for p in (60, ALL))
    assert float(every.inputs[0, -1, -1]) == pytest.approx(40 * (32 * 32 + 4 * 4))
    assert float(some.inputs[0, -1, -1]) == pytest.approx(40 * (32 * 32 + 4 * 4))
    assert float((some.covariance(0.1) - every.covariance(0.1)).norm() / every.covariance(0.1).norm()) < 0.1


def test_patches_in_chunks_are_the_same(monkeypatch):
    job = Pass(small().double(), [Target("second", 2)], pictures(SHAPE, dtype=torch.float64))
    whole = moments(job, "", None, positions=50, seed=0)
    monkeypatch.setattr("viscircuits.saliency.engine.joint.moments.CHUNK", 1)
    for name, parts in moments(job, "", None, positions=50, seed=0).items():
        torch.testing.assert_close(parts.inputs, whole[name].inputs, rtol=1e-12, atol=0)
        assert torch.equal(parts.gradients, whole[name].gradients)


def test_a_response_that_depends_on_nothing_is_refused():
    model, images = small(), pictures(SHAPE, dtype=torch.float32)
    net = torch.nn.Sequential(model, torch.nn.ReLU()).eval()
    with torch.no_grad():
        model.head.bias.fill_(-1e6)
    with pytest.raises(vc.TargetError, match=r"is the same whatever kernels do on these 8 images"):
        vc.score(net, "logit:1", images, "reconstruct")


def test_every_size_is_made_of_kernels_that_take_part():
    """By score alone a fifth of a sparse circuit leads nowhere."""
    torch.manual_seed(0)
    model, images = small(width=24), pictures(SHAPE, dtype=torch.float32)
    target = vc.parse_target("logit:1")
    scores = vc.score(model, target, images, "reconstruct")
    for density in (0.5, 0.2, 0.1, 0.05):
        circuit = vc.Circuit(model, target, scores.select(density=density))
        assert circuit.effective.n_kept >= 0.95 * circuit.mask.n_kept


def test_paths_come_before_scores():
    """A toy on paper: the best kernel of the first layer is worth nothing while none of the second reads it."""
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.ReLU(), torch.nn.Conv2d(2, 1, 1)).eval()
    readout = vc.Readout(Target("2", 0), vc.trace(model, (1, 4, 4)))
    kernels = {"0": torch.ones(2, 1, dtype=torch.bool), "2": torch.ones(1, 2, dtype=torch.bool)}
    scores = {"0": torch.tensor([[9.0], [5.0]]), "2": torch.tensor([[1.0, 7.0]])}
    # flat: 0 and 1 of the first layer, 2 and 3 of the second; 3 waits for 1, and 0 for 2
    assert Ranking(readout, kernels, scores).by_path().tolist() == [1, 3, 2, 0]


def test_rounds_give_up_what_the_round_before_gave_up():
    """Down to the first mask the order is that of one round; within it, it was measured again."""
    model, images = small(width=12), pictures(SHAPE, dtype=torch.float32)
    once = vc.score(model, "logit:1", images, "reconstruct")
    scores = vc.score(model, "logit:1", images, "reconstruct,rounds=4", density=0.1)
    assert scores.density is None  # one run serves all
    first = schedule(kept_count(0.1, once.n_relevant), once.n_relevant, 4)[0]
    for count in (first, (first + once.n_relevant) // 2):
        assert scores.select(count=count) == once.select(count=count)
    assert scores.select(count=first // 2) != once.select(count=first // 2)


def test_squares_that_overflow_half_precision_do_not_count_as_infinite():
    images = pictures(SHAPE, dtype=torch.float32)
    large = vc.ImageSet.from_tensors(torch.stack([images[i] for i in range(4)]) * 60)
    found = moments(Pass(small().bfloat16().half(), [Target("second", 2)], large), "", None, positions=ALL, seed=0)
    assert all(m.inputs.dtype == torch.float32 and bool(torch.isfinite(m.inputs).all()) for m in found.values())
    assert float(found["first"].inputs.max()) > 65504  # the largest number of half precision


def test_moments_that_are_not_finite_are_refused():
    model = small()
    with torch.no_grad():
        model.first.weight.mul_(1e25)
        model.second.weight.mul_(1e-25)
    with pytest.raises(MaskError, match="'second' are not finite"):
        vc.score(model, Target("second", 2), pictures(SHAPE, dtype=torch.float32), "reconstruct")


def test_moments_of_two_networks_are_pooled_at_one_size():
    inputs = torch.tensor([[[4.0, 2.0], [2.0, 2.0]]])
    full, masked = Moments(inputs, torch.eye(2) * 6), Moments(3 * inputs, torch.diag(torch.tensor([1.0, 0.0])))
    both = full.pooled(masked)
    assert both.inputs.tolist() == (4 * inputs).tolist()
    assert both.gradients.tolist() == [[9.0, 0.0], [0.0, 3.0]]  # (6 + 12) / 2, (6 + 0) / 2
    for nothing in (0.0, 1e-45):  # the second has no trace that one can divide by
        dead = full.pooled(Moments(inputs, torch.full((2, 2), nothing)))
        assert dead.gradients.tolist() == full.gradients.tolist()


def test_layers_too_large_for_memory_go_in_blocks_and_the_scores_say_so(tmp_path, monkeypatch):
    model, images = small(width=12), pictures(SHAPE, dtype=torch.float32)
    layers = vc.trace(model, SHAPE).layers
    whole = matrix_bytes(layers.values(), dict.fromkeys(layers, 1), 4)
    assert set(input_blocks(layers.values(), 3 * whole, 4).values()) == {1}
    blocks = input_blocks(layers.values(), whole, 4)
    assert blocks["second"] > 1 == blocks["head"]
    assert matrix_bytes(layers.values(), blocks, 4) <= sizes.SHARE * whole
    monkeypatch.setattr(sizes, "SHARE", whole / 2 / (2**31 + 2**26))
    scores = vc.score(model, "logit:1", images, "reconstruct")
    assert f"inputs of second in {blocks['second']} blocks" in scores.note
    scores.save(tmp_path / "s.safetensors")
    assert Scores.load(tmp_path / "s.safetensors").note == scores.note
    assert scores.note in repr(scores)


def test_a_limit_that_is_too_small_is_told_with_what_is_needed():
    with pytest.raises(vc.ImageError, match=r"takes \d+ MB for one picture at a time, and the memory limit is 1 MB"):
        vc.score(small(), "logit:1", pictures(SHAPE, dtype=torch.float32), "reconstruct", memory=10**6)


def test_filters_of_huge_layers_are_told_of(monkeypatch):
    model, images = small(), pictures(SHAPE, dtype=torch.float32)
    monkeypatch.setattr(sizes, "WORK", 1000)
    assert by_filter(vc.trace(model, SHAPE).layers["second"], 1)
    scores = vc.score(model, "logit:1", images, "reconstruct")
    assert "filters of second one by one" in scores.note
    assert vc.score(small(), "logit:1", images, "magnitude").note == ""


@pytest.mark.parametrize(("text", "options", "words"), [
    ("reconstruct", {"granularity": "filter"}, "scores kernels, not filters"),
    ("reconstruct", {"normalise": "minmax"}, "leave normalise out"),
    ("reconstruct,rounds=0", {}, "rounds"),
    ("reconstruct,positions=0", {}, "positions"),
    ("reconstruct,mean=1.5", {}, "mean 1.5 is out of range; expected a finite number from 0 to 1"),
    ("reconstruct,mean=all", {}, "expected a number, got 'all'"),
    ("reconstruct,steps=2", {}, "has no option 'steps'"),
])  # fmt: skip
def test_what_it_cannot_do_is_said_in_one_line(text, options, words):
    with pytest.raises(MaskError, match=words) as refused:
        vc.score(small(), "logit:1", pictures(SHAPE, dtype=torch.float32), text, **options)
    assert "\n" not in str(refused.value)
