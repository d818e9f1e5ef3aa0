"""The parts of the speed benchmark that compare two runs; each returns a paragraph and a table of ratios."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from timing import Clock, fresh, note, peak, side_by_side, table
from yardsticks import (
    CHANNEL,
    NETWORKS,
    Run,
    Setting,
    circuits,
    dense,
    from_definition,
    masks,
    natural,
    noise,
    scoring,
    textbook,
    training,
    unlike,
)

from viscircuits.evaluate.question import PAPER_DENSITIES

SWEPT = ("squeezenet1_1", "alexnet")


@dataclass(frozen=True)
class Options:
    """What the command line says, with a part's own defaults."""

    pictures: int
    pairs: int
    channels: int
    networks: tuple[str, ...]
    criteria: tuple[str, ...]
    batch: int
    room: int
    clock: Clock

    def setting(self, name: str, make: Callable[..., Setting] = noise) -> Setting:
        """Returns a network and its pictures."""
        return make(name, self.pictures, self.batch, self.clock.device)


def job(kind: str, setting: Setting, options: Options, size: int = 1) -> Run:
    """Returns what a name stands for: a criterion, or a yardstick; ``size`` is the number of targets or densities."""
    if kind in ("actgrad", "snip"):
        return scoring(setting, kind, range(size) if size > 1 else (CHANNEL,))
    if kind in ("circuits", "dense evaluation"):
        kept = masks(setting, options.criteria[0], spaced(size))
        return circuits(setting, kept) if kind == "circuits" else dense(setting, kept)
    return training(setting) if kind == "forward + backward" else textbook(setting, options.room)


def spaced(count: int) -> list[float]:
    """Returns some of the paper's densities, evenly spaced among the 13; one alone is the middle."""
    places = torch.linspace(0, 12, count).round().int().tolist() if count > 1 else [6]
    return [PAPER_DENSITIES[place] for place in places]


def peak_of(kind: str, name: str, options: Options, size: int = 1) -> float:
    """Returns the peak of one job in MB; in a fresh process."""
    torch.set_num_threads(options.clock.threads)
    first = replace(options, pictures=2).setting(name)
    job(kind, first, options, min(size, 9))()  # libraries and compiled code are not the job's memory
    return peak(job(kind, options.setting(name), options, size), options.clock.device)


def titled(name: str, layer: str | None = None) -> str:
    return f"{name} `{layer or NETWORKS[name]}`"


# ---- scoring ---------------------------------------------------------------------------------------------------------


def scoring_part(options: Options) -> str:
    """Ours over one forward and backward pass."""
    rows = []
    for name in options.networks:
        note(f"scoring {name}")
        setting = options.setting(name)
        kinds = (*options.criteria, "forward + backward")
        turns = side_by_side({kind: job(kind, setting, options) for kind in kinds}, options.pairs, options.clock)
        for criterion in options.criteria:
            single, double = from_definition(setting, criterion)
            ratio = turns.ratio(criterion, "forward + backward")
            seconds = [turns.median(criterion), turns.median("forward + backward")]
            rows.append([titled(name), criterion, *seconds, ratio, "1.6", f"{single:.0e}, {double:.0e}"])
    unit = options.clock.unit
    header = ["target", "criterion", f"ours, {unit}", f"forward + backward, {unit}", "ratio", "bar", "difference"]
    return f"""One target channel, {options.pictures} random pictures at 224, random weights, batches of
{options.batch}. The yardstick is one forward and backward pass of the network up to the target, in the same memory
layout: gradients of
all parameters, none of the pictures. The difference is that of our scores, in float32 and in float64, from their
definition in float64, over the layer's largest: eight kernels of every layer, one by one with autograd's gradients, on
two pictures. (In float32 the network itself differs: a ReLU's input near zero may change its sign.)

{table(header, rows)}"""


def memory_part(options: Options) -> str:
    """Peaks of scoring over those of one forward and backward pass, and of circuits over dense evaluations."""
    rows = []
    for name in options.networks:
        comparisons = {"forward + backward": (1, options.criteria, "1.25"), "dense evaluation": (13, ("circuits",), "")}
        for yardstick, (size, ours, bar) in comparisons.items():
            if size > 1 and name not in SWEPT:
                continue
            peaks = {}
            for kind in (yardstick, *ours):
                (peaks[kind],) = fresh(peak_of, (kind, name, options, size))
                note(f"memory {name} {kind}: {peaks[kind]:.0f} MB")
            for kind in ours:
                megabytes = [f"{peaks[kind]:.0f}", yardstick, f"{peaks[yardstick]:.0f}"]
                what = kind if size == 1 else f"{size} circuits"
                rows.append([titled(name), what, *megabytes, f"{peaks[kind] / peaks[yardstick]:.2f}", bar])
    header = ["target", "job", "ours, MB", "yardstick", "yardstick, MB", "ratio", "bar"]
    return f"""Peaks over the level before the run (network and pictures loaded), each in a process of its own;
{options.pictures} random pictures, batches of {options.batch}.

{table(header, rows)}"""


def textbook_part(options: Options) -> str:
    """ActGrad as one would write it down, over ours."""
    rows = []
    for name in options.networks:
        for room, held in ((options.room, "many"), (0, "one")):
            note(f"textbook {name}, {held} at a time")
            own = replace(options, room=room)
            setting = own.setting(name)
            runs = {kind: job(kind, setting, own) for kind in ("textbook", "actgrad")}
            turns = side_by_side(runs, own.pairs, own.clock)
            found, wanted = turns.results["actgrad"].sums, turns.results["textbook"]
            difference = max(unlike(found[layer], wanted[layer]) for layer in found)
            high, low = (fresh(peak_of, (kind, name, own))[0] for kind in runs)
            seconds = [turns.median("textbook"), turns.median("actgrad"), turns.ratio("textbook", "actgrad")]
            megabytes = [f"{high:.0f}", f"{low:.0f}", f"{high / low:.1f}"]
            rows.append([titled(name), held, *seconds, *megabytes, f"{difference:.0e}"])
    unit = options.clock.unit
    times, megabytes = (f"textbook, {unit}", f"ours, {unit}", "ratio"), ("textbook, MB", "ours, MB", "ratio")
    header = ["target", "held at a time", *times, *megabytes, "difference"]
    return f"""ActGrad on {options.pictures} random pictures, batches of {options.batch}. The textbook keeps the
gradients of all layers' outputs and forms the maps of all kernels of a layer, times those gradients: for as many
pictures at a time as have room in {options.room / 1e6:.0f} MB, or for one, which stays in the caches better. The
difference is that of the scores, over the layer's largest.

{table(header, rows)}"""


def many_part(options: Options) -> str:
    """All channels of a layer, per target, over one target alone."""
    rows, setting, count = [], options.setting("alexnet"), options.channels
    for criterion in options.criteria:
        note(f"many targets, {criterion}")
        runs = {"alone": scoring(setting, criterion, [count - 1]), "all": scoring(setting, criterion, range(count))}
        scoring(setting.few(2), criterion, [0])()
        scoring(setting.few(2), criterion, range(min(9, count)))()  # compiles what eight at a time need
        turns = side_by_side(runs, options.pairs, options.clock, warm=True)
        found, wanted = turns.results["all"].sums, turns.results["alone"].sums
        difference = max(unlike(found[layer], wanted[layer]) for layer in wanted)
        seconds = [turns.median("all", count), turns.median("alone"), turns.ratio("all", "alone", count)]
        bar = "0.6" if criterion == "actgrad" else ""
        rows.append([criterion, count, *seconds, bar, f"{difference:.0e}"])
    unit = options.clock.unit
    header = ["criterion", "targets", f"together, {unit} each", f"alone, {unit}", "ratio", "bar", "difference"]
    return f"""{titled("alexnet")}, {options.pictures} random pictures, batches of {options.batch}. The difference
is that of the last target's scores, over the layer's largest.

{table(header, rows)}"""


# ---- circuits --------------------------------------------------------------------------------------------------------


def sweep_part(options: Options) -> str:
    """Circuits of the paper's densities over as many dense evaluations."""
    return _circuits_part(options, PAPER_DENSITIES, "0.7")


def one_part(options: Options) -> str:
    """One small circuit over one dense evaluation."""
    return _circuits_part(options, (0.01,), "0.25")


def few_part(options: Options) -> str:
    """The same on so few pictures that making the circuit counts, and what is left of our time on one picture."""
    return _circuits_part(options, (0.01,), "", alone=True)


def _circuits_part(options: Options, densities: Sequence[float], bar: str, *, alone: bool = False) -> str:
    rows, origins = [], {}
    for name in (name for name in options.networks if name in SWEPT):
        setting = options.setting(name, natural)
        origins[name] = setting.origin
        for criterion in options.criteria:
            note(f"{len(densities)} circuits, {name} {criterion}")
            kept = masks(setting, criterion, densities)
            single, double = (
                _unlike_dense(circuits(each, kept)(), dense(each, kept)())
                for each in (setting.few(4), setting.few(4, torch.float64))  # the first also loads and compiles
            )
            runs = {"ours": circuits(setting, kept), "dense": dense(setting, kept)}
            runs |= {"one picture": circuits(setting.few(1), kept)} if alone else {}
            turns = side_by_side(runs, options.pairs, options.clock, warm=True)
            single = max(single, _unlike_dense(turns.results["ours"], turns.results["dense"]))
            seconds = [turns.median("ours"), turns.median("dense"), turns.ratio("ours", "dense")]
            last = turns.median("one picture") if alone else bar
            rows.append([titled(name), criterion, *seconds, last, f"{single:.0e}, {double:.0e}"])
    unit, where = options.clock.unit, "; ".join(f"{name}: {origin}" for name, origin in origins.items())
    last = f"ours on one picture, {unit}" if alone else "bar"
    header = ["target", "criterion", f"ours, {unit}", f"dense, {unit}", "ratio", last, "difference"]
    fixed = " Making a circuit costs the same for any number of pictures: see our time on one picture." if alone else ""
    some = "1 circuit, density" if len(densities) == 1 else f"{len(densities)} circuits, densities"
    return f"""{some} {", ".join(map(str, densities))}. {where}. The yardstick
zeroes the kernels in the network and runs it up to the target, mask by
mask, in batches of {options.batch} and the same memory layout. Masks are given; making circuits of them is in our time.
The difference is that of the responses over the mask's largest: in float32 on all pictures, in float64 on four.{fixed}

{table(header, rows)}"""


def _unlike_dense(found: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor]) -> float:
    return max(unlike(a, b) for a, b in zip(found, wanted, strict=True))
