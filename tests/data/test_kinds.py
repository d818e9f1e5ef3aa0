"""What each kind of file becomes: pages, photometry, palettes, alpha, turns, animations, CMYK."""

import numpy as np
import pytest
import torch
from picture_files import FLOAT, LONG, SHORT, png16, prepare, tiff
from PIL import Image

from viscircuits.data.images import ImageSet
from viscircuits.errors import ImageError

BITS, PHOTOMETRIC, SUBFILE, OLD_SUBFILE = 258, 262, 254, 255
PAGE = np.full((2, 2), 200, np.uint8)
OTHER = np.full((1, 1), 50, np.uint8)
REDUCED = {SUBFILE: (LONG, [1])}


def read(path, **options) -> torch.Tensor:
    return ImageSet.from_files(path, prepare, **options)[0]


def grey(path, **options) -> list[float]:
    return read(path, **options)[0].flatten().tolist()


@pytest.mark.parametrize("count", [2, 5])
def test_pages_are_counted_and_refused(tmp_path, count):
    path = tiff(tmp_path / "a.tif", *[(PAGE, {})] * count)
    with pytest.raises(ImageError, match=rf"a\.tif: {count} pages, where one picture is expected; save each page"):
        read(path)
    with pytest.raises(ImageError, match=rf"1 of 1 picture cannot be read: .*{count} pages"):
        list(ImageSet.from_folder(tmp_path, prepare).batches(1))


def test_pages_that_pillow_writes(tmp_path):
    pages = [Image.new("RGB", (4, 4), (i, 0, 0)) for i in range(3)]
    for name, options in {"a.tif": {}, "b.tif": {"compression": "tiff_lzw"}, "c.tif": {"big_tiff": True}}.items():
        pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:], **options)
        with pytest.raises(ImageError, match="3 pages"):
            read(tmp_path / name)
        pages[2].save(tmp_path / name, **options)
        assert read(tmp_path / name)[0].max() == 2


def test_pages_are_left_out_with_other_unreadable_files(tmp_path, caplog):
    tiff(tmp_path / "a.tif", (PAGE, {}), (PAGE, {}))
    tiff(tmp_path / "b.tif", (PAGE, {}))
    assert ImageSet.from_folder(tmp_path, prepare, unreadable="skip").names == ("b.tif",)
    assert "a.tif: 2 pages" in caplog.text


STRANGE = np.zeros((1, 1, 5), np.uint8)  # of a kind that Pillow cannot read


@pytest.mark.parametrize(
    "pages",
    [
        [(PAGE, {}), (OTHER, REDUCED)],
        [(PAGE, {}), (OTHER, {SUBFILE: (SHORT, [1])}), (OTHER, {SUBFILE: (LONG, [3])})],
        [(PAGE, {}), (OTHER, {OLD_SUBFILE: (SHORT, [2])})],
        [(OTHER, REDUCED), (PAGE, {})],  # the copy first
        [(OTHER, REDUCED), (STRANGE, REDUCED), (PAGE, {SUBFILE: (LONG, [0])}), (OTHER, REDUCED)],
        [(PAGE, REDUCED)],  # nothing else
        [(PAGE, {SUBFILE: (LONG, [2])})],  # "a page of many", alone
    ],
)
def test_smaller_copies_do_not_count(tmp_path, pages):
    assert grey(tiff(tmp_path / "a.tif", *pages)) == [200] * 4


@pytest.mark.parametrize("second", [{SUBFILE: (LONG, [2])}, {SUBFILE: (LONG, [4])}, {OLD_SUBFILE: (SHORT, [3])}])
def test_pages_and_masks_count(tmp_path, second):
    with pytest.raises(ImageError, match="2 pages"):
        read(tiff(tmp_path / "a.tif", (PAGE, {}), (OTHER, second)))


def test_a_chain_of_pages_that_is_cut_off_or_a_ring_ends(tmp_path):
    path = tiff(tmp_path / "a.tif", (PAGE, {}))
    data = bytearray(path.read_bytes())
    start = int.from_bytes(data[4:8], "little")
    for following in (start, 10**9):
        data[-4:] = following.to_bytes(4, "little")
        path.write_bytes(data)
        assert grey(path) == [200] * 4


@pytest.mark.parametrize(
    ("bits", "packed", "width"), [(1, b"\x80", 2), (2, b"\xc0", 2), (4, b"\xf0", 2), (8, b"\xff\x00", 2)]
)
@pytest.mark.parametrize("zero_is_white", [True, False])
def test_white_is_zero_in_up_to_eight_bits(tmp_path, bits, packed, width, zero_is_white):
    tags = {BITS: (SHORT, [bits]), PHOTOMETRIC: (SHORT, [0 if zero_is_white else 1])}
    path = tiff(tmp_path / "a.tif", (np.zeros((1, width), np.uint8), tags), packed=packed)
    assert grey(path) == ([0, 255] if zero_is_white else [255, 0])


@pytest.mark.parametrize("compression", ["raw", "packbits", "tiff_lzw", "tiff_adobe_deflate", "group4"])
def test_white_is_zero_survives_compression(tmp_path, compression):
    image = Image.new("1", (16, 16), 255)
    image.paste(0, (0, 0, 16, 1))
    image.save(tmp_path / "a.tif", compression=compression, tiffinfo={PHOTOMETRIC: 0})
    with Image.open(tmp_path / "a.tif") as opened:
        assert opened.tag_v2[PHOTOMETRIC] == 0  # pyright: ignore[reportAttributeAccessIssue]
    assert read(tmp_path / "a.tif")[0, :2, 0].tolist() == [0, 255]


ZERO = {PHOTOMETRIC: (SHORT, [0])}


@pytest.mark.parametrize(
    ("samples", "tags", "options", "expected"),
    [
        (np.array([[0, 65535, 25700]], np.uint16), {}, {}, [255, 0, 155]),
        (np.array([[0, 4095, 1365]], np.uint16), {281: (SHORT, [4095])}, {}, [255, 0, 170]),
        (np.array([[0, 4095, 1365]], np.uint16), {}, {"white": 4095}, [255, 0, 170]),
        (np.array([[0, 1, 0.2]], np.float32), {341: (FLOAT, [1.0])}, {}, [255, 0, 204]),
        (np.array([[0, 1, 0.2]], np.float32), {}, {"white": 1}, [255, 0, 204]),
    ],
)
def test_white_is_zero_in_more_bits_by_the_range(tmp_path, samples, tags, options, expected):
    assert grey(tiff(tmp_path / "a.tif", (samples, tags | ZERO)), **options) == expected
    black = tiff(tmp_path / "b.tif", (samples, tags | {PHOTOMETRIC: (SHORT, [1])}))
    assert grey(black, **options) == [255 - value for value in expected]


def test_a_dark_range_is_refused_where_zero_is_white_too(tmp_path):
    with pytest.raises(ImageError, match=r"above 4095 \(in a\.tif\)"):
        grey(tiff(tmp_path / "a.tif", (np.array([[0, 4095]], np.uint16), ZERO)))


def test_palettes_are_their_colours(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 0])
    image.putpixel((1, 0), 1)
    for suffix in ("png", "gif", "tif", "bmp"):
        image.save(tmp_path / f"a.{suffix}")
        assert read(tmp_path / f"a.{suffix}")[:, 0].T.tolist() == [[10, 20, 30], [200, 100, 0]]


@pytest.mark.parametrize(
    ("mode", "colour", "suffix", "expected"),
    [
        ("RGBA", (255, 0, 0, 0), "webp", [255, 255, 255]),
        ("RGBA", (255, 0, 0, 51), "tif", [255, 204, 204]),
        ("LA", (0, 51), "png", [204, 204, 204]),
        ("CMYK", (0, 255, 255, 0), "jpg", [255, 0, 0]),
        ("YCbCr", (76, 85, 255), "jpg", [254, 0, 0]),
    ],
)
def test_alpha_lies_on_white_and_inks_become_rgb(tmp_path, mode, colour, suffix, expected):
    Image.new(mode, (8, 8), colour).save(tmp_path / f"a.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    assert read(tmp_path / f"a.{suffix}")[:, 0, 0].tolist() == expected


def test_sixteen_bit_alpha_lies_on_white(tmp_path):
    samples = np.array([[[0, 0, 0, 0], [65535, 0, 0, 65535]]], np.uint16)
    assert read(png16(tmp_path / "a.png", samples))[:, 0].T.tolist() == [[255, 255, 255], [255, 0, 0]]
    clear = png16(tmp_path / "a.png", np.array([[514, 65535, 515]], np.uint16), tRNS=(514).to_bytes(2))
    assert grey(clear) == [255, 255, 2]  # one of the greys is transparent


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_pictures_are_turned_upright(tmp_path, suffix):
    image = Image.new("RGB", (16, 8), "black")
    image.paste("white", (0, 0, 8, 8))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: the white left half is on top
    image.save(tmp_path / f"a.{suffix}", exif=exif)
    picture = read(tmp_path / f"a.{suffix}")[0]
    assert picture.shape == (16, 8)
    assert (picture[1, 4].item() > 250, picture[14, 4].item() < 5) == (True, True)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_grey_tiff_is_turned_upright(tmp_path, kind):
    samples = np.array([[255, 204, 153], [102, 51, 0]]).astype(kind) * kind(257 if kind is np.uint16 else 1)
    path = tiff(tmp_path / "a.tif", (samples, {274: (SHORT, [6])}))
    assert read(path)[0].tolist() == [[102, 255], [51, 204], [0, 153]]


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_animations_are_their_first_picture(tmp_path, suffix):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], **options)
    with Image.open(tmp_path / f"a.{suffix}") as image:
        assert image.n_frames == 3  # pyright: ignore[reportAttributeAccessIssue]
    assert read(tmp_path / f"a.{suffix}")[:, 0, 0].tolist() == [255, 0, 0]


def test_pictures_of_a_phone_with_a_second_one_inside_are_the_first(tmp_path):
    first, second = Image.new("RGB", (8, 8), (254, 0, 0)), Image.new("RGB", (8, 8), "blue")
    first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[second])
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.format == "MPO"
    assert read(tmp_path / "a.jpg")[:, 0, 0].tolist() == [254, 0, 0]


def test_lab_becomes_rgb(tmp_path):
    Image.new("LAB", (2, 2), (136, 208, 195)).save(tmp_path / "a.tif")
    red, green, blue = read(tmp_path / "a.tif")[:, 0, 0].tolist()
    assert red > 240
    assert max(green, blue) < 30
