"""The tables of docs/results/reconstruct.md, from the rows that benchmarks/reconstruct.py measured."""

import platform

import criteria
import polars as pl
import torch
from learned import lines

RESULTS = criteria.RESULTS
PAGE = RESULTS / "reconstruct.md"
START, END = "<!-- printed by benchmarks/reconstruct.py page -->", "<!-- end -->"
NETWORKS = {"squeezenet1_1": "SqueezeNet 1.1", "resnet20": "ResNet-20", "lite0": "EfficientNet-Lite0",
            "shapesnet": "The built-in network"}  # fmt: skip
OWN, LADDER = "reconstruct", "reconstruct,rounds=5"
OTHERS = ("actgrad", "snip", "force")
CONTROLS = ("random order", "random")
COLUMNS = ("within", "relative_difference", "sd_ratio", "inside", "worst", "halves")
HEADS = ("r within", "relative difference", "sd ratio", "inside", "worst layer", "halves")


def rows(name: str) -> pl.DataFrame:
    """The rows of a network."""
    return pl.read_csv(RESULTS / f"reconstruct-{name}.csv", infer_schema_length=None)


def medians(frame: pl.DataFrame) -> pl.DataFrame:
    """Medians over targets, seeds and draws, a row a density and criterion."""
    order = [OWN, LADDER, *OTHERS, *CONTROLS]
    found = frame.group_by("density", "criterion").agg(pl.col(*COLUMNS).median())
    return found.sort(-pl.col("density"), pl.col("criterion").replace_strict({c: i for i, c in enumerate(order)}))


def gains(frame: pl.DataFrame) -> pl.DataFrame:
    """A row a target, seed and density: r within, that of the best of the others, and the difference."""
    keys = ["target", "seed", "density"]
    others = frame.filter(pl.col("criterion").is_in(OTHERS)).sort("within", descending=True, nulls_last=True)
    best = others.group_by(keys, maintain_order=True).first().select(*keys, best="within", by="criterion")
    own = frame.filter(criterion=OWN).select(*keys, "within")
    return own.join(best, on=keys, maintain_order="left").with_columns(gain=pl.col("within") - pl.col("best"))


def number(value: float | None, form: str = ".2f") -> str:
    """A number as text; nothing where there is none."""
    return "" if value is None else f"{value:{form}}"


def section(name: str, title: str) -> str:
    """The part of the page on one network."""
    frame = rows(name)
    table = [
        [f"{row['density']:g}", row["criterion"], *(number(row[column]) for column in COLUMNS)]
        for row in medians(frame).iter_rows(named=True)
    ]
    gained = gains(frame)
    each = [
        [row["target"], str(row["seed"]), f"{row['density']:g}", number(row["within"]),
         f"{number(row['best'])} {row['by']}", number(row["gain"], "+.2f")]
        for row in gained.iter_rows(named=True)
    ]  # fmt: skip
    summary = [
        f"median gain over the best of the three {part['gain'].median():+.3f} at {density:g} (least "
        f"{part['gain'].min():+.3f})"
        for (density,), part in gained.sort("density", descending=True).group_by("density", maintain_order=True)
    ]
    n, seeds = frame["target"].n_unique(), sorted(frame["seed"].unique())
    return "\n".join([
        f"## {title}", "",
        f"{n} channels, seeds {', '.join(map(str, seeds))}; medians. {'; '.join(summary)}.", "",
        *lines(["density", "criterion", *HEADS], table), "",
        "Channel by channel, r within, and that of the best of actgrad, snip and force:", "",
        *lines(["target", "seed", "density", "reconstruct", "best other", "gain"], each), "",
        f"Commit {', '.join(frame['commit'].unique(maintain_order=True))}.",
    ])  # fmt: skip


def page() -> str:
    """What is printed below the text of the page."""
    there = {name: title for name, title in NETWORKS.items() if (RESULTS / f"reconstruct-{name}.csv").exists()}
    return "\n\n".join([
        *(section(name, title) for name, title in there.items()),
        f"Command: `uv run python benchmarks/reconstruct.py NETWORK SEED`, then `page`; torch {torch.__version__}, "
        f"{platform.machine()}, 1 thread.",
    ])  # fmt: skip


def write() -> None:
    """Replaces the printed part of the page."""
    before, _, rest = PAGE.read_text().partition(START)
    PAGE.write_text(f"{before}{START}\n\n{page()}\n\n{END}{rest.partition(END)[2] or chr(10)}")
    print(page())
