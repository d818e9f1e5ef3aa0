"""`ImageSet`: constructors, decoding, batches, subsets, splits, hashes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import Dataset, TensorDataset

from viscircuits.data.images import ImageSet
from viscircuits.data.reading.queue import in_order


def prepare(image: Image.Image) -> torch.Tensor:
    """The picture as it is, in 0..255, with channels first."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float()


def paint(path, colour, size=(4, 3), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path, **options)


def colour_of(path) -> list[float]:
    return ImageSet.from_files(path, prepare)[0][:, 0, 0].tolist()


@pytest.fixture
def tree(tmp_path):
    for i, (name, count) in enumerate({"cat": 3, "ant": 2, "bee": 1}.items()):
        for k in range(count):
            paint(tmp_path / name / f"{k}.png", (40 * i + k, 0, 0))
    return tmp_path


def numbered(n: int, labels=None) -> ImageSet:
    return ImageSet.from_tensors(torch.arange(n * 3.0).reshape(n, 3, 1, 1), labels)


def test_a_tree_of_folders_has_sorted_classes(tree):
    images = ImageSet.from_folder(tree, prepare)
    assert images.class_names == ("ant", "bee", "cat")
    assert images.names == ("ant/0.png", "ant/1.png", "bee/0.png", "cat/0.png", "cat/1.png", "cat/2.png")
    assert images.labels == (0, 0, 1, 2, 2, 2)
    assert repr(images).startswith("ImageSet(images: 6;")
    assert "ant/0.png" in repr(images)
    assert repr(images).endswith("classes: 3 (ant, bee, cat))")
    assert images[3].tolist() == [[[0.0] * 4] * 3] * 3
    assert images[1][:, 0, 0].tolist() == [41, 0, 0]


def test_a_flat_folder_has_no_labels_and_ignores_other_files(tmp_path):
    paint(tmp_path / "b.PNG", "red")
    paint(tmp_path / "a.jpg", "red")
    paint(tmp_path / ".hidden.png", "red")
    paint(tmp_path / ".thumbs" / "a.png", "red")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("no picture")
    images = ImageSet.from_folder(tmp_path, prepare)
    assert (images.names, images.labels, images.class_names) == (("a.jpg", "b.PNG"), None, None)


def test_a_class_holds_the_pictures_at_any_depth_and_an_empty_class_keeps_its_number(tmp_path):
    paint(tmp_path / "cat" / "2019" / "spring" / "a.png", "red")
    paint(tmp_path / "cat" / ".thumbs" / "a.png", "red")
    (tmp_path / "bee").mkdir()
    (tmp_path / "ant").mkdir()
    images = ImageSet.from_folder(tmp_path, prepare)
    assert (images.names, images.labels) == (("cat/2019/spring/a.png",), (2,))
    assert images.class_names == ("ant", "bee", "cat")


def test_creating_a_set_of_files_decodes_nothing(tmp_path):
    for i in range(100):
        (tmp_path / f"{i:03}.jpg").write_bytes(b"not decoded yet")
    assert len(ImageSet.from_folder(tmp_path, pytest.fail)) == 100


def test_skip_leaves_unreadable_pictures_out_and_says_so(tree, caplog):
    (tree / "ant" / "0.png").write_bytes(b"")
    images = ImageSet.from_folder(tree, prepare, unreadable="skip")
    assert (len(images), images.labels, images.class_names) == (5, (0, 1, 2, 2, 2), ("ant", "bee", "cat"))
    assert "1 of 6 pictures cannot be read" in caplog.text
    assert "0.png: the file is empty" in caplog.text


def test_files_keep_their_order(tree):
    paths = [tree / "cat" / "1.png", str(tree / "ant" / "1.png")]
    images = ImageSet.from_files(paths, prepare, labels=np.array([5, 1]))
    assert images.labels == (5, 1)
    assert images.names == (paths[0].as_posix(), paths[1])
    assert [image[0, 0, 0].item() for image in images] == [1, 41]


def test_tensors_are_copied():
    pixels = torch.rand(2, 3, 4, 4)
    images = ImageSet.from_tensors(pixels, labels=torch.tensor([1, 0]), names=["a", "b"])
    before = pixels.clone()
    pixels.zero_()
    images[0].zero_()
    next(images.batches(2)).images.zero_()
    assert torch.equal(next(images.batches(2)).images, before)


class Pictures(Dataset):
    """Pillow pictures with labels, as torchvision's datasets yield them."""

    classes = ("a", "b")

    def __len__(self):
        return 4

    def __getitem__(self, i):
        return Image.new("L", (2, 2), i), i % 2


def test_a_dataset_of_pillow_pictures_is_prepared():
    images = ImageSet.from_dataset(Pictures(), prepare)
    assert (images.labels, images.class_names, len(images)) == ((0, 1, 0, 1), ("a", "b"), 4)
    assert images[3].shape == (3, 2, 2)
    assert images[3].max() == 3


def test_a_dataset_of_tensors_needs_no_prepare():
    pixels = torch.rand(5, 3, 2, 2)
    assert ImageSet.from_dataset(TensorDataset(pixels)).labels is None
    images = ImageSet.from_dataset(TensorDataset(pixels, torch.arange(5)))
    assert images.labels == (0, 1, 2, 3, 4)
    assert torch.equal(next(images.batches(5)).images, pixels)


def test_labels_are_those_the_dataset_yields_where_it_transforms_its_targets():
    class Transformed(Pictures):
        targets = (5, 5, 5, 5)
        target_transform = staticmethod(lambda label: label % 2)

    assert ImageSet.from_dataset(Transformed(), prepare).labels == (0, 1, 0, 1)


@pytest.mark.parametrize(
    ("mode", "colour", "suffix", "expected"),
    [
        ("L", 77, "png", [77, 77, 77]),
        ("1", 1, "png", [255, 255, 255]),
        ("I;16", 65535, "png", [255, 255, 255]),
        ("I;16", 257 * 100, "png", [100, 100, 100]),
        ("I;16", 257 * 100, "tif", [100, 100, 100]),
        ("RGBA", (255, 0, 0, 255), "png", [255, 0, 0]),
        ("RGBA", (255, 0, 0, 0), "png", [255, 255, 255]),
        ("RGBA", (255, 0, 0, 127), "png", [255, 128, 128]),
        ("LA", (0, 0), "png", [255, 255, 255]),
        ("CMYK", (0, 255, 255, 0), "tif", [255, 0, 0]),
    ],
)
def test_every_kind_of_picture_becomes_rgb(tmp_path, mode, colour, suffix, expected):
    paint(tmp_path / f"a.{suffix}", colour, mode=mode)
    assert colour_of(tmp_path / f"a.{suffix}") == expected


@pytest.mark.parametrize("transparency", [0, b"\x00\xff"])
def test_transparent_palette_entries_are_white(tmp_path, transparency):
    image = Image.new("P", (2, 1), 0)
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "a.png", transparency=transparency)
    picture = ImageSet.from_files(tmp_path / "a.png", prepare)[0]
    assert picture[:, 0].T.tolist() == [[255, 255, 255], [40, 50, 60]]


def test_exif_rotation_is_applied(tmp_path):
    image = Image.new("RGB", (2, 1), "black")
    image.putpixel((0, 0), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn 90 degrees clockwise to view"
    image.save(tmp_path / "a.png", exif=exif)
    assert ImageSet.from_files(tmp_path / "a.png", prepare)[0][0].tolist() == [[255], [0]]


def test_the_first_frame_of_an_animation_is_taken(tmp_path):
    frames = [Image.new("RGB", (2, 2), colour) for colour in ("red", "lime")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert colour_of(tmp_path / "a.gif") == [255, 0, 0]


def test_one_pixel_works_where_prepare_resizes(tmp_path):
    from torchvision.transforms import Compose, Resize, ToTensor

    paint(tmp_path / "a.png", "lime", size=(1, 1))
    images = ImageSet.from_files(tmp_path / "a.png", Compose([Resize((8, 8)), ToTensor()]))
    assert images[0].mean((1, 2)).tolist() == [0, 1, 0]


@pytest.mark.parametrize("size", [1, 2, 4, 6, 100])
def test_batches_are_ordered_and_complete(tree, size):
    images = ImageSet.from_folder(tree, prepare)
    batches = list(images.batches(size))
    assert [b.start for b in batches] == list(range(0, 6, size))
    assert torch.equal(torch.cat([b.images for b in batches]), torch.stack(list(images)))
    assert torch.cat([b.labels for b in batches]).tolist() == list(images.labels)


def test_batches_without_labels_and_left_early():
    iterator = numbered(5).batches(2)
    assert next(iterator).labels is None
    iterator.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_reading_ahead_is_bounded(workers):
    asked = []

    class Items(list):
        def __iter__(self):
            return (asked.append(item) or item for item in super().__iter__())

    results = in_order(str, Items(range(50)), workers, ahead=5)
    assert next(results) == "0"
    assert len(asked) == (6 if workers else 1)
    assert list(results) == [str(i) for i in range(1, 50)]


def test_subset_and_take():
    images = numbered(6, [0, 1, 2, 0, 1, 2])
    some = images.subset([4, 0])
    assert (some.names, some.labels) == (("4", "0"), (1, 0))
    assert torch.equal(some[0], images[4])
    drawn = images.take(3, seed=1)
    assert drawn.names == images.take(3, seed=1).names == tuple(sorted(drawn.names))
    assert len({images.take(3, seed=seed).names for seed in range(20)}) > 5


def test_select_classes_keeps_the_numbers(tree):
    images = ImageSet.from_folder(tree, prepare)
    assert images.select_classes(["cat", "bee"]).labels == (1, 2, 2, 2)
    assert images.select_classes("ant").names == ("ant/0.png", "ant/1.png")
    assert images.select_classes("ant").class_names == ("ant", "bee", "cat")


def test_labelled():
    images = numbered(2).labelled(torch.tensor([1, 0]), ["a", "b"])
    assert (images.labels, images.class_names) == ((1, 0), ("a", "b"))


labels_or_none = st.one_of(
    st.integers(2, 60).map(lambda n: (n, None)),
    st.lists(st.integers(0, 5), min_size=2, max_size=60).map(lambda labels: (len(labels), labels)),
    st.integers(2, 60).map(lambda n: (n, list(range(n)))),
)


@settings(deadline=None, max_examples=80)
@given(labels_or_none, st.floats(0.01, 0.99), st.integers(0, 2**32))
def test_split_is_disjoint_exhaustive_exact_stratified_and_repeatable(counted, fraction, seed):
    n, labels = counted
    k = round(fraction * n)
    if not 0 < k < n:
        return
    images = numbered(n, labels)
    a, b = images.split(fraction, seed)
    assert len(a) == k
    assert sorted(a.names + b.names, key=int) == list(images.names)
    assert (a.names, b.names) == tuple(half.names for half in images.split(fraction, seed))
    for label in set(labels or ()):
        assert abs(a.labels.count(label) - labels.count(label) * k / n) < 1


@pytest.mark.parametrize("labels", [None, list(range(12)), [0] * 6 + [1] * 6])
def test_every_picture_is_as_likely_in_either_half(labels):
    images = numbered(12, labels)
    counts = torch.zeros(12)
    for seed in range(400):
        counts[[int(name) for name in images.split(0.5, seed)[0].names]] += 1
    assert (counts / 400 - 0.5).abs().max() < 0.1  # four standard deviations of a fair coin


def test_hashes_find_the_same_picture_in_two_sets(tree):
    images = ImageSet.from_folder(tree, prepare)
    (tree / "other").mkdir()
    copy = tree / "other" / "renamed.png"
    copy.write_bytes((tree / "cat" / "1.png").read_bytes())
    assert ImageSet.from_files(copy, prepare).hashes == (images.hashes[4],)
    assert len(set(images.hashes)) == 6
    a, b = images.split(0.5)
    assert not set(a.hashes) & set(b.hashes)


def test_the_hash_depends_on_pictures_labels_and_prepare(tree):
    images = ImageSet.from_folder(tree, prepare)
    assert images.hash == ImageSet.from_folder(tree, prepare).hash
    others = [
        images.labelled([0] * 6),
        images.subset([1, 0, 2, 3, 4, 5]),
        ImageSet.from_folder(tree, lambda x: prepare(x)),
    ]
    assert len({images.hash, *(other.hash for other in others)}) == 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_tensors_hash_by_value_and_type(dtype):
    pixels = torch.rand(3, 3, 2, 2)
    images = ImageSet.from_tensors(pixels.to(dtype))
    strided = pixels.to(dtype).contiguous(memory_format=torch.channels_last)
    assert ImageSet.from_tensors(strided).hashes == images.hashes
    assert images.hashes != ImageSet.from_tensors(pixels.to(torch.float16)).hashes


def test_in_memory_is_the_same_set(tree):
    images = ImageSet.from_folder(tree, prepare)
    held = images.in_memory()
    assert (held.names, held.labels, held.class_names) == (images.names, images.labels, images.class_names)
    assert (held.hash, held.hashes) == (images.hash, images.hashes)
    some = images.subset([5, 0])
    assert some.in_memory().hashes == some.hashes == (images.hashes[5], images.hashes[0])
    for path in tree.rglob("*.png"):
        path.unlink()
    assert torch.equal(next(held.batches(9)).images[3], held.subset([3])[0])
    assert held.split(0.5)[0].hashes == images.split(0.5)[0].hashes


@pytest.mark.data
def test_imagenet_has_torchvisions_class_order(data_dir):
    images = ImageSet.from_folder(data_dir / "imagenet-1000", prepare)
    assert images.labels == tuple(range(1000))
    a, b = images.split(0.3)
    assert (len(a), len(b)) == (300, 700)
