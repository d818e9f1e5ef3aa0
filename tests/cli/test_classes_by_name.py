"""Classes by name: ``logit:tabby`` is ``logit:281``, and a name that two classes bear is refused with both numbers."""

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import viscircuits as vc
from viscircuits.errors import TargetError
from viscircuits.model.zoo import zoo
from viscircuits.runs.classes import is_named, label, numbered

NAMES = ("tiger", "tiger cat", "crane", "tabby", "Crane", "jack-o'-lantern")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("logit:tabby", "logit:3"),
        ("logit:TABBY", "logit:3"),
        ("logit:tiger cat", "logit:1"),
        ("logit:tiger", "logit:0"),
        ("logit:tiger cat - 0.5*logit:tabby", "logit:1 - 0.5*logit:3"),
        ("logit:jack-o'-lantern + conv:7", "logit:5 + conv:7"),
        ("logit[aux]:tabby", "logit[aux]:3"),
        ("logit:4", "logit:4"),
        ("features.3:tabby", "features.3:tabby"),
        ("loss", "loss"),
    ],
)
def test_names_become_numbers(text, number):
    assert numbered(text, NAMES) == number
    assert is_named(text) == (text.startswith("logit") and text != "logit:4")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("logit:crane", "2 classes are called 'crane'; give logit:2 or logit:4"),
        ("logit:taby", "no class is called 'taby'; closest: 'tabby'"),
        ("logit:tigers", "no class is called 'tigers'"),
    ],
)
def test_what_is_not_one_class_is_refused(text, words):
    with pytest.raises(TargetError, match=words):
        numbered(text, NAMES)


def test_without_names_a_number_is_asked_for():
    with pytest.raises(TargetError, match="nobody says what this model's classes are called; give a number"):
        numbered("logit:tabby", None)


def test_torchvisions_networks_know_their_classes():
    names = zoo.categories(vc.zoo.load("squeezenet1_1").model)
    assert numbered("logit:tabby", names) == "logit:281"
    assert label("logit:281", names) == "tabby"
    assert numbered("logit:crane bird", ("crane", *names[1:])) == "logit:134"  # the longer name, not the machine


def test_labels_stand_beside_targets_and_change_no_question(folder_of_pictures, command_line, tmp_path):
    weights = tmp_path / "w.safetensors"
    save_file(vc.zoo.load("squeezenet1_1").model.state_dict(), weights)
    job = ("extract", "squeezenet1_1", "-i", folder_of_pictures, "-c", "random", "-d", "0.5", "--input-size", "64")
    for name, target in (("named", "logit:tabby"), ("numbered", "logit:281"), ("channel", "features.3.squeeze:2")):
        status, out, err = command_line(*job, target, "-w", weights, "-o", tmp_path / name)
        assert status == 0, err
        assert ("logit:281 (tabby)" in out) == (name != "channel")
    named, plain, channel = (vc.Study.open(tmp_path / name).header.spec for name in ("named", "numbered", "channel"))
    assert (named.targets, named.labels, channel.labels) == (("logit:281",), {"logit:281": "tabby"}, {})
    assert named.hash == plain.hash == named.model_copy(update={"labels": {}}).hash
    assert not named.differs(named.model_copy(update={"labels": {}}))
    assert "logit:281 (tabby)" in command_line("inspect", tmp_path / "named")[1]
    # nobody trained random weights to know a tabby
    assert command_line(*job, "logit:tabby", "-o", tmp_path / "random")[0] == 0
    assert not vc.Study.open(tmp_path / "random").header.spec.labels


@pytest.fixture
def folder_of_pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    for number in range(8):
        pixels = torch.randint(0, 256, (64, 64, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / f"{number}.png")
    return folder
