"""The cache: the same pictures again, never another's, and nothing damaged."""

from pathlib import Path

import pytest
import torch

import viscircuits as vc
from viscircuits.circuit.circuit import Circuit
from viscircuits.data.colours import Colours
from viscircuits.optvis import render as rendering
from viscircuits.optvis.ascent import Ascent
from viscircuits.optvis.parameterisation import Fourier, Maco
from viscircuits.optvis.transforms import Jitter


@pytest.fixture
def climbed(monkeypatch) -> list[int]:
    """How many pictures every ascent had."""
    seen: list[int] = []
    original = Ascent.climb

    def climb(self, objectives, seeds, progress):
        seen.append(len(objectives))
        return original(self, objectives, seeds, progress)

    monkeypatch.setattr(Ascent, "climb", climb)
    return seen


def render(model, what=("features.3:4", "features.3:5"), folder: Path | None = None, **options):
    return rendering.render(model, list(what), **{"size": 32, "steps": 2, "cache": folder} | options)


def test_a_hit_is_identical(shapesnet, tmp_path, climbed):
    first = render(shapesnet, folder=tmp_path)
    again = render(shapesnet, ["features.3:5", "features.3:6", "features.3:4"], tmp_path)
    assert climbed == [2, 1]  # only what was not there
    assert again.images[2].equal(first.images[0])
    assert again.images[0].equal(first.images[1])
    assert [p._replace(image=None) for p in again][2] == first[0]._replace(image=None)
    assert first.images.equal(render(shapesnet).images)
    assert len(list(tmp_path.iterdir())) == 3


def test_everything_that_matters_is_in_the_key(shapesnet, shapes, tmp_path, climbed):
    other = vc.zoo.load("shapesnet").model
    with torch.no_grad():
        other.features[0].bias[0] += 1e-6
    target = vc.Target("features.3", 4)
    circuit = vc.find(shapesnet, target, shapes[0], density=0.5, criterion="magnitude")
    calls = [
        (shapesnet, {}), (other, {}), (circuit, {}), (Circuit(shapesnet, target, circuit.mask, "pruned"), {}),
        (shapesnet, {"seed": 1}), (shapesnet, {"steps": 3}), (shapesnet, {"sign": -1}), (shapesnet, {"size": 48}),
        (shapesnet, {"canvas": 40}), (shapesnet, {"transforms": (Jitter(0.1),)}), (shapesnet, {"transforms": ()}),
        (shapesnet, {"parameterisation": "pixels"}), (shapesnet, {"parameterisation": Fourier(decay=1.5)}),
        (shapesnet, {"parameterisation": Maco(images=shapes[0])}),
        (shapesnet, {"parameterisation": Maco(images=shapes[1])}), (shapesnet, {"colours": Colours.unchanged(3)}),
        (shapesnet, {"variants": 2, "diversity": 1.0}), (shapesnet, {"variants": 2, "diversity": 2.0}),
    ]  # fmt: skip
    for number, (model, options) in enumerate(calls, 1):
        render(model, ["features.3:4"], tmp_path, **options)
        assert len(climbed) == number, options
    for model, options in calls:
        render(model, ["features.3:4"], tmp_path, **options)
    assert len(climbed) == len(calls)


def test_what_does_not_matter_is_not(shapesnet, tmp_path, climbed):
    render(shapesnet, ["features.3:4"], tmp_path, variants=2)
    render(shapesnet, ["features.3:4"], tmp_path, batch_size=1)
    render(shapesnet, ["features.3:4"], tmp_path, seed=1)  # the second variant
    assert climbed == [2]
    cropped = render(shapesnet, ["features.3:4@center"], tmp_path, crop=True)
    whole = render(shapesnet, ["features.3:4@center"], tmp_path)
    assert len(climbed) == 2
    assert (cropped[0].window is None, whole[0].window) == (False, None)


@pytest.mark.parametrize("damage", [b"", b"not a picture", None])
def test_damaged_files_are_rendered_again(shapesnet, tmp_path, climbed, damage: bytes | None):
    first = render(shapesnet, folder=tmp_path)
    file = sorted(tmp_path.iterdir())[0]
    file.write_bytes(file.read_bytes()[:-100] if damage is None else damage)
    assert render(shapesnet, folder=tmp_path).images.equal(first.images) or sum(climbed) == 3
    assert climbed == [2, 1]
    assert render(shapesnet, folder=tmp_path).notes == ("", "")
    assert climbed == [2, 1]
