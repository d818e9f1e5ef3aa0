"""A split never parts what is one file or one item, and is otherwise what it always was."""

import os

import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, Subset, TensorDataset

from viscircuits.data.images import ImageSet
from viscircuits.errors import ImageError


def prepare(image: Image.Image) -> torch.Tensor:
    return torch.zeros(3, 2, 2)


@pytest.fixture
def photos(tmp_path):
    for i in range(6):
        Image.new("RGB", (2, 2), (40 * i, 0, 0)).save(tmp_path / f"{i}.png")
    return tmp_path


def sides(images: ImageSet, seed: int) -> tuple[set[int], set[int]]:
    """The numbers of the files on either side, where every name begins with one."""
    first, second = images.split(0.5, seed)
    assert len(first) + len(second) == len(images)
    return tuple({int(name.rsplit("/")[-1][0]) for name in side.names} for side in (first, second))  # pyright: ignore


def linked(folder):
    for i in range(3):
        os.symlink(f"{i}.png", folder / f"{i}-link.png")
    return ImageSet.from_folder(folder, prepare)


def hard_linked(folder):
    (folder / "copies").mkdir()
    for i in range(6):
        os.link(folder / f"{i}.png", folder / "copies" / f"{i}.png")
    return ImageSet.from_files(sorted(folder.rglob("*.png")), prepare, labels=[0, 1] * 6)


def given_twice(folder):
    paths = [folder / f"{i}.png" for i in range(6)]
    return ImageSet.from_files([*paths, *reversed(paths)], prepare)


def spelt_twice(folder):
    (folder / "x").mkdir()
    return ImageSet.from_files(
        [spelling for i in range(6) for spelling in (folder / f"{i}.png", f"{folder}/x/../{i}.png")], prepare
    )


def repeated(folder):
    return ImageSet.from_folder(folder, prepare).subset([0, 1, 2, 3, 4, 5, 0, 0, 3])


def in_memory(folder):
    images = linked(folder).in_memory()
    for path in folder.iterdir():
        path.unlink()
    return images


def repeated_tensors(folder):
    return ImageSet.from_tensors(torch.rand(6, 3, 2, 2)).subset([0, 0, 1, 2, 3, 4, 5, 5])


@pytest.mark.parametrize(
    "make",
    [linked, hard_linked, given_twice, spelt_twice, repeated, in_memory, repeated_tensors],
    ids=lambda f: f.__name__,
)
def test_one_file_stands_on_one_side(photos, make):
    images = make(photos)
    for seed in range(20):
        first, second = sides(images, seed)
        assert not first & second
        assert (len(first), len(second)) == (3, 3)  # of the six different ones


@pytest.mark.parametrize(
    "wrap", [lambda d: Subset(d, [0, 1, 2, 3, 3, 1]), lambda d: ConcatDataset([d, Subset(d, [2, 0])])]
)
def test_one_item_of_a_dataset_stands_on_one_side(wrap):
    pixels = torch.arange(4.0).reshape(4, 1, 1, 1)
    images = ImageSet.from_dataset(wrap(Subset(TensorDataset(pixels), range(4))))
    for seed in range(20):
        values = [{image.item() for image in side} for side in images.split(0.5, seed)]
        assert not values[0] & values[1]
        assert values[0] | values[1] == {0, 1, 2, 3}


def test_one_file_of_torchvisions_folder_stands_on_one_side(photos):
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import ToTensor

    for name in ("a", "b"):
        (photos / name).mkdir()
        for i in range(6):
            os.link(photos / f"{i}.png", photos / name / f"{i}.png")
    images = ImageSet.from_dataset(ImageFolder(photos, ToTensor()))
    for seed in range(20):
        first, second = ({image.max().item() for image in side} for side in images.split(0.5, seed))
        assert not first & second


def test_without_twins_a_split_is_what_it_was():
    """Both were drawn before twins were looked for."""
    pixels = torch.zeros(12, 1, 1, 1)
    first, second = ImageSet.from_tensors(pixels).split(0.3, seed=7)
    assert first.names == ("0", "1", "8", "9")
    assert second.names == ("2", "3", "4", "5", "6", "7", "10", "11")
    first, second = ImageSet.from_tensors(pixels, [0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2]).split(0.5, seed=3)
    assert first.names == ("1", "2", "4", "6", "9", "10")
    assert second.names == ("0", "3", "5", "7", "8", "11")


def test_copies_of_a_file_are_files_of_their_own(photos):
    images = ImageSet.from_folder(photos, prepare)
    for i in range(6):
        (photos / f"{i}.png").write_bytes((photos / "0.png").read_bytes())
    assert [len(side) for side in images.split(0.5)] == [3, 3]


def test_a_set_that_is_one_file_cannot_be_split(photos):
    images = ImageSet.from_files([photos / "0.png"] * 4, prepare)
    with pytest.raises(ImageError, match=r"a split of 1 pictures at 0\.5 has an empty side"):
        images.split(0.5)
