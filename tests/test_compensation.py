"""Compensation against forward hooks that add, one layer at a time, what is said to be added."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import viscircuits as vc
from model.toys import Gated, Grouped, Normed, Plain, Residual
from viscircuits import store
from viscircuits.circuit.circuit import Circuit
from viscircuits.data.images import ImageSet
from viscircuits.errors import MaskError, StudyError, UnsupportedOperation
from viscircuits.evaluate.resample import donors, respond_resampled
from viscircuits.types import GRANULARITIES

TOYS = [Plain, Normed, Residual, Gated, Grouped]
HEAD = vc.Target("head", channel=0)


def found(toy, granularity="kernel", density=0.5) -> tuple[Circuit, ImageSet]:
    model = toy().ready()
    images = ImageSet.from_tensors(model.images(5))
    scores = vc.score(model, HEAD, images, "random", granularity=granularity)
    return Circuit(model, HEAD, scores.select(density=density)), images


def removed_outputs(circuit: Circuit, images: Tensor) -> dict[str, Tensor]:
    """Layer -> what its removed kernels put out on the full model's inputs: all that is put out less the kept part."""
    inputs, outputs = {}, {}
    handles = [
        circuit.model.get_submodule(name).register_forward_hook(
            lambda module, x, y, name=name: (
                (inputs.update({name: x[0].clone()}), outputs.update({name: y.clone()}))[2:] or None
            )
        )
        for name in circuit.mask.kept
    ]
    circuit.model(images.clone())
    for handle in handles:
        handle.remove()
    twin = masked_twin(circuit)
    return {name: outputs[name] - twin.get_submodule(name)(inputs[name]) for name in circuit.mask.kept}


def masked_twin(circuit: Circuit) -> nn.Module:
    twin = copy.deepcopy(circuit.model)
    for name, weight in Circuit(circuit.model, circuit.target, circuit.mask).weights.items():
        twin.get_parameter(name).data.copy_(weight)
    return twin


def with_added(circuit: Circuit, images: Tensor, added: dict[str, Tensor]) -> Tensor:
    """The masked network, with tensors added to the outputs of its layers by hooks."""
    twin = masked_twin(circuit)
    for name, values in added.items():
        twin.get_submodule(name).register_forward_hook(lambda m, x, y, values=values: y + values)
    return circuit.readout.response({"head": twin(images.clone())}, (None,))


def by_filter(values: Tensor) -> Tensor:
    """One number a filter, shaped to be added to a map; every image and position counts once."""
    if values.ndim == 2:
        return values.mean(0)
    return torch.stack([values[:, c].mean() for c in range(values.shape[1])])[:, None, None]


@pytest.mark.parametrize("toy", TOYS)
@pytest.mark.parametrize("granularity", GRANULARITIES)
@torch.no_grad()
def test_mean_compensation_is_what_hooks_add(toy, granularity):
    circuit, images = found(toy, granularity)
    everything = torch.stack([image for image in images])
    added = {name: by_filter(values) for name, values in removed_outputs(circuit, everything).items()}
    expected = with_added(circuit, everything, added)
    part = circuit.compensated(images, batch_size=2)
    torch.testing.assert_close(part.respond(images, batch_size=3), expected)
    torch.testing.assert_close(part.extract()(everything), expected)
    assert not torch.allclose(circuit.respond(images), expected, rtol=1e-3)


def test_compensation_of_a_bias_by_hand():
    """A 1x1 layer of one filter, 2x + 3y + 1, of which 3y is removed: y is 4 on average, so 12 is added."""
    model = nn.Sequential(nn.Conv2d(2, 1, 1)).eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([2.0, 3.0]).view(1, 2, 1, 1))
        model[0].bias.fill_(1)
    pictures = torch.tensor([[[[1.0, 2.0]], [[3.0, 5.0]]], [[[0.0, 1.0]], [[4.0, 4.0]]]])
    images = ImageSet.from_tensors(pictures)
    mask = vc.score(model, vc.Target("0", channel=0), images, "random").select(density=1.0)
    kept = vc.Mask({"0": torch.tensor([[True, False]])}, mask.relevant, "kernel", mask.input_shape)
    part = Circuit(model, vc.Target("0", channel=0), kept).compensated(images)
    assert part.respond(images).tolist() == [[15, 17], [13, 15]]
    assert part.weights["0.bias"].tolist() == [13]
    assert model[0].bias.tolist() == [1]


def test_nothing_removed_changes_nothing():
    circuit, images = found(Residual, density=1.0)
    assert torch.equal(circuit.compensated(images).respond(images), circuit.respond(images))


def test_it_is_said_and_never_silent(tmp_path):
    circuit, images = found(Normed)
    part = circuit.compensated(images)
    assert (circuit.kind, circuit.compensation, part.kind) == ("masked", None, "masked, mean-compensated")
    assert "Means(of what is removed in 3 layers, over 5 images)" in repr(part)
    assert "Means" not in repr(circuit)
    circuit.save(tmp_path / "plain")
    part.save(tmp_path / "compensated")
    again = Circuit.load(tmp_path / "compensated", part.model)
    assert again.kind == part.kind
    assert torch.equal(again.respond(images), part.respond(images))
    assert Circuit.load(tmp_path / "plain", part.model).kind == "masked"
    headers = [store.read_tensors(tmp_path / name)[1] for name in ("plain", "compensated")]
    assert [(header["format"], header.get("compensation")) for header in headers] == [
        (1, None), (2, {"kind": "mean", "n_images": 5}),
    ]  # fmt: skip


@pytest.mark.parametrize("toy", [Plain])
def test_one_position_is_run_on_crops_all_the_same(toy):
    circuit, images = found(toy)
    part = replace(circuit, target=vc.Target("head", channel=0, position=(2, 2)))
    whole = circuit.compensated(images).respond(images)
    width = circuit.graph.output("head").map_shape[1]
    torch.testing.assert_close(part.compensated(images).respond(images)[:, 0], whole[:, 2 * width + 2])


def test_what_cannot_be_compensated():
    circuit, images = found(Plain)
    part = circuit.compensated(images)
    with pytest.raises(MaskError, match=r"compensation holds for a circuit with biases='masked' and for the mask"):
        replace(part, mask=~circuit.mask)
    with pytest.raises(MaskError, match="compensation holds for"):
        replace(circuit, biases="pruned").compensated(images)
    bare = nn.Sequential(nn.Conv2d(3, 2, 1, bias=False), nn.ReLU(), nn.Conv2d(2, 1, 1)).double().eval()
    target = vc.Target("2", channel=0)
    mask = vc.score(bare, target, images, "random").select(density=0.5)
    with pytest.raises(UnsupportedOperation, match=r"layer '0': it has neither a bias nor a batch norm right behind"):
        Circuit(bare, target, mask).compensated(images)


@pytest.mark.parametrize("toy", TOYS)
@torch.no_grad()
def test_resampled_contributions_are_what_hooks_add(toy):
    circuit, images = found(toy)
    chosen = donors(len(images), seed=3)
    expected = [
        with_added(circuit, image[None], removed_outputs(circuit, images[other][None]))
        for image, other in zip(images, chosen, strict=True)
    ]
    ours = respond_resampled(circuit, images, seed=3, batch_size=2)
    torch.testing.assert_close(ours, torch.cat(expected))
    assert torch.equal(ours, respond_resampled(circuit, images, seed=3, batch_size=2))
    assert not torch.allclose(ours, respond_resampled(circuit, images, seed=4))


@pytest.mark.parametrize("n", [2, 3, 10])
def test_nobody_is_its_own_donor(n):
    for seed in range(20):
        chosen = donors(n, seed)
        assert sorted(chosen) == list(range(n))
        assert all(one != other for one, other in enumerate(chosen))


def test_resampling_is_for_masked_circuits():
    circuit, images = found(Plain)
    with pytest.raises(MaskError, match=r"for a masked circuit, got a masked, mean-compensated one"):
        respond_resampled(circuit.compensated(images), images)
    with pytest.raises(vc.ImageError, match="at least two pictures"):
        respond_resampled(circuit, images.subset([0]))


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_scales_multiply_what_is_kept(granularity):
    circuit, images = found(Residual, granularity)
    part = vc.rescaled(circuit, images, steps=30)
    factors = {}
    for name, values in part.compensation.scales.items():
        kept, relevant = circuit.mask.kept[name], circuit.mask.relevant[name]
        assert bool((values[relevant & ~kept] == 0).all())
        assert bool((values[~relevant] == 1).all())
        assert bool((values[kept] > 0).all())
        factors[name] = values
    twin = copy.deepcopy(circuit.model)
    for name, values in factors.items():
        weight = twin.get_submodule(name).weight
        weight.data *= values.reshape(*values.shape, *[1] * (weight.ndim - values.ndim)).to(weight)
    expected = circuit.readout.response({"head": twin(everything(images))}, (None,))
    assert torch.allclose(part.respond(images), expected, rtol=1e-6, atol=1e-9)


def everything(images: ImageSet) -> Tensor:
    return torch.cat([batch.images.clone() for batch in images.batches(16)])


def test_a_kept_kernel_stands_in_for_one_that_went():
    """The second channel is twice the first, so that the first alone can do with 1 + 2 * 3 times its weight."""
    model = nn.Sequential()
    model.add_module("head", nn.Conv2d(2, 1, 1, bias=False))
    model.head.weight.data = torch.tensor([[[[1.0]], [[3.0]]]])
    first = torch.rand(40, 1, 3, 3)
    images = ImageSet.from_tensors(torch.cat([first, 2 * first], 1))
    mask = vc.score(model.eval(), HEAD, images, "magnitude").select(density=0.5, order="worst")
    circuit = Circuit(model, HEAD, mask)
    assert mask.kept["head"].tolist() == [[True, False]]
    part = vc.rescaled(circuit, images, loss="difference", steps=300)
    assert float(part.compensation.scales["head"][0, 0]) == pytest.approx(7, rel=0.02)
    assert torch.allclose(part.respond(images), vc.respond(model, circuit.readout, images).values, rtol=0.02)


def test_scales_are_said_kept_and_never_worse(tmp_path):
    circuit, images = found(Normed)
    before = {name: value.clone() for name, value in circuit.model.state_dict().items()}
    part, again = (vc.rescaled(circuit, images, steps=60) for _ in range(2))
    assert part.kind == "masked, rescaled"
    assert "Scales(of what is kept in 3 layers, trained on 5 images)" in repr(part)
    assert torch.equal(part.respond(images), again.respond(images))
    assert all(torch.equal(value, before[name]) for name, value in circuit.model.state_dict().items())
    assert vc.preservation(part, images).pearson >= vc.preservation(circuit, images).pearson - 1e-9
    part.save(tmp_path / "scaled")
    loaded = Circuit.load(tmp_path / "scaled", circuit.model)
    assert loaded.kind == part.kind
    assert torch.equal(loaded.respond(images), part.respond(images))
    small = part.extract()
    assert torch.allclose(small(everything(images)), part.respond(images), rtol=1e-6, atol=1e-9)


def test_what_cannot_be_rescaled():
    circuit, images = found(Plain)
    with pytest.raises(MaskError, match="got a pruned one"):
        vc.rescaled(replace(circuit, biases="pruned"), images)
    with pytest.raises(MaskError, match="got a masked, mean-compensated one"):
        vc.rescaled(circuit.compensated(images), images)
    with pytest.raises(MaskError, match="a loss of correlation, difference and at least 1 step, got 'r' and 200"):
        vc.rescaled(circuit, images, loss="r")


def test_other_files_are_still_refused(tmp_path):
    store.write_tensors(tmp_path / "later", {"a": torch.ones(1)}, {"kind": "circuit", "format": 3})
    with pytest.raises(StudyError, match="not a circuit file of format 1"):
        Circuit.load(tmp_path / "later", Plain().ready())
    circuit, images = found(Plain)
    circuit.compensated(images).save(tmp_path / "mean")
    tensors, header = store.read_tensors(tmp_path / "mean")
    header["compensation"]["kind"] = "median"
    store.write_tensors(tmp_path / "median", tensors, header)
    with pytest.raises(StudyError, match="a compensation that this version does not know: 'median'"):
        Circuit.load(tmp_path / "median", circuit.model)
