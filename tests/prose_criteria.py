"""Sentences of docs/results/README.md, docs/criteria.md and others, about single-shot criteria and planted circuits."""

import polars as pl

from prose import CRITERIA, RESULTS, Tables, Values, says

SQUEEZENET, SHAPES = "squeezenet1_1", "shapesnet"
CRITERIA_NAMES = ("actgrad", "snip", "force", "magnitude", "random")
ALL, MOST = 12, 91
"""Channels measured of each network."""


def best(t: Tables, criterion: str, density: float) -> int:
    """For how many channels of SqueezeNet a criterion is above every other that was measured at this density."""
    mine = t.criteria(SQUEEZENET, criterion, density)
    others = [t.criteria(SQUEEZENET, name, density) for name in CRITERIA_NAMES if name != criterion]
    return sum(all(value > other[i] for other in others if len(other)) for i, value in enumerate(mine))


def counted(t: Tables, network: str, channels: int) -> int:
    """The number of channels, which is as the sentences say."""
    assert t(f"criteria-{network}")["target"].n_unique() == channels
    return channels


# ---- docs/results/README.md ------------------------------------------------------------------------------------------


@says(RESULTS, "**squeezenet1_1, {} channels of the later layers.** Partly.")
def _(t: Tables) -> Values:
    return [counted(t, SQUEEZENET, ALL)]


@says(
    RESULTS,
    """ActGrad is above magnitude for at least {} of {} channels from density .8 down to .05 ({} of {} at .01); at .9
    magnitude is above it for {} of {} (medians {:.3} and {:.3}).""",
)
def _(t: Tables) -> Values:
    counts = [t.above(SQUEEZENET, "actgrad", "magnitude", d) for d in (0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05)]
    own, other = t.pair(SQUEEZENET, "actgrad", "magnitude", 0.9)
    at_least = t.above(SQUEEZENET, "actgrad", "magnitude", 0.01)
    medians = other.median(), own.median()
    return min(counts), ALL, at_least, ALL, t.above(SQUEEZENET, "magnitude", "actgrad", 0.9), ALL, *medians


@says(RESULTS, "FORCE is above magnitude for {} of {} at .5 and for all below.")
def _(t: Tables) -> Values:
    assert all(t.above(SQUEEZENET, "force", "magnitude", d) == ALL for d in (0.2, 0.1, 0.05, 0.01))
    return t.above(SQUEEZENET, "force", "magnitude", 0.5), ALL


@says(
    RESULTS,
    """SNIP is *below* magnitude at .9 to .6 (for {}, {}, {} and {} of {} channels), above it for {} of {} at .5, for
    {} at .4 and for all from .3 to .05.""",
)
def _(t: Tables) -> Values:
    below = [t.above(SQUEEZENET, "magnitude", "snip", d) for d in (0.9, 0.8, 0.7, 0.6)]
    above = {d: t.above(SQUEEZENET, "snip", "magnitude", d) for d in (0.5, 0.4, 0.3, 0.2, 0.1, 0.05)}
    assert all(above[d] == ALL for d in (0.3, 0.2, 0.1, 0.05))
    return *below, ALL, above[0.5], ALL, above[0.4]


@says(
    RESULTS,
    """It is the best single-shot criterion from .2 to .05; at .3 ActGrad is above it for {} of {}, though not by the
    medians ({:.3} and {:.3}).""",
)
def _(t: Tables) -> Values:
    for density in (0.2, 0.1, 0.05):
        medians = {name: t.criteria(SQUEEZENET, name, density).median() for name in CRITERIA_NAMES}
        assert max(medians, key=medians.__getitem__) == "snip"
    own, other = t.pair(SQUEEZENET, "actgrad", "snip", 0.3)
    assert own.median() < other.median()
    return t.above(SQUEEZENET, "actgrad", "snip", 0.3), ALL, own.median(), other.median()


@says(
    RESULTS,
    """Magnitude is above random for all channels down to .5, for {} of {} at .4 (medians {:.3} and {:.3}), for {:w} at
    .3 and for none below: it cuts every path (its circuits are disconnected, which counts as 0) for {} of {}
    channels at .4, for {} at .3 and for all from .2 down, while no random circuit is disconnected down to .05.""",
)
def _(t: Tables) -> Values:
    def above(density: float) -> int:
        return t.above(SQUEEZENET, "magnitude", "random", density)

    assert all(above(d) == ALL for d in (0.9, 0.8, 0.7, 0.6, 0.5))
    low = (0.2, 0.1, 0.05, 0.01, 0.005, 0.001)
    assert not any(above(d) for d in low)
    assert all(t.cut(SQUEEZENET, "magnitude", d) == ALL for d in low)
    assert not any(t.cut(SQUEEZENET, "random", d) for d in (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05))
    medians = [column.median() for column in t.pair(SQUEEZENET, "magnitude", "random", 0.4)]
    cut = [t.cut(SQUEEZENET, "magnitude", d) for d in (0.4, 0.3)]
    return above(0.4), ALL, *medians, above(0.3), cut[0], ALL, cut[1]


@says(RESULTS, "at density .10 the best median is {:.2}.")
def _(t: Tables) -> Values:
    return [max(t.criteria(SQUEEZENET, name, 0.1).median() for name in CRITERIA_NAMES)]


@says(
    RESULTS,
    """**The built-in network, {} live channels.** Yes. Three quarters of its kernels are exactly zero, so every
    criterion but random is perfect down to .3.""",
)
def _(t: Tables) -> Values:
    for density in (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3):
        for name in CRITERIA_NAMES[:-1]:
            assert all(value == 1 for value in t.criteria(SHAPES, name, density))
    return [counted(t, SHAPES, MOST)]


@says(
    RESULTS,
    """From .2 to .01 SNIP and FORCE are above magnitude for at least {} of {} channels (at .10: medians {:.3}, {:.3}
    and {:.2}; random {:.2}), ActGrad for at least {} of {} down to .05.""",
)
def _(t: Tables) -> Values:
    both = [t.above(SHAPES, name, "magnitude", d) for name in ("snip", "force") for d in (0.2, 0.1, 0.05, 0.01)]
    actgrad = [t.above(SHAPES, "actgrad", "magnitude", d) for d in (0.2, 0.1, 0.05)]
    medians = [t.criteria(SHAPES, name, 0.1).median() for name in ("snip", "force", "magnitude", "random")]
    return min(both), MOST, *medians, min(actgrad), MOST


@says(RESULTS, "At .005 SNIP is above magnitude for {} of {} and at .001 for none; FORCE was not measured below .01.")
def _(t: Tables) -> Values:
    assert t.above(SHAPES, "snip", "magnitude", 0.001) == 0
    assert min(t(f"criteria-{SHAPES}").filter(criterion="force")["density"]) == 0.01
    return t.above(SHAPES, "snip", "magnitude", 0.005), MOST


@says(
    RESULTS,
    """No path is left at .01 for {} of {} circuits of ActGrad, as many as of magnitude, for {} of SNIP's and {} of
    FORCE's; at .005 for {} of SNIP's, and at .001 for all of ActGrad's, SNIP's and magnitude's.""",
)
def _(t: Tables) -> Values:
    at = {name: t.cut(SHAPES, name, 0.01) for name in CRITERIA_NAMES}
    assert at["actgrad"] == at["magnitude"]
    assert all(t.cut(SHAPES, name, 0.001) == MOST for name in ("actgrad", "snip", "magnitude"))
    return at["actgrad"], MOST, at["snip"], at["force"], t.cut(SHAPES, "snip", 0.005)


# ---- docs/criteria.md ------------------------------------------------------------------------------------------------


@says(
    CRITERIA,
    """above every other single-shot criterion on squeezenet1_1 from density .8 to .4, for at least {} of {} channels
    (at .9 magnitude is above it for {}: medians {:.3} and {:.3})""",
)
def _(t: Tables) -> Values:
    counts = [best(t, "actgrad", d) for d in (0.8, 0.7, 0.6, 0.5, 0.4)]
    other, own = t.pair(SQUEEZENET, "magnitude", "actgrad", 0.9)
    return min(counts), ALL, t.above(SQUEEZENET, "magnitude", "actgrad", 0.9), other.median(), own.median()


@says(CRITERIA, "the best single-shot criterion at .20 to .05 on squeezenet1_1, for at least {} of {} channels")
def _(t: Tables) -> Values:
    return min(best(t, "snip", d) for d in (0.2, 0.1, 0.05)), ALL


def planted(t: Tables, criterion: str, size: float, column: str = "recall") -> dict[str, float]:
    """Means over seeds by planted case, of a criterion's circuits of so many times the true size."""
    rows = t("planted").filter(pl.col("octaves") > 0, criterion=criterion, size=size)
    return dict(rows.group_by("case").agg(pl.col(column).mean()).iter_rows())


@says(
    CRITERIA,
    """`force`, or `actgrad` at {:w} times the size | planted circuits: FORCE finds exactly the truth in {:w} of {:w}
    cases (`either`, `silent`, `mixed`), but {:.2} of it in `cancelling` and {:.2} in `suppressed`, whose truths are
    unique too, and {:.2} where there are redundant copies; ActGrad's circuits of {:w} times the true size hold the
    truth in all {:w}""",
)
def _(t: Tables) -> Values:
    force, actgrad = planted(t, "force", 1), planted(t, "actgrad", 4)
    perfect = {case for case, recall in force.items() if recall == 1}
    assert perfect == {"either", "silent", "mixed"}
    assert all(recall == 1 for recall in actgrad.values())
    return 4, len(perfect), len(force), force["cancelling"], force["suppressed"], force["copy"], 4, len(actgrad)


@says(
    CRITERIA,
    """magnitude cuts every path on squeezenet1_1 for {} of {} channels at .4, for {} at .3 and for all from .2 down""",
)
def _(t: Tables) -> Values:
    assert all(t.cut(SQUEEZENET, "magnitude", d) == ALL for d in (0.2, 0.1, 0.05, 0.01, 0.005, 0.001))
    return t.cut(SQUEEZENET, "magnitude", 0.4), ALL, t.cut(SQUEEZENET, "magnitude", 0.3)


@says(CRITERIA, "can reach |r| = {:.2} (squeezenet1_1 `features.7.expand3x3:34`, {} kernels).")
def _(t: Tables) -> Values:
    (row,) = t("gallery").filter(target="features.7.expand3x3:34").iter_rows(named=True)
    return row["pearson"], row["effective"]


@says(
    CRITERIA,
    """`learned,loss=difference` found at least as much as every other criterion in all {:w} planted cases.""",
)
def _(t: Tables) -> Values:
    own = t("learned-planted").filter(criterion="learned,loss=difference")
    others = t("planted").filter(pl.col("octaves") > 0, pl.col("seed").is_in(own["seed"].unique().to_list()), size=1.0)
    found = dict(own.group_by("case").agg(pl.col("recall").mean()).iter_rows())
    for case, _, recall in others.group_by("case", "criterion").agg(pl.col("recall").mean()).iter_rows():
        assert found[case] >= recall
    return [len(found)]


@says(
    CRITERIA,
    """**Disconnected circuits count as 0.** Single-shot criteria below .01 often leave no path from the image to the
    target (on squeezenet1_1 at .005 ActGrad for {} of {} channels, SNIP for all).""",
)
def _(t: Tables) -> Values:
    assert t.cut(SQUEEZENET, "snip", 0.005) == ALL
    return t.cut(SQUEEZENET, "actgrad", 0.005), ALL


# ---- other pages: sentences that their tables once contradicted ------------------------------------------------------

SUBCIRCUITS, GALLERY = "docs/results/subcircuits.md", "docs/gallery/README.md"


def curve(t: Tables, channel: str, density: float, circuit: int) -> tuple[float, float]:
    """How far the circuit of a cluster is off on its own pictures, and on those of the other."""
    rows = t("subcircuits-curves").filter(channel=channel, density=density, circuit=circuit, division=0)
    return tuple(rows.filter(own=own)["difference"].item() for own in (True, False))


@says(
    SUBCIRCUITS,
    """the circuit of the large cluster of `features.11:329` (at density .2) and that of `features.10:117` serve the
    small cluster nearly as well as their own ({:.2} and {:.2} more), but at its first crossing, at density .7, the
    former is off by {:.2} more there.""",
)
def _(t: Tables) -> Values:
    (low, low_other), (high, high_other) = (curve(t, "features.11:329", d, 0) for d in (0.2, 0.7))
    assert low < 0.15
    assert high < 0.15 <= curve(t, "features.11:329", 0.6, 0)[0]  # from above, .7 is the last before the first crossing
    own, other = curve(t, "features.10:117", 0.4, 0)
    return low_other - low, other - own, high_other - high


@says(
    GALLERY,
    """its mean map, the same for all pictures, already has r = {:0.2} with the model, and away from the outermost ring
    of positions r is {:0.2}. For the {} kernels of `features.4.expand3x3:16` the mean map alone has {:0.2}, and
    inside the ring r is {:0.2}.""",
)
def _(t: Tables) -> Values:
    one, other = (t("gallery").row(i, named=True) for i in (0, 1))
    assert (one["target"], other["target"]) == ("features.7.expand3x3:34", "features.4.expand3x3:16")
    return one["mean_map"], one["inside"], other["effective"], other["mean_map"], other["inside"]


@says(
    GALLERY,
    """A tenth of the kernels of `features.10.expand3x3:30`, drawn at random, has r = {:0.2}, and {:0.2} within.""",
)
def _(t: Tables) -> Values:
    (row,) = t("gallery").filter(target="features.10.expand3x3:30").iter_rows(named=True)
    assert (row["criterion"], row["density"]) == ("random", 0.1)
    return row["pearson"], row["within"]
