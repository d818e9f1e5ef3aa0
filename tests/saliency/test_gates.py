"""Gates against finite differences and circuits; the ladder's ranking on paper."""

import functools

import numpy as np
import pytest
import torch

from micro import TOYS
from micro import toy as new_toy
from viscircuits.execution.response import masked_weights
from viscircuits.mask import Mask
from viscircuits.saliency.engine.passes import Pass
from viscircuits.saliency.gates.gates import Gates, best, soft_top, soft_top_gradient
from viscircuits.saliency.gates.ladder import falling, nested, never_worse
from viscircuits.saliency.gates.training import FAINT, Disagreement, correlation_loss, difference_loss, first_logits

toy = functools.cache(new_toy)  # tracing is what takes long


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize("k", [0.5, 3.0, 17.3, 39.9])
@pytest.mark.parametrize("temperature", [0.01, 0.3, 5.0])
def test_soft_gates_sum_to_what_is_asked(k, temperature):
    gates = soft_top(random(40), k, temperature)
    assert float(gates.sum()) == pytest.approx(k, abs=1e-7)
    assert float(gates.min()) >= 0
    assert float(gates.max()) <= 1


def test_cold_gates_are_the_largest():
    logits = random(40)
    assert torch.allclose(soft_top(logits, 7.0, 1e-4), best(logits, 7).double(), atol=1e-6)
    assert best(torch.tensor([1.0, 2.0, 2.0, 2.0]), 2).tolist() == [False, True, True, False]


def test_gradient_of_soft_gates_is_a_finite_difference():
    logits, direction, k, temperature, step = random(12), random(12), 4.0, 0.7, 1e-5
    got = soft_top_gradient(soft_top(logits, k, temperature), direction, temperature)
    for i in range(12):
        up, down = (soft_top(logits + sign * step * torch.eye(12)[i], k, temperature) for sign in (1, -1))
        assert float(got[i]) == pytest.approx(float((up - down) @ direction) / (2 * step), abs=1e-6)
    assert float(got.sum()) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("granularity", ["weight", "kernel", "filter"])
@pytest.mark.parametrize("name", TOYS)
def test_binary_gates_are_a_mask_and_their_gradient_is_that_of_the_weights(name, granularity):
    model, target, images = toy(name)
    job = Pass(model, [target], images, granularity)
    gates = Gates(model, job.graph, job.relevant[0], granularity)
    kept = torch.rand(gates.count) < 0.6
    arrays = {n: a.bool() for n, a in gates.unflat(kept.double()).items()}
    mask = Mask(arrays, job.relevant[0], granularity, job.graph.input_shape)
    expected = masked_weights(model, job.graph, mask)
    got = gates.weights(kept.double())
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[n], expected[n]) for n in got)
    assert torch.equal(gates.flat(gates.unflat(random_values := random(gates.count))), random_values)

    # <dL/dw, w> over the structure's weights, for any function of the weights: here a random linear one
    values = torch.rand(gates.count, dtype=torch.float64, requires_grad=True)
    slopes = {n: torch.randn_like(w) for n, w in got.items()}
    (gradient,) = torch.autograd.grad(sum((w * slopes[n]).sum() for n, w in gates.weights(values).items()), values)
    by_layer = {}
    for layer in job.relevant[0]:
        weight = job.graph.layers[layer].weight
        product = job.graph.layers[layer].out_first(model.get_parameter(weight).detach() * slopes[weight])
        axes = {"weight": product.ndim, "kernel": 2, "filter": 1}[granularity]
        by_layer[layer] = product.flatten(axes).sum(axes) if product.ndim > axes else product
    assert torch.allclose(gradient, gates.flat(by_layer), rtol=1e-10, atol=1e-12)


def test_losses_are_their_definitions():
    a, b, c = random(5, 7), random(5, 7), random(9, 7)
    r = np.corrcoef(a.flatten(), b.flatten())[0, 1]
    assert float(correlation_loss(a, b, c)) == pytest.approx(1 - r, abs=1e-12)
    assert float(correlation_loss(3 * b + 2, b, c)) == pytest.approx(0, abs=1e-12)
    assert float(correlation_loss(b * FAINT / 10, b, b)) == pytest.approx(0.9, abs=1e-12)
    assert float(correlation_loss(torch.ones(5, 7), b.float(), c.float())) == 1
    assert float(difference_loss(a, b, c)) == pytest.approx(float((a - b).abs().mean() / c.abs().mean()), abs=1e-12)


@pytest.mark.parametrize("loss", [correlation_loss, difference_loss])
def test_a_response_that_a_step_leaves_silent_has_a_gradient(loss: Disagreement):
    some, none, every = random(5, 7).float(), torch.zeros(5, 7), random(9, 7).float()
    for circuit, full in ((some, none), (none, some), (none, none)):
        circuit = circuit.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(circuit, full, every), circuit)
        assert float(gradient.abs().max()) < 1 / FAINT


def test_first_logits_follow_the_start():
    start = torch.tensor([3.0, 1.0, 1.0, 9.0])
    logits = first_logits(start)
    assert logits.argsort(descending=True).tolist() == [3, 0, 1, 2]
    assert float(logits.sum()) == pytest.approx(0, abs=1e-12)


def test_ranking_of_nested_masks():
    start = falling(torch.tensor([6.0, 5.0, 4.0, 3.0, 2.0, 1.0]))
    masks = [torch.tensor(m, dtype=torch.bool) for m in ([0, 1, 0, 1, 1, 1], [0, 0, 0, 0, 1, 1])]
    logits = torch.tensor([0.0, -2.0, 0.0, 5.0, 1.0, 2.0])
    order = nested(masks, logits, start).argsort(descending=True).tolist()
    assert order == [5, 4, 3, 1, 0, 2]  # inside both by logit, inside the first by logit, the rest as the start has it


def test_ranking_is_nowhere_worse_than_the_start():
    start = falling(torch.tensor([6.0, 5.0, 4.0, 3.0, 2.0, 1.0]))
    ranking = falling(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))
    values = torch.tensor([9.0, 1.0, 1.0, 2.0, 2.0, 4.0])

    def worth(mask):
        return float(values[mask].sum())

    counts = [4, 2, 1]
    start_worths = [worth(best(start, k)) for k in counts]  # 13, 10, 9
    own = [worth(best(ranking, k)) for k in counts]  # 9, 6, 4
    repaired = never_worse(ranking, start, counts, own, start_worths, worth)
    assert repaired.argsort(descending=True)[:4].tolist() == [0, 1, 2, 3]  # worse at the largest: all are the start's

    start_worths[0] = own[0] = 9.0  # now only the small ones are worse: 0 and 1 come in, then the ranking's best
    repaired = never_worse(ranking, start, counts, own, start_worths, worth)
    assert repaired.argsort(descending=True).tolist() == [0, 1, 5, 4, 3, 2]
    assert worth(best(repaired, 4)) == 16

    assert torch.equal(never_worse(ranking, start, counts, own, [0.0, 0.0, 0.0], worth), ranking)
