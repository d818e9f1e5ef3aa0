"""Stimuli: exact areas, places and symmetries; colours; what the same seed gives."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from viscircuits.errors import ImageError
from viscircuits.probes.canvas import Canvas, direction
from viscircuits.probes.drawing import draw, variants
from viscircuits.probes.families import FAMILIES, family_of, stimulus_from_json
from viscircuits.probes.patterns import Arc, Corner, Grating, Line, Ring, Square, Texture
from viscircuits.probes.stimulus import Stimulus

N = 101
"""Pixels; odd, so that there is one in the middle."""


def cover(stimulus: Stimulus, size: int | tuple[int, int] = N) -> Tensor:
    """The share of each pixel that is covered: white on black."""
    return draw(stimulus, size, channels=1, ground=0.0)[0]


def centroid(picture: Tensor) -> tuple[float, float]:
    """Right of the centre, above it: in half sides."""
    canvas = Canvas.of(*picture.shape)
    return float((picture * canvas.x).sum() / picture.sum()), float((picture * canvas.y).sum() / picture.sum())


def area(picture: Tensor) -> float:
    return float(picture.double().sum()) * (2 / min(picture.shape)) ** 2


@pytest.mark.parametrize(
    ("stimulus", "expected"),
    [
        (Ring(radius=0.6, thickness=0.1), 2 * math.pi * 0.6 * 0.1),
        (Ring(radius=0.6, thickness=0.007), 2 * math.pi * 0.6 * 0.007),  # a third of a pixel
        (Arc(radius=0.5, angle=20.0, extent=90.0, thickness=0.12), math.pi / 2 * 0.5 * 0.12),
        (Arc(radius=0.5, angle=20.0, extent=290.0, thickness=0.12), 290 / 180 * math.pi * 0.5 * 0.12),
        (Arc(radius=0.5, extent=180.0, anchor="outline"), math.pi * 0.5 * 0.12),
        (Corner(radius=0.5, angle=45.0, thickness=0.1), 2 * 0.5 * 0.1),  # the mitre adds what the inside loses
        (Corner(radius=0.4, angle=7.0, opening=60.0, thickness=0.05), 2 * 0.4 / math.tan(math.pi / 6) * 0.05),
        (Square(radius=0.5, angle=11.0, thickness=0.1), 8 * 0.5 * 0.1),
        (Line(angle=33.0, length=1.2, thickness=0.08), 1.2 * 0.08),
        (Line(angle=0.0, length=1.2, thickness=0.001), 1.2 * 0.001),
    ],
)
def test_areas(stimulus: Stimulus, expected: float):
    assert area(cover(stimulus)) == pytest.approx(expected, rel=0.015)
    assert area(cover(replace(stimulus, x=0.05, y=-0.08))) == pytest.approx(expected, rel=0.015)


def test_places():
    """Middles lie where the numbers say: x to the right, y up, angles counter-clockwise."""
    for angle in (0.0, 30.0, 90.0, 200.0):
        c, s = direction(angle)
        middle = 0.5 * math.sin(math.pi / 4) / (math.pi / 4)  # of an arc of a quarter turn
        assert centroid(cover(Arc(angle=angle, thickness=0.04))) == pytest.approx((middle * c, middle * s), abs=2e-3)
        half_way = 0.5 * math.sqrt(2) * 0.75  # the tip, and half a leg back
        assert centroid(cover(Corner(angle=angle, thickness=0.04))) == pytest.approx(
            (half_way * c, half_way * s), abs=2e-3
        )
    assert centroid(cover(Ring(radius=0.3, x=0.2, y=-0.4))) == pytest.approx((0.2, -0.4), abs=1e-3)
    assert cover(Arc(angle=70.0, anchor="outline"))[N // 2, N // 2] == 1
    assert cover(Arc(angle=70.0))[N // 2, N // 2] == 0
    tip = cover(Corner(angle=90.0, anchor="outline", thickness=0.1))
    assert tip[N // 2, N // 2] > 0.9
    assert centroid(tip)[1] < -0.1  # it opens downwards


def test_corner_touches_arc_and_square_touches_ring():
    """The matched pairs meet where they should, and nowhere else."""
    for extent in (60.0, 90.0, 120.0):
        arc, corner = cover(Arc(extent=extent, thickness=0.06)), cover(Corner(opening=180.0 - extent, thickness=0.06))
        ends = [direction(side * (extent / 2 - 3)) for side in (-1, 1)]
        for picture in (arc, corner):
            for c, s in ends:
                row, column = round((1 - 0.5 * s) * N / 2 - 0.5), round((1 + 0.5 * c) * N / 2 - 0.5)
                assert picture[row, column] > 0.9
        assert arc[N // 2, round(1.5 * N / 2 - 0.5)] == 1
        assert corner[N // 2, round(1.5 * N / 2 - 0.5)] == 0
    assert (cover(Square(thickness=0.06)) * cover(Ring(thickness=0.06))).sum() > 30


@pytest.mark.parametrize("size", [40, 41])
@pytest.mark.parametrize(
    "stimulus",
    [
        Arc(angle=17.0),
        Arc(angle=17.0, extent=250.0),
        Corner(angle=17.0),
        Square(angle=17.0),
        Line(angle=17.0),
        Grating(angle=17.0),
    ],
)
def test_a_quarter_turn_turns_the_picture(stimulus: Stimulus, size: int):
    own = draw(stimulus, size)
    turned = draw(replace(stimulus, angle=107.0), size)
    assert torch.allclose(torch.rot90(own, 1, (-2, -1)), turned, atol=1e-6)
    period = stimulus.periods["angle"]
    assert torch.allclose(draw(replace(stimulus, angle=17.0 + period), size), own, atol=1e-6)
    assert not torch.allclose(draw(replace(stimulus, angle=17.0 + period / 2), size), own, atol=0.1)
    if not isinstance(stimulus, Grating):
        assert torch.allclose(draw(replace(stimulus, angle=-17.0), size), own.flip(-2), atol=1e-6)


def test_waves():
    row = draw(Grating(frequency=5.0, angle=90.0), 100)[0, 50]
    assert torch.fft.rfft(row - row.mean()).abs().argmax() == 5
    assert draw(Grating(angle=30.0), N)[0, N // 2, N // 2] == 1
    assert draw(Grating(angle=30.0, phase=180.0), N)[0, N // 2, N // 2] == 0
    flipped = [draw(Grating(angle=a, phase=90.0), N) for a in (30.0, 210.0)]
    assert torch.allclose(flipped[0], 1 - flipped[1], atol=1e-6)
    assert Grating(phase=90.0).periods["angle"] == 360
    power = torch.fft.fft2(draw(Texture(seed=1, frequency=8.0), 128)[0] - 0.5).abs().square()
    y, x = (torch.fft.fftfreq(128, 1 / 128)[:, None], torch.fft.fftfreq(128, 1 / 128)[None])
    assert power[(torch.hypot(x, y) - 8).abs() < 4].sum() > 0.9 * power.sum()
    with pytest.raises(ImageError, match=r"30 cycles in 50 pixels cannot be drawn; at most 25 can"):
        draw(Grating(frequency=30.0), 50)


def test_colour_and_contrast():
    picture = draw(Ring(colour=(1.0, 0.5, 0.0), contrast=0.5), 64)
    assert picture.amax((1, 2)).tolist() == pytest.approx([0.75, 0.5, 0.5])
    assert picture.amin((1, 2)).tolist() == pytest.approx([0.5, 0.5, 0.25])
    assert torch.allclose(draw(Ring(contrast=-1.0), 64), 1 - draw(Ring(), 64))
    assert torch.equal(draw(Ring(colour=120.0), 64), draw(Ring(colour=(0.0, 1.0, 0.0)), 64))
    assert torch.equal(draw(Ring(colour=480.0), 64), draw(Ring(colour=120.0), 64))
    assert draw(Ring(contrast=0.0), (20, 30)).unique().tolist() == [0.5]
    assert torch.equal(draw(Ring(), (64, 90))[:, :, 13:77], draw(Ring(), 64))
    with pytest.raises(ImageError, match=r"from -0.2 to 0.4; pictures are in \[0, 1\]"):
        draw(Ring(contrast=-1.0), 64, ground=0.4)
    with pytest.raises(ImageError, match=r"a hue needs pictures of 3 channels, these have 1"):
        draw(Ring(colour=120.0), 64, channels=1)
    with pytest.raises(ImageError, match=r"expected a colour of 1 or 3 numbers"):
        draw(Ring(colour=(0.0, 1.0)), 64)


def test_size_changes_detail_only():
    for stimulus in (Arc(angle=20.0), Corner(angle=50.0), Texture(seed=2)):
        small, large = draw(stimulus, 48), draw(stimulus, 192)
        assert torch.allclose(torch.nn.functional.avg_pool2d(large, 4), small, atol=0.09)


def test_seeds():
    assert torch.equal(draw(Texture(seed=3), 50), draw(Texture(seed=3), 50))
    assert not torch.allclose(draw(Texture(seed=3), 50), draw(Texture(seed=4), 50), atol=0.2)
    before = torch.get_rng_state()
    ranges = {"radius": (0.2, 0.7), "angle": (0.0, 360.0)}
    arcs, corners = variants(Arc(), ranges, 50, seed=1), variants(Corner(), ranges, 50, seed=1)
    assert torch.get_rng_state().equal(before)
    assert [(a.radius, a.angle) for a in arcs] == [(c.radius, c.angle) for c in corners]
    assert arcs[:20] == variants(Arc(), ranges, 20, seed=1)
    assert arcs != variants(Arc(), ranges, 50, seed=2)
    radii, angles = [a.radius for a in arcs], [a.angle for a in arcs]
    assert 0.2 <= min(radii) < 0.25 < 0.65 < max(radii) <= 0.7
    assert abs(torch.corrcoef(torch.tensor([radii, angles]))[0, 1]) < 0.4  # each parameter has a stream of its own
    assert {type(s.seed) for s in variants(Texture(), {"seed": (0.0, 99.0)}, 5)} == {int}
    with pytest.raises(ImageError, match=r"Arc has no parameter 'raduis'; closest: 'radius'"):
        variants(Arc(), {"raduis": (0.0, 1.0)}, 5)


def test_json():
    for family in FAMILIES.values():
        stimulus = family(contrast=-0.5, colour=(0.1, 0.2, 0.3))
        assert stimulus_from_json(stimulus.to_json()) == stimulus
    assert stimulus_from_json(Ring(colour=30.0).to_json()) == Ring(colour=30.0)
    assert family_of("arc") is Arc


def test_what_cannot_be_drawn():
    with pytest.raises(ImageError, match=r"expected a radius above 0, got 0"):
        Arc(radius=0.0)
    with pytest.raises(ImageError, match=r"expected a finite angle, got nan"):
        Line(angle=math.nan)
    with pytest.raises(ImageError, match=r"expected an opening between 0 and 180 degrees, got 180"):
        Corner(opening=180.0)
    with pytest.raises(ImageError, match=r"expected a contrast from -1 to 1"):
        Ring(contrast=2.0)
    with pytest.raises(ImageError, match=r"no family 'ark'; closest: 'arc'"):
        family_of("ark")
    with pytest.raises(ImageError, match=r"at least one pixel"):
        draw(Ring(), 0)
