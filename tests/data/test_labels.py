"""Labels of a dataset are those of its items; what is no class number leaves the pictures without any."""

import logging
import re

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, Subset
from torchvision import datasets as tv
from torchvision.transforms import ToTensor

from viscircuits.data.images import ImageSet
from viscircuits.errors import ImageError


class Items(Dataset):
    """Pictures with these second entries, and whatever else the dataset holds."""

    def __init__(self, seconds, **held):
        self.seconds, self.read = list(seconds), []
        for name, value in held.items():
            setattr(self, name, value)

    def __len__(self):
        return len(self.seconds)

    def __getitem__(self, i):
        self.read.append(i)
        return torch.full((3, 2, 2), float(i)), self.seconds[i]


@pytest.mark.parametrize(
    ("seconds", "labels"),
    [
        ([3, 0], (3, 0)),
        (np.array([3, 0]), (3, 0)),
        (torch.tensor([3, 0]), (3, 0)),
        ([torch.tensor([3]), np.array([0])], (3, 0)),
        ([True, False], (1, 0)),
        ([torch.tensor(True), np.bool_(False)], (1, 0)),
        ([np.uint8(255), np.int64(0)], (255, 0)),
    ],
)
def test_whole_numbers_of_every_kind_are_labels(seconds, labels, caplog):
    dataset = Items(seconds)
    found = ImageSet.from_dataset(dataset).labels
    assert found == labels
    assert all(type(label) is int for label in found)
    assert dataset.read == [0, 1]  # every item once
    assert not caplog.text


@pytest.mark.parametrize(
    ("second", "shown"),
    [
        ("a cat on a mat", "'a cat on a mat'"),
        ({"boxes": [], "labels": []}, "a dict"),
        (torch.zeros(2, 2, dtype=torch.int64), r"a torch\.int64 array of shape \[2, 2\]"),
        (np.zeros((4,), np.float32), r"a float32 array of shape \[4\]"),
        (0.0, r"0\.0"),
        (torch.tensor(1.0), r"tensor\(1\.\)"),
        (-1, "-1"),
        (torch.tensor(-1), r"tensor\(-1\)"),
        (None, "None"),
        ([1, 2], "a list"),
        (Image.new("L", (2, 2)), "a Image"),
    ],
)
@pytest.mark.parametrize("row", [0, 2])
def test_what_is_no_class_number_leaves_the_pictures_without_labels(second, shown, row, caplog):
    seconds = [0, 1, 2, 3]
    seconds[row] = second
    images = ImageSet.from_dataset(Items(seconds, classes=["a", "b", "c", "d"]))
    assert (len(images), images.labels, images.class_names) == (4, None, None)
    assert len(caplog.records) == 1
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert torch.equal(ImageSet.from_dataset(Items(seconds))[3], torch.full((3, 2, 2), 3.0))
    (record,) = caplog.records
    assert record.name.startswith("viscircuits.")
    said = rf"expected a whole number from 0 up .* got {shown} at item {row}; give labels with images\.labelled"
    assert re.search(said, caplog.text)


def test_labels_that_an_argument_gives_are_refused_instead():
    pixels = torch.zeros(2, 3, 2, 2)
    for labels, shown in ((iter(["cat", "dog"]), "cat"), (torch.ones(2), "1"), (torch.zeros(2, 2).long(), r"\[2\]")):
        with pytest.raises(ImageError, match=rf"expected whole numbers as labels, got .*{shown}"):
            ImageSet.from_tensors(pixels).labelled(labels)
    assert ImageSet.from_tensors(pixels).labelled([True, torch.tensor([4])]).labels == (1, 4)


class Coarse(Items):
    def __getitem__(self, i):
        image, label = super().__getitem__(i)
        return image, label // 10


class Kept(Dataset):
    """A filter around a dataset that passes its attributes on."""

    def __init__(self, dataset, keep):
        self.dataset, self.keep = dataset, keep
        self.targets, self.classes = dataset.targets, dataset.classes

    def __len__(self):
        return len(self.keep)

    def __getitem__(self, i):
        return self.dataset[self.keep[i]]


FINE, NAMES = [10, 11, 20, 21], [f"fine {i}" for i in range(22)]
OTHERS = {
    "regrouped": Coarse(FINE, targets=FINE, classes=NAMES),
    "filtered": Kept(Items(FINE, targets=FINE, classes=NAMES), [3, 0]),
    "filtered and regrouped": Kept(Coarse(FINE, targets=FINE, classes=NAMES), [3, 0]),
    "one item differs": Items([10, 11, 20, 5], targets=FINE, classes=NAMES),
    "subset": Subset(Coarse(FINE, targets=FINE, classes=NAMES), [2, 1]),
    "targets that are no labels": Items(FINE, targets={"a": 1}, classes=NAMES),
    "transformed": Coarse(FINE, targets=torch.tensor(FINE), target_transform=lambda y: y // 10, classes=NAMES),
}


@pytest.mark.parametrize("name", OTHERS)
def test_labels_are_the_items_own_and_names_of_other_labels_are_left_out(name, caplog):
    dataset = OTHERS[name]
    images = ImageSet.from_dataset(dataset)
    assert images.labels == tuple(dataset[i][1] for i in range(len(dataset)))
    assert images.class_names is None
    assert "names of 22 classes are left out" in caplog.text


@pytest.mark.parametrize("held", [{}, {"targets": FINE}, {"targets": torch.tensor(FINE)}, {"targets": tuple(FINE)}])
def test_names_that_belong_to_the_labels_stay(held, caplog):
    assert ImageSet.from_dataset(Items(FINE, classes=NAMES, **held)).class_names == tuple(NAMES)
    assert ImageSet.from_dataset(Subset(Items(FINE, classes=NAMES, **held), [1, 1])).class_names == tuple(NAMES)
    assert not caplog.text


@pytest.mark.parametrize("classes", [["cat", "dog"], ["cat"] * 21])
def test_too_few_names_are_left_out(classes, caplog):
    images = ImageSet.from_dataset(Items(FINE, classes=classes))
    assert (images.labels, images.class_names) == (tuple(FINE), None)
    assert f"names of {len(classes)} classes are left out" in caplog.text


@pytest.mark.parametrize("classes", [22, {"cat": 0}, "a text of more than twenty-two letters", list(range(22))])
def test_what_is_no_list_of_names_is_none(classes):
    assert ImageSet.from_dataset(Items(FINE, classes=classes)).class_names is None


@pytest.fixture
def tree(tmp_path):
    for name, count in {"ant": 10, "bee": 12, "cow": 8}.items():
        (tmp_path / name).mkdir()
        for i in range(count):
            Image.new("RGB", (2, 2), (i, 0, 0)).save(tmp_path / name / f"{i}.png")
    return tmp_path


def counting(path):
    path_read.append(path)
    return Image.open(path).convert("RGB")


path_read: list[str] = []
TREE_LABELS = (0,) * 10 + (1,) * 12 + (2,) * 8


@pytest.mark.parametrize("rows", [None, [29, 3, 15, 15, 0, 28, 7, 8, 9, 16, 17]])
def test_torchvisions_folder_is_believed_after_a_few_items(tree, rows):
    path_read.clear()
    whole = tv.ImageFolder(str(tree), ToTensor(), loader=counting)
    dataset = whole if rows is None else Subset(Subset(whole, list(range(29, -1, -1))), [29 - row for row in rows])
    images = ImageSet.from_dataset(dataset)
    assert images.labels == (TREE_LABELS if rows is None else tuple(TREE_LABELS[row] for row in rows))
    assert images.class_names == ("ant", "bee", "cow")
    assert 5 <= len(path_read) <= 8


def test_torchvisions_folder_reads_its_samples_and_so_do_we(tree, caplog):
    stale = tv.ImageFolder(str(tree), ToTensor())
    stale.targets = [0] * 30  # which nothing reads
    assert ImageSet.from_dataset(stale).labels == TREE_LABELS
    moved = tv.ImageFolder(str(tree), ToTensor())
    moved.samples = [(path, 2 - label) for path, label in moved.samples]
    images = ImageSet.from_dataset(moved)
    assert images.labels == tuple(2 - label for label in TREE_LABELS)
    assert images.class_names is None
    assert "names of 3 classes are left out" in caplog.text


class Half(tv.ImageFolder):
    def __getitem__(self, i):
        image, label = super().__getitem__(i)
        return image, label if i < 29 else 0  # the last item alone


class Inner(tv.ImageFolder):
    def __getitem__(self, i):
        image, label = super().__getitem__(i)
        return image, 2 if i == 13 else label


@pytest.mark.parametrize(("kind", "row", "label"), [(Half, 29, 0), (Inner, 13, 2)])
def test_what_is_made_from_torchvisions_folder_is_read(tree, kind, row, label):
    expected = [*TREE_LABELS]
    expected[row] = label
    assert ImageSet.from_dataset(kind(str(tree), ToTensor())).labels == tuple(expected)
    assert ImageSet.from_dataset(Subset(kind(str(tree), ToTensor()), [row, 0])).labels == (label, 0)


def test_a_namesake_of_torchvisions_folder_is_read():
    class ImageFolder(Items):
        samples = tuple(("", 0) for _ in range(30))

    labels = [0] * 30
    labels[13] = 1
    assert ImageSet.from_dataset(ImageFolder(labels)).labels == tuple(labels)


@pytest.mark.parametrize(
    "changed",
    [
        {"target_transform": lambda label: label + 5},
        {"transforms": lambda image, label: (ToTensor()(image), label + 5)},
    ],
)
def test_transformed_labels_of_torchvisions_sets_are_the_items_own(tmp_path, changed):
    dataset = cifar(tmp_path)
    for name, value in changed.items():
        setattr(dataset, name, value)
    images = ImageSet.from_dataset(dataset, ToTensor())
    assert images.labels == tuple(dataset[i][1] for i in range(len(dataset)))
    assert (images.class_names is None) == (images.labels != tuple(dataset.targets))


def test_one_transformed_label_among_many(tmp_path):
    dataset = cifar(tmp_path)
    dataset.targets[15] = 10  # the only one of its class, and none of the few that are compared
    assert ImageSet.from_dataset(dataset, ToTensor()).labels[15] == 10
    dataset.target_transform = lambda label: label % 10
    assert ImageSet.from_dataset(dataset, ToTensor()).labels[15] == 0


def cifar(folder) -> tv.CIFAR10:
    """CIFAR-10 without its files."""
    dataset = tv.CIFAR10.__new__(tv.CIFAR10)
    dataset.root, dataset.transform, dataset.target_transform, dataset.transforms = str(folder), None, None, None
    dataset.data = np.zeros((40, 32, 32, 3), np.uint8)
    dataset.targets, dataset.classes = [i % 10 for i in range(40)], [f"class {i}" for i in range(15)]
    return dataset


def test_cifar_is_believed(tmp_path, monkeypatch):
    dataset, read = cifar(tmp_path), []
    original = tv.CIFAR10.__getitem__
    monkeypatch.setattr(tv.CIFAR10, "__getitem__", lambda self, i: (read.append(i), original(self, i))[1])
    images = ImageSet.from_dataset(dataset, ToTensor())
    assert images.labels == tuple(i % 10 for i in range(40))
    assert images.class_names == tuple(f"class {i}" for i in range(15))
    assert {0, 39} <= set(read)
    assert len(read) <= 8


def test_a_disagreement_with_a_few_items_reads_them_all(tmp_path, monkeypatch):
    dataset = cifar(tmp_path)
    original = tv.CIFAR10.__getitem__
    monkeypatch.setattr(tv.CIFAR10, "__getitem__", lambda self, i: (original(self, i)[0], (i + i // 39) % 10))
    assert ImageSet.from_dataset(dataset, ToTensor()).labels == (*(i % 10 for i in range(39)), 0)


def test_other_datasets_of_torchvision_are_read(caplog):
    dataset = tv.FakeData(5, (3, 4, 4), 3, ToTensor())
    dataset.targets = [0] * 5
    assert ImageSet.from_dataset(dataset).labels == tuple(int(dataset[i][1]) for i in range(5))
