"""What scoring costs beside one forward and backward pass of the same truncated network.

    uv run python benchmarks/scoring.py [--pictures 20] [--pairs 5] [--criterion actgrad]

Pairs are run one after the other on one thread: our scoring of one target, and one forward + backward of the network
up to the target (parameter gradients, none for the images), with the same batch and memory layout. Printed are medians
of CPU seconds and of the ratios, and the peak of memory over the process's level before, each measured in a process of
its own.
"""

import argparse
import gc
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import torch
from torch import nn

import viscircuits as vc

NETWORKS = {
    "alexnet": "features.10",
    "squeezenet1_1": "features.12.expand3x3",
    "resnet18": "layer4.1.conv2",
    "vgg11": "features.18",
}
CHANNEL = 9


def setting(name: str, pictures: int) -> tuple[nn.Module, vc.Target, torch.Tensor]:
    """A network with random weights, a target, and random pictures; seeded."""
    model, _ = vc.zoo.load(name)
    images = torch.randn(pictures, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    return model, vc.Target(NETWORKS[name], CHANNEL), images


def ours(name: str, pictures: int, batch: int, criterion: str) -> Callable[[], object]:
    """Our scoring, traced beforehand."""
    model, target, images = setting(name, pictures)
    held = vc.ImageSet.from_tensors(images)
    vc.trace(model, images.shape[1:])
    return lambda: vc.score(model, target, held, criterion, batch_size=batch)


def forward_backward(name: str, pictures: int, batch: int, criterion: str) -> Callable[[], object]:
    """The yardstick: forward to the target and backward to all parameters."""
    model, target, images = setting(name, pictures)
    images = images.contiguous(memory_format=vc.trace(model, images.shape[1:]).memory_format)  # as ours
    reached: list[torch.Tensor] = []

    class Stop(Exception):
        pass

    def hook(module: nn.Module, inputs: object, output: torch.Tensor) -> None:
        reached.append(output)
        raise Stop

    model.get_submodule(target.layer).register_forward_hook(hook)

    def run() -> None:
        for start in range(0, pictures, batch):
            model.zero_grad()
            try:
                model(images[start : start + batch])
            except Stop:
                reached.pop()[:, CHANNEL].abs().sum().backward()

    return run


JOBS = {"ours": ours, "forward+backward": forward_backward}


def resident() -> float:
    """Resident memory of this process in MB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6


def peak(job: str, name: str, pictures: int, batch: int, criterion: str) -> float:
    """Peak memory of one run over the level before it, in MB; run in a fresh process."""
    JOBS[job](name, 1, 1, criterion)()  # loads libraries and compiled code, which are not the job's memory
    run = JOBS[job](name, pictures, batch, criterion)
    gc.collect()
    before, highest, done = resident(), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            highest[0] = max(highest[0], resident())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        run()
    finally:
        done.set()
        thread.join()
    return highest[0] - before


def pair(name: str, options: argparse.Namespace) -> tuple[float, float, float]:
    """Median CPU seconds of ours and of the yardstick, and the median of their ratios."""
    runs = [job(name, options.pictures, options.batch, options.criterion) for job in (ours, forward_backward)]
    times = []
    for turn in range(options.pairs + 1):
        once = []
        for run in runs:
            start = time.process_time()
            run()
            once.append(time.process_time() - start)
        if turn:  # the first warms up
            times.append(once)
    mine, theirs = zip(*times, strict=True)
    return statistics.median(mine), statistics.median(theirs), statistics.median(m / t for m, t in times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=20)
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--criterion", default="actgrad")
    parser.add_argument("--networks", nargs="*", default=["alexnet"])
    parser.add_argument("--peak", nargs=2, metavar=("JOB", "NETWORK"), help="internal: one memory measurement")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.peak:
        print(peak(*options.peak, options.pictures, options.batch, options.criterion))
        return
    print(f"{options.criterion}, {options.pictures} pictures at 224, batches of {options.batch}, one thread:")
    print("| network, target | ours, CPU s | forward+backward, CPU s | ratio | peak MB, ours | forward+backward |")
    print("|---|---|---|---|---|---|")
    for name in options.networks:
        peaks = []
        for job in JOBS:
            command = [sys.executable, __file__, "--peak", job, name, "--pictures", str(options.pictures)]
            command += ["--batch", str(options.batch), "--criterion", options.criterion]
            peaks.append(float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1]))
        mine, theirs, ratio = pair(name, options)
        numbers = f"{mine:.2f} | {theirs:.2f} | {ratio:.2f} | {peaks[0]:.0f} | {peaks[1]:.0f}"
        print(f"| {name} {NETWORKS[name]} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
