"""What scoring with `reconstruct` costs beside one forward and backward pass; run by benchmarks/reconstruct.py cost."""

import resource
from collections.abc import Callable
from time import process_time

import criteria
import torch

import viscircuits as vc
from viscircuits.saliency.engine.plan import MEMORY

TARGETS = (vc.Target("features.7.expand3x3", 77), vc.Target("features.12.expand3x3", 20))
PICTURES, BATCH = 200, 16
REPEATS = 2


def one_pass(model: torch.nn.Module, target: vc.Target, images: vc.ImageSet) -> None:
    """The target's response, and its gradient at every weight below it."""
    layers = dict(model.named_children())["features"]
    index = int(target.layer.split(".")[1])
    seen: list[torch.Tensor] = []
    handle = model.get_submodule(target.layer).register_forward_hook(lambda *given: seen.append(given[2]))
    for start in range(0, len(images), BATCH):
        x = torch.stack([images[i] for i in range(start, min(start + BATCH, len(images)))])
        for layer in list(layers.children())[: index + 1]:
            x = layer(x)
        seen.pop()[:, target.channel].sum().backward()
        model.zero_grad(set_to_none=True)
    handle.remove()


def seconds(work: Callable[[], object]) -> float:
    """The least processor time of some runs."""
    times = []
    for _ in range(REPEATS):
        started = process_time()
        work()
        times.append(process_time() - started)
    return min(times)


def peak() -> int:
    """The most memory that this process has held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure() -> None:
    """Prints the table."""
    job = criteria.squeezenet1_1()
    images = job.scoring.take(PICTURES, 0)
    vc.score(job.model, TARGETS[0], images.take(4, 0), "reconstruct")  # compiles
    before = peak()
    for target in TARGETS:
        once = seconds(lambda: one_pass(job.model, target, images))  # noqa: B023, called at once
        print(f"{target}: one forward and backward pass of {PICTURES} pictures {once:.1f} s")
        for criterion in ("reconstruct", "reconstruct,rounds=5"):
            took = seconds(lambda: vc.score(job.model, target, images, criterion))  # noqa: B023
            print(f"  {criterion}: {took:.1f} s, {took / once:.2f} passes")
    print(
        f"peak memory above the loaded model and pictures: {(peak() - before) / 2**20:.0f} MiB "
        f"(limit {MEMORY / 2**20:.0f})"
    )
