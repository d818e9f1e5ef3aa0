"""Do the meanings of polysemantic channels have circuits of their own? And does a circle detector fall into parts?

    uv run python benchmarks/subcircuits.py [--folder studies/subcircuits] [--controls 19]

Prints the tables and writes them to docs/results/subcircuits.md, between what is written there by hand; pictures go to
docs/results/subcircuits/, rows to docs/results/subcircuits-*.csv. Everything that takes long is kept in the folder, so
that an interrupted run goes on where it stopped. Needs the pictures and weights in VISCIRCUITS_DATA.
"""

import argparse
import os
import platform
import subprocess
import time
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import torch

import viscircuits as vc
from viscircuits import store
from viscircuits.activations.exciting import colours_of
from viscircuits.activations.top import TopActivations, population, top_activations
from viscircuits.errors import ImageError
from viscircuits.execution.loop import to_model
from viscircuits.model.instrument import run
from viscircuits.model.zoo import zoo
from viscircuits.plots.curve import Curve
from viscircuits.plots.surface import experiment_plate
from viscircuits.probes.control import shuffled
from viscircuits.probes.detectors import detectors, standard_families
from viscircuits.probes.experiment import CircleAndCorner, circle_and_corner
from viscircuits.probes.stage import Stage
from viscircuits.report.gathering import Gallery, renderings
from viscircuits.report.plates import cluster_map, split_plate
from viscircuits.subcircuits.polysemantic import Clusters, Polysemantic, flat_map, polysemantic
from viscircuits.subcircuits.split import Split, split

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/results/subcircuits.md"
SHOWN = ROOT / "docs/results/subcircuits"
DATA = Path(os.environ.get("VISCIRCUITS_DATA", ROOT / "../shared/data"))
SOURCES = ("imagenet-1000", "photos", "mini-broden/images")
LAYERS = ("features.10", "features.11", "features.12")
NUMBER, SMALLEST, LISTED = 300, 10, 15
BEST = 3
LEAST = 30
"""Pictures in the smaller cluster of the further channels that are split."""

BANDS = 2
EQUAL = 0.1
"""The density at which circuits of one size are compared."""

PROBED = {
    "shapesnet": ("features.6", "features.8"),
    "squeezenet1_1": tuple(f"features.{i}.expand3x3" for i in (6, 7, 9)),
}
"""Where rings are looked for: convolutions, before their ReLU, so that inhibition shows."""
TIMED = ("features.3", "features.6", "features.9", "features.12")
START, END = "<!-- printed by benchmarks/subcircuits.py -->", "<!-- end -->"

Channel = tuple[Polysemantic, Clusters]


class Bench(NamedTuple):
    """The network, the pictures, and where everything is kept."""

    model: torch.nn.Module
    prepare: Any
    images: vc.ImageSet
    folder: Path

    @classmethod
    def of(cls, folder: Path) -> "Bench":
        """Returns squeezenet1_1 with all pictures."""
        loaded = _network("squeezenet1_1")
        files = [file for source in SOURCES for file in sorted((DATA / source).rglob("*.jpg"))]
        return cls(loaded.model, loaded.prepare, vc.ImageSet.from_files(files, loaded.prepare), folder)

    def tops(self) -> dict[str, TopActivations]:
        """The top activations of the layers, kept."""
        files = {layer: self.folder / "top" / f"{layer}.safetensors" for layer in LAYERS}
        if not all(file.exists() for file in files.values()):
            for layer, top in top_activations(self.model, LAYERS, self.images, NUMBER, progress=told).items():
                top.save(files[layer])
        return {layer: TopActivations.load(file) for layer, file in files.items()}

    def ranked(self) -> list[Channel]:
        """Channels of all layers that have clusters, by separation; the search is kept."""
        every = []
        for layer, top in self.tops().items():
            file = self.folder / "polysemantic" / f"{layer}.safetensors"
            if not file.exists():
                polysemantic(self.model, top, self.images, min_cluster_size=SMALLEST, progress=told).save(file)
            found = Polysemantic.load(file)
            every += [(found, clusters) for clusters in found.channels if clusters.n_clusters]
        return sorted(every, key=lambda one: -one[1].separation)

    def split(self, channel: Channel, controls: int) -> Split:
        """The split of a channel by its clusters; what is measured is kept."""
        found, clusters = channel
        some, labels, places = found.labelled(clusters.channel, self.images)
        return split(
            self.model, vc.Target(found.top.layer, clusters.channel), some, labels, places=places, controls=controls,
            bands=BANDS, kept=self.folder / f"kept-{found.top.layer}-{clusters.channel}.json", progress=told,
        )  # fmt: skip

    def drawn(self, channel: Channel, done: Split) -> list[str]:
        """Writes the map and the split of a channel as pictures, and returns their names."""
        found, clusters = channel
        name = f"{found.top.layer}-{clusters.channel}"
        scene = Gallery(vc.trace(self.model, self.images[0].shape), self.images, self.prepare)
        (vectors,) = population(self.model, found.top, self.images, [clusters.channel])
        plate = cluster_map(scene, found, clusters.channel, flat_map(vectors))
        own = scene._replace(images=done.images)
        made = renderings(done, own.prepare, cache=self.folder / "cache", progress=told)
        return [
            plate.save(SHOWN / f"{name}-map.jpg").name,
            split_plate(done, own, None, made).save(SHOWN / f"{name}-split.jpg").name,
        ]


def experiment(name: str) -> dict[str, Any]:
    """What comes of the circle and corner experiment on one channel of a network, and of its control.

    The channel is the one that prefers rings most of those that arcs raise at least half as much as rings do: without
    an answer to arcs there is nothing to take apart.
    """
    model, prepare = _network(name)
    colours = colours_of(prepare, 3)
    shape = zoo.prepared_shape(prepare)

    def stage_of(target: vc.Target) -> Stage:
        return Stage.of(model, target, shape, mean=colours.mean, std=colours.std)

    preferences = {}
    for layer in PROBED[name]:
        stage = stage_of(vc.Target(layer, 0, position="center"))
        families = standard_families(100, seed=0, pixels=min(stage.box.size))
        found = detectors(model, layer, families, stage, progress=told)
        arcs = found.strength[:, list(families).index("arc")]
        preferences[layer] = next(p for p in found.ranked("ring") if float(arcs[p.channel]) >= p.strength / 2)
    layer, best = max(preferences.items(), key=lambda found: found[1].index)
    target = vc.Target(layer, best.channel, position="center")
    rows, pairs, pictures = [], [], []
    for whose, network in (("model", model), ("control", shuffled(model))):
        try:
            done = circle_and_corner(network, target, stage_of(target), progress=told)
        except ImageError as error:
            rows.append([name, whose, str(error)])
            continue
        rows += [[name, whose, *row] for row in _parts(done)]
        pairs += [[name, whose, *row] for row in _pairs(done)]
        title = f"{name} {target}" + (", weights in random order" if whose == "control" else "")
        pictures.append(_small(experiment_plate(done, title), SHOWN / f"circle-{name}-{whose}.png").name)
    said = f"{name}: {target}, ring index {best.index:.2f} over {best.rival} (strengths {best.strength:.3g}, "
    said += f"{best.rival_strength:.3g}), the highest of {', '.join(PROBED[name])} where arcs raise it half as much."
    return {"said": said, "rows": rows, "pairs": pairs, "pictures": pictures}


def _parts(done: CircleAndCorner) -> list[list[str]]:
    """A row a circuit: how far it is off at its own angle, its own radius, far angles."""
    made = []
    for part in done.parts:
        off = part.differences(done.full[part.family])
        point = f"radius {part.peak.point['radius']:.2f}, {part.peak.point['angle']:g}°"
        numbers = [f"{off[region]:.2f}" for region in ("own angle", "own radius", "far angles")]
        made.append([part.name, point, f"{part.peak.value:.3g}", f"{part.found.circuit.mask.density:.3g}", *numbers])
    return made


def _pairs(done: CircleAndCorner) -> list[list[str]]:
    """A row a pair of circuits of one family: what they share."""
    return [
        [" and ".join(row["pair"]), f"{row['iou']:.2f}", f"{row['chance']:.2f}"]
        for row in done.overlaps()
        if row["pair"][0].split(",")[0] == row["pair"][1].split(",")[0]
    ]


def kept(file: Path, make: Callable[[], Any]) -> Any:
    """What is in a JSON file; made and written where it is not there."""
    if not file.exists():
        store.write_json(file, make())
    return store.read_json(file)


def _network(name: str) -> Any:
    weights = DATA / "weights" / f"{name}-imagenet.safetensors"
    return zoo.load(name, str(weights) if weights.exists() else None)


_told: dict[str, float] = {}


def told(what: str, done: int, total: int) -> None:
    """Prints what is done, at most every ten seconds."""
    if time.monotonic() - _told.get("last", 0) > 10:
        _told["last"] = time.monotonic()
        print(f"{what} {done}/{total}", flush=True)


def timed(bench: Bench, count: int = 1000) -> list[list[str]]:
    """CPU seconds of forward passes alone and of the search, in turns: two rounds."""
    images = bench.images.take(count).in_memory()
    graph = vc.trace(bench.model, images[0].shape)

    @torch.no_grad()
    def forward() -> None:
        for batch in images.batches(16):
            run(bench.model, graph, to_model(batch, bench.model, graph).images, TIMED)

    def search() -> None:
        top_activations(bench.model, TIMED, images, 50)

    rows = []
    for number in range(2):
        alone, found = _seconds(forward), _seconds(search)
        rows.append([str(number + 1), f"{alone:.1f}", f"{found:.1f}", f"{found / alone:.2f}"])
    return rows


def _seconds(work: Callable[[], None]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def _small(drawn: Curve, file: Path) -> Path:
    """Writes a drawing at a size fit for a page."""
    with store.atomic(file) as temporary:
        drawn.figure.savefig(temporary, dpi=75, format="png", metadata={"Software": None})
    return file


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def named(channel: Channel) -> str:
    """The text form of a channel."""
    return f"{channel[0].top.layer}:{channel[1].channel}"


def listed(ranked: list[Channel], total: int) -> str:
    """The ranked list."""
    rows = [
        [str(i + 1), named(c), ", ".join(map(str, c[1].sizes)), f"{c[1].share:.2f}", f"{c[1].silhouette:.2f}",
         f"{c[1].separation:.3f}"]
        for i, c in enumerate(ranked[:LISTED])
    ]  # fmt: skip
    counts = {layer: len(list(some)) for layer, some in groupby(sorted(c[0].top.layer for c in ranked))}
    each = ", ".join(f"{counts.get(layer, 0)} of {layer}" for layer in LAYERS)
    text = f"{len(ranked)} of {total:,} channels have clusters: {each}. The best {LISTED}:"
    return text + "\n\n" + table(["", "channel", "clusters of", "share", "silhouette", "separation"], rows)


def verdicts(done: dict[str, Split]) -> str:
    """What every split shows."""
    rows = []
    for name, found in done.items():
        division = found.division
        sizes = ", ".join(str(len(one)) for one in division.sets)
        densities = ", ".join(f"{density:g}" for density in division.densities)
        own = ", ".join(f"{float(v):.2f}" for v in division.differences.diagonal())
        n = len(division.sets)
        across = (division.differences.sum(1) - division.differences.diagonal()) / (n - 1)
        cross = ", ".join(f"{float(v):.2f}" for v in across)
        verdict = found.verdict
        rows.append([name, sizes, densities, own, cross, f"{verdict.excess:.2f} ({verdict.by_chance:.2f})",
                     f"{division.least_excess:.2f}", f"{verdict.p:.2f}", f"**{verdict.word}**"])  # fmt: skip
    head = ["channel", "pictures", "last density", "own", "on the others", "excess (random)", "least", "p", "verdict"]
    return table(head, rows)


def compared(done: dict[str, Split]) -> str:
    """Overlaps beside VISCNN's."""
    rows = [["VISCNN, 15 most separable (AlexNet)", "", ".24", ".70"]]
    place = next(iter(done.values())).densities.index(EQUAL)
    for name, found in done.items():
        last = sorted(control.iou for control in found.controls)
        equal = sorted(control.iou_at[place] for control in found.controls)
        rows += [
            [name, "last density", f"{found.division.iou:.2f}", _span(last)],
            [name, f"density {EQUAL:g}", f"{found.division.iou_at[place]:.2f}", _span(equal)],
        ]
    return table(["", "circuits compared at", "IoU of clusters' circuits", "of random sets, median (range)"], rows)


def _span(values: list[float]) -> str:
    return f"{values[len(values) // 2]:.2f} ({values[0]:.2f} to {values[-1]:.2f})"


class Results(NamedTuple):
    """All that the page tells."""

    ranked: list[Channel]
    total: int
    best: dict[str, Split]
    further: dict[str, Split]
    pictures: dict[str, list[str]]
    experiments: list[dict[str, Any]]
    times: list[list[str]]


def printed(found: Results) -> str:
    """The part of the page that is measured."""
    git = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    everything = found.best | found.further
    parts = [
        f"Command: `uv run python benchmarks/subcircuits.py`; torch {torch.__version__}, {platform.machine()}, "
        f"{torch.get_num_threads()} thread(s); commit {commit}.",
        "## Polysemantic channels", listed(found.ranked, found.total),
        "## Splits", verdicts(everything), "### Overlap of kernels", compared(everything),
    ]  # fmt: skip
    for name in everything:
        parts += [f"### {name}", f"{everything[name].verdict}."]
        parts += [f"![{name}](subcircuits/{file})" for file in found.pictures[name]]
    parts.append("## Circles and corners")
    for one in found.experiments:
        parts.append(one["said"])
        parts += [f"![{file}](subcircuits/{file})" for file in one["pictures"]]
    head = ["network", "weights", "circuit", "point", "response", "density", "own angle", "own radius", "far angles"]
    parts.append(
        "How far each circuit is off from the model, over parts of its surface (0: not at all; 1: as far as an answer "
        "that is always that to the empty stage):"
    )
    parts.append(table(head, [row for one in found.experiments for row in one["rows"]]))
    parts.append("What pairs of circuits share when both keep as many kernels:")
    parts.append(table(["network", "weights", "pair", "IoU", "chance"],
                       [row for one in found.experiments for row in one["pairs"]]))  # fmt: skip
    parts += [
        "## Top activations beside forward passes alone",
        f"CPU seconds over 1,000 pictures in memory, {', '.join(TIMED)} of squeezenet1_1, 50 activations a channel.",
        table(["round", "forward passes", "top activations", "ratio"], found.times),
    ]
    return "\n\n".join(parts)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--folder", type=Path, default=ROOT / "studies/subcircuits", help="where work is kept")
    options.add_argument("--controls", type=int, default=19, help="random splits a channel")
    options.add_argument("--further", type=int, default=0, help="channels with larger smaller clusters")
    asked = options.parse_args()
    bench = Bench.of(asked.folder)
    ranked = bench.ranked()
    best = ranked[:BEST]
    further = [c for c in ranked[BEST:] if min(c[1].sizes) >= LEAST][: asked.further]
    done = {named(channel): bench.split(channel, asked.controls) for channel in (*best, *further)}
    pictures = {named(channel): bench.drawn(channel, done[named(channel)]) for channel in (*best, *further)}
    experiments = [
        kept(asked.folder / f"experiment-{name}.json", lambda name=name: experiment(name)) for name in PROBED
    ]
    times = kept(asked.folder / "times.json", lambda: timed(bench))
    total = sum(top.n_channels for top in bench.tops().values())
    names = [named(channel) for channel in best]
    found = Results(
        ranked, total, {n: done[n] for n in names}, {n: s for n, s in done.items() if n not in names}, pictures,
        experiments, times,
    )  # fmt: skip
    _csv(found)
    text = printed(found)
    print(text)
    before, _, rest = PAGE.read_text().partition(START) if PAGE.exists() else ("# Subcircuits\n\n", "", "")
    PAGE.write_text(f"{before}{START}\n\n{text}\n\n{END}{rest.partition(END)[2] or chr(10)}")


def _csv(found: Results) -> None:
    channels = [
        {"layer": c[0].top.layer, "channel": c[1].channel, "sizes": " ".join(map(str, c[1].sizes)),
         "share": c[1].share, "silhouette": c[1].silhouette, "separation": c[1].separation}
        for c in found.ranked
    ]  # fmt: skip
    curves = [{"channel": name, **row} for name, one in (found.best | found.further).items() for row in one.rows()]
    pl.DataFrame(channels).write_csv(PAGE.with_name("subcircuits-channels.csv"), float_precision=4)
    pl.DataFrame(curves).write_csv(PAGE.with_name("subcircuits-curves.csv"), float_precision=4)


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    main()
