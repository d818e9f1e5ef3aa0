"""The parts of the speed benchmark that reach further than what is run: a whole figure of the paper, and exponents."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from parts import Options, job, peak_of, titled
from timing import exponent, fresh, note, processor_seconds, side_by_side, table
from yardsticks import Setting, circuits, natural

import viscircuits as vc
from viscircuits.evaluate.question import PAPER_DENSITIES

LAYERS = {"features.6": 384, "features.8": 256, "features.10": 256}
"""AlexNet's last three convolutions and their channels."""

PICTURES = 2000
PROCESSES = 2


def figure3_part(options: Options) -> str:
    """All features of AlexNet's last three convolutions at all densities, extrapolated from some."""
    note(f"figure 3: {PROCESSES} processes, {options.channels} targets a layer each")
    spent, strains, origins = zip(*fresh(figure3_share, *[(options, seat) for seat in range(PROCESSES)]), strict=True)
    rows, total = [], 0.0
    for layer, channels in LAYERS.items():
        scoring, selecting, evaluating = (max(steps) for steps in zip(*(each[layer] for each in spent), strict=True))
        hours = (selecting + PICTURES * (scoring + evaluating)) * channels / PROCESSES / 3600
        cells = [f"{1e3 * scoring:.2f}", f"{selecting:.2f}", f"{1e3 * evaluating:.2f}", f"{hours:.1f}"]
        rows.append([titled("alexnet", layer), channels, *cells])
        total += hours
    every = sum(LAYERS.values())
    rows.append(["all", every, "", "", "", f"**{total:.1f}**"])
    measured = 100 * PROCESSES * options.channels * len(LAYERS) * options.pictures / (every * PICTURES)
    unit = options.clock.unit
    header = [
        "layer",
        "targets",
        f"scoring, {unit} / 1000",
        f"selecting and making, {unit}",
        f"circuits, {unit} / 1000",
        "hours",
    ]
    return f"""{every} targets x {len(PAPER_DENSITIES)} densities x {PICTURES:,} pictures, {options.criteria[0]}, in
{PROCESSES} processes of {options.clock.threads} thread(s), **extrapolated** from {measured:.2g} % of the work:
{options.channels} targets a layer and process on {options.pictures} pictures ({origins[0]}), both processes at the same
time; the slower counts. Seconds are for one target; those of scoring (the targets together) and of circuits (those of
all densities, and the full model) for one picture. The wall took {max(strains):.2f} times the processor's seconds.
Bar: 24 hours.

{table(header, rows)}"""


Steps = tuple[float, float, float]
"""Seconds for one target: scoring a picture, selecting masks and making circuits, running all of them on a picture."""


def figure3_share(options: Options, seat: int) -> tuple[dict[str, Steps], float, str]:
    """Returns what one process measures by layer, wall over processor seconds, and where the pictures are from."""
    torch.set_num_threads(options.clock.threads)
    setting = options.setting("alexnet", natural)
    start, wall = processor_seconds(), time.perf_counter()
    found = {}
    for layer in LAYERS:
        targets = [vc.Target(layer, seat * options.channels + place) for place in range(options.channels)]
        figure3_steps(setting.few(4), targets[:2], options)  # loads and compiles
        found[layer] = figure3_steps(setting, targets, options)
    return found, (time.perf_counter() - wall) / (processor_seconds() - start), setting.origin


def figure3_steps(setting: Setting, targets: Sequence[vc.Target], options: Options) -> Steps:
    """Returns what each step takes for one target, scoring and circuits also for one picture.

    Circuits are run on two pictures and on all, which tells what a picture takes from what making the circuits takes.
    """
    now, model, images = options.clock.now, setting.model, setting.images
    start = now()
    every = list(vc.score_all(model, targets, images, options.criteria[0], batch_size=setting.batch))
    scoring, selecting, evaluating = now() - start, 0.0, 0.0
    for target, scores in zip(targets, every, strict=True):
        start = now()
        kept = [scores.select(density=density) for density in PAPER_DENSITIES]
        selecting += now() - start
        few, many = (_evaluated(replace(each, target=target), kept, now) for each in (setting.few(2), setting))
        each_picture = (many - few) / (len(images) - 2)
        selecting, evaluating = selecting + few - 2 * each_picture, evaluating + each_picture
    count = len(targets)
    return scoring / count / len(images), selecting / count, evaluating / count


def _evaluated(setting: Setting, kept: Sequence[vc.Mask], now: Callable[[], float]) -> float:
    """Returns what the full model and all circuits take on the setting's pictures, making the circuits included."""
    start = now()
    readout = vc.Readout(setting.target, vc.trace(setting.model, setting.images[0].shape))
    vc.respond(setting.model, readout, setting.images, batch_size=setting.batch)
    circuits(setting, kept)()
    return now() - start


def growth_part(options: Options) -> str:
    """Seconds and peaks against numbers of pictures, targets and densities, with the exponents that fit best."""
    several, pictures = replace(options, pictures=min(16, options.pictures)), options.pictures
    sizes = [max(1, pictures // 8), max(2, pictures // 4), max(3, pictures // 2), max(4, pictures)]
    targets = [count for count in (1, 2, 4, 8, 16, 32) if count <= max(2, options.channels)]
    rows = []
    criterion = options.criteria[0]
    for what, counts, make in (
        ("pictures", sizes, lambda n: (criterion, replace(options, pictures=n), 1)),
        ("targets", targets, lambda n: (criterion, several, n)),
        ("densities", [1, 3, 5, 7, 13], lambda n: ("circuits", several, n)),
    ):
        note(f"growth with {what}")
        runs = {str(n): _run(*make(n)) for n in counts}
        turns = side_by_side(runs, options.pairs, options.clock)
        rows.append(_row(f"{what}, {options.clock.unit}", counts, [float(turns.median(name)) for name in runs]))
        peaks = [fresh(peak_of, (kind, "alexnet", own, n))[0] for kind, own, n in map(make, counts)]
        rows.append(_row(f"{what}, peak MB", counts, peaks))
    header = ["growth with", "at", "measured", "exponent"]
    return f"""{titled("alexnet")}, random pictures, {criterion}. An exponent of 1 is proportional, 0 constant (least
squares on logarithms). Targets and densities: on {several.pictures} pictures, densities evenly spaced among the
paper's. Peaks are over the level before, each in a process of its own.

{table(header, rows)}"""


def _run(kind: str, options: Options, size: int) -> Callable[[], object]:
    return job(kind, options.setting("alexnet"), options, size)


def _row(what: str, counts: Sequence[int], values: Sequence[float]) -> list[str]:
    cells = [", ".join(map(str, counts)), ", ".join(f"{value:.3g}" for value in values)]
    return [what, *cells, f"{exponent(counts, values):.2f}"]
