"""Sentences of docs/results/faithfulness.md, and that of docs/criteria.md which rests on its rows."""

from inspect import signature

from prose import CRITERIA, FAITHFULNESS, Tables, Values, says
from viscircuits.evaluate.faithfulness import Minimality

SINGLE, METHODS, RANDOM = ("actgrad", "snip"), ("actgrad", "snip", "learned"), "random, SNIP's counts"


def one(t: Tables, part: str, criterion: str, density: float, what: str, measure: str = "pearson") -> list[float]:
    """The values of a number, one a draw."""
    rows = t("faithfulness").with_columns(what=t("faithfulness")["what"].fill_null(""))
    found = rows.filter(part=part, criterion=criterion, density=density, what=what, measure=measure)["value"].to_list()
    assert found
    return found


def way(t: Tables, criterion: str, density: float, what: str) -> float:
    """|r| alone or without, of a circuit or of its random control."""
    return one(t, "both ways", criterion, density, what)[0]


def given(t: Tables, criterion: str, density: float, kind: str, measure: str = "pearson") -> float:
    """What a circuit keeps with what is given to it."""
    return one(t, "given", criterion, density, kind, measure)[0]


@says(
    FAITHFULNESS,
    """At density .3 and .1 the model without any of the circuits keeps nearly nothing (|r| at most {:.2}), while
    ActGrad's and SNIP's circuits alone keep {:.2} and {:.2}, {:.2} and {:.2}. Taking away random kernels, as many
    of each layer, does as much damage (at most {:.2} is left)""",
)
def _(t: Tables) -> Values:
    without = [way(t, method, d, "without") for method in METHODS for d in (0.3, 0.1)]
    random = [way(t, method, d, "random_without") for method in METHODS for d in (0.3, 0.1)]
    alone = [way(t, method, d, "alone") for d in (0.3, 0.1) for method in SINGLE]
    return max(without), *alone, max(random)


@says(
    FAITHFULNESS,
    """`learned` circuits alone keep {:.2} and {:.2} at .03 and .01. At .01 the model without them still keeps {:.2}:
    there are other ways to the same response, or parts of it. Random circuits of that size leave {:.2}.""",
)
def _(t: Tables) -> Values:
    alone = [way(t, "learned", d, "alone") for d in (0.03, 0.01)]
    return *alone, way(t, "learned", 0.01, "without"), way(t, "learned", 0.01, "random_without")


@says(
    FAITHFULNESS,
    """**The mean as compensation lowers |r| here**, for all {:w} circuits, and helps the relative difference of those
    at .01, which are nearly silent ({:.2} to {:.2} in place of {:.2} to {:.2}). Resampled contributions lower |r|
    further""",
)
def _(t: Tables) -> Values:
    every = [(method, d) for method in METHODS for d in (0.1, 0.01)]
    for circuit in every:
        assert given(t, *circuit, "resampled") < given(t, *circuit, "mean") < given(t, *circuit, "as it is")
    own, mean = (
        [given(t, method, 0.01, kind, "relative_difference") for method in METHODS] for kind in ("as it is", "mean")
    )
    assert all(a > b for a, b in zip(own, mean, strict=True))
    return len(every), min(mean), max(mean), min(own), max(own)


@says(
    FAITHFULNESS,
    """ActGrad's circuit at .1 goes from {:.2} to {:.2}, SNIP's from {:.2} to {:.2}. But two random circuits with as
    many kernels of each layer as SNIP's go from {:.2} and {:.2} to {:.2} and {:.2} (with {:.3} and {:.3} of the
    model's spread, where SNIP's has {:.2}).""",
)
def _(t: Tables) -> Values:
    chosen = [given(t, method, 0.1, kind) for method in SINGLE for kind in ("as it is", "rescaled")]
    random = [value for kind in ("as it is", "rescaled") for value in one(t, "given", RANDOM, 0.1, kind)]
    assert min(random[2] - random[0], random[3] - random[1]) > max(chosen[1] - chosen[0], chosen[3] - chosen[2])
    ratios = one(t, "given", RANDOM, 0.1, "rescaled", "sd_ratio")
    return *chosen, *random, *ratios, given(t, "snip", 0.1, "rescaled", "sd_ratio")


@says(
    FAITHFULNESS,
    """Trained for the relative difference, SNIP's circuit gets from {:.2} to {:.2} of it, the random ones from {:.2}
    and {:.2} to {:.2} and {:.2}.""",
)
def _(t: Tables) -> Values:
    kinds, measure = ("as it is", "rescaled, difference"), "relative_difference"
    snip = [given(t, "snip", 0.1, kind, measure) for kind in kinds]
    return *snip, *(value for kind in kinds for value in one(t, "given", RANDOM, 0.1, kind, measure))


@says(
    FAITHFULNESS,
    """At .01 SNIP's circuit goes from {:.2} to {:.2}; no path leads through the random ones, which stay at nothing.""",
)
def _(t: Tables) -> Values:
    random = [value for kind in ("as it is", "rescaled") for value in one(t, "given", RANDOM, 0.01, kind)]
    assert not any(random)
    return [given(t, "snip", 0.01, kind) for kind in ("as it is", "rescaled")]


@says(
    FAITHFULNESS,
    """`learned` at .1 goes from {:.2} to {:.2}; trained for the relative difference it goes from {:.2} to {:.2} of
    that while r stays ({:.2}), and the spread of its responses from {:.2} of the model's to {:.2}: trained for r
    alone its responses are far too small, and scales mend that.""",
)
def _(t: Tables) -> Values:
    def at(kind: str, measure: str = "pearson") -> float:
        return given(t, "learned", 0.1, kind, measure)

    difference = [at(kind, "relative_difference") for kind in ("as it is", "rescaled, difference")]
    ratios = [at(kind, "sd_ratio") for kind in ("as it is", "rescaled, difference")]
    return at("as it is"), at("rescaled"), *difference, at("rescaled, difference"), *ratios


def left_out(t: Tables, criterion: str, measure: str) -> float:
    """A number of a criterion's smallest circuit."""
    return one(t, "left out", criterion, 0.01, "", measure)[0]


@says(
    FAITHFULNESS,
    """**Minimal**: of SNIP's {} kernels {:%} cost nothing when left out one at a time, of ActGrad's {:%}, of `learned`
    {:%}.""",
)
def _(t: Tables) -> Values:
    shares = [left_out(t, method, "needless") for method in ("snip", "actgrad", "learned")]
    return int(left_out(t, "snip", "kernels")), *shares


@says(
    FAITHFULNESS,
    """**Found again** on other pictures: IoU {:.2} to {:.2} for ActGrad and SNIP (chance, layer by layer, {:.2}).""",
)
def _(t: Tables) -> Values:
    ious = [iou for method in SINGLE for iou in one(t, "again", method, 0.1, "", "iou")]
    chance = {round(one(t, "again", method, 0.1, "", "chance_by_layer")[0], 2) for method in SINGLE}
    return min(ious), max(ious), max(chance)


@says(FAITHFULNESS, "Leaving out one kernel at a time, at density {}")
def _(t: Tables) -> Values:
    return [f"{t('faithfulness').filter(part='left out')['density'].unique().item():g}"]


@says(FAITHFULNESS, "Needless: costs at most {:.3} of |r|; harmful: |r| is over {:.3} higher without it.")
def _(t: Tables) -> Values:
    tolerance = signature(Minimality.needless).parameters["tolerance"].default
    return tolerance, tolerance


@says(
    CRITERIA,
    """On one channel of squeezenet1_1 the mean lowered |r|, and rescaling raised it from {:.2} to {:.2} for SNIP at
    density .1, but also from {:.2} and {:.2} to {:.2} and {:.2} for random circuits with as many kernels of each
    layer""",
)
def _(t: Tables) -> Values:
    snip = [given(t, "snip", 0.1, kind) for kind in ("as it is", "rescaled")]
    assert given(t, "snip", 0.1, "mean") < snip[0]
    return *snip, *(value for kind in ("as it is", "rescaled") for value in one(t, "given", RANDOM, 0.1, kind))
