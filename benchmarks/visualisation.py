"""Does a rendered picture excite what it was rendered for more than any real picture does?

    uv run python benchmarks/visualisation.py        # needs VISCIRCUITS_DATA

Channels of squeezenet1_1 and circuits of some of them against the 1,000 ImageNet pictures, by the mean and by the
maximum of the map. Prints the page and writes it to docs/results/. An interrupted run goes on where it stopped
(pictures are kept in studies/).
"""

import os
import platform
import random
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl
import torch
from torch import Tensor, nn

import viscircuits as vc
from viscircuits.activations.exciting import colours_of
from viscircuits.data.colours import Colours
from viscircuits.model.instrument import run

ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("VISCIRCUITS_DATA", ROOT / "../shared/data"))
KEPT = ROOT / "studies/visualisation"
SEED = 0
CHANNELS = 30
CIRCUITS = 8
DENSITIES = (0.2,)
SCORED_ON = 100
MEASURES = {"mean": lambda maps: maps.mean(-1), "maximum": lambda maps: maps.amax(-1)}
AT = {"mean": None, "maximum": "max"}


@dataclass(frozen=True)
class Bench:
    """The network and the pictures that it is shown."""

    model: nn.Module
    colours: Colours
    images: vc.ImageSet

    @torch.no_grad()
    def answers(self, network: nn.Module | vc.Circuit, targets: Sequence[vc.Target], images: Tensor) -> list[Tensor]:
        """The maps of targets, ``[n, positions]`` each, of prepared images."""
        weights = network.weights if isinstance(network, vc.Circuit) else {}
        layers = list(dict.fromkeys(target.layer for target in targets))
        outputs = run(self.model, vc.trace(self.model, images.shape[1:]), images, layers, weights=weights)
        return [outputs[target.layer][:, target.channel].flatten(1) for target in targets]

    def real(self, network: nn.Module | vc.Circuit, targets: Sequence[vc.Target]) -> list[dict[str, Tensor]]:
        """Each target's measures of every picture."""
        batches = [self.answers(network, targets, batch.images) for batch in self.images.batches(50)]
        return [
            {name: torch.cat([measure(maps) for maps in of_one]) for name, measure in MEASURES.items()}
            for of_one in zip(*batches, strict=True)
        ]

    def rendered(self, network: nn.Module | vc.Circuit, targets: Sequence[vc.Target], measure: str) -> list[float]:
        """Each target's measure of its own picture, in steps of 1/255 as real pictures are."""
        wanted = [replace(target, position=AT[measure]) for target in targets]
        size = tuple(self.images[0].shape)
        made = vc.render(network, wanted, colours=self.colours, size=size, seed=SEED, batch_size=8, cache=KEPT)
        images = self.colours.prepared((made.images * 255).round() / 255)
        maps = [self.answers(network, [one], image[None])[0] for one, image in zip(targets, images, strict=True)]
        return [float(MEASURES[measure](own)) for own in maps]


def bench() -> Bench:
    model, prepare = vc.zoo.load("squeezenet1_1", DATA / "weights/squeezenet1_1-imagenet.safetensors")
    return Bench(model, colours_of(prepare, 3), vc.ImageSet.from_folder(DATA / "imagenet-1000", prepare).in_memory())


def channels(model: nn.Module, images: vc.ImageSet) -> list[vc.Target]:
    """A random channel of every layer, then one more of random layers, until there are enough; in order of layers."""
    layers = vc.trace(model, images[0].shape).layers
    draw = random.Random(SEED)
    names = list(layers) + draw.sample(list(layers), CHANNELS - len(layers))
    chosen = [(list(layers).index(name), draw.randrange(layers[name].out_channels), name) for name in names]
    return [vc.Target(name, channel) for _, channel, name in sorted(chosen)]


def circuits(own: Bench, targets: Sequence[vc.Target]) -> list[tuple[float, vc.Circuit]]:
    """ActGrad's circuits, at every density, of random ones of the targets whose circuits can be smaller."""
    deep = [target for target in targets if target.layer not in ("features.0", "features.3.squeeze")]
    few = own.images.subset(random.Random(SEED).sample(range(len(own.images)), SCORED_ON))
    made = []
    for index in sorted(random.Random(SEED).sample(range(len(deep)), CIRCUITS)):
        scores = vc.score(own.model, deep[index], few, "actgrad")
        print(deep[index], "scored", flush=True)
        made += [(d, vc.Circuit(own.model, deep[index], scores.select(density=d))) for d in DENSITIES]
    return made


def rows(what: str, targets: Sequence[vc.Target], real: Sequence[dict[str, Tensor]], own: dict[str, list[float]]):
    """A row for every target and measure; ``above`` is the share of pictures that answer less than the rendered."""
    return [
        {"what": what, "target": str(target), "measure": name, "rendered": own[name][n],
         "best_picture": float(values.max()), "median_picture": float(values.median()),
         "above": float((values < own[name][n]).double().mean())}
        for n, (target, of_one) in enumerate(zip(targets, real, strict=True)) for name, values in of_one.items()
    ]  # fmt: skip


def table(frame: pl.DataFrame) -> list[str]:
    """A line for every kind of network and measure."""
    lines = ["| of | measure | above all pictures | times the best picture's, median (least) | not above all |",
             "|---|---|---|---|---|"]  # fmt: skip
    for (what, measure), part in frame.group_by("what", "measure", maintain_order=True):
        ratio = (part["rendered"] - part["median_picture"]) / (part["best_picture"] - part["median_picture"])
        missed = ", ".join(f"`{row['target']}` ({row['above']:.1%})" for row in part.to_dicts() if row["above"] < 1)
        won = (part["above"] == 1).sum()
        lines.append(f"| {what} | {measure} | {won} of {len(part)} ({won / len(part):.0%}) | "
                     f"{ratio.median():.2f} ({ratio.min():.2f}) | {missed} |")  # fmt: skip
    return lines


def head() -> str:
    """The commit that is checked out."""
    git = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()


def page(frame: pl.DataFrame, n_pictures: int) -> str:
    """The page kept in docs/results/."""
    return "\n".join([
        "# Do rendered pictures excite what they were rendered for?", "",
        f"squeezenet1_1 and [{n_pictures:,} ImageNet pictures](README.md). {CHANNELS} random channels: one of every "
        f"layer, the others of random layers. Circuits: ActGrad's, of {CIRCUITS} of these channels, scored on "
        f"{SCORED_ON} of the pictures; rendered on the circuit and measured in it. Both the rendered picture and the "
        "real ones are seen at 224 pixels in steps of 1/255, and counted by the same number: the channel's map before "
        "the ReLU, by its mean over positions or by its largest value; the picture was rendered for that number (256 "
        "steps, one seed, no choice among several). The ratio counts both from the median picture.", "",
        *table(frame), "",
        "In brackets behind a target that is not above all: the share of pictures that it is above. All rows: "
        "[visualisation.csv](visualisation.csv).", "",
        f"Command: `uv run python benchmarks/visualisation.py`, seed {SEED}, torch {torch.__version__}, "
        f"{platform.machine()}, {torch.get_num_threads()} thread(s), commit {head()}.", "",
    ])  # fmt: skip


def main() -> None:
    own = bench()
    chosen = channels(own.model, own.images)
    print(*chosen, flush=True)
    found = rows(
        "channels", chosen, own.real(own.model, chosen), {m: own.rendered(own.model, chosen, m) for m in MEASURES}
    )
    print(*table(pl.DataFrame(found)), sep="\n", flush=True)
    for density, circuit in circuits(own, chosen):
        only = [circuit.target]
        reached = {m: own.rendered(circuit, only, m) for m in MEASURES}
        found += rows(f"circuits at density {density:g}", only, own.real(circuit, only), reached)
        print(found[-2:], flush=True)
    frame = pl.DataFrame(found).sort("what", maintain_order=True)
    results = ROOT / "docs/results"
    frame.write_csv(results / "visualisation.csv", float_precision=5)
    text = page(frame, len(own.images))
    (results / "visualisation.md").write_text(text)
    print(text)


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    main()
