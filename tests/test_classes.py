"""Which output judges a picture: by the number of classes, by their names, or not at all; and what one logit means."""

import logging
import re
from pathlib import Path

import pytest
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

import viscircuits as vc
from viscircuits.data.classes import by_output, output_numbers
from viscircuits.data.wnids import wnids
from viscircuits.errors import ImageError
from viscircuits.model.zoo import zoo

SHAPE = (3, 12, 10)


class Net(nn.Module):
    def __init__(self, outputs: int, squeeze: bool = False):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.f, self.squeeze = nn.Conv2d(3, 6, 3), nn.Linear(6, outputs), squeeze
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        logits = self.f(F.relu(self.a(x)).mean((2, 3)))
        return logits.squeeze(1) if self.squeeze else logits


def pictures(n: int = 4) -> vc.ImageSet:
    return vc.ImageSet.from_tensors(torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(1)))


def batch() -> Tensor:
    return torch.stack([pictures()[i] for i in range(4)])


def same(a: vc.Scores, b: vc.Scores) -> bool:
    return all(torch.equal(a.sums[name], b.sums[name]) for name in b.sums)


# ---- classes and outputs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [("a", "b", "c"), tuple("abcdefghijkl"), ("2", "5", "9"), wnids()[:3]])
def test_classes_that_do_not_match_the_outputs_are_refused(names):
    images = pictures().labelled([0, 1, 2, 0], names)
    model, target = Net(10), vc.Loss()
    said = (
        rf"the pictures have {len(names)} classes \('{names[0]}', '{names[1]}', .* and the model has 10 outputs.*"
        r"images\.labelled\(labels, names\).*--classes FILE"
    )
    readout = vc.Readout(target, vc.trace(model, SHAPE))
    plain = images.labelled([2, 5, 9, 2])
    circuit = vc.Circuit(model, target, vc.score(model, target, plain).select(density=0.5))
    asked = (
        lambda: vc.score(model, target, images),
        lambda: vc.respond(model, readout, images),
        lambda: circuit.respond(images),
        lambda: vc.preservation(circuit, images),
        lambda: vc.respond_resampled(circuit, images),
        lambda: vc.Sweep(model, [target], images, images),
    )
    for ask in asked:
        with pytest.raises(ImageError, match=said):
            ask()


def test_what_needs_no_labels_does_not_ask_for_them():
    images = pictures().labelled([0, 1, 2, 0], ("a", "b", "c"))
    for target in (vc.Loss(predicted=True), vc.Target.logit(3), vc.Target("a", 2)):
        assert same(vc.score(Net(10), target, images), vc.score(Net(10), target, pictures()))


def test_labels_without_names_are_outputs_and_as_many_names_as_outputs_too():
    plain, named = pictures().labelled([2, 5, 9, 2]), pictures().labelled([2, 5, 9, 2], map(str, range(10)))
    assert same(vc.score(Net(10), vc.Loss(), named), vc.score(Net(10), vc.Loss(), plain))
    loss = F.cross_entropy(Net(10)(batch()), torch.tensor([2, 5, 9, 2]), reduction="none")
    full = vc.respond(Net(10), vc.Readout(vc.Loss(), vc.trace(Net(10), SHAPE)), named)
    torch.testing.assert_close(full.values[:, 0], loss.detach())


def test_names_that_are_known_are_matched_and_that_is_said(caplog):
    model = Net(1000)
    images = pictures().labelled([0, 1, 2, 0], (wnids()[217], wnids()[0], wnids()[999]))
    with caplog.at_level(logging.WARNING, "viscircuits"):
        found = vc.score(model, vc.Loss(), images)
        vc.score(model, vc.Loss(), images)
    assert same(found, vc.score(model, vc.Loss(), pictures().labelled([217, 0, 999, 217])))
    (said,) = [record.getMessage() for record in caplog.records]
    assert "by their names" in said
    assert f"'{wnids()[217]}' is output 217" in said
    everything = pictures().labelled([3, 2, 1, 0], wnids())
    caplog.clear()
    assert by_output(everything, 1000) is everything  # nothing is changed, nothing is said
    assert not caplog.records


def test_categories_of_the_architectures_weights():
    model, _ = zoo.load("squeezenet1_1")
    categories = torchvision.models.SqueezeNet1_1_Weights.DEFAULT.meta["categories"]
    assert zoo.categories(model) == tuple(categories)
    assert zoo.categories(nn.Identity()) is None
    assert output_numbers(["Great_White_Shark", "tench"], 1000, categories) == [2, 0]
    twice = [*categories[:-1], categories[5]]
    for names, known in (([categories[5], "tench"], twice), (["tench", "no such thing"], categories)):
        with pytest.raises(ImageError, match=r"2 classes .* and the model has 1000 outputs"):
            output_numbers(names, 1000, known)
    with pytest.raises(ImageError):  # the weights' categories are not those of another number of outputs
        output_numbers(["tench", "goldfish"], 10, categories)


def test_sorted_category_folders_are_not_taken_for_the_order_of_the_outputs():
    categories = ["zebra", "ant", "cat"]
    assert output_numbers(sorted(categories), 3, categories) == [1, 2, 0]
    assert output_numbers(["x", "y", "z"], 3, categories) == [0, 1, 2]


# ---- one logit -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("squeeze", [False, True])
@pytest.mark.parametrize("names", [None, ("no", "yes")])
def test_one_logit_means_a_binary_loss(squeeze: bool, names):
    model, images = Net(1, squeeze), pictures().labelled([0, 1, 0, 1], names)
    logits = Net(1)(batch())[:, 0]
    readout = vc.Readout(vc.Loss(), vc.trace(model, SHAPE))
    wanted = F.binary_cross_entropy_with_logits(logits, torch.tensor([0.0, 1, 0, 1]), reduction="none")
    torch.testing.assert_close(vc.respond(model, readout, images).values[:, 0], wanted.detach())
    two = Net(2)  # the same as two logits, of which one is always 0
    with torch.no_grad():
        two.f.weight.copy_(torch.cat([torch.zeros(1, 6), Net(1).f.weight]))
        two.f.bias.copy_(torch.cat([torch.zeros(1), Net(1).f.bias]))
    for target in (vc.Loss(), vc.Loss(predicted=True)):
        ours, theirs = vc.score(model, target, images), vc.score(two, target, images)
        torch.testing.assert_close(ours.sums["a"], theirs.sums["a"])
        assert ours.sums["a"].sum() > 0
    assert vc.preservation(vc.Circuit(model, vc.Loss(), ours.select(density=1.0)), images).pearson == 1


@pytest.mark.parametrize(("labels", "names"), [([0, 1, 2, 0], None), ([37, 52, 18, 64], None), ([1, 2, 1, 2], None)])
def test_labels_that_are_no_classes_of_one_logit(labels, names):
    with pytest.raises(
        ImageError, match=rf"label {max(labels)} is no class here: .* binary and takes the labels 0 and 1"
    ):
        vc.score(Net(1), vc.Loss(), pictures().labelled(labels, names))


def test_more_than_two_classes_and_one_logit():
    with pytest.raises(ImageError, match=r"the pictures have 3 classes .* and the model has 1 outputs"):
        vc.score(Net(1), vc.Loss(), pictures().labelled([0, 1, 2, 0], ("a", "b", "c")))


# ---- the command line ------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    for name in ("disc", "ring", "star"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(4):
            pixels = torch.randint(0, 256, (64, 64, 3), generator=generator, dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(tmp_path / "pictures" / name / f"{i}.png")
    return tmp_path


def test_a_file_says_which_folder_is_which_output(folder: Path, command_line, monkeypatch):
    monkeypatch.chdir(folder)
    job = ("extract", "shapesnet", "loss", "-i", "pictures", "-c", "snip", "-d", "0.5", "-o")
    status, _, said = command_line(*job, "refused")
    assert status == 1
    assert "3 classes ('disc', 'ring', 'star') and the model has 12 outputs" in said
    (folder / "classes.csv").write_text("disc,0\n\nring , 1\nstar,6\n")
    assert command_line(*job, "told", "--classes", "classes.csv")[0] == 0
    study = vc.Study.open(folder / "told")
    assert study.header.spec.held_out.classes == {"disc": 0, "ring": 1, "star": 6}
    (row,) = study.measurements().to_dicts()
    model, prepare = zoo.load("shapesnet")
    images = vc.ImageSet.from_folder("pictures", prepare)
    scoring, measured = images.labelled([(0, 1, 6)[label] for label in images.labels]).split(0.5, seed=0)
    circuit = vc.find(model, vc.Loss(), scoring, criterion="snip", density=0.5)
    assert vc.preservation(circuit, measured).pearson == row["pearson"]
    (folder / "classes.csv").unlink()  # the study knows
    assert command_line("report", "told", "--pictures", "none")[0] == 0
    assert "are not at hand" not in (folder / "told/report.html").read_text()


@pytest.mark.parametrize("place", ["pictures/disc", "pictures/disc/0.png"])
def test_pictures_without_class_folders(place: str, folder: Path, command_line, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "classes.csv").write_text("disc,0\n")
    job = ("extract", "shapesnet", "features.10:5", "-i", place, "--held-out", "pictures/ring", "-o", "study")
    status, _, said = command_line(*job, "--classes", "classes.csv")
    assert status == 1
    assert f"--classes names class folders, and '{place}' has none; leave it out" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("disc,0\nring,1\n", "says nothing of the class folder 'star'"),
        ("disc,0\nring,one\nstar,2\n", "line 2 of 'classes.csv' is 'ring,one'; expected a class folder, a comma"),
        ("disc,0\ndisc,1\n", "line 2 .* every folder once"),
        ("disc 0\n", "line 1"),
        ("disc,-1\n", "line 1"),
        ("", "is empty"),
        ("disc,0\nring,1\nstar,99\n", "label 99 is out of range: the model has 12 outputs"),
        (None, "cannot read --classes"),
    ],
)
def test_files_that_do_not_say_it(text: str | None, said: str, folder: Path, command_line, monkeypatch):
    monkeypatch.chdir(folder)
    if text is not None:
        (folder / "classes.csv").write_text(text)
    job = ("extract", "shapesnet", "loss", "-i", "pictures", "-c", "snip", "-d", "0.5", "-o", "study")
    status, _, err = command_line(*job, "--classes", "classes.csv")
    assert status == 1
    vc_error = err.strip().splitlines()
    assert len(vc_error) == 1
    assert re.search(said, err), err
