"""What 200 questions to one model cost when eight threads ask them: processor seconds over those of one thread.

    uv run python benchmarks/threads.py

Torch works with one thread. On one core nothing but our own work can cost more; on several, threads that pass Python's
lock between cores do, in plain torch too (the yardstick: forward and backward passes of the same model).
"""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from threading import Lock, Thread

import torch
from timing import Clock, machine, table
from torch import Tensor, nn

import viscircuits as vc
from viscircuits.activations.top import top_activations
from viscircuits.model.trace import trace

SHAPE = (3, 16, 16)
TRIES = 5
Question = Callable[[int], object]


class Small(nn.Module):
    """A residual network of two convolutions: all of a question is Python."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Returns scores of four classes."""
        x = torch.relu(self.first(x))
        return self.head((x + torch.relu(self.second(x))).mean((2, 3)))


def ours(model: nn.Module, images: vc.ImageSet) -> list[Question]:
    """Returns seven kinds of question, about the channel of a number."""

    def target(i: int) -> vc.Target:
        return vc.Target("second", i % 6)

    def circuit(i: int) -> vc.Circuit:
        return vc.find(model, target(i), images, criterion="snip", density=0.5)

    return [
        lambda i: [vc.score(model, target(i), images, criterion) for criterion in ("actgrad", "snip")],
        lambda i: vc.respond(model, vc.Readout(target(i), trace(model, SHAPE)), images),
        lambda i: vc.preservation(circuit(i), images),
        lambda i: circuit(i).extract()(torch.ones(2, *SHAPE)),
        lambda i: top_activations(model, ["first", "second"], images, 3),
        lambda i: vc.render(model, target(i), size=SHAPE[1], steps=6),
        lambda i: vc.diagram(circuit(i), images=images, pictures="none").svg(),
    ]


def plain(model: nn.Module, images: Tensor) -> list[Question]:
    """Returns the yardstick: as much time in forward and backward passes of plain torch."""

    def passes(i: int) -> None:
        for _ in range(20):
            torch.autograd.grad(model(images)[:, i % 4].sum(), list(model.parameters()))

    return [passes]


def ratio(questions: Sequence[Question], n: int = 200, *, locked: bool = False) -> float:
    """Returns what eight threads took, over one thread; behind a lock of the caller's own, one asks at a time."""
    lock = Lock() if locked else nullcontext()

    def ask(numbers: Sequence[int]) -> None:
        torch.set_num_threads(1)  # torch's convolutions ask for a thread's own number
        for i in numbers:
            with lock:
                questions[i % len(questions)](i // len(questions))

    ask(range(len(questions)))  # what is made once, is made
    start = time.process_time()
    ask(range(n))
    alone = time.process_time() - start
    threads = [Thread(target=ask, args=[range(k, n, 8)]) for k in range(8)]
    start = time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return (time.process_time() - start) / alone


def main() -> None:
    """Prints one row a kind of asking."""
    torch.manual_seed(0)
    model, images = Small().eval(), torch.randn(8, *SHAPE)
    cores = sorted(os.sched_getaffinity(0))
    mine = ours(model, vc.ImageSet.from_tensors(images))
    rows = []
    for used in (cores[:1], cores):
        os.sched_setaffinity(0, used)
        for name, questions, locked in (
            ("ours", mine, False), ("ours, one at a time", mine, True), ("plain torch", plain(model, images), False),
        ):  # fmt: skip
            found = sorted(ratio(questions, locked=locked) for _ in range(TRIES))
            rows.append([str(len(used)), name, f"{found[TRIES // 2]:.2f} ({found[0]:.2f}-{found[-1]:.2f})"])
    print(table(["cores", "asked", "eight threads over one, CPU s"], rows))
    print(f"\n`uv run python benchmarks/threads.py`; {machine(Clock())}")


if __name__ == "__main__":
    main()
