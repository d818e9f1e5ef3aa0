"""The three networks of `test_real_networks`: relevance, receptive fields, crops and extraction against oracles."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import viscircuits as vc
from model.test_architectures import Case, _positive, _positive_functions, _support
from saliency.test_criteria import stacked
from test_real_networks import LARGE_IS_SLOW, NETWORKS, Network, images_of, model_of, short
from viscircuits.circuit.circuit import Circuit
from viscircuits.mask import Mask
from viscircuits.model.field.aligned import aligned_crops
from viscircuits.model.field.receptive_field import Area
from viscircuits.target import Target
from viscircuits.types import Biases

pytestmark = pytest.mark.data

DENSITIES = (0.5, 0.1, 0.02)


@pytest.fixture(params=NETWORKS, ids=short)
def network(request: pytest.FixtureRequest, data_dir: Path) -> Network:
    return replace(request.param, folder=data_dir)


# ---- relevance and receptive fields ----------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["middle", "late"])
def test_relevant_kernels_are_the_support_of_a_positive_twins_gradient(network: Network, where: str):
    target = getattr(network, where)
    found = vc.score(model_of(network), target, images_of(network), "magnitude").relevant
    expected = _support(model_of(network), Case(network.name, target.layer, size=network.size), target.channel)
    assert {f"{name}.weight" for name in found} == {name for name, array in expected.items() if bool(array.any())}
    for name, array in found.items():
        assert torch.equal(array, expected[f"{name}.weight"]), name


def positions(map_shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """Places inside, the middle of each side, and the corners."""
    h, w = map_shape
    inside = [(h // 2, w // 2), (1, w - 2), (h - 2, w // 3)]
    return [
        *inside,
        (0, w // 2),
        (h - 1, w // 2),
        (h // 2, 0),
        (h // 2, w - 1),
        (0, 0),
        (0, w - 1),
        (h - 1, 0),
        (h - 1, w - 1),
    ]


def test_receptive_fields_are_the_support_of_a_positive_twins_gradient(network: Network):
    twin = _positive(model_of(network))
    graph = vc.trace(model_of(network), network.shape)
    image = torch.rand(1, *network.shape, dtype=torch.float64, requires_grad=True)
    for layer in (network.local, network.middle.layer):
        with _positive_functions():
            output = value_of(twin, layer, image)[0].sum(0)
        for y, x in positions(output.shape):
            (gradient,) = torch.autograd.grad(output[y, x], image, retain_graph=True)
            rows, columns = (gradient[0].sum((0, axis)).nonzero().flatten().tolist() for axis in (2, 1))
            box = vc.receptive_field(graph, layer, (y, x), visible=True)
            assert box == Area(rows[0], columns[0], rows[-1] + 1, columns[-1] + 1), (layer, y, x)


def value_of(model: nn.Module, layer: str, images: Tensor) -> Tensor:
    """What a module puts out, before anything is written over it."""
    seen: list[Tensor] = []
    handle = model.get_submodule(layer).register_forward_hook(
        lambda module, inputs, output: seen.append(output.clone())
    )
    model(images)
    handle.remove()
    return seen[0]


@torch.no_grad()
@pytest.mark.parametrize("network", LARGE_IS_SLOW, indirect=True, ids=short)
def test_a_target_at_one_position_has_the_value_of_the_whole_picture(network: Network):
    model, layer, channel, images = model_of(network), network.local, 3, images_of(network)
    graph = vc.trace(model, network.shape)
    assert aligned_crops(graph, layer) is not None  # or there would be no crop to be wrong
    scores = vc.score(model, Target(layer, channel), images, "magnitude")

    whole = value_of(model, layer, stacked(images))[:, channel]
    places = positions(whole.shape[1:])
    flat = torch.tensor([y * whole.shape[2] + x for y, x in places]).repeat_interleave(len(images))
    many = images.subset([*range(len(images))] * len(places))
    complete = Circuit(model, Target(layer, channel, position="max"), scores.select(density=1.0))
    found = complete.respond(many, frozen=(flat,))[:, 0]
    expected = torch.cat([whole[:, y, x] for y, x in places])
    assert float((found - expected).abs().max()) <= 1e-10 * float(whole.abs().max())

    mask, (y, x) = scores.select(density=0.3), places[-1]
    masked = value_of(masked_copy(model, mask), layer, stacked(images))[:, channel]
    found = Circuit(model, Target(layer, channel, position=(y, x)), mask).respond(images)[:, 0]
    assert float((found - masked[:, y, x]).abs().max()) <= 1e-10 * float(masked.abs().max())


# ---- extraction ------------------------------------------------------------------------------------------------------


def masked_copy(model: nn.Module, mask: Mask) -> nn.Module:
    """The model with its weights edited in place."""
    twin = copy.deepcopy(model)
    for name, kept in mask.kept.items():
        weight = twin.get_parameter(f"{name}.weight").data
        left = kept | ~mask.relevant[name]
        weight.mul_(left.view(*left.shape, *[1] * (weight.ndim - 2)))
    return twin


def pruned_copy(model: nn.Module, mask: Mask) -> nn.Module:
    """The masked copy, with hooks behind each filter's norm that silence what no picture can reach."""
    pruned = masked_copy(model, mask)
    modules = dict(pruned.named_modules())
    names = list(modules)
    for name, alive in reached(model, mask).items():
        following = modules[names[names.index(name) + 1]]
        last = following if isinstance(following, nn.BatchNorm2d) else modules[name]
        last.register_forward_hook(lambda module, inputs, output, alive=alive: output * alive.view(1, -1, 1, 1))
    return pruned


def reached(model: nn.Module, mask: Mask) -> dict[str, Tensor]:
    """Layer -> filters to which a path of kept kernels leads: those that put out anything in a positive twin."""
    twin = masked_copy(_positive(model), mask)
    for name, parameter in twin.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
    found = {}
    for name in mask.kept:
        twin.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: found.update({name: output.sum((0, 2, 3)) > 0})
        )
    with _positive_functions():
        twin(torch.ones(1, *mask.input_shape, dtype=torch.float64))
    return found


@pytest.mark.parametrize("where", ["middle", "late"])
@pytest.mark.parametrize("biases", ["masked", "pruned"])
@torch.no_grad()
def test_extraction_equals_the_circuit(network: Network, biases: Biases, where: str):
    model, images, target = model_of(network), images_of(network), getattr(network, where)
    scores = vc.score(model, target, images, "snip")
    for density in DENSITIES:
        part = Circuit(model, target, scores.select(density=density), biases)
        assert density < 0.1 or not part.disconnected  # three of the smallest are: they answer with a constant
        copied = (masked_copy if biases == "masked" else pruned_copy)(model, part.mask)
        expected = value_of(copied, target.layer, stacked(images))[:, target.channel].flatten(1)
        extracted = part.extract()
        for found in (part.respond(images), extracted(stacked(images))):
            assert found.shape == expected.shape
            assert float((found - expected).abs().max()) <= 1e-10 * float(expected.abs().max()), density
