"""What people hand over as pictures, and weights as trainers leave them."""

import os
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
        (lambda image: {"image": ToTensor()(image)}, r"a dict with the keys image; .* as in \['image'\]"),
        (lambda image: (0, ToTensor()(image)), r"a tuple; take the tensor out of it, as in \[1\]"),
        (np.asarray, r"torch.from_numpy\(array\).permute\(2, 0, 1\).float\(\) / 255"),
        (lambda image: None, "does it return what it makes"),
        (lambda image: image, r"got Image; end it in ToTensor\(\)"),
    ],
    ids=["its dict", "its batch", "a dict", "a tuple", "numpy", "nothing", "the picture"],
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
    with pytest.raises(vc.ModelError, match=r"2 times, under 'student\.', 'teacher\.'; save the ones you mean"):
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


class _Fails:
    def __init__(self, error: BaseException, length: int = 4) -> None:
        self.error, self.length = error, length

    def __len__(self) -> int:
        if self.length:
            return self.length
        raise self.error

    def __getitem__(self, row: int) -> Any:
        raise self.error


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        (3, "got int$"),
        (_Fails(ValueError("no row")), "fails at item 0: ValueError: no row"),
        (_Fails(SystemExit(3)), "fails at item 0: SystemExit: 3"),
        (_Fails(RuntimeError("how many?"), length=0), "does not tell its length: RuntimeError: how many?"),
    ],
    ids=["a number", "raises", "exits", "no length"],
)
def test_what_goes_wrong_in_a_data_set_is_told_as_its_own(dataset: Any, words: str) -> None:
    with pytest.raises(vc.ImageError, match=words):
        vc.ImageSet.from_dataset(dataset)


def test_damage_found_in_a_part_of_the_pictures_is_told_with_the_way_out(tmp_path: Path) -> None:
    for name in "abc":
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:300])
    part = vc.ImageSet.from_folder(tmp_path, ToTensor()).subset([0])
    with pytest.raises(vc.ImageError, match=r'1 of 1 picture cannot be read: .*a.png.* unreadable="skip"'):
        _ = part[0]


@pytest.mark.parametrize(("name", "what"), [("w.npz", "numpy"), ("w.onnx", "ONNX"), ("w.h5", "Keras")])
def test_weights_of_other_programs_are_named(tmp_path: Path, name: str, what: str) -> None:
    (tmp_path / name).write_text("not empty")
    with pytest.raises(vc.ModelError, match=rf"holds .*{what}; expected a state dict"):
        vc.zoo.load("shapesnet", tmp_path / name)


def test_places_that_hold_something_else_are_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place, what in ((tmp_path / "pipe", "a pipe"), (Path("/dev/null"), "a device")):
        with pytest.raises(vc.ImageError, match=f"expected a folder of pictures, but .* is {what}"):
            vc.ImageSet.from_folder(place, ToTensor())
        with pytest.raises(vc.ModelError, match=f"expected a weight file, but .* is {what}"):
            vc.zoo.load("shapesnet", place)
    with pytest.raises(vc.ModelError, match=r"expected a weight file, but .* is a folder"):
        vc.zoo.load("shapesnet", tmp_path)


@pytest.mark.parametrize("text", ["*features.10:3", "features.10:3 - *features.10:4"])
def test_a_target_with_a_star_and_no_number_is_refused(text: str) -> None:
    with pytest.raises(vc.TargetError, match=r"no number stands before '\*'"):
        vc.parse_target(text)
