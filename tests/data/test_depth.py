"""Pictures of more than 8 bits: which value is white, and what is refused where nobody can tell."""

import copy
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from picture_files import FLOAT, LONG, SHORT, grey, png16, prepare, sbit, scaled, tiff
from PIL import Image
from torch.utils.data import Dataset

from viscircuits.data.images import ImageSet
from viscircuits.errors import ImageError, ViscircuitsError

MAX, SMAX, PHOTOMETRIC, BITS = 281, 341, 262, 258
RANGE = "their headers do not state the range"
RAMP = np.arange(0, 4096, 16, np.uint16).reshape(16, 16)
"""Twelve bits; its largest value is 4080."""


def write(path: Path, samples: np.ndarray) -> Path:
    """16 bits without a word on their range."""
    return png16(path, samples) if path.suffix == ".png" else tiff(path, (samples, {}))


FULL = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize("largest", [16384, 30000, 65535])
def test_sixteen_bits_with_a_value_above_a_quarter_are_what_they_were(tmp_path, name, largest):
    samples = np.linspace(0, largest, 256).astype(np.uint16).reshape(16, 16)
    assert (grey(write(tmp_path / name, samples)) == (samples / 257).round()).all()


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize("largest", [0, 1023, 4095, 16383])
def test_sixteen_bits_without_one_are_refused(tmp_path, name, largest):
    samples = np.linspace(0, largest, 256).astype(np.uint16).reshape(16, 16)
    with pytest.raises(ImageError, match=rf"is above {largest} \(in {name}\).*{RANGE}; give .* white=N \(--white N\)"):
        grey(write(tmp_path / name, samples))


@pytest.mark.parametrize("bright", ["a.png", "z.tif"])
def test_one_bright_picture_of_the_set_tells_the_range_of_all(tmp_path, bright):
    """Never by picture: the dark one comes out dark."""
    for name in ("b.png", "c.tif", "d.png"):
        write(tmp_path / name, RAMP)
    with pytest.raises(ImageError, match=RANGE):
        _ = ImageSet.from_folder(tmp_path, prepare)[0]
    write(tmp_path / bright, FULL)
    images = ImageSet.from_folder(tmp_path, prepare)
    for name, image in zip(images.names, images, strict=True):
        samples = FULL if name == bright else RAMP
        assert (image[0].numpy() == (samples / 257).round()).all()
    assert torch.equal(images.subset([1])[0], images[1])  # the set, not the subset


@pytest.mark.parametrize(
    "reading", [lambda s: list(s.batches(2)), lambda s: s.in_memory(), lambda s: s.split(0.5)[0][0]]
)
def test_a_set_nobody_can_tell_of_is_refused_in_one_line_however_it_is_read(tmp_path, reading):
    for i in range(4):
        write(tmp_path / f"{i}.png", RAMP + np.uint16(i))
    with pytest.raises(ImageError, match=r"no sample .* above 4083 \(in 3\.png\)") as caught:
        reading(ImageSet.from_folder(tmp_path, prepare))
    assert "\n" not in str(caught.value)
    assert "cannot be read" not in str(caught.value)  # nothing is broken
    with pytest.raises(ImageError, match=RANGE):
        ImageSet.from_folder(tmp_path, prepare, unreadable="skip")


def test_the_set_is_looked_through_once(tmp_path, monkeypatch):
    from viscircuits.data import sources

    for i in range(6):
        png16(tmp_path / f"{i}.png", RAMP if i < 5 else FULL)
    seen = []
    original = sources.opened
    monkeypatch.setattr(sources, "opened", lambda path: (seen.append(path.name), original(path))[1])
    images = ImageSet.from_folder(tmp_path, prepare)
    list(images.batches(2))
    list(images.subset([3, 2]).batches(1))
    assert seen == [f"{i}.png" for i in range(6)]


def test_damaged_files_do_not_stop_the_search(tmp_path):
    (tmp_path / "0.png").write_bytes(b"")
    png16(tmp_path / "1.png", RAMP)
    broken = png16(tmp_path / "2.png", FULL).read_bytes()
    (tmp_path / "2.png").write_bytes(broken[:-60])
    png16(tmp_path / "3.png", FULL)
    images = ImageSet.from_folder(tmp_path, prepare, unreadable="skip")
    assert images.names == ("1.png", "3.png")
    assert (images[0][0].numpy() == (RAMP / 257).round()).all()


STATED = {
    "TIFF of twelve bits": lambda p: tiff(
        p / "a.tif", (np.zeros((1, 2), np.uint16), {BITS: (SHORT, [12])}), packed=b"\xff\xf8\x00"
    ),
    "MaxSampleValue": lambda p: tiff(p / "a.tif", (np.array([[4095, 2048]], np.uint16), {MAX: (SHORT, [4095])})),
    "SMaxSampleValue": lambda p: tiff(p / "a.tif", (np.array([[4095, 2048]], np.uint16), {SMAX: (LONG, [4095])})),
    "32 bits": lambda p: tiff(p / "a.tif", (np.array([[4095, 2048]], np.uint32), {SMAX: (LONG, [4095])})),
    "signed": lambda p: tiff(p / "a.tif", (np.array([[4095, 2048]], np.int16), {MAX: (SHORT, [4095])})),
    "floats": lambda p: tiff(p / "a.tif", (np.array([[1, 2048 / 4095]], np.float32), {SMAX: (FLOAT, [1.0])})),
    "sBIT": lambda p: png16(p / "a.png", np.array([[4095, 2048]], np.uint16), sBIT=sbit(12)),
}


@pytest.mark.parametrize("name", STATED)
def test_a_range_that_the_header_states(tmp_path, name):
    assert grey(STATED[name](tmp_path)).tolist() == [[255, 128]]


@pytest.mark.parametrize(("bits", "white"), [(9, 511), (10, 1023), (14, 16383), (16, 65535), (7, 127)])
def test_sbit_counts_the_bits(tmp_path, bits, white):
    samples = np.array([[white, white // 2]], np.uint16)
    assert grey(png16(tmp_path / "a.png", samples, sBIT=sbit(bits))).tolist() == [
        [255, round(white // 2 * 255 / white)]
    ]


@pytest.mark.parametrize("bits", [5, 10, 12])
def test_samples_above_sbits_range_fill_sixteen_bits_as_the_standard_has_it(tmp_path, bits):
    dark = png16(tmp_path / "b.png", np.array([[1000, 0]], np.uint16), sBIT=sbit(bits))
    png16(tmp_path / "a.png", FULL, sBIT=sbit(bits))
    png16(tmp_path / "c.png", np.array([[1000, 0]], np.uint16), sBIT=sbit(11))  # another writer's
    images = ImageSet.from_folder(tmp_path, prepare)
    assert images[1][0].tolist() == [[round(1000 / 257), 0]]
    assert images[2][0].tolist() == [[round(1000 * 255 / 2047), 0]]
    if bits > 10:
        assert grey(dark).tolist() == [[round(1000 * 255 / 4095), 0]]  # by itself


def test_an_sbit_that_says_nothing_is_nothing(tmp_path):
    for bits in (0, 17):
        with pytest.raises(ImageError, match=RANGE):
            grey(png16(tmp_path / "a.png", RAMP, sBIT=sbit(bits)))


def test_largest_values_that_differ_may_be_those_of_each_picture(tmp_path):
    for name, top in {"a.tif": 3712, "b.tif": 4000, "c.tif": 3712}.items():
        tiff(tmp_path / name, (np.array([[top, 0]], np.uint16), {MAX: (SHORT, [top])}))
    images = ImageSet.from_folder(tmp_path, prepare)
    with pytest.raises(ImageError, match=r"different largest values, 3712 \(in c\.tif\) and 4000 \(in b\.tif\)"):
        _ = images[0]
    assert ImageSet.from_folder(tmp_path, prepare, white=4095)[0][0, 0, 0] == round(3712 * 255 / 4095)
    assert ImageSet.from_files([tmp_path / "a.tif", tmp_path / "c.tif"], prepare)[1][0].tolist() == [[255, 0]]


def test_largest_values_of_ten_and_twelve_bits_are_ranges(tmp_path):
    for name, top in {"a.tif": 4095, "b.tif": 1023}.items():
        tiff(tmp_path / name, (np.array([[1000, 0]], np.uint16), {MAX: (SHORT, [top])}))
    images = ImageSet.from_folder(tmp_path, prepare)
    assert [image[0, 0, 0].item() for image in images] == [round(1000 * 255 / 4095), round(1000 * 255 / 1023)]


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize("white", [4095, 4080.0, 10000, 65535])
def test_the_caller_says_what_is_white(tmp_path, name, white):
    assert (grey(write(tmp_path / name, RAMP), white=white) == scaled(RAMP, white)).all()


@pytest.mark.parametrize(
    ("samples", "white", "expected"),
    [
        (np.array([[70000, 35000]], np.uint32), 70000, [255, 128]),
        (np.array([[200, 100]], np.int16), 200, [255, 128]),
        (np.array([[1.0, 0.2]], np.float32), 1, [255, 51]),
        (np.array([[1e9, 2e8]], np.float32), 1e9, [255, 51]),
    ],
)
def test_what_has_no_fixed_white_becomes_readable(tmp_path, samples, white, expected):
    path = tiff(tmp_path / "a.tif", (samples, {}))
    assert grey(path, white=white).tolist() == [expected]
    largest = re.escape(f"{samples.max():.10g}")
    with pytest.raises(
        ImageError, match=rf"no fixed white; convert .* white=N \(--white N\); the largest here is {largest}"
    ):
        grey(path)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (lambda p: png16(p / "a.png", np.array([[4096, 0]], np.uint16)), "4096"),
        (lambda p: tiff(p / "a.tif", (np.array([[5000, 0]], np.uint16), {MAX: (SHORT, [6000])})), "5000"),
        (lambda p: tiff(p / "a.tif", (np.array([[70000, 0]], np.uint32), {})), "70000"),
        (lambda p: tiff(p / "a.tif", (np.array([[10, -3]], np.int16), {})), "-3"),
        (lambda p: tiff(p / "a.tif", (np.array([[10, -0.5]], np.float32), {})), r"-0\.5"),
    ],
)
def test_values_outside_are_refused_by_file_and_value(tmp_path, path, value):
    file = path(tmp_path)
    with pytest.raises(ImageError, match=rf"{file.name}: the value {value} is outside 0\.\.4095, .*\(--white N\)"):
        grey(file, white=4095)


def test_a_sample_above_what_the_header_states_is_refused(tmp_path):
    path = tiff(tmp_path / "a.tif", (np.array([[1001, 0]], np.uint16), {MAX: (SHORT, [1000])}))
    with pytest.raises(ImageError, match=r"a\.tif: the value 1001 is outside 0\.\.1000"):
        grey(path)


def test_not_a_number_is_refused(tmp_path):
    with pytest.raises(ImageError, match="it holds inf or nan"):
        grey(tiff(tmp_path / "a.tif", (np.array([[np.nan, 0]], np.float32), {})), white=1)


@pytest.mark.parametrize("white", [0, -1, float("nan"), float("inf"), True])
def test_a_white_that_is_none(tmp_path, white):
    png16(tmp_path / "a.png", FULL)
    for make in (ImageSet.from_folder, ImageSet.from_files):
        with pytest.raises(ViscircuitsError, match=r"^white.* expected a finite number above 0.* such as 4095"):
            make(tmp_path if make == ImageSet.from_folder else tmp_path / "a.png", prepare, white=white)


def test_white_enters_the_hash_only_when_given(tmp_path):
    write(tmp_path / "a.png", FULL)
    images = [ImageSet.from_folder(tmp_path, prepare, **given) for given in ({}, {"white": 65535}, {"white": 65535.0})]
    assert images[0].hashes == images[1].hashes
    assert images[0].hash != images[1].hash == images[2].hash
    assert images[1].in_memory().hash == images[1].hash
    assert images[0].hash == ImageSet.from_files(tmp_path / "a.png", prepare).hash


def test_white_leaves_pictures_of_eight_bits_alone(tmp_path):
    Image.new("RGB", (2, 2), (200, 100, 0)).save(tmp_path / "a.png")
    assert ImageSet.from_files(tmp_path / "a.png", prepare, white=10)[0][:, 0, 0].tolist() == [200, 100, 0]


class Photos(Dataset):
    def __init__(self, *pictures):
        self.pictures = pictures

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, i):
        return self.pictures[i]


def test_pillow_pictures_of_a_dataset():
    dark, bright = Image.fromarray(RAMP), Image.fromarray(FULL)
    both = ImageSet.from_dataset(Photos(dark, bright), prepare)
    assert (both[0][0].numpy() == (RAMP / 257).round()).all()
    with pytest.raises(ImageError, match=r"above 4080 \(in item 0 of the dataset\)"):
        _ = ImageSet.from_dataset(Photos(dark, Image.new("L", (16, 16), 255)), prepare)[0]
    given = ImageSet.from_dataset(Photos(dark), prepare, white=4095)[0][0]
    assert (given.numpy() == scaled(RAMP, 4095)).all()
    depths = Image.fromarray(np.array([[0.5, 2.0]], np.float32))
    assert ImageSet.from_dataset(Photos(depths), prepare, white=2)[0][0].tolist() == [[64, 255]]
    with pytest.raises(ImageError, match=r"item 0 of the dataset: floating-point grey has no fixed white"):
        _ = ImageSet.from_dataset(Photos(depths), prepare)[0]


@pytest.mark.parametrize("loaded", [False, True])
def test_files_that_a_dataset_opens(tmp_path, loaded, request):
    """The header of a PNG is at hand until its pixels are read, that of a TIFF longer."""

    class Opened(Photos):
        def __getitem__(self, i):
            picture = Image.open(self.pictures[i])
            request.addfinalizer(picture.close)
            if loaded:
                picture.load()
            return picture

    images = ImageSet.from_dataset(Opened(STATED["MaxSampleValue"](tmp_path), STATED["sBIT"](tmp_path)), prepare)
    assert images[0][0].tolist() == [[255, 128]]
    if loaded:
        with pytest.raises(ImageError, match=RANGE):
            _ = images[1]
    else:
        assert images[1][0].tolist() == [[255, 128]]


def test_a_set_can_be_copied_after_it_was_read(tmp_path):
    write(tmp_path / "a.png", FULL)
    images = ImageSet.from_folder(tmp_path, prepare)
    first = images[0]
    assert torch.equal(copy.deepcopy(images)[0], first)
    assert torch.equal(pickle.loads(pickle.dumps(images))[0], first)
