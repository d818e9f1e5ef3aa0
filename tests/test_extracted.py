"""An extracted circuit is a module like any other: it can be copied, saved, loaded, trained and exported."""

import copy
import io
import pickle
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

import viscircuits as vc
from test_real_networks import NETWORKS, Network, model_of, short
from viscircuits.circuit.circuit import Circuit
from viscircuits.data.images import ImageSet
from viscircuits.model.small.shrink import Shrunk
from viscircuits.target import Target

TARGET = Target("features.8", 5)


def extracted(model: nn.Module, target: Target, images: Tensor, density: float = 0.5) -> Shrunk:
    scores = vc.score(model, target, ImageSet.from_tensors(images), "actgrad")
    return Circuit(model, target, scores.select(density=density)).extract()


def pictures(size: int, n: int = 5) -> Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def built_in() -> tuple[nn.Module, Tensor, Shrunk]:
    model, _ = vc.zoo.load("shapesnet")
    images = pictures(64)
    return model, images, extracted(model, TARGET, images)


def onnx_of(module: nn.Module, images: Tensor) -> np.ndarray:
    runtime = pytest.importorskip("onnxruntime")
    with torch.no_grad():
        program = torch.onnx.export(module, (images[:2],), dynamo=True, dynamic_shapes=({0: Dim("n")},), verbose=False)
    assert program is not None
    file = io.BytesIO()
    program.save(file)
    session = runtime.InferenceSession(file.getvalue())
    return session.run(None, {session.get_inputs()[0].name: images.numpy()})[0]


def agrees(found: Tensor, expected: Tensor) -> bool:
    return float((found - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


def assert_real(module: Shrunk, images: Tensor) -> None:
    """Copied, saved, loaded, exported and run by another runtime, it answers the same."""
    expected = module(images)
    assert float(expected.std()) > 0
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), torch.load(file, weights_only=False)):
        assert torch.equal(twin(images), expected)
        assert {n: p.shape for n, p in twin.named_parameters()} == {n: p.shape for n, p in module.named_parameters()}
        assert (twin.full_width, twin.saving, twin.at_once) == (module.full_width, module.saving, module.at_once)
    program = torch.export.export(module, (images[:2],), dynamic_shapes=({0: Dim("n")},), strict=False)
    assert agrees(program.module()(images), expected)
    assert agrees(torch.from_numpy(onnx_of(module, images)), expected)


@pytest.mark.filterwarnings("ignore")  # those of the exporter's libraries
def test_the_built_in_networks_circuit_is_a_real_module(built_in: tuple[nn.Module, Tensor, Shrunk]):
    assert_real(built_in[2], built_in[1])


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("network", NETWORKS[:2], ids=short)
def test_trained_networks_circuits_are_real_modules(network: Network, data_dir: Path):
    model = model_of(replace(network, folder=data_dir), torch.float32)
    images = pictures(network.size)
    assert_real(extracted(model, network.middle, images), images)


def test_parameters_have_the_networks_names_and_are_parts_of_its_own(built_in: tuple[nn.Module, Tensor, Shrunk]):
    model, _, module = built_in
    own = dict(model.named_parameters())
    found = {name.removeprefix("body."): p for name, p in module.named_parameters()}
    assert found
    assert set(found) <= set(own)
    for name, parameter in found.items():
        assert parameter.ndim == own[name].ndim
        if parameter.ndim > 1:  # biases may hold what constant channels add
            assert torch.isin(parameter, own[name]).logical_or(parameter == 0).all()
    assert module.n_parameters == sum(t.numel() for t in module.state_dict().values())


def test_a_state_dict_is_safe_to_load_and_changes_the_module(built_in: tuple[nn.Module, Tensor, Shrunk]):
    _, images, module = built_in
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    twin = copy.deepcopy(module)
    for tensor in twin.parameters():
        tensor.data.zero_()
    assert not torch.equal(twin(images), module(images))
    twin.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(twin(images), module(images))


def test_it_takes_another_type_and_can_be_trained(built_in: tuple[nn.Module, Tensor, Shrunk]):
    _, images, module = built_in
    double = copy.deepcopy(module).double().requires_grad_()
    assert all(p.dtype == torch.float64 for p in double.parameters())
    response = double(images.double())
    assert agrees(response.detach(), module(images).double())
    response.sum().backward()
    assert all(p.grad is not None for p in double.parameters())
    assert not module(images).requires_grad  # until asked to


def test_a_saved_module_loads_in_another_process(built_in: tuple[nn.Module, Tensor, Shrunk], tmp_path: Path):
    _, images, module = built_in
    torch.save((module, images, module(images)), tmp_path / "circuit.pt")
    code = (
        "import sys, torch, viscircuits; module, images, expected = torch.load(sys.argv[1], weights_only=False); "
        "assert torch.equal(module(images), expected)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "circuit.pt")], check=True, timeout=60)


class Twice(nn.Module):
    """One layer that runs twice, a name that the module needs itself, and channels that are shuffled."""

    def __init__(self) -> None:
        super().__init__()
        self.constants = nn.Conv2d(3, 8, 3, padding=1)
        self.shared = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.constants(x).relu()
        x = nn.functional.channel_shuffle(self.shared(x).relu(), 2)
        return self.head(self.shared(x).relu())


def test_layers_that_run_twice_and_names_that_are_taken():
    torch.manual_seed(0)
    model, images = Twice().eval(), pictures(8)
    module = extracted(model, Target("head", 1), images)
    file = io.BytesIO()
    torch.save(module, file)  # memory formats among the arguments do not pickle there
    file.seek(0)
    twin = torch.load(file, weights_only=False)
    assert torch.equal(twin(images), module(images))
    names = [name for name, _ in module.named_parameters()]
    assert {"body.shared.weight", "body.shared.weight_1", "body.constants.weight"} <= set(names)


def test_threads_share_a_module(built_in: tuple[nn.Module, Tensor, Shrunk]):
    _, images, module = built_in
    expected, found = module(images), []
    threads = [threading.Thread(target=lambda: found.append(module(images))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(torch.equal(response, expected) for response in found)
