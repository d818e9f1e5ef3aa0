"""Measuring: runs side by side, peaks of memory in fresh processes, exponents, and on which machine it was.

Seconds are those of the processor (user and system, all threads together) where there is one thread, so that others on
the machine disturb little; those of the wall with several threads or on a GPU.
"""

import ctypes
import gc
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Clock:
    """Reads the seconds that count on a device with some threads."""

    device: str = "cpu"
    threads: int = 1

    @property
    def unit(self) -> str:
        """What the seconds are."""
        return "CPU s" if self.device == "cpu" and self.threads == 1 else "wall s"

    def now(self) -> float:
        """Returns seconds from some moment."""
        if self.device != "cpu":
            torch.cuda.synchronize()
        return processor_seconds() if self.unit == "CPU s" else time.perf_counter()


def processor_seconds() -> float:
    """Returns user and system seconds of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


@dataclass(frozen=True)
class Turns:
    """Seconds of some runs, turn by turn, and what each returned last."""

    seconds: dict[str, list[float]]
    results: dict[str, Any]

    def median(self, name: str, per: int = 1) -> str:
        """Returns the median seconds of a run, over ``per``, as text."""
        return f"{statistics.median(self.seconds[name]) / per:.3g}"

    def ratio(self, ours: str, yardstick: str, per: int = 1) -> str:
        """Returns the median of ours over the yardstick (and over ``per``), with the smallest and the largest."""
        each = [a / b / per for a, b in zip(self.seconds[ours], self.seconds[yardstick], strict=True)]
        return f"{statistics.median(each):.2f} ({min(each):.2f}-{max(each):.2f})"


def side_by_side(runs: Mapping[str, Callable[[], Any]], turns: int, clock: Clock, *, warm: bool = False) -> Turns:
    """Returns the seconds of some runs, one after the other, again and again.

    Args:
        runs: what to measure, by name.
        turns: how often each is measured.
        clock: what measures.
        warm: whether all have run before, so that nothing is left to load, compile or plan.
    """
    measured = Turns({name: [] for name in runs}, {})
    for turn in range(0 if warm else -1, turns):
        for name, run in runs.items():
            gc.collect()
            start = clock.now()
            measured.results[name] = run()
            seconds = clock.now() - start
            if turn >= 0:
                measured.seconds[name].append(seconds)
                note(f"  turn {turn + 1} of {turns}: {name} {seconds:.2f} s")
    return measured


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Returns ``b`` of the line ``log value = a + b log size`` that fits best; 1 is proportional, 0 constant."""
    positive = [math.log(max(value, 1e-9)) for value in values]
    return statistics.linear_regression([math.log(size) for size in sizes], positive).slope


def peak(run: Callable[[], object], device: str) -> float:
    """Returns the peak of memory while something runs over the level before, in MB; call it in a fresh process."""
    gc.collect()
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    ctypes.CDLL(None).malloc_trim(0)  # what the C library keeps back would serve the run unseen
    Path("/proc/self/clear_refs").write_text("5")  # the highest level starts anew
    before = _highest()
    run()
    return (_highest() - before) / 1e6


def _highest() -> int:
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) * 1024


def fresh(function: Callable[..., Any], *arguments: Sequence[Any]) -> list[Any]:
    """Returns what a function makes of each set of arguments, in new processes that run at the same time."""
    with ProcessPoolExecutor(len(arguments), mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        return [job.result() for job in [pool.submit(function, *each) for each in arguments]]


def note(text: str) -> None:
    """Tells how far it is, beside what is printed as a result."""
    print(text, file=sys.stderr, flush=True)


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Returns a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def machine(clock: Clock) -> str:
    """Returns on what it runs, in words."""
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    cores = f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores ({clock.threads} thread(s) used)"
    gpu = "" if clock.device == "cpu" else f"{torch.cuda.get_device_name()}; "
    return f"{gpu}{cores}, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}"


def commit() -> str:
    """Returns the commit that is checked out, and whether the sources differ from it."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    changed = git("status", "--porcelain", "--", "src", "benchmarks")
    return git("rev-parse", "--short", "HEAD") + (" and uncommitted changes" if changed else "")
