"""What people hand over as pictures, and weights as trainers leave them."""

from collections import UserDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from torchvision.transforms import ToTensor

import viscircuits as vc


class _InTurn(IterableDataset):
    def __iter__(self) -> Any:
        return iter([(torch.rand(3, 8, 8), 0)])


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        (DataLoader(TensorDataset(torch.rand(4, 3, 8, 8))), "loader.dataset"),
        (_InTurn(), r"torch.stack\(\[item\[0\]"),
        ([{"image": torch.rand(3, 8, 8), "label": 1}], r"item\['image'\]"),
    ],
    ids=["loader", "read in turn", "dicts"],
)
def test_what_is_no_numbered_data_set_is_answered_with_the_call_that_works(dataset: Any, words: str) -> None:
    with pytest.raises(vc.ImageError, match=words):
        vc.ImageSet.from_dataset(dataset)


@pytest.mark.parametrize(("shape", "words"), [((2, 3, 4, 8, 8), "Unflatten"), ((2, 3, 8), "Flatten")])
def test_video_and_signals_are_told_how_to_wrap(shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(vc.ImageError, match=words):
        vc.ImageSet.from_tensors(torch.rand(shape))


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.empty(4, 3, 8, 8, device="meta"), "on the meta device, which holds no values"),
        (torch.rand(4, 3, 8, 8).to_sparse(), "of the layout torch.sparse_coo; give a dense one"),
    ],
    ids=["meta", "sparse"],
)
def test_tensors_without_values_at_hand_are_named(images: torch.Tensor, words: str) -> None:
    with pytest.raises(vc.ImageError, match=words):
        vc.ImageSet.from_tensors(images)


@pytest.mark.parametrize("kind", [torch.complex64, torch.int32])
def test_weights_of_another_kind_are_not_changed_to_fit(tmp_path: Path, kind: torch.dtype) -> None:
    state = {name: (100 * tensor).to(kind) for name, tensor in vc.zoo.load("shapesnet").model.state_dict().items()}
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(vc.ModelError, match=rf"holds (complex|whole) numbers \({kind}\), the model's torch.float32"):
        vc.zoo.load("shapesnet", tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda image: UserDict(pixel_values=ToTensor()(image)[None]), r"\['pixel_values'\]\[0\]"),
        (lambda image: ToTensor()(image)[None], r"end it in \[0\]"),
    ],
    ids=["its dict", "its batch"],
)
def test_an_image_processor_is_told_what_to_take_out(tmp_path: Path, prepare: Callable[..., Any], words: str) -> None:
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "x.png")
    with pytest.raises(vc.ImageError, match=words):
        _ = vc.ImageSet.from_files([tmp_path / "x.png"], prepare)[0]


def test_text_is_a_target_and_a_tensor_is_pictures() -> None:
    torch.manual_seed(0)
    model, pictures = nn.Sequential(nn.Conv2d(3, 4, 3)).eval(), torch.rand(3, 3, 8, 8)
    images, target = vc.ImageSet.from_tensors(pictures), vc.Target("0", 1)
    assert torch.equal(vc.score(model, "0:1", pictures).sums["0"], vc.score(model, target, images).sums["0"])
    circuit = vc.find(model, "0:1", pictures, density=0.5)
    assert torch.equal(circuit.respond(pictures), circuit.respond(images))
    assert vc.preservation(circuit, pictures).pearson == vc.preservation(circuit, images).pearson
    assert vc.minimality(circuit, pictures, at_most=2).damage == vc.minimality(circuit, images, at_most=2).damage
    assert vc.stability(model, "0:1", pictures, density=0.5, repeats=2)
    with pytest.raises(TypeError, match="a circuit is not called"):
        circuit(pictures)


# ---- weights ---------------------------------------------------------------------------------------------------------


def _resnet(file: Path, save: Callable[[dict[str, torch.Tensor]], object]) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(5)
    state = torchvision.models.resnet18(weights=None).state_dict()
    torch.save(save(state), file)
    return vc.zoo.load("resnet18", weights=file).model, state["conv1.weight"]


@pytest.mark.parametrize(
    "save",
    [
        lambda s: {"state_dict": {f"model.{k}": v for k, v in s.items()}, "epoch": 3},
        lambda s: {f"module.net.backbone.{k}": v for k, v in s.items()},
        lambda s: {"n_averaged": torch.tensor(7), **{f"module.{k}": v for k, v in s.items()}},
        lambda s: {"state_dict": {"criterion.weight": torch.ones(2), **{f"net.{k}": v for k, v in s.items()}}},
        lambda s: {"checkpoint": 1, "model": {"state_dict": s}, "optimizer": {"state": {}, "param_groups": []}},
    ],
    ids=["one prefix", "several", "averaged", "beside others", "nested"],
)
def test_weights_load_as_trainers_leave_them(tmp_path: Path, save: Callable[..., object]) -> None:
    model, wanted = _resnet(tmp_path / "w.ckpt", save)
    assert torch.equal(model.get_parameter("conv1.weight"), wanted)


def test_what_is_dropped_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _resnet(tmp_path / "w.ckpt", lambda s: {"criterion.weight": torch.ones(2), **{f"net.{k}": v for k, v in s.items()}})
    assert "criterion.weight" in caplog.text


def test_two_networks_in_one_file_are_not_guessed_between(tmp_path: Path) -> None:
    with pytest.raises(vc.ModelError, match="unexpected"):
        _resnet(
            tmp_path / "w.pt", lambda s: {f"{side}.{k}": v for side in ("teacher", "student") for k, v in s.items()}
        )


@pytest.mark.filterwarnings("ignore:.*jit:FutureWarning")
def test_a_scripted_file_is_named(tmp_path: Path) -> None:
    torch.jit.trace(nn.Conv2d(3, 4, 3), torch.rand(1, 3, 8, 8)).save(tmp_path / "w.pt")
    with pytest.raises(vc.ModelError, match="TorchScript archive"):
        vc.zoo.load("resnet18", weights=tmp_path / "w.pt")


def test_a_module_that_stands_in_a_file_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "brought_net.py").write_text("from torch import nn\nnet = nn.Sequential(nn.Conv2d(3, 4, 3))\n")
    monkeypatch.chdir(tmp_path)
    assert isinstance(vc.zoo.load("brought_net:net").model, nn.Sequential)


@pytest.mark.parametrize(
    ("save", "said"),
    [
        (lambda s: {"state_dict": s, "state_dict_ema": s, "optimizer": {}}, "state_dict_ema, optimizer"),
        (lambda s: {"checkpoint": {"model": s}, "scheduler": 1}, "scheduler"),
        (lambda s: {**s, "epoch": 5, "best": "x"}, "epoch, best"),
        (lambda s: {**s, "total_ops": torch.zeros(1), "layer1.total_params": torch.zeros(1)}, "total_ops"),
    ],
    ids=["two sets", "nested", "numbers", "profiled"],
)
def test_what_else_a_checkpoint_holds_is_said(tmp_path: Path, caplog: Any, save: Callable[..., Any], said: str) -> None:
    model, first = _resnet(tmp_path / "w.pt", save)
    assert torch.equal(model.get_parameter("conv1.weight"), first)
    assert f"as the model has nothing of that name: {said}" in caplog.text


@pytest.mark.filterwarnings("ignore:`torch.jit.*` is deprecated")
def test_programs_are_no_weights_and_no_names_of_models(tmp_path: Path) -> None:
    network, x = nn.Sequential(nn.Conv2d(3, 4, 3)).eval(), torch.rand(2, 3, 8, 8)
    torch.export.save(torch.export.export(network, (x,)), tmp_path / "a.pt2")
    torch.jit.save(torch.jit.trace(network, x), tmp_path / "a.pt")
    for file, kind in (("a.pt2", r"a program of torch.export \(a .pt2 file\)"), ("a.pt", "a TorchScript archive")):
        with pytest.raises(vc.ModelError, match=f"is {kind}.*give its weights: torch.save"):
            vc.zoo.load("shapesnet", tmp_path / file)
        with pytest.raises(vc.ModelError, match=f"is {kind}.*give a network's name here"):
            vc.zoo.load(str(tmp_path / file))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.to("meta"), "weight '0.weight' is on the meta device and has no values; load the weights first"),
        (lambda m: m.to(torch.complex64), "weight '0.weight' is complex; expected dense real numbers"),
    ],
    ids=["meta", "complex"],
)
@pytest.mark.filterwarnings("ignore:Complex modules")
def test_weights_without_numbers_of_their_own_are_named(change: Callable[..., Any], words: str) -> None:
    with pytest.raises(vc.ModelError, match=words):
        vc.trace(change(nn.Sequential(nn.Conv2d(3, 4, 3)).eval()), (3, 8, 8))


def test_a_message_is_one_line_whatever_came() -> None:
    loaded = vc.zoo.load("shapesnet")
    for given in (loaded, {"model": loaded.model}, [loaded.model]):
        with pytest.raises(vc.ViscircuitsError, match=r"; give the network itself \(.* its .model\)") as caught:
            vc.score(given, "features.3:1", torch.rand(2, 3, 64, 64))  # pyright: ignore
        assert len(str(caught.value).splitlines()) == 1
        assert len(str(caught.value)) < 400
