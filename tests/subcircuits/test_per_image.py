"""Scores image by image: they add up to the scores of any set."""

import pytest
import torch

import viscircuits as vc
from viscircuits.errors import MaskError, TargetError
from viscircuits.subcircuits.per_image import score_each

TARGET = vc.Target("features.6", 7)


@pytest.mark.parametrize(
    ("criterion", "granularity"),
    [("actgrad", "kernel"), ("snip", "kernel"), ("magnitude", "kernel"), ("snip", "filter")],
)
def test_they_add_up_to_the_scores_of_a_set(shapesnet, shapes, criterion, granularity):
    images = shapes[0].subset(range(7))
    each = score_each(shapesnet, TARGET, images, criterion=criterion, granularity=granularity)
    for chosen in ([0, 3, 5, 6], [2], list(range(7))):
        own = each.of(chosen)
        whole = vc.score(shapesnet, TARGET.at("max"), images.subset(chosen), criterion, granularity=granularity)
        for name, mean in whole.means.items():
            assert float((own.means[name] - mean).abs().max()) <= 1e-5 * float(mean.abs().max())
        assert own.target == whole.target
        assert own.select(density=0.2).iou(whole.select(density=0.2)) > 0.98


def test_places_are_where_each_image_is_read(shapesnet, shapes):
    images, _ = shapes
    readout = vc.Readout(TARGET.at("max"), vc.trace(shapesnet, images[0].shape))
    highest = vc.respond(shapesnet, readout, images).frozen[0]
    given, own = (score_each(shapesnet, TARGET, images, places=places) for places in (highest, None))
    torch.testing.assert_close(given.values, own.values)
    width = readout.graph.output("features.6").map_shape[1]
    places = torch.arange(12) * 5 + 3
    elsewhere = score_each(shapesnet, TARGET, images, places=places)
    target = TARGET.at(divmod(int(places[4]), width))
    expected = vc.score(shapesnet, target, images.subset([4]))
    for name, sums in elsewhere.of([4]).sums.items():
        torch.testing.assert_close(sums, expected.sums[name])


def test_minmax_is_taken_after_the_sum(shapesnet, shapes):
    images, _ = shapes
    own = score_each(shapesnet, TARGET, images, normalise="minmax").of([1, 2, 3])
    whole = vc.score(shapesnet, TARGET.at("max"), images.subset([1, 2, 3]), normalise="minmax")
    for name, mean in whole.means.items():
        torch.testing.assert_close(own.means[name], mean, atol=1e-5, rtol=1e-4)


def test_errors(shapesnet, shapes):
    images, _ = shapes
    with pytest.raises(MaskError, match="force scores a set as a whole"):
        score_each(shapesnet, TARGET, images, criterion="force")
    with pytest.raises(TargetError, match="has one position for all images"):
        score_each(shapesnet, TARGET.at("center"), images)
    with pytest.raises(TargetError, match="expected one place an image"):
        score_each(shapesnet, TARGET, images, places=torch.arange(12) + 10**6)
