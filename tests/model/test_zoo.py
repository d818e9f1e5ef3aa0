"""Loading models by name, weight files of every kind, and fingerprints."""

import os
import sys
import types
import zipfile
from urllib.error import URLError

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import nn

import viscircuits as vc
from viscircuits.data.images import ImageSet
from viscircuits.errors import ModelError, UnsupportedOperation
from viscircuits.model.fingerprint import fingerprint
from viscircuits.model.zoo import zoo

RESNET20 = "cifar_resnet20:resnet20"
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8))


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    """A state dict that fits the CIFAR ResNet-20 and is not the one it starts with."""
    return {name: tensor + 1 for name, tensor in zoo.load(RESNET20).model.state_dict().items()}


def user_module(folder, monkeypatch, name, text):
    (folder / f"{name}.py").write_text(text)
    monkeypatch.chdir(folder)
    monkeypatch.delitem(sys.modules, name, raising=False)


def test_random_weights_are_the_same_each_time_and_leave_the_generator_alone():
    before = torch.get_rng_state()
    first = zoo.load("squeezenet1_1").model
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    second = zoo.load("squeezenet1_1").model
    assert fingerprint(first) == fingerprint(second)
    assert not first.training
    assert all(parameter.requires_grad for parameter in first.parameters())


def test_prepare_is_that_of_the_default_weights():
    _, prepare = zoo.load("squeezenet1_1")
    assert prepare(PICTURE).shape == (3, 224, 224)
    assert (prepare.resize_size, prepare.crop_size) == ([256], [224])
    small = zoo.load("squeezenet1_1", input_size=112).prepare
    assert (small.resize_size, small.crop_size, small.mean) == ([128], [112], prepare.mean)
    assert small(PICTURE).shape == (3, 112, 112)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_networks_with_auxiliary_heads_take_files_with_and_without_them(name, tmp_path):
    """torchvision drops the heads once it has loaded weights, so saved files have none; its downloads have them."""
    state = zoo.load(name).model.state_dict()
    bare = {key: tensor for key, tensor in state.items() if "aux" not in key.lower()}
    for content in (state, bare):
        safetensors.torch.save_file(content, tmp_path / "a.safetensors")
        model = zoo.load(name, tmp_path / "a.safetensors").model
        assert model.transform_input
        assert model.state_dict().keys() == content.keys()


def test_shapesnet_is_built_in(monkeypatch):
    class Transform:
        def __init__(self, size=64):
            self.size = size

        def __call__(self, image):
            return torch.zeros(3, self.size, self.size)

    builtin = types.SimpleNamespace(load_shapesnet=lambda: nn.Conv2d(3, 1, 1), ShapesTransform=Transform)
    monkeypatch.setitem(sys.modules, "viscircuits.model.zoo.builtin", builtin)
    model, prepare = zoo.load("shapesnet")
    assert (type(model), prepare.size) == (nn.Conv2d, 64)
    assert zoo.load("shapesnet", "DEFAULT", input_size=32).prepare.size == 32


def test_a_callable_in_the_current_folder(tmp_path, monkeypatch):
    text = "import torch\ndef plain(): return torch.nn.Conv2d(3, 1, 1)\ndef pair(): return plain(), len\nnumber = int"
    user_module(tmp_path, monkeypatch, "zoo_mine", text)
    before = list(sys.path)
    model, prepare = zoo.load("zoo_mine:plain")
    assert sys.path == before
    assert not model.training
    assert prepare(PICTURE).shape == (3, 224, 224)
    assert zoo.load("zoo_mine:plain", input_size=32).prepare(PICTURE).shape == (3, 32, 32)
    assert zoo.load("zoo_mine:pair").prepare is len
    with pytest.raises(ModelError, match=r"brings its own prepare, so an input size of 32 does not apply"):
        zoo.load("zoo_mine:pair", input_size=32)
    with pytest.raises(ModelError, match=r"expected 'zoo_mine:number' to return a torch module .* got int"):
        zoo.load("zoo_mine:number")
    with pytest.raises(ModelError, match=r"'zoo_mine:nothing': AttributeError: .*nothing"):
        zoo.load("zoo_mine:nothing")
    with pytest.raises(ModelError, match=r"ModuleNotFoundError: No module named 'zoo_yours'"):
        zoo.load("zoo_yours:model")
    with pytest.raises(ModelError, match=r"no file 'DEFAULT'; 'zoo_mine:plain' takes a weight file"):
        zoo.load("zoo_mine:plain", "DEFAULT")


class Ends(BaseException):
    """What some frameworks end a run with."""


def test_what_a_callable_raises_and_what_comes_from_an_export_is_one_line(tmp_path, monkeypatch):
    text = (
        "import torch\nfrom torch import nn\nfrom test_zoo import Ends\n"
        "def ends(): raise Ends('now')\n"
        "def exported():\n    x = torch.rand(2, 3, 8, 8)\n"
        "    return torch.export.export(nn.Conv2d(3, 1, 1).eval(), (x,)).module()\n"
        "class Leaves(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.conv = nn.Conv2d(3, 1, 1)\n    def forward(self, x):\n        raise SystemExit(0)\n"
    )
    user_module(tmp_path, monkeypatch, "zoo_odd", text)
    with pytest.raises(ModelError, match=r"cannot make a model with 'zoo_odd:ends': Ends: now"):
        zoo.load("zoo_odd:ends")
    with pytest.raises(ModelError, match=r"comes from torch.export .* give the original module"):
        zoo.load("zoo_odd:exported")
    with pytest.raises(UnsupportedOperation, match=r"it fails at .*raise SystemExit\(0\)\) with SystemExit: 0"):
        vc.trace(zoo.load("zoo_odd:Leaves").model, (3, 8, 8))


def test_an_interrupt_leaves_no_folder_to_import_from(monkeypatch):
    def interrupted():
        raise KeyboardInterrupt

    before = list(sys.path)
    monkeypatch.setattr("importlib.invalidate_caches", interrupted)
    with pytest.raises(KeyboardInterrupt):
        zoo.load("zoo_mine:plain")
    assert sys.path == before


def test_misspelt_names():
    with pytest.raises(
        ModelError, match=r"no model 'resnet19'; closest: 'resnet1.*'timm:NAME' or 'package.module:call"
    ):
        zoo.load("resnet19")
    with pytest.raises(
        ModelError, match=r"no file and no weights 'IMAGENET' of alexnet.*expected a file or IMAGENET1K_V1"
    ):
        zoo.load("alexnet", "IMAGENET")
    with pytest.raises(ModelError, match=r"no weight file 'nowhere.pth'"):
        zoo.load("alexnet", "nowhere.pth")
    with pytest.raises(ModelError, match=r"input_size 0 is out of range; expected a whole number from 2 to 4,096"):
        zoo.load("alexnet", input_size=0)
    assert {"shapesnet", "alexnet", "resnet18"} <= set(zoo.names())


def test_an_input_is_no_larger_than_a_run_can_be():
    with pytest.raises(
        ModelError, match=r"input_size 1000000000 is out of range; expected a whole number from 2 to 4,096"
    ):
        zoo.load("shapesnet", input_size=10**9)


def test_names_of_code_and_of_downloads_are_foreign(monkeypatch):
    timm = types.SimpleNamespace(list_models=lambda pretrained=False: ["tiny.in1k"] if pretrained else ["tiny"])
    monkeypatch.setitem(sys.modules, "timm", timm)
    own = ("shapesnet", "resnet18", "resnet19", "", "timm:tiny", "timm:tiny.in1k")
    foreign = ("os:abort", "a.b:c", ":", "timm:", "timm:hf-hub:a/b", "timm:tiny:", "timm:local-dir:.", "hf-hub:a/b")
    assert not any(map(zoo.is_foreign, own))
    assert all(map(zoo.is_foreign, foreign))
    monkeypatch.setitem(sys.modules, "timm", None)
    assert not zoo.is_foreign("timm:tiny")


def test_no_network(monkeypatch, tmp_path):
    def refuse(*args, **kwargs):
        raise URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(ModelError, match=r"cannot download https://.*no route to host.*--weights FILE"):
        zoo.load("squeezenet1_1", "DEFAULT")


def test_timm_is_optional(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModelError, match=r"needs the package timm: pip install 'viscircuits\[timm\]'"):
        zoo.load("timm:resnet18")


def test_timm_models_bring_their_own_transform(monkeypatch):
    def create_model(name, pretrained):
        if name != "tiny":
            raise RuntimeError(f"Unknown model ({name})")
        return nn.Conv2d(3, 1, 1, bias=pretrained)

    data = types.SimpleNamespace(
        resolve_model_data_config=lambda model: {"input_size": (3, 96, 96), "mean": 0},
        create_transform=lambda *, input_size, mean, is_training: lambda image: torch.zeros(input_size),
    )
    timm = types.SimpleNamespace(create_model=create_model, list_models=lambda: ["tiny"], data=data)
    monkeypatch.setitem(sys.modules, "timm", timm)
    model, prepare = zoo.load("timm:tiny")
    assert model.bias is None
    assert prepare(PICTURE).shape == (3, 96, 96)
    assert zoo.load("timm:tiny", "DEFAULT", input_size=32).prepare(PICTURE).shape == (3, 32, 32)
    with pytest.raises(ModelError, match=r"timm cannot load 'tinny' \(Unknown model.*closest: 'tiny'"):
        zoo.load("timm:tinny")
    with pytest.raises(ModelError, match=r"no file 'A1'; 'timm:tiny' takes DEFAULT or a weight file"):
        zoo.load("timm:tiny", "A1")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}},
        lambda state: {name: tensor for name, tensor in state.items() if "num_batches" not in name},
    ],
)
def test_state_dicts_of_every_wrapping(wrap, state, tmp_path):
    torch.save(wrap(state), tmp_path / "weights.pth")
    loaded = zoo.load(RESNET20, str(tmp_path / "weights.pth")).model.state_dict()
    assert all(torch.equal(loaded[name], state[name]) for name in state if "num_batches" not in name)


def test_a_model_of_ones_own_may_be_called_module(tmp_path, monkeypatch):
    text = "import torch\ndef make(): return torch.nn.ModuleDict({'module': torch.nn.Conv2d(3, 1, 1)})"
    user_module(tmp_path, monkeypatch, "zoo_wrapped", text)
    state = zoo.load("zoo_wrapped:make").model.state_dict()
    torch.save({name: tensor + 1 for name, tensor in state.items()}, "own.pth")
    loaded = zoo.load("zoo_wrapped:make", "own.pth").model.state_dict()
    assert torch.equal(loaded["module.bias"], state["module.bias"] + 1)


def test_half_precision_files_become_the_models_own_type(state, tmp_path):
    half = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    safetensors.torch.save_file(half, tmp_path / "half.safetensors")
    weight = zoo.load(RESNET20, tmp_path / "half.safetensors").model.conv1.weight
    assert weight.dtype == torch.float32
    assert torch.equal(weight, state["conv1.weight"].half().float())


def test_the_old_names_of_densenet(tmp_path):
    state = zoo.load("densenet121").model.state_dict()
    old = {key.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): tensor for key, tensor in state.items()}
    assert old.keys() != state.keys()
    safetensors.torch.save_file(old, tmp_path / "old.safetensors")
    assert zoo.load("densenet121", tmp_path / "old.safetensors").model is not None


def test_a_file_that_does_not_fit_says_why(state, tmp_path):
    del state["bn1.weight"]
    state["extra"] = torch.zeros(1)
    state["linear.weight"] = torch.zeros(7, 64)
    safetensors.torch.save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(ModelError) as caught:
        zoo.load(RESNET20, tmp_path / "a.safetensors")
    expected = (
        "does not fit cifar_resnet20:resnet20: 1 missing (bn1.weight); 1 unexpected (extra); "
        "1 of another shape (linear.weight: file [7, 64], model [10, 64]); "
        "give a file that was saved from this very model"
    )
    assert str(caught.value).endswith(expected)


def test_a_file_that_does_not_fit_names_what_would(tmp_path):
    path = tmp_path / "b.safetensors"
    safetensors.torch.save_file(zoo.load("squeezenet1_0").model.state_dict(), path)
    with pytest.raises(ModelError, match=r"does not fit squeezenet1_1: .*it fits torchvision's squeezenet1_0\(num_cla"):
        zoo.load("squeezenet1_1", path)
    from torchvision.models import squeezenet1_1

    safetensors.torch.save_file(squeezenet1_1(num_classes=7).state_dict(), path)
    with pytest.raises(ModelError, match=r"return torchvision.models.squeezenet1_1\(num_classes=7\) from a function"):
        zoo.load("squeezenet1_1", path)


def test_a_weight_file_does_not_grow_as_it_is_read(state, tmp_path):
    """torch reads what is compressed too, so that a few megabytes can fill the memory."""
    large = {"large": torch.zeros(2**24)}
    for name, tensors in (("own", state), ("large", large)):
        torch.save(tensors, tmp_path / f"{name}.pt")
        with (
            zipfile.ZipFile(tmp_path / f"{name}.pt") as stored,
            zipfile.ZipFile(tmp_path / f"{name}-packed.pt", "w", zipfile.ZIP_DEFLATED) as packed,
        ):
            for entry in stored.namelist():
                packed.writestr(entry, stored.read(entry))
    loaded = zoo.load(RESNET20, tmp_path / "own-packed.pt").model.state_dict()
    assert torch.equal(loaded["linear.weight"], state["linear.weight"])
    with pytest.raises(ModelError, match=r"large-packed\.pt' unpacks to 0\.1 GB; save it uncompressed"):
        zoo.load(RESNET20, tmp_path / "large-packed.pt")


class Code:
    """Something that would leave a file behind if it were unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_code_in_a_weight_file_is_not_run(tmp_path):
    torch.save(Code(tmp_path / "ran"), tmp_path / "code.pth")
    with pytest.raises(
        ModelError, match=r"holds Python objects \(\w+\.mkdir\) or is damaged, and nothing in it was run"
    ):
        zoo.load(RESNET20, tmp_path / "code.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.pth", b"", "not a whole weight file .*EOFError: it is empty"),
        ("a.pth", b"PK\x03\x04 cut short", "not a whole weight file"),
        ("a.pth", b"hello world", "not a whole weight file"),
        ("a.pkl", b"\x80\x04garbage", "is not a state dict"),
        ("a.safetensors", b"abc", "not a whole safetensors file"),
    ],
)
def test_damaged_files(name, content, text, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=text):
        zoo.load(RESNET20, tmp_path / name)


@pytest.mark.parametrize(
    ("value", "text"),
    [([1, 2], "got a list"), ({"a": {"b": torch.zeros(1)}, "epoch": 3}, "got the keys a, epoch.*\\['a'\\]")],
)
def test_files_that_hold_something_else(value, text, tmp_path):
    torch.save(value, tmp_path / "a.pth")
    with pytest.raises(ModelError, match=rf"expected a state dict \(names and tensors\).*{text}"):
        zoo.load(RESNET20, tmp_path / "a.pth")


def test_the_fingerprint_is_of_names_and_values():
    def make(bias=0.0, memory=torch.contiguous_format, dtype=torch.float32):
        model = nn.Conv2d(2, 3, 3)
        nn.init.constant_(model.weight, 0.5)
        nn.init.constant_(model.bias, bias)
        return model.to(memory_format=memory).to(dtype)

    assert fingerprint(make()) == fingerprint(make(memory=torch.channels_last)) == fingerprint(make().train())
    changed = [make(bias=1.0), make(dtype=torch.bfloat16), nn.Sequential(make())]
    assert len({fingerprint(model) for model in [make(), *changed]}) == 4
    assert fingerprint(nn.BatchNorm1d(2)) != fingerprint(nn.BatchNorm1d(3))


def test_torchvision_is_not_imported_with_the_zoo():
    homes = [getattr(value, "__module__", None) or getattr(value, "__name__", "") for value in vars(zoo).values()]
    assert not [home for home in homes if str(home).startswith("torchvision")]


def accuracy(model: nn.Module, images: ImageSet) -> float:
    with torch.inference_mode():
        return sum(int((model(b.images).argmax(1) == b.labels).sum()) for b in images.batches(50)) / len(images)


@pytest.mark.data
def test_real_weights_classify_real_pictures(data_dir):
    """Half a minute would be needed for the published 64.2 % on all 1,000 pictures, so 50 stand for them."""
    model, prepare = zoo.load("squeezenet1_1", data_dir / "weights/squeezenet1_1-imagenet.safetensors")
    assert 0.5 < accuracy(model, ImageSet.from_folder(data_dir / "imagenet-1000", prepare).take(50)) < 0.8


@pytest.mark.data
def test_the_cifar_network_reaches_its_accuracy(data_dir):
    model, prepare = zoo.load(RESNET20, data_dir / "weights/resnet20-cifar10.safetensors")
    images = ImageSet.from_folder(data_dir / "cifar10/test", prepare).take(500)
    assert 0.75 < accuracy(model, images) < 0.87
