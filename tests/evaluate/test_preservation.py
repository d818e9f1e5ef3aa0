"""Preservation against the formulas as they stand in textbooks, and its special cases by definition."""

import numpy as np
import pytest
import scipy.stats
import torch

import viscircuits as vc
from viscircuits.errors import ImageError, TargetError
from viscircuits.evaluate.preservation import Reference, reference
from viscircuits.execution.response import Response

TARGETS = (
    "features.10:5", "features.10:5@max", "features.10:5@center", "features.10:5@7,0", "features.11:5", "logit:3",
    "2*features.6:3 - 0.5*logit:3", "features.6:3@max + logit:3", "loss", "loss@predicted",
)  # fmt: skip


def of(values) -> Reference:
    return Reference(Response(torch.as_tensor(values), (None,)), "a:0")


def circuit(model, images, target: str = "features.10:5", density: float = 0.2, criterion: str = "snip", **options):
    return vc.find(model, vc.parse_target(target), images, criterion=criterion, density=density, **options)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_formulas(sign, dtype):
    full = torch.randn(7, 30).to(dtype)
    ours = (sign * 0.5 * full + 0.8 * torch.randn(7, 30)).round(decimals=1).to(dtype)  # rounded: with ties
    kept = of(full).compare(ours)
    a, b = full.double().numpy().ravel(), ours.double().numpy().ravel()
    assert kept.signed == pytest.approx(scipy.stats.pearsonr(a, b).statistic, abs=1e-12)
    assert kept.signed == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-12)
    assert kept.pearson == abs(kept.signed) > 0.3
    assert np.sign(kept.signed) == sign
    assert kept.spearman == pytest.approx(scipy.stats.spearmanr(a, b).statistic, abs=1e-12)
    assert kept.relative_difference == pytest.approx(np.mean(np.abs(b - a)) / np.mean(np.abs(a)), rel=1e-12)
    assert kept.sd_ratio == pytest.approx(np.std(b) / np.std(a), rel=1e-12)
    assert (kept.reason, kept.n_images, kept.n_values) == (None, 7, 210)


def within_literally(full: np.ndarray, circuit: np.ndarray) -> float:
    """Pearson of what is left of each value after its position's mean over the images, one value at a time."""
    n, p = full.shape
    a, b = [], []
    for image in range(n):
        for position in range(p):
            a.append(full[image, position] - sum(full[i, position] for i in range(n)) / n)
            b.append(circuit[image, position] - sum(circuit[i, position] for i in range(n)) / n)
    return abs(np.corrcoef(a, b)[0, 1])


@pytest.mark.parametrize("sign", [1, -1])
def test_pearson_within(sign):
    border = 10 * torch.randn(30).double()
    full = torch.randn(7, 30).double() + border
    ours = sign * 0.5 * full + 0.8 * torch.randn(7, 30)
    kept = of(full).compare(ours)
    assert kept.pearson_within == pytest.approx(within_literally(full.numpy(), ours.numpy()), abs=1e-12)
    assert 0.3 < kept.pearson_within < kept.pearson - 0.1
    assert of(full[:, :1]).compare(ours[:, :1]).pearson_within == pytest.approx(
        of(full[:, :1]).compare(ours[:, :1]).pearson, abs=1e-12
    )


def test_pearson_within_where_it_is_undefined():
    """A circuit that is the same map for every image keeps nothing; of one image nothing is asked."""
    full = torch.randn(7, 30) + 10 * torch.randn(30)
    mean_map = full.mean(0).expand(7, 30) + 1e-6 * torch.randn(7, 30)
    kept = of(full).compare(mean_map)
    assert kept.pearson > 0.9
    assert (kept.pearson_within, kept.reason) == (0, None)
    assert of(full).compare(full, disconnected=True).pearson_within == 0
    assert np.isnan(of(full[:1]).compare(full[:1]).pearson_within)
    assert np.isnan(of(mean_map.contiguous()).compare(full).pearson_within)


def test_a_circuit_of_the_padding_border_keeps_nothing_within():
    """One path carries a constant that zero padding cuts off at the border, the other the picture.

    The target is border + picture. A circuit of the first path, which still sees a trace of other noise in the image,
    gives nearly all of the correlation over positions and none of it within.
    """
    model = torch.nn.Sequential(
        torch.nn.Conv2d(2, 2, 1), torch.nn.ReLU(), torch.nn.Conv2d(2, 1, 3, padding=1)
    ).eval()  # fmt: skip
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[0.001, 0.0], [0.0, 1.0]])[:, :, None, None])
        model[0].bias.copy_(torch.tensor([5.0, 0.0]))
        model[2].weight.copy_(torch.stack([torch.full((3, 3), 1.0), torch.full((3, 3), 0.5)])[None])
    images = vc.ImageSet.from_tensors(torch.rand(96, 2, 8, 8, generator=torch.Generator().manual_seed(0)))
    target = vc.Target("2", channel=0)
    scores = vc.score(model, target, images, "random")
    everything = scores.select(density=1.0)
    kept = {n: torch.zeros_like(array) for n, array in everything.kept.items()}
    kept["0"][0, 0] = kept["2"][0, 0] = True
    border = vc.preservation(vc.Circuit(model, target, vc.Mask(kept, everything.relevant, "kernel", (2, 8, 8))), images)
    assert border.reason is None
    assert border.pearson > 0.9
    assert border.pearson_within < 0.1


@pytest.mark.parametrize(
    ("factor", "offset"), [(0.1, 5.0), (1.0, -3.0), (3.0, 0.0), (-0.25, 1e4), (1e-12, 0.0)]
)  # fmt: skip
def test_the_sd_ratio_says_what_r_does_not(factor, offset):
    """A circuit that answers as the model does, by a factor: r is 1 or -1 whatever the factor."""
    full = torch.randn(6, 20).double() + 2
    kept = of(full).compare(factor * full + offset)
    assert kept.pearson == pytest.approx(1, abs=1e-9) or abs(factor) == 1e-12
    assert kept.sd_ratio == pytest.approx(abs(factor), rel=1e-6)


def test_the_sd_ratio_goes_over_images_and_positions():
    """A circuit that keeps the mean map alone has nearly all of the spread where the map has it, else nearly none."""
    full = torch.randn(5, 8).double() + 10 * torch.arange(8.0)
    for part, low, high in ((full.mean(0).expand(5, 8), 0.9, 1.0), (full.mean(1, keepdim=True).expand(5, 8), 0.0, 0.1)):
        ratio = of(full).compare(part).sd_ratio
        assert ratio == pytest.approx(float(part.std() / full.std()), rel=1e-12)
        assert low < ratio < high


def test_large_offset_and_small_values():
    """Where a formula with uncentred sums in float32 would fail."""
    full, ours = torch.randn(4, 50).double(), torch.randn(4, 50).double()
    expected = scipy.stats.pearsonr(full.flatten(), ours.flatten()).statistic
    assert of(1000 + full).compare(ours - 500).signed == pytest.approx(expected, abs=1e-9)
    assert of(full * 1e-30).compare(ours * 1e-30).signed == pytest.approx(expected, abs=1e-9)


def test_correlation_goes_over_images_and_positions():
    """One image's map against another's level: neither the mean over images nor over positions is right."""
    full = torch.tensor([[0.0, 1.0], [10.0, 11.0]])
    ours = torch.tensor([[1.0, 0.0], [11.0, 10.0]])
    assert of(full).compare(ours).signed == pytest.approx(np.corrcoef([0, 1, 10, 11], [1, 0, 11, 10])[0, 1], abs=1e-12)


@pytest.mark.parametrize(
    ("ours", "disconnected", "reason"),
    [(torch.full((3, 4), 2.5), False, "constant"), (torch.zeros(3, 4), False, "constant"),
     (2.5 + 1e-7 * torch.randn(3, 4), False, "constant"), (torch.arange(12.0).view(3, 4), True, "disconnected")],
)  # fmt: skip
def test_zero_by_definition(ours, disconnected, reason):
    full = torch.arange(12.0).view(3, 4)
    kept = of(full).compare(ours, disconnected=disconnected)
    assert (kept.pearson, kept.signed, kept.spearman, kept.sd_ratio, kept.reason) == (0, 0, 0, 0, reason)
    assert kept.relative_difference == pytest.approx(float((ours - full).abs().mean() / full.abs().mean()))


@pytest.mark.parametrize("value", [0.0, -3.0])
def test_dead_target(value):
    with pytest.raises(
        TargetError, match=rf"target a:0 is dead: its response is {value:g} everywhere on these 3 images"
    ):
        of(torch.full((3, 4), value))


def test_not_finite():
    """A nan slips through every comparison, so it has to be looked for."""
    with pytest.raises(ImageError, match=r"target a:0 is not finite on these images"):
        of(torch.tensor([[1.0, torch.inf]]))
    for value in (torch.nan, torch.inf):
        with pytest.raises(ImageError, match=r"circuit's response to target a:0 is not finite"):
            of(torch.tensor([[1.0, 2.0]])).compare(torch.tensor([[1.0, value]]))


@pytest.mark.parametrize("target", TARGETS)
def test_the_whole_model_is_kept_exactly(shapesnet, shapes, target):
    kept = vc.preservation(circuit(shapesnet, shapes[0], target, 1.0, "random"), shapes[1])
    assert (kept.pearson, kept.signed, kept.spearman, kept.relative_difference, kept.reason) == (1, 1, 1, 0, None)
    assert kept.sd_ratio == 1
    assert kept.pearson_within == pytest.approx(1, abs=1e-12)
    assert kept.n_values == {"features.10:5": 12 * 64, "features.11:5": 12 * 64}.get(target, 12)


@pytest.mark.parametrize("biases", ["masked", "pruned"])
@pytest.mark.parametrize("target", TARGETS)
def test_disconnected(shapesnet, shapes, target, biases):
    """The reason is told, and the shortcut gives the responses of the real run, bit for bit."""
    part = circuit(shapesnet, shapes[0], target, 0.001, "random", biases=biases)
    assert part.disconnected
    kept = vc.preservation(part, shapes[1])
    assert (kept.pearson, kept.spearman, kept.reason) == (0, 0, "disconnected")
    full = reference(part, shapes[1])
    run = part.respond(shapes[1], frozen=full.response.frozen)
    assert full.compare(run, disconnected=True) == kept


@pytest.mark.parametrize("target", TARGETS)
def test_batch_size_and_given_reference_change_nothing(shapesnet, shapes, target):
    part = circuit(shapesnet, shapes[0], target, 0.2 if "loss" in target else 0.05)
    kept = vc.preservation(part, shapes[1])
    full = reference(part, shapes[1], batch_size=5)
    for other in (
        vc.preservation(part, shapes[1], batch_size=1),
        vc.preservation(part, shapes[1], full=full, batch_size=7),
    ):
        assert other.reason == kept.reason
        assert other.pearson == pytest.approx(kept.pearson, abs=1e-5)
        assert other.relative_difference == pytest.approx(kept.relative_difference, abs=1e-5)
    assert 0 < kept.pearson < 0.999


def test_a_position_that_follows_the_maximum_is_frozen_in_the_full_model(shapesnet, shapes):
    part = circuit(shapesnet, shapes[0], "features.10:5@max", 0.05)
    maps = circuit(shapesnet, shapes[0], "features.10:5", 1.0, "random").respond(shapes[1])
    where = maps.argmax(1)
    own = vc.Circuit(shapesnet, vc.Target("features.10", 5), part.mask).respond(shapes[1]).gather(1, where[:, None])
    expected = scipy.stats.pearsonr(maps.gather(1, where[:, None]).flatten(), own.flatten()).statistic
    assert vc.preservation(part, shapes[1]).signed == pytest.approx(expected, abs=1e-5)


def test_a_reference_of_something_else_is_refused(shapesnet, shapes):
    part, other = (circuit(shapesnet, shapes[0], t, 0.2, "random") for t in ("features.10:5", "features.10:6"))
    with pytest.raises(
        ImageError, match=r"expected responses of target features\.10:5 to these 12 images, got those of features\.10:6"
    ):
        vc.preservation(part, shapes[1], full=reference(other, shapes[1]))
    with pytest.raises(
        ImageError, match=r"got those of features\.10:5 to 3; make them with reference\(circuit, images\)"
    ):
        vc.preservation(part, shapes[1], full=reference(part, shapes[1].subset([0, 1, 2])))
