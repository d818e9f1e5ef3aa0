"""Several targets in one pass, and passes cut to a memory limit: the same scores, for less."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from micro import TOYS, pictures, randomised
from micro import toy as new_toy
from viscircuits.errors import ImageError
from viscircuits.model.small.footprint import activation_bytes, kernel_output_bytes
from viscircuits.model.trace import trace
from viscircuits.model.zoo.zoo import load
from viscircuits.readout import Readout
from viscircuits.saliency.engine import fused
from viscircuits.saliency.engine.plan import MEMORY, Plan, plan
from viscircuits.saliency.registry import CRITERIA, needs_density, score, score_all
from viscircuits.target import Loss, Target, parse_target


def neighbours(model, target, images):
    """The target, every other channel of its layer, and one reading at its largest value."""
    if isinstance(target, Loss) or len(target.terms) > 1 or target.channel is None:
        return [target, target]
    output = trace(model, images[0].shape).output(target.layer)
    every = [replace(target, channel=c) for c in range(output.n_channels)]
    if output.map_shape and target.position is None:
        every.append(replace(target, position="max"))
    return every


@pytest.mark.parametrize("granularity", ["kernel", "filter"])
@pytest.mark.parametrize("name", TOYS)
def test_targets_scored_together_have_the_scores_they_have_alone(name, granularity):
    model, target, images = new_toy(name)
    images = images.subset(range(3))
    targets = neighbours(model, target, images)
    # not reconstruct, whose order is that of a search: equal to the bit, or not at all
    for criterion in CRITERIA.keys() - {
        "reconstruct",
        "learned",
    }:  # which trains, so that the last digits of the gradients grow
        density = 0.5 if needs_density(criterion) else None
        options = {"granularity": granularity, "density": density}
        together = list(score_all(model, targets, images, criterion, **options))
        assert [s.target for s in together] == [str(t) for t in targets]
        for one, shared in zip(targets, together, strict=True):
            alone = score(model, one, images, criterion, batch_size=2, **options)
            assert shared.n_images == alone.n_images
            assert list(shared.sums) == list(alone.sums)
            for layer, values in alone.sums.items():
                assert torch.equal(shared.relevant[layer], alone.relevant[layer])
                assert torch.allclose(shared.sums[layer], values, rtol=0, atol=1e-10 * float(values.max()) + 1e-30)


def test_targets_of_several_layers_come_in_the_order_they_were_asked_in():
    model, _, images = new_toy("plain")
    targets = [parse_target(t) for t in ("conv2:1", "conv3:0", "conv2:0", "fc1:2", "fc1:3", "conv1:0 + fc2:1")]
    found = list(score_all(model, targets, images, "actgrad"))
    assert [s.target for s in found] == [str(t) for t in targets]
    for target, shared in zip(targets, found, strict=True):
        alone = score(model, target, images, "actgrad")
        assert list(shared.sums) == list(alone.sums)
        assert all(torch.allclose(shared.sums[n], alone.sums[n], rtol=1e-10) for n in alone.sums)


def test_scores_come_one_by_one():
    model, _, images = new_toy("plain")
    reports = []
    targets = [Target("fc2", channel=c) for c in (0, 1, 2, 3)] * 4
    stream = score_all(model, targets, images, "actgrad", progress=lambda *done: reports.append(done))
    next(stream)
    batches = [report for report in reports if report[0] == "actgrad"]
    assert batches == [("actgrad", 8, 8)]  # for the first eight of sixteen
    assert len(list(stream)) == 15
    assert [report for report in reports if report[0] == "actgrad"] == 2 * batches


def test_compiling_is_a_step_of_its_own():
    model, target, images = new_toy("plain")
    reports = []
    score(model, target, images, progress=lambda *done: reports.append(done))
    assert reports[0] == ("compiling loops", 0, 2)  # 3x2 and 3x3
    assert reports[2] == ("compiling loops", 2, 2)


# ---- what is shared, counted -----------------------------------------------------------------------------------------


def counted(monkeypatch, run) -> tuple[int, int]:
    """Multiplications in matrix products and convolutions of torch, and in the compiled loops."""
    loops = [0]
    compiled = fused.compiled

    def counting(kind, dtype, n_taps=0):
        loop = compiled(kind, dtype, n_taps)

        def count(*arrays):
            if kind != "lay":
                lines, _, weighting, _, length, _, first, last = arrays
                share = 2 if kind == "alone" else 1  # filters a step
                sums = 1 if kind == "alone" else len(weighting)
                loops[0] += int(length) * len(lines) * (last - first) * share * (n_taps + sums)
            loop(*arrays)

        return count

    monkeypatch.setattr(fused, "compiled", counting)
    with FlopCounterMode(display=False) as counter:
        run()
    monkeypatch.undo()
    return counter.get_total_flops() // 2, loops[0]


@pytest.fixture(scope="module")
def small():
    """A network like AlexNet's features, on pictures of 64 pixels."""
    model = randomised(load("alexnet", input_size=64)[0]).float()
    trace(model, (3, 64, 64))
    return model, pictures((3, 64, 64), n=4, dtype=torch.float32)


def test_scoring_multiplies_no_more_than_training_would(monkeypatch, small):
    """ActGrad: forward, backward to activations, and the maps: 1.1 times forward and backward to the weights."""
    model, images = small
    torch_ops, loops = counted(monkeypatch, lambda: score(model, Target("features.10", 5), images, "actgrad"))

    stack = torch.stack([images[i] for i in range(len(images))])
    weights = [p for n, p in model.named_parameters() if n.startswith("features")]

    def training():
        model.features[:11](stack)[:, 5].abs().sum().backward(inputs=weights)

    yardstick, _ = counted(monkeypatch, training)
    model.zero_grad(set_to_none=True)
    assert loops > 0
    assert torch_ops <= 0.70 * yardstick
    assert torch_ops + loops <= 1.7 * yardstick  # small maps: padding and the taps at their borders weigh more


def test_eight_targets_share_the_forward_pass_and_the_maps(monkeypatch, small):
    model, images = small
    one = counted(monkeypatch, lambda: score(model, Target("features.10", 0), images, "actgrad"))
    targets = [Target("features.10", c) for c in range(8)]
    eight = counted(monkeypatch, lambda: list(score_all(model, targets, images, "actgrad")))
    assert sum(eight) <= 0.45 * 8 * sum(one)
    assert eight[1] <= 0.25 * 8 * one[1]  # the compiled loops: (9 + 8) products for 8 instead of 8 (9 + 1)


def test_the_layer_of_the_target_computes_the_target_alone(monkeypatch, small):
    model, images = small
    deep = counted(monkeypatch, lambda: score(model, Target("features.10", 0), images, "snip"))[0]
    before = counted(monkeypatch, lambda: score(model, Target("features.8", 0), images, "snip"))[0]
    positions = trace(model, images[0].shape).output("features.10").map_shape
    whole = len(images) * 256 * 256 * 9 * positions[0] * positions[1]
    assert deep - before < 3 * 1.2 * len(images) * 256 * 384 * 9 * positions[0] * positions[1] + 0.1 * whole


# ---- memory ----------------------------------------------------------------------------------------------------------


def test_plan_by_hand():
    model, _ = load("alexnet")
    graph = trace(model, (3, 224, 224))
    readouts = [Readout(Target("features.0", channel=c), graph) for c in range(3)]
    output = 4 * 64 * 55 * 55
    image = 4 * 3 * 224 * 224
    assert kernel_output_bytes(graph, ["features.0"]) == output
    assert activation_bytes(graph, ["features.0"]) == image + output
    workspace, sums = 2**25, 16 * 64 * 3

    def limit(needed: int) -> int:
        return -(-needed * 8 // 7)  # an eighth is for what is beside the pass

    assert plan(readouts[:1], memory=limit(workspace + sums + 3 * (image + 2 * output))) == Plan(3, targets=1)
    assert plan(readouts, memory=limit(workspace + 3 * sums + 2 * (image + 4 * output))) == Plan(2, targets=3)
    assert plan(readouts, memory=limit(workspace + sums + image + 3 * output)) == Plan(1, targets=1)
    assert plan(readouts, batch_size=5) == Plan(batch_size=5, targets=3)
    assert plan(readouts, memory=MEMORY).batch_size == 16


def test_memory_below_one_picture_is_one_line():
    model, target, images = new_toy("plain")
    with pytest.raises(ImageError, match=r"takes \d+ MB for one picture.*limit is 1 MB"):
        score(model, target, images, memory=10**6)


_PEAK = """
import gc, sys, torch
import viscircuits as vc
def highest():
    with open("/proc/self/status") as file:
        return int(next(line.split()[1] for line in file if line.startswith("VmHWM"))) * 1024
torch.set_num_threads(1)
model, _ = vc.zoo.load("squeezenet1_1", input_size=96)
images = vc.ImageSet.from_tensors(torch.rand(1, 3, 96, 96).expand(int(sys.argv[1]), -1, -1, -1))
targets = [vc.Target("features.7.expand3x3", channel=c) for c in range(int(sys.argv[2]))]
for some in (1, 2):
    list(vc.score_all(model, targets[:some], images.subset(range(2)), batch_size=2))
gc.collect()
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # the peak starts anew
before = highest()
for scores in vc.score_all(model, targets, images, memory=int(sys.argv[3])):
    pass
print(highest() - before)
"""


def peak(n_images: int, n_targets: int, memory: int) -> int:
    command = [sys.executable, "-c", _PEAK, str(n_images), str(n_targets), str(memory)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from Linux's /proc")
@pytest.mark.slow
def test_memory_is_bounded_and_does_not_grow_with_pictures_or_targets():
    few, more, many = peak(10, 1, 10**8), peak(50, 1, 10**8), peak(10, 12, 10**8)
    assert max(few, more, many) <= 10**8
    assert more <= 2 * few  # what an allocator keeps varies; five times the pictures could be five times the memory


class Branches(torch.nn.Module):
    """One layer feeds both branches and is then overwritten in place; each target reads one branch."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.left, self.right = (torch.nn.Conv2d(2, 2, 3, padding=1) for _ in range(3))

    def forward(self, x):
        y = self.stem(x)
        left = self.left(y)
        right = self.right(torch.sin(y))
        y.mul_(0.0)
        return torch.cat([left, right], 1)


def test_targets_on_branches_of_their_own():
    """A call that only one target depends on is finished too, also where its input has been overwritten since."""
    model = randomised(Branches()).double()
    images = pictures((2, 6, 6), n=3)
    targets = [Target("", channel=0), Target("", channel=3)]
    for one, shared in zip(targets, score_all(model, targets, images, "actgrad"), strict=True):
        alone = score(model, one, images, "actgrad")
        assert list(shared.sums) == list(alone.sums)
        assert all(torch.allclose(shared.sums[n], alone.sums[n], rtol=1e-10) for n in alone.sums)
        assert all(float(v.max()) > 0 for v in shared.sums.values())
