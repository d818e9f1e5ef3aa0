"""Every way in which pictures can be wrong, and the text that says so."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

from viscircuits.data.images import ImageSet
from viscircuits.errors import ImageError


def prepare(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float()


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "photos"
    root.mkdir()
    for i in range(8):
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (16, 16, 3), np.uint8)).save(root / f"{i}.jpg")
    return root


def read(images: ImageSet):
    return list(images.batches(4))


def test_all_unreadable_files_are_named_at_once(folder):
    (folder / "0.jpg").write_bytes(b"")
    (folder / "3.jpg").write_bytes((folder / "3.jpg").read_bytes()[:-100])
    (folder / "7.jpg").write_text("hello")
    with pytest.raises(ImageError) as caught:
        read(ImageSet.from_folder(folder, prepare))
    text = str(caught.value)
    assert text.startswith("3 of 8 pictures cannot be read: ")
    assert "0.jpg: the file is empty; " in text
    assert "3.jpg: image file is truncated" in text
    assert "7.jpg: not a picture in a known format (JPEG, PNG, " in text
    assert 'from_folder(..., unreadable="skip")' in text


def test_a_long_list_of_unreadable_files_is_cut(folder):
    for path in list(folder.iterdir())[1:]:
        path.write_bytes(b"")
    with pytest.raises(ImageError, match=r"7 of 8 pictures .* and 2 more"):
        read(ImageSet.from_folder(folder, prepare))


def test_skipping_every_picture_is_an_error(folder):
    for path in folder.iterdir():
        path.write_bytes(b"")
    with pytest.raises(ImageError, match=r"8 of 8 pictures cannot be read"):
        ImageSet.from_folder(folder, prepare, unreadable="skip")


def test_one_unreadable_picture_read_by_index(folder):
    (folder / "2.jpg").write_bytes(b"")
    with pytest.raises(ImageError, match=r"2\.jpg: the file is empty"):
        ImageSet.from_folder(folder, prepare)[2]


@pytest.mark.parametrize("limit", [100, 200])
def test_too_many_pixels(folder, monkeypatch, limit):
    """Pillow warns above its limit and raises above twice the limit; both are one error here."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(ImageError, match=rf"more pixels than PIL.Image.MAX_IMAGE_PIXELS = {limit} allows"):
        read(ImageSet.from_folder(folder, prepare))


@pytest.mark.parametrize(("mode", "colour"), [("F", 0.5), ("I", 70000)])
def test_grey_without_a_white_point(tmp_path, mode, colour):
    Image.new(mode, (2, 2), colour).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match=r"has no fixed white; convert the file to 8 or 16 bits"):
        read(ImageSet.from_folder(tmp_path, prepare))


def test_paths_that_are_something_else(folder, tmp_path):
    with pytest.raises(ImageError, match=r"no folder .*nowhere"):
        ImageSet.from_folder(tmp_path / "nowhere", prepare)
    with pytest.raises(ImageError, match=r"expected a folder, got the file .*0\.jpg'; use ImageSet.from_files"):
        ImageSet.from_folder(folder / "0.jpg", prepare)
    with pytest.raises(ImageError, match=r"expected picture files, got the folder .*photos'; use ImageSet.from_folder"):
        ImageSet.from_files([folder], prepare)
    with pytest.raises(ImageError, match=r"no file .*nowhere"):
        ImageSet.from_files(folder / "nowhere.png", prepare)


def test_folders_without_pictures(tmp_path):
    with pytest.raises(ImageError, match=r"no pictures in .* it holds no files; expected .avif"):
        ImageSet.from_folder(tmp_path, prepare)
    (tmp_path / "a.heic").write_bytes(b"")
    (tmp_path / "b.heic").write_bytes(b"")
    with pytest.raises(ImageError, match=r"it holds 2 .heic; expected"):
        ImageSet.from_folder(tmp_path, prepare)


def test_pictures_beside_class_folders(folder, tmp_path):
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match=r"'a.png'\) beside folders with pictures \(such as 'photos/0.jpg'\)"):
        ImageSet.from_folder(tmp_path, prepare)


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        (lambda image: image, "expected a tensor .* from prepare for .*0.jpg, got Image; end it in ToTensor"),
        (lambda image: prepare(image)[0], r"expected a tensor .* got shape \[16, 16\]"),
        (lambda image: prepare(image)[None], r"got shape \[1, 3, 16, 16\]"),
        (lambda image: prepare(image).to(torch.uint8), "expected float pixels .* got torch.uint8"),
        (lambda image: prepare(image) / 0, r"expected finite pixels from prepare for .*0.jpg, got inf or nan"),
        (lambda image: image.crop((5, 5, 1, 1)), r"prepare failed on .*0.jpg \(16 x 16 pixels\): ValueError"),
    ],
)
def test_prepare_that_returns_something_else(folder, bad, text):
    with pytest.raises(ImageError, match=text):
        read(ImageSet.from_folder(folder, bad))


@pytest.mark.parametrize("size", [1, 8])
def test_pictures_of_two_sizes(folder, size):
    Image.new("RGB", (16, 20)).save(folder / "5.jpg")
    with pytest.raises(ImageError, match=r"'0.jpg' is \[3, 16, 16\] but '5.jpg' is \[3, 20, 16\]; prepare needs"):
        list(ImageSet.from_folder(folder, prepare).batches(size))


pixels = torch.zeros(3, 3, 2, 2)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: ImageSet.from_tensors(pixels[0]), r"expected pictures \[n, c, h, w\], got shape \[3, 2, 2\]"),
        (lambda: ImageSet.from_tensors(pixels.to(torch.uint8)), "expected float pixels .* got torch.uint8"),
        (lambda: ImageSet.from_tensors(pixels[:0]), "expected at least one picture, got none"),
        (lambda: ImageSet.from_tensors(pixels[..., :0]), r"got shape \[3, 2, 0\]"),
        (lambda: ImageSet.from_tensors(pixels / 0), "expected finite pixels from the caller for image 0"),
        (lambda: ImageSet.from_tensors(pixels, [0, 1]), r"expected one label a picture \(3\), got 2"),
        (lambda: ImageSet.from_tensors(pixels, [0, 1, -1]), "expected labels from 0 up, got -1"),
        (lambda: ImageSet.from_tensors(pixels, torch.rand(3)), "expected whole numbers as labels"),
        (lambda: ImageSet.from_tensors(pixels, names=["a"]), r"expected one name a picture \(3\), got 1"),
        (lambda: ImageSet.from_tensors(pixels).labelled([0]), r"expected one label a picture \(3\), got 1"),
        (lambda: ImageSet.from_tensors(pixels).labelled([0, 1, 2], ["a", "b"]), "expected labels below 2 .* got 2"),
        (lambda: ImageSet.from_tensors(pixels).subset([]), "expected at least one picture"),
        (lambda: ImageSet.from_tensors(pixels).subset([3]), "expected indices from 0 to 2, got 3"),
        (lambda: ImageSet.from_tensors(pixels).take(4), "expected to take from 1 to 3 pictures, got 4"),
        (
            lambda: ImageSet.from_tensors(pixels).split(0.01),
            r"a split of 3 pictures at 0.01 has an empty side \(0 and 3",
        ),
        (lambda: ImageSet.from_tensors(pixels).split(1.5), "expected a fraction between 0 and 1, got 1.5"),
        (lambda: ImageSet.from_tensors(pixels).select_classes("a"), "expected pictures with named classes"),
        (
            lambda: list(ImageSet.from_tensors(pixels).batches(0)),
            "size 0 is out of range; expected a whole number",
        ),
        (lambda: ImageSet.from_files([], prepare), "expected at least one picture"),
    ],
)
def test_bad_arguments(make, text):
    with pytest.raises(ImageError, match=text):
        make()


def test_classes_that_are_not_there():
    images = ImageSet.from_tensors(pixels).labelled([0, 0, 1], ["cat", "dog", "fox"])
    with pytest.raises(ImageError, match=r"no class 'cats' among 3 classes; closest: 'cat'"):
        images.select_classes("cats")
    with pytest.raises(ImageError, match=r"no picture here is in fox"):
        images.select_classes(["fox"])


def test_datasets_that_do_not_fit():
    class Pictures(Dataset):
        def __init__(self, item):
            self.item = item

        def __len__(self):
            return 2

        def __getitem__(self, i):
            return self.item

    image = Image.new("RGB", (2, 2))
    with pytest.raises(ImageError, match=r"item 0 of the dataset is a Pillow picture; give .* a prepare"):
        ImageSet.from_dataset(Pictures(image))[0]
    with pytest.raises(ImageError, match=r"expected a tensor .* from the dataset for item 1 of the dataset, got str"):
        ImageSet.from_dataset(Pictures("text"))[1]
