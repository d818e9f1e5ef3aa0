"""Transforms on pictures small enough to see what they should give."""

import math

import pytest
import torch

from viscircuits.errors import ImageError
from viscircuits.optvis.transforms import OUTSIDE, STANDARD, Crop, Jitter, Pad, Rotate, Scale, Transform, chain, view

PICTURE = torch.arange(64, dtype=torch.float64).view(1, 1, 8, 8) / 64


def seen(transform: Transform, *u: float, picture: torch.Tensor = PICTURE, size: tuple[int, int] = (8, 8)):
    matrix = transform.matrix(torch.tensor([u], dtype=torch.float64))
    return view(picture, matrix, size)


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_no_transform_shows_the_picture():
    assert torch.allclose(view(PICTURE, chain((), generators(0)), (8, 8)), PICTURE, atol=1e-12)


def test_jitter_shifts_and_fills_with_grey():
    right_and_down = seen(Jitter(0.25), 1.0, 0.75)  # the window moves 2 pixels right, 1 down
    assert torch.allclose(right_and_down[..., :7, :6], PICTURE[..., 1:, 2:], atol=1e-12)
    assert (right_and_down[..., 7, :] == OUTSIDE).all()
    assert (right_and_down[..., 6:] == OUTSIDE).all()


def test_scale_magnifies():
    twice = seen(Scale(1.0, 2.0), 1.0, size=(16, 16))  # 16 pixels for the middle 4
    assert torch.allclose(twice[..., 2::4, :].diff(dim=-2), torch.full((3, 16), 8 / 64, dtype=torch.float64), atol=1e-9)
    assert twice[0, 0, 8, 8] == pytest.approx(float(PICTURE[0, 0, 3:5, 3:5].mean()) + (8 + 1) / 64 / 8)


def test_rotate_turns():
    quarter = seen(Rotate(90.0), 1.0)
    assert torch.allclose(quarter, PICTURE.rot90(1, (2, 3)), atol=1e-12)
    assert torch.allclose(seen(Rotate(90.0), 0.0), PICTURE.rot90(-1, (2, 3)), atol=1e-12)
    assert torch.allclose(seen(Rotate(90.0), 0.5), PICTURE, atol=1e-12)


def test_rotate_does_not_shear_what_is_not_square():
    wide = torch.zeros(1, 1, 8, 16, dtype=torch.float64)
    wide[..., 2:6, 6:10] = 1  # a square in the middle stays one
    turned = view(wide, Rotate(90.0).matrix(torch.ones(1, 1, dtype=torch.float64)), (8, 16))
    assert torch.allclose(turned[..., 2:6, 6:10], torch.ones(4, 4, dtype=torch.float64), atol=1e-9)
    assert turned.sum() == pytest.approx(16 + OUTSIDE * 8 * 8)  # and what was above and below it is grey


def test_pad_shows_a_border():
    padded = seen(Pad(0.5), size=(16, 16))
    assert torch.allclose(padded[..., 4:12, 4:12], PICTURE, atol=1e-12)
    assert (padded[..., :3, :] == OUTSIDE).all()


def test_crop_stays_inside():
    corner = seen(Crop(0.5, 1.0), 0.0, 0.0, 0.0, size=(4, 4))
    assert torch.allclose(corner, PICTURE[..., :4, :4], atol=1e-12)
    assert torch.allclose(seen(Crop(0.5, 1.0), 0.0, 1.0, 1.0, size=(4, 4)), PICTURE[..., 4:, 4:], atol=1e-12)
    assert torch.allclose(seen(Crop(0.5, 1.0), 1.0, 0.3, 0.9), PICTURE, atol=1e-12)


class ShiftRight(Transform):
    """Always moves the window by a quarter of the picture."""

    draws = 0

    def matrix(self, u: torch.Tensor) -> torch.Tensor:
        return Jitter(0.25).matrix(torch.tensor([[1.0, 0.5]], dtype=u.dtype))


def test_a_chain_applies_its_transforms_in_order():
    """Shifting and then magnifying shifts further, on the picture, than magnifying first."""
    twice = Scale(2.0, 2.0)
    magnify, shift = chain((twice,), generators(0)), chain((ShiftRight(),), generators(0))
    shifted_first = view(PICTURE, chain((ShiftRight(), twice), generators(0)), (8, 8))
    assert torch.allclose(shifted_first, view(view(PICTURE, shift, (8, 8)), magnify, (8, 8)), atol=1e-9)
    magnified_first = view(PICTURE, chain((twice, ShiftRight()), generators(0)), (8, 8))
    assert torch.allclose(magnified_first[..., :6], view(PICTURE, magnify, (8, 8))[..., 2:], atol=1e-9)


def test_every_picture_draws_from_its_own_generator():
    together = [chain(STANDARD, g) for g in [generators(3, 4)] for _ in range(2)]
    alone = [chain(STANDARD, g) for g in [generators(4)] for _ in range(2)]
    for both, one in zip(together, alone, strict=True):
        assert both[1].equal(one[0])
        assert not both[0].equal(both[1])


def test_draws_cover_the_range():
    shifts = torch.cat([chain((Jitter(0.25),), g) for g in [generators(0)] for _ in range(400)])[:, :2, 2] / 2
    assert shifts.abs().max() <= 0.25
    assert shifts.amax(0).min() > 0.24
    assert shifts.amin(0).max() < -0.24
    turns = torch.cat([chain((Rotate(10.0),), g) for g in [generators(0)] for _ in range(400)])[:, 1, 0].asin()
    assert (math.degrees(turns.min()), math.degrees(turns.max())) == pytest.approx((-10, 10), abs=0.2)


@pytest.mark.parametrize("make", [lambda: Scale(0.0, 1.0), lambda: Scale(1.2, 0.8), lambda: Crop(0.5, 1.5)])
def test_impossible_ranges(make):
    with pytest.raises(ImageError, match="expected"):
        make()
