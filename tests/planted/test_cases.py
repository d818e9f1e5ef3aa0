"""What is said of the planted circuits, measured: each is enough, each of its kernels is needed, nothing else is."""

from functools import cache

import pytest
import torch
import torch.nn.functional as F

from viscircuits.circuit.circuit import Circuit
from viscircuits.mask import Mask
from viscircuits.planted import CASES, Planted
from viscircuits.planted.recovery import agreement

SEEDS = (0, 1)
NOT_TRUE = {"copy": ("second",), "silent": ("decoy",), "cancelling": ("decoy",)}  # parts beside the truth

built = cache(lambda name, seed: CASES[name](seed))
every_case = pytest.mark.parametrize("name", CASES)


def everything(case: Planted) -> Mask:
    return case.truth | ~case.truth


def beside(case: Planted) -> Mask:
    """The kernels that belong to nothing planted."""
    rest = ~case.truth
    for part in case.parts.values():
        rest = rest - part
    return rest


def singles(mask: Mask, step: int = 1) -> list[Mask]:
    """Every step-th kernel of a mask as a mask."""
    found = []
    for name, kept in mask.kept.items():
        for place in kept.nonzero().tolist():
            one = {n: torch.zeros_like(k) for n, k in mask.kept.items()}
            one[name][tuple(place)] = True
            found.append(Mask(one, mask.relevant, "kernel", mask.input_shape))
    return found[::step]


def half(mask: Mask, seed: int) -> Mask:
    generator = torch.Generator().manual_seed(seed)
    kept = {n: k & (torch.rand(k.shape, generator=generator) < 0.5) for n, k in mask.kept.items()}
    return Mask(kept, mask.relevant, "kernel", mask.input_shape)


def peaks(case: Planted, mask: Mask, label: str) -> torch.Tensor:
    """The largest response to each held-out picture of a class, above the response to nothing."""
    images = case.held_out.select_classes(label)
    values = Circuit(case.model, case.target, mask).respond(images)
    return values.amax(1) - values.median()


@pytest.mark.parametrize("seed", SEEDS)
@every_case
def test_each_true_circuit_alone_keeps_the_target(name, seed):
    case = built(name, seed)
    assert all(agreement(truth, case) >= 0.99 for truth in case.alternatives)
    assert {truth.n_kept for truth in case.alternatives} == {case.truth.n_kept}


@every_case
def test_every_true_kernel_is_needed(name):
    case = built(name, 1)
    for truth in case.alternatives:
        assert max(agreement(truth - kernel, case) for kernel in singles(truth)) <= agreement(truth, case) - 0.05


@every_case
def test_the_rest_adds_nothing(name):
    case = built(name, 1)
    for draw in range(3):
        assert agreement(case.truth | half(beside(case), draw), case) >= 0.985
    for part in NOT_TRUE.get(name, ()):
        assert agreement(case.truth | case.parts[part], case) >= 0.99


@every_case
def test_the_rest_cannot_replace_it(name):
    case = built(name, 1)
    without = agreement(everything(case) - case.truth, case)
    assert without >= 0.99 if name == "copy" else without <= 0.4


@every_case
def test_no_other_kernel_is_needed(name):
    case = built(name, 0)
    whole = everything(case)
    others = singles(beside(case), step=60)
    assert len(others) >= 9
    assert min(agreement(whole - kernel, case) for kernel in others) >= 0.998


@every_case
def test_every_kernel_is_relevant_and_the_truth_is_small(name):
    case = built(name, 0)
    assert 100 <= case.truth.n_relevant <= 1000
    assert case.truth.density < 0.03
    weights = {n: m.weight for n, m in case.model.named_children() if hasattr(m, "weight")}
    assert {n: r.any(1).sum() * r.shape[1] for n, r in case.truth.relevant.items()} == {
        n: w.shape[1] * (1 if n == "conv4" else w.shape[0]) for n, w in weights.items()
    }


@every_case
def test_case_is_seeded_and_ready(name):
    state = torch.get_rng_state()
    one, two, other = built(name, 0), CASES[name](0), built(name, 1)
    assert torch.equal(state, torch.get_rng_state())
    assert one.images.hash == two.images.hash != other.images.hash
    assert not {*one.images.hashes} & {*one.held_out.hashes}
    weights, again, others = (torch.cat([p.flatten() for p in c.model.parameters()]) for c in (one, two, other))
    assert torch.equal(weights, again)
    assert not torch.equal(weights, others)
    assert one.truth == two.truth
    assert weights.dtype == torch.float32
    assert not one.model.training
    assert one.name == name


@pytest.mark.parametrize("name", ["suppressed", "cancelling"])
def test_scales_of_hidden_channels_change_nothing(name):
    even, scaled = CASES[name](3, octaves=0), CASES[name](3, octaves=3)
    assert even.truth == scaled.truth
    assert not torch.equal(even.model.conv2.weight, scaled.model.conv2.weight)
    images = next(even.images.batches(96)).images
    with torch.no_grad():
        a, b = even.model(images), scaled.model(images)
    assert (a - b).abs().max() <= 1e-5 * a.abs().max()


def test_the_or_is_what_is_written():
    """The truth's response, computed from the definition of the two detectors."""
    case = built("either", 0)
    x = next(case.held_out.batches(96)).images
    line = torch.tensor([[-1.0, -1, -1], [2, 2, 2], [-1, -1, -1]]) / 6
    slope = torch.tensor([[2.0, -1, -1], [-1, 2, -1], [-1, -1, 2]]) / 6
    lines = [(0, line), (0, line.T), (2, slope), (2, slope.fliplr())]
    seen = [F.relu(F.conv2d(x[:, c : c + 1], k[None, None], padding=1) - 0.1)[:, 0] for c, k in lines]
    padded = [F.pad(s, (1, 1, 1, 1)) for s in seen]
    across, upright, falling, rising = padded
    corner = F.relu(2 * across[:, 1:-1, 2:] + 2 * upright[:, 2:, 1:-1] - 2.35)
    chevron = F.relu(2 * falling[:, :-2, :-2] + 2 * rising[:, :-2, 2:] - 2.75)
    expected = sum(9 * gain * F.avg_pool2d(m, 3, 1, 1) for gain, m in ((1.0, corner), (0.6, chevron)))
    values = Circuit(case.model, case.target, case.truth).respond(case.held_out)
    assert (values - expected.flatten(1)).abs().max() <= 1e-5


def test_detectors_of_the_or_are_independent():
    case = built("either", 0)
    corner, chevron = case.parts["corner"], case.parts["chevron"]
    assert (corner & chevron).n_kept == 0
    assert corner | chevron == case.truth
    for part, own, other in ((corner, "corner", "chevron"), (chevron, "chevron", "corner")):
        assert peaks(case, part, own).median() >= 0.4
        assert peaks(case, part, other).max() <= 1e-5
        assert peaks(case, part, "neither").max() <= 1e-5
        assert peaks(case, everything(case), own).median() >= 0.4
    assert peaks(case, everything(case), "neither").max() <= 0.1


def test_copies_share_nothing_and_are_equal():
    case = built("copy", 0)
    first, second = (Circuit(case.model, case.target, m).respond(case.held_out) for m in case.alternatives)
    assert (case.alternatives[0] & case.alternatives[1]).n_kept == 0
    assert torch.allclose(first, second, atol=1e-5)


def test_green_lines_suppress_corners():
    case = built("suppressed", 0)
    free, crossed = (peaks(case, case.truth, label).mean() for label in ("corner", "crossed"))
    assert crossed < 0.4 * free
    excite = case.parts["excite"]
    assert peaks(case, excite, "crossed").mean() > 0.8 * free
    assert case.parts["suppress"].n_kept == 3
    assert agreement(excite, case) <= 0.9


def test_silent_decoy_is_large_and_never_acts():
    case = CASES["silent"](0, octaves=0)
    decoy, whole = case.parts["decoy"], everything(case)
    sizes = {name: getattr(case.model, name).weight.detach().abs().mean((2, 3)) for name in case.truth.kept}
    largest = max(float(sizes[n][k & ~decoy.kept[n]].max()) for n, k in decoy.relevant.items())
    assert min(float(sizes[n][k].min()) for n, k in decoy.kept.items() if n != "conv4") > 0.4
    assert max(float(sizes[n][k].max()) for n, k in decoy.kept.items()) >= 4 * largest
    assert decoy.n_kept == 6
    full, without = (Circuit(case.model, case.target, m).respond(case.images) for m in (whole, whole - decoy))
    assert torch.equal(full, without)


def test_cancelling_decoy_acts_in_each_half_and_not_as_a_whole():
    case = built("cancelling", 0)
    decoy, whole = case.parts["decoy"], everything(case)
    with_it, without = (
        Circuit(case.model, case.target, m).respond(case.images) for m in (case.truth | decoy, case.truth)
    )
    assert (with_it - without).abs().max() <= 1e-5
    assert agreement(whole - decoy, case) >= 0.998  # the branches leak a little to bystanders
    assert max(agreement(whole - kernel, case) for kernel in singles(decoy)) <= 0.8
    assert peaks(case, decoy, "chevron").max() <= 1e-5


def test_meanings_share_their_first_layer():
    case = built("mixed", 0)
    down, up = case.parts["down"], case.parts["up"]
    assert (down & up).counts["conv1"] == (2, 48)
    assert down.iou(up) == 2 / 10
    for part, own, other in ((down, "down", "up"), (up, "up", "down")):
        assert peaks(case, part, own).median() >= 0.25
        assert peaks(case, part, other).max() <= 1e-5
    assert peaks(case, case.truth, "up").mean() < 0.75 * peaks(case, case.truth, "down").mean()
