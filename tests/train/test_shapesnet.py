import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from viscircuits.data import shapes
from viscircuits.errors import ImageError
from viscircuits.model.zoo import builtin
from viscircuits.model.zoo.builtin import ShapesNet, ShapesTransform, load_shapesnet
from viscircuits.store import read_tensors
from viscircuits.train.loop import Recipe, accuracy, fit
from viscircuits.train.penalties import conv_weights
from viscircuits.train.shapesnet import kernel_fractions, live_channels, train_shapesnet, trim_kernels


@pytest.fixture(scope="module")
def net():
    return load_shapesnet()


@pytest.fixture(scope="module")
def fresh():
    return shapes.generate(1000, seed=777_777)


def short(steps, **options):
    return Recipe(steps=steps, batch=32, warmup=0.2, every=5, **options)


def brief(**options):
    """A whole training in miniature."""
    sizes = {"pictures": 64, "tests": 16, "dense": short(4), "sparse": short(4)}
    return train_shapesnet(**(sizes | options))


def test_the_committed_weights_know_fresh_pictures(net, fresh):
    assert not net.training
    assert accuracy(net, fresh.images, fresh.labels, ShapesTransform()) >= 0.95


def test_the_committed_weights_are_sparse_and_alive(net, fresh):
    kernels, live = kernel_fractions(net), live_channels(net, fresh.images)
    assert all(kernels[layer] < 0.5 for layer in ("features.6", "features.8", "features.10")), kernels
    assert live["features.8"] >= 0.6 * 64, live
    assert live["features.10"] >= 0.6 * 48, live
    for weight in conv_weights(net).values():  # what is not above the limit is exactly zero
        magnitude = weight.abs().mean(dim=(2, 3))
        assert not magnitude[magnitude <= 1e-3].any()


def test_twenty_steps_lower_the_loss():
    train = shapes.generate(64, seed=9)
    torch.manual_seed(0)
    reports = fit(ShapesNet(), train.images, train.labels, ShapesTransform(), short(20, lr=5e-3, flips=False))
    assert [r.step for r in reports] == [5, 10, 15, 20]
    assert reports[-1].accuracy is None
    assert reports[-1].loss < reports[0].loss - 0.02


@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
def test_the_penalty_lowers_what_it_penalises(optimiser):
    train, ends = shapes.generate(32, seed=9), []
    for strength in (0.0, 1e-3):
        torch.manual_seed(0)
        model = ShapesNet()
        weights = list(conv_weights(model).values())

        def size(weights=weights):
            return torch.stack([w.abs().sum() for w in weights]).sum()

        recipe = short(5, lr=1e-3, optimiser=optimiser)
        fit(model, train.images, train.labels, ShapesTransform(), recipe, penalty=lambda s=strength: s * size())
        ends.append(float(size().detach()))
    assert ends[1] < ends[0]


def test_same_seed_same_weights():
    torch.manual_seed(1)
    before, first = torch.get_rng_state(), brief()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again, other = brief(), brief(seed=1)
    same = [torch.equal(a, b) for a, b in zip(first.model.parameters(), again.model.parameters(), strict=True)]
    assert all(same)
    assert not torch.equal(first.model.features[0].weight, other.model.features[0].weight)


def test_what_is_written_is_what_was_measured(tmp_path):
    trained = brief(out=tmp_path / "net.safetensors")
    tensors, header = read_tensors(tmp_path / "net.safetensors")
    assert header["accuracy"] == trained.accuracy
    assert header["kernels"] == trained.kernels
    for name, tensor in trained.model.state_dict().items():
        assert tensors[name].dtype == torch.float16
        assert torch.equal(tensors[name].float(), tensor)
    assert [p.name for p in tmp_path.iterdir()] == ["net.safetensors"]


def test_an_interrupted_training_writes_nothing_and_leaves_evaluation_mode(tmp_path):
    def interrupt(report):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        brief(out=tmp_path / "net.safetensors", progress=interrupt)
    assert not list(tmp_path.iterdir())
    train = shapes.generate(4, seed=0)
    model = ShapesNet()
    with pytest.raises(KeyboardInterrupt):
        fit(model, train.images, train.labels, ShapesTransform(), short(5), progress=interrupt)
    assert not model.training


def test_trimming_empties_small_kernels_only():
    model = ShapesNet()
    with torch.no_grad():
        model.features[3].weight[:] = 0.5
        model.features[3].weight[0, 0] = 0.25
        model.features[3].weight[1, :] = -0.125
    trim_kernels(model, limit=0.25)
    assert kernel_fractions(model)["features.3"] == pytest.approx(1 - (1 + 24) / (48 * 24))
    assert not model.features[3].weight[1].any()
    assert (model.features[3].weight[2:] == 0.5).all()


def test_no_pictures_no_training():
    train = shapes.generate(4, seed=0)
    with pytest.raises(ImageError, match="got 0 and 0"):
        fit(ShapesNet(), train.images[:0], train.labels[:0], ShapesTransform(), short(1))


def test_the_transform_takes_every_kind_of_picture(fresh):
    prepare, picture = pickle.loads(pickle.dumps(ShapesTransform())), fresh.images[0]
    x = prepare(picture)
    as_pil = Image.fromarray(picture.permute(1, 2, 0).numpy())
    for same in (prepare(as_pil), prepare(picture.float() / 255), prepare(picture[None])[0]):
        assert torch.equal(same, x)
    assert float(x[0, 0, 0]) == pytest.approx((float(picture[0, 0, 0]) / 255 - 0.54) / 0.24, abs=1e-6)
    assert prepare(as_pil.resize((100, 80))).shape == (3, 64, 64)
    assert prepare(Image.fromarray(np.zeros((64, 64), np.uint8))).shape == (3, 64, 64)  # grey
    assert abs(float(prepare(fresh.images).mean())) < 0.1
    assert abs(float(prepare(fresh.images).std()) - 1) < 0.1


@pytest.mark.parametrize("bad", [torch.zeros(1, 64, 64), torch.zeros(3, 0, 64), torch.zeros(3, 64, 64).long()])
def test_the_transform_refuses_what_is_no_picture(bad):
    with pytest.raises(ImageError, match="expected"):
        ShapesTransform()(bad)


def test_missing_weights_say_where_they_were_looked_for(monkeypatch):
    monkeypatch.setattr(builtin, "WEIGHTS", "nowhere.safetensors")
    with pytest.raises(builtin.ModelError, match=r"nowhere\.safetensors.*install viscircuits again"):
        load_shapesnet()
