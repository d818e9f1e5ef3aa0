"""A picture is the same at every reading, or it is refused; looking leaves random states alone."""

import random
from contextlib import suppress

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset
from torchvision import transforms as T

from viscircuits.data.images import ImageSet
from viscircuits.errors import ImageError

REFUSED = r"gives other pixels each time .*\(training\).* give the deterministic one \(Resize, CenterCrop, ToTensor"


@pytest.fixture
def photos(tmp_path):
    for i in range(5):
        noise = np.random.default_rng(i).integers(0, 256, (12, 12, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{i}.png")
    return tmp_path


def python_flip(image: Image.Image) -> torch.Tensor:
    turned = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < 0.5 else image
    return T.functional.to_tensor(turned)


def numpy_noise(image: Image.Image) -> torch.Tensor:
    return T.functional.to_tensor(image) + float(np.random.normal())


generator = np.random.default_rng(0)


def private_noise(image: Image.Image) -> torch.Tensor:
    return T.functional.to_tensor(image) + float(generator.normal())


RANDOM = {
    "flip": T.Compose([T.RandomHorizontalFlip(), T.ToTensor()]),
    "crop": T.Compose([T.RandomCrop(8), T.ToTensor()]),
    "resized crop": T.Compose([T.RandomResizedCrop(8), T.ToTensor()]),
    "colours": T.Compose([T.ColorJitter(0.5), T.ToTensor()]),
    "erasing": T.Compose([T.ToTensor(), T.RandomErasing(0.5)]),
    "rare": T.Compose([T.RandomApply([T.Grayscale(3)], p=0.3), T.ToTensor()]),
    "python's": python_flip,
    "numpy's": numpy_noise,
    "its own generator": private_noise,
}
READINGS = {
    "batches": lambda images: list(images.batches(2)),
    "one": lambda images: images[3],
    "in memory": lambda images: images.in_memory(),
    "subset": lambda images: list(images.subset([4, 2]).batches(2)),
    "half": lambda images: images.split(0.5)[1][0],
}


@pytest.mark.parametrize("name", RANDOM)
def test_a_random_prepare_is_refused(photos, name):
    for seed in range(4):  # whatever the dice say
        torch.manual_seed(seed)
        random.seed(seed)
        with pytest.raises(ImageError, match="prepare " + REFUSED):
            next(ImageSet.from_folder(photos, RANDOM[name]).batches(2))


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("unreadable", ["error", "skip"])
def test_it_is_refused_however_pictures_are_read(photos, reading, unreadable):
    images = ImageSet.from_folder(photos, RANDOM["crop"], unreadable=unreadable)
    with pytest.raises(ImageError, match=REFUSED):
        READINGS[reading](images)
    with pytest.raises(ImageError, match=REFUSED):  # and stays so
        images[0]


class Photos(Dataset):
    def __init__(self, transform):
        self.transform = transform

    def __len__(self):
        return 4

    def __getitem__(self, i):
        noise = np.random.default_rng(i).integers(0, 256, (12, 12, 3), np.uint8)
        return self.transform(Image.fromarray(noise)), i


@pytest.mark.parametrize("name", RANDOM)
def test_a_dataset_with_a_random_transform_is_refused(name):
    images = ImageSet.from_dataset(Photos(RANDOM[name]))
    with pytest.raises(ImageError, match="the dataset " + REFUSED):
        list(images.batches(2))
    with pytest.raises(ImageError, match=REFUSED):
        _ = ImageSet.from_dataset(Photos(lambda image: image), RANDOM[name]).hashes


@pytest.mark.parametrize(
    "transform", [RANDOM["flip"], T.Compose([T.RandomCrop(12), T.ToTensor()]), python_flip, numpy_noise]
)
def test_random_states_stay_as_they_were(photos, transform):
    images = ImageSet.from_folder(photos, transform)
    states = random.getstate(), str(np.random.get_state()), torch.get_rng_state()
    with suppress(ImageError):
        _ = images[0]
    assert random.getstate() == states[0]
    assert str(np.random.get_state()) == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])


def test_what_another_thread_draws_meanwhile_stays_drawn(photos):
    drawn: list[float] = []

    def prepare(image: Image.Image) -> torch.Tensor:
        if len(drawn) < 2:  # as another thread would, while it is read; not from python's: type checks draw from it
            drawn.append(np.random.random())
        return T.functional.to_tensor(image)

    np.random.seed(0)
    _ = ImageSet.from_folder(photos, prepare)[0]
    drawn.append(np.random.random())
    np.random.seed(0)
    assert drawn == [np.random.random() for _ in range(3)]


def test_what_draws_but_changes_nothing_is_fine(photos):
    still = T.Compose([T.RandomCrop(12), T.RandomApply([T.Grayscale(3)], p=0.0), T.ToTensor()])
    plain = ImageSet.from_folder(photos, T.ToTensor())
    for ours, theirs in zip(ImageSet.from_folder(photos, still), plain, strict=True):
        assert torch.equal(ours, theirs)


def counted(calls: list[int]):
    def prepare(image: Image.Image) -> torch.Tensor:
        calls.append(1)
        return T.functional.to_tensor(image)

    return prepare


@pytest.mark.parametrize("size", [1, 3, 5])
def test_it_costs_one_preparation_a_set(photos, size):
    calls: list[int] = []
    images = ImageSet.from_folder(photos, counted(calls))
    first = torch.cat([batch.images for batch in images.batches(size)])
    assert len(calls) == 5 + 1
    assert torch.equal(first, torch.cat([batch.images for batch in images.subset(range(5)).batches(size)]))
    assert len(calls) == 10 + 1
    _ = images.split(0.5)[0][0]
    assert len(calls) == 11 + 1


def test_a_damaged_first_picture_is_still_listed_with_the_others(photos):
    for i in (0, 3):
        (photos / f"{i}.png").write_bytes(b"")
    with pytest.raises(ImageError, match=r"2 of 5 pictures cannot be read: .*0\.png: the file is empty; .*3\.png"):
        list(ImageSet.from_folder(photos, RANDOM["flip"]).batches(2))
