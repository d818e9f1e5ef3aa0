"""Sentences about learned circuits, on docs/results/learned.md, docs/criteria.md and README.md."""

from collections.abc import Sequence
from functools import partial

import polars as pl

from prose import CRITERIA, LEARNED, README, Tables, Values, says, tens

DENSITIES = (0.1, 0.05, 0.01)
NETWORKS = ("squeezenet1_1", "shapesnet", "resnet20")
ANOTHER, RANDOM = "another channel", "random order"


def learned(t: Tables, network: str, density: float, column: str = "pearson") -> pl.Series:
    """A column of the learned circuits at one density."""
    return t(f"learned-{network}").filter(density=density)[column]


def best_other(t: Tables, network: str, density: float) -> pl.Series:
    """|r| of the best single-shot circuit of each learned circuit's target."""
    rows = t(f"criteria-{network}").filter(density=density).group_by("target").agg(pl.col("pearson").max())
    best = dict(rows.iter_rows())
    return pl.Series([best[target] for target in learned(t, network, density, "target")])


def medians(t: Tables, network: str) -> list[float]:
    """Median |r| at the three densities, of learned circuits and then of the best others."""
    own = [learned(t, network, density).median() for density in DENSITIES]
    return [*own, *(best_other(t, network, density).median() for density in DENSITIES)]


def fewer(t: Tables, network: str, *, earlier: bool = False) -> list[float]:
    """How many times fewer kernels on a path, at .01, than the smallest single-shot circuit that keeps as much."""
    single, found = t(f"criteria-{network}").filter(order="best"), []
    rows = t("learned-earlier").filter(network=network) if earlier else t(f"learned-{network}")
    for row in rows.filter(density=0.01).iter_rows(named=True):
        able = single.filter(pl.col("target") == row["target"], pl.col("pearson") >= row["pearson"])["effective"]
        found += [able.min() / row["effective"]] if len(able) else []
    return found


def control(t: Tables, name: str, density: float, column: str = "pearson") -> list[float]:
    """A column of one control at one density, a value a channel."""
    return t("learned-controls").filter(control=name, density=density)[column].to_list()


def own(t: Tables, density: float) -> list[float]:
    """|r| of gates that were trained for the same channels' own responses."""
    targets = t("learned-controls").filter(control=ANOTHER, density=density)["target"]
    kept = dict(t("learned-squeezenet1_1").filter(density=density).select("target", "pearson").iter_rows())
    return [kept[target] for target in targets]


def spread(values: Sequence[float] | pl.Series) -> tuple[float, float]:
    """The least and the greatest value."""
    return min(values), max(values)


# ---- docs/results/learned.md -----------------------------------------------------------------------------------------


def channels(t: Tables) -> tuple[int, int]:
    """Channels with controls, of how many."""
    some, every = t("learned-controls")["target"].n_unique(), t("learned-squeezenet1_1")["target"].n_unique()
    assert some * 4 == every
    return some, every


@says(
    LEARNED,
    """On {:w} of the {:w} channels of squeezenet1_1 (every fourth of the table below), gates trained for the channel's
    own response reach |r| {:.2}, {:.2} and {:.2} at density .10, on pictures that were not trained on. Gates
    trained for **another** channel's response (|r| of the two in the model: at most {:.3}) reach {:.2}, {:.2} and
    {:.2}. Gates over a network whose weights stand in random order within every convolution, trained for the
    channel's response in the model itself (|r| of the two networks' responses: at most {:.2}), reach {:.2}, {:.2}
    and {:.2}. At .01 these are {:.2}, {:.2} and {:.2}; {:.2}, {:.2} and {:.2}; {:.2}, {:.2} and {:.2}.""",
)
def _(t: Tables) -> Values:
    another, random = ([control(t, name, d) for d in (0.1, 0.01)] for name in (ANOTHER, RANDOM))
    same = [max(control(t, name, 0.1, "model_r")) for name in (ANOTHER, RANDOM)]
    first = *own(t, 0.1), same[0], *another[0], same[1], *random[0]
    return *channels(t), *first, *own(t, 0.01), *another[1], *random[1]


@says(
    LEARNED,
    """The standard deviation of the circuits' responses is {:.2} of the model's at density .10 on squeezenet1_1
    (median; {:.2} to {:.2}) and {:.4} at .01, and their mean |circuit - full| is {:.2} and {:.3} of mean |full|:
    almost the whole response is missing. SNIP's circuits, with |r| {:.2}, have {:.2} of the spread at .10. On the
    built-in network learned circuits have {:.2} and {:.2} of it, on ResNet-20 {:.2} and {:.2}.""",
)
def _(t: Tables) -> Values:
    ratios = {(n, d): learned(t, n, d, "sd_ratio") for n in NETWORKS for d in (0.1, 0.01)}
    medians_of = {key: column.median() for key, column in ratios.items()}
    differences = [learned(t, "squeezenet1_1", d, "relative_difference").median() for d in (0.1, 0.01)]
    snip = t.criteria("squeezenet1_1", "snip", 0.1).median(), learned(t, "squeezenet1_1", 0.1, "snip_sd_ratio").median()
    first = medians_of["squeezenet1_1", 0.1], *spread(ratios["squeezenet1_1", 0.1]), medians_of["squeezenet1_1", 0.01]
    return *first, *differences, *snip, *(medians_of[n, d] for n in NETWORKS[1:] for d in (0.1, 0.01))


@says(
    LEARNED,
    """For the |r| of the learned circuit at .01 the smallest single-shot circuit that was measured has about {} times
    as many kernels on squeezenet1_1 ({:.0} to {:.0} times), but single-shot circuits were measured on a coarse grid
    of densities, and the spread of what the learned ones keep is near zero. On the built-in network it has {:.0} to
    {:.0} times as many. On ResNet-20, where single-shot circuits were measured at these three densities only, {:w}
    of the {:w} channels has one that keeps as much, with {:.0} times as many (in the run with AVX2 below also one,
    with just as many).""",
)
def _(t: Tables) -> Values:
    many, some, few = (fewer(t, network) for network in NETWORKS)
    assert fewer(t, "resnet20", earlier=True) == [1]
    assert max(learned(t, "squeezenet1_1", 0.01, "sd_ratio")) < 0.01
    assert t("criteria-resnet20")["density"].unique().sort().to_list() == sorted(DENSITIES)
    every = t("learned-resnet20")["target"].n_unique()
    return tens(pl.Series(many).median()), *spread(many), *spread(some), len(few), every, *few


def rounding(t: Tables) -> pl.DataFrame:
    """Circuits that were trained twice, with the difference of |r|."""
    earlier = t("learned-earlier").rename({"pearson": "earlier"}).drop("commit")
    again = [
        t(f"learned-{n}").select(pl.lit(n).alias("network"), "target", "density", "pearson", snip_now="snip_within")
        for n in NETWORKS
    ]
    both = earlier.join(pl.concat(again), on=["network", "target", "density"])
    assert (both["snip_within"] == both["snip_now"]).all()
    assert len(both) == len(earlier) == sum(len(each) for each in again)
    return both.with_columns(difference=(pl.col("pearson") - pl.col("earlier")).abs())


@says(
    LEARNED,
    """the same trainings with AVX2 in place of AVX-512 instructions ([rows](learned-earlier.csv)) gave |r| that differ
    by {:.3} in the median of all {} circuits, by at most {:.2} on squeezenet1_1, {:.2} on the built-in network and
    {:.2} on ResNet-20.""",
)
def _(t: Tables) -> Values:
    both = rounding(t)
    most = (both.filter(network=network)["difference"].max() for network in NETWORKS)
    return both["difference"].median(), len(both), *most


def printed_at_equal(t: Tables, network: str) -> Values:
    """What benchmarks/learned.py prints above its tables of kernels."""
    densities = ", ".join(f"{d:g}" for d in t(f"criteria-{network}")["density"].unique().sort())
    return "0.01", len(fewer(t, network)), t(f"learned-{network}")["target"].n_unique(), densities


for _network in NETWORKS:
    says(
        LEARNED,
        """in the learned circuit at density {} and in the smallest measured single-shot circuit that keeps at least as
        much ({} of {} channels have one; measured densities: {}):""",
    )(partial(printed_at_equal, network=_network))


# ---- docs/criteria.md and README.md ----------------------------------------------------------------------------------


@says(
    CRITERIA,
    """on {:w} channels of squeezenet1_1 it keeps median abs r {:.2}, {:.2} and {:.2} at .10, .05 and .01, the best of
    the others {:.2}, {:.2} and {:.2} ({:w} channels of a CIFAR ResNet-20: {:.2}, {:.2} and {:.2} against {:.2},
    {:.2} and {:.2})""",
)
def _(t: Tables) -> Values:
    large, small = (t(f"learned-{network}")["target"].n_unique() for network in ("squeezenet1_1", "resnet20"))
    return large, *medians(t, "squeezenet1_1"), small, *medians(t, "resnet20")


@says(
    CRITERIA,
    """On {:w} channels of squeezenet1_1, at density .10, gates trained for the channel's own response reach |r| {:.2}
    to {:.2} on other pictures; gates trained for **another** channel's response (the two have |r| {:.3} at most in
    the model) {:.2} to {:.2}; and gates over a network whose weights stand in random order within every convolution
    {:.2} to {:.2}. At .01: {:.2} to {:.2}, {:.2} to {:.2} and {:.2} to {:.2}. The responses are small as well: over
    {:w} channels their standard deviation is {:.2} to {:.2} of the model's at .10.""",
)
def _(t: Tables) -> Values:
    some, every = channels(t)
    at = {d: (own(t, d), control(t, ANOTHER, d), control(t, RANDOM, d)) for d in (0.1, 0.01)}
    model_r = max(control(t, ANOTHER, 0.1, "model_r"))
    first, *others = (end for values in at[0.1] for end in [spread(values)])
    last = [end for values in at[0.01] for end in spread(values)]
    ratios = spread(learned(t, "squeezenet1_1", 0.1, "sd_ratio"))
    return some, *first, model_r, *others[0], *others[1], *last, every, *ratios


@says(
    CRITERIA,
    """For the |r| that learned circuits keep at .01, the smallest single-shot circuits that were measured have about
    {} times as many kernels on squeezenet1_1, but on a coarse grid of densities and at responses whose spread is
    near zero; on the built-in network {:.0} to {:.0} times as many; on ResNet-20 only {:w} of {:w} channels can be
    compared ({:.0} times; in another run with just as many).""",
)
def _(t: Tables) -> Values:
    many, some, few = (fewer(t, network) for network in NETWORKS)
    assert fewer(t, "resnet20", earlier=True) == [1]
    every = t("learned-resnet20")["target"].n_unique()
    return tens(pl.Series(many).median()), *spread(some), len(few), every, *few


@says(
    CRITERIA,
    """it trains, which makes rounding count: with other vector instructions of the same processor the same command
    gave |r| that differ by {:.3} in the median and by up to {:.2}""",
)
def _(t: Tables) -> Values:
    both = rounding(t)
    return both["difference"].median(), both["difference"].max()


@says(
    README,
    """gates trained for *another* channel's response reach |r| {:.2} to {:.2} at density .10 on {:w} channels of
    SqueezeNet, gates over the network with its weights in random order {:.2} to {:.2}, those trained for the
    channel's own response {:.2} to {:.2} ([measured](docs/results/learned.md)).""",
)
def _(t: Tables) -> Values:
    another, random = (spread(control(t, name, 0.1)) for name in (ANOTHER, RANDOM))
    return *another, channels(t)[0], *random, *spread(own(t, 0.1))
