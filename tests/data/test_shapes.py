import math

import numpy as np
import pytest
import torch

from viscircuits.data import shapes
from viscircuits.errors import ViscircuitsError
from viscircuits.store import digest


@pytest.fixture(scope="module")
def many():
    return shapes.generate(600, seed=5)


def test_a_picture_does_not_depend_on_how_many_are_drawn():
    eight, last = shapes.generate(8, seed=3), shapes.generate(2, seed=3, start=6)
    assert torch.equal(eight.images[6:], last.images)
    assert torch.equal(eight.labels[6:], last.labels)
    assert all(torch.equal(eight.masks[c][6:], last.masks[c]) for c in shapes.CATEGORIES)
    assert torch.equal(shapes.draw(7, 3).images, last.images[1:])


def test_other_seeds_and_indices_are_other_pictures():
    pictures = torch.cat([shapes.generate(20, seed=s).images for s in (0, 1)]).flatten(1)
    assert len(pictures.unique(dim=0)) == 40


def test_the_pictures_are_what_they_were():
    """Stored results name pictures by seed and index: when this digest changes, all of them are void."""
    drawn = shapes.generate(64, seed=0)
    assert digest(drawn.images, drawn.labels, *drawn.masks.values()) == "a6af77dc7953262f"


def test_every_word_is_used_and_masks_stay_in_their_vocabulary(many):
    assert list(many.masks) == list(shapes.CATEGORIES)
    for category, words in shapes.CATEGORIES.items():
        assert many.masks[category].unique().tolist() == list(range(len(words) + 1)), category
    assert torch.bincount(many.labels, minlength=len(shapes.OBJECTS)).min() > 20


def test_masks_agree_with_each_other_and_with_the_label(many):
    inside = many.masks["object"] > 0
    for category in ("colour", "part", "texture"):
        assert torch.equal(many.masks[category] > 0, inside)
    assert torch.equal(many.masks["scene"] > 0, ~inside)
    assert torch.equal(many.masks["object"].flatten(1).amax(1).long(), many.labels + 1)
    assert inside.flatten(1).sum(1).min() > 60
    assert not inside[:, [0, -1], :].any()
    assert not inside[:, :, [0, -1]].any()


def test_a_pixel_has_the_colour_its_mask_says(many):
    """Averaged over plain objects, the nearest named colour is the one in the mask."""
    plain, interior = shapes.TEXTURES.index("plain") + 1, many.masks["object"] > 0
    for k in range(len(shapes.COLOURS)):
        where = (many.masks["colour"] == k + 1) & (many.masks["texture"] == plain) & interior
        mean = many.images.permute(0, 2, 3, 1)[where].double().mean(0) / 255
        centred = torch.from_numpy(shapes._RGB).double() * 0.85 + 0.075  # the mean contrast is 0.85
        assert int((centred - mean).norm(dim=1).argmin()) == k, shapes.COLOURS[k]


@pytest.mark.parametrize(
    ("name", "area"),
    [
        ("disc", math.pi),
        ("square", 4 * 0.76**2),
        ("triangle", 3 * math.sqrt(3) / 4),
        ("ring", math.pi * (1 - 0.65**2)),
        ("arc", math.pi * (1 - 0.65**2) / 2),
        ("star", 10 * 0.5 * 1 * 0.44 * math.sin(math.pi / 5)),
        ("cross", 2 * (1.92 * 0.35) - 0.35**2),
        ("corner", 4 * 0.76**2 - (1.52 - 0.35) ** 2),
    ],
)
def test_outlines_enclose_the_area_of_the_ideal_figure(name, area):
    grid = (np.arange(-1.2, 1.2, 0.004) + 0.002).astype(np.float32)
    x, y = np.meshgrid(grid, grid)
    d = shapes._OBJECTS[shapes.OBJECTS.index(name)].distance(x, y, 0.35)
    assert (d < 0).mean() * 2.4**2 == pytest.approx(area, rel=0.01)  # the grid's own error is under 1 %


@pytest.mark.parametrize("name", shapes.OBJECTS)
def test_near_the_outline_the_value_is_the_distance(name):
    """Slope 1 almost everywhere near the outline (corners apart), so that edges are one pixel soft."""
    grid = np.arange(-1.1, 1.1, 0.01).astype(np.float32)
    x, y = np.meshgrid(grid, grid)
    d = shapes._OBJECTS[shapes.OBJECTS.index(name)].distance(x, y, 0.35).astype(np.float64)
    slope = np.hypot(*np.gradient(d, 0.01))[np.abs(d) < 0.05]
    assert np.median(slope) == pytest.approx(1, abs=0.02)
    assert ((slope > 0.95) & (slope < 1.05)).mean() > 0.85


def test_textures_have_two_tones_and_plain_has_one(many):
    def spread(texture: str) -> float:
        where = many.masks["texture"] == shapes.TEXTURES.index(texture) + 1
        chosen = where.flatten(1).any(1)
        grey, where = many.images[chosen].float().mean(1), where[chosen]
        return float(torch.stack([g[w].std() for g, w in zip(grey, where, strict=True)]).mean())

    assert all(spread(name) > 1.5 * spread("plain") for name in ("stripes", "checks", "dots"))


@pytest.mark.parametrize("bad", [{"n": 0, "seed": 0}, {"n": 1, "seed": -1}, {"n": 1, "seed": 0, "start": -1}])
def test_impossible_requests_say_what_came(bad):
    with pytest.raises(ViscircuitsError, match=r"^(n|seed) (0|-1) is out of range|expected n >= 1.*got n="):
        shapes.generate(**bad)
