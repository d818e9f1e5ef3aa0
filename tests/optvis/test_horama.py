"""Another library as oracle: horama climbs the same objectives in as many steps. Optional: see the skip reason.

Both see the picture whole under random shifts, in the same range of values, ours once a step and theirs twice (it
fails on a single view); what counts is the objective on the final picture as it is.
"""

import statistics

import pytest
import torch

from viscircuits.data.colours import Colours
from viscircuits.optvis.render import render

horama = pytest.importorskip(
    "horama",
    reason="horama is not installed; uv run --with horama --with einops --with tqdm pytest",
    exc_type=ImportError,
)
STEPS, SIDE = 64, 64
HALF = Colours((0.5,) * 3, (0.25,) * 3)  # what a network sees lies in [-2, 2]


@pytest.mark.filterwarnings("ignore")
def test_as_strong_as_theirs(shapesnet):
    def channel(images: torch.Tensor, index: int) -> torch.Tensor:
        return shapesnet.features[:9](images)[:, index].mean()

    def theirs(index: int) -> float:
        torch.manual_seed(0)
        image, _ = horama.fourier(
            lambda images: channel(images, index), total_steps=STEPS, image_size=SIDE, model_input_size=SIDE,
            values_range=(-2, 2), crops_per_iteration=2, box_size=(0.9, 1.0), device="cpu",
        )  # fmt: skip
        return float(channel(image[None].detach(), index))

    indices = [7, 12, 20, 33]
    ours = render(shapesnet, [f"features.8:{i}" for i in indices], colours=HALF, size=SIDE, steps=STEPS).values
    ratios = [own / theirs(index) for own, index in zip(ours, indices, strict=True)]
    print(*(f"{ratio:.2f}" for ratio in ratios))  # noqa: T201
    assert statistics.median(ratios) > 0.9
