"""More than 8 bits in colour, and in formats whose values Pillow scales itself."""

from pathlib import Path

import numpy as np
import pytest
from picture_files import SHORT, grey, png16, prepare, sbit, scaled, tiff
from PIL import Image

from viscircuits.data.images import ImageSet
from viscircuits.errors import ImageError

MAX = 281
RANGE = "their headers do not state the range"
FULL = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
COLOUR = np.zeros((2, 2, 3), np.uint16)
COLOUR[0, 0] = (16383, 300, 0)
BRIGHT = COLOUR * 4
WITH_ALPHA = np.concatenate((COLOUR, np.full((2, 2, 1), 65535, np.uint16)), 2)
COLOURS = {
    "png": lambda p, x, **more: png16(p / "a.png", x, **more),
    "tif": lambda p, x: tiff(p / "a.tif", (x, {})),
}


@pytest.mark.parametrize("kind", COLOURS)
def test_sixteen_bit_colour_is_its_high_bytes(tmp_path, kind):
    picture = ImageSet.from_files(COLOURS[kind](tmp_path, BRIGHT), prepare)[0]
    assert picture[:, 0, 0].tolist() == [65532 >> 8, 1200 >> 8, 0]


@pytest.mark.parametrize(
    "path",
    [
        lambda p: png16(p / "a.png", COLOUR),
        lambda p: png16(p / "a.png", WITH_ALPHA),  # opaque is no bright sample
        lambda p: png16(p / "a.png", WITH_ALPHA[:, :, [0, 3]]),
        lambda p: tiff(p / "a.tif", (COLOUR, {})),
        lambda p: tiff(p / "a.tif", (WITH_ALPHA, {338: (SHORT, [2])})),
    ],
)
def test_sixteen_bit_colour_without_a_value_above_a_quarter_is_refused(tmp_path, path):
    with pytest.raises(ImageError, match=rf"above 16383 \(in a\..*{RANGE}; of 16-bit colour .* convert the files to 8"):
        _ = ImageSet.from_files(path(tmp_path), prepare)[0]
    png16(tmp_path / "z.png", FULL)  # grey of the same set tells as well
    assert ImageSet.from_folder(tmp_path, prepare)[0][0, 0, 0] == 63


def test_sixteen_bit_colour_that_states_a_smaller_range_is_refused(tmp_path):
    paths = [
        png16(tmp_path / "a.png", COLOUR // 8, sBIT=sbit(11, 11, 11)),
        png16(tmp_path / "b.png", COLOUR // 8, sBIT=sbit(9, 11, 10)),
        png16(tmp_path / "c.png", COLOUR // 1024, sBIT=sbit(5, 5, 5)),  # no high byte but 0
        png16(tmp_path / "d.png", WITH_ALPHA // 8, sBIT=sbit(11, 11, 11, 16)),  # alpha is no colour
        tiff(tmp_path / "a.tif", (COLOUR, {MAX: (SHORT, [16383] * 3)})),
    ]
    for path in paths:
        with pytest.raises(
            ImageError, match=r"16-bit colour is read by its high bytes, but white is .*: make it 8 bits"
        ):
            _ = ImageSet.from_files(path, prepare)[0]


@pytest.mark.parametrize(("bits", "samples"), [((16, 16, 16), COLOUR), ((12, 12, 12), BRIGHT), ((8, 8, 8), COLOUR)])
def test_sixteen_bit_colour_whose_sbit_fits_is_read(tmp_path, bits, samples):
    path = png16(tmp_path / "a.png", samples, sBIT=sbit(*bits))
    assert ImageSet.from_files(path, prepare)[0][0, 0, 0] == samples.max() >> 8


def test_white_is_not_for_colour(tmp_path):
    with pytest.raises(
        ImageError, match="16-bit colour is read by its high bytes, not by white=; convert the file to 8"
    ):
        _ = ImageSet.from_files(png16(tmp_path / "a.png", BRIGHT), prepare, white=4095)[0]


def netpbm(path: Path, kind: str, top: int, *values: int) -> Path:
    head = f"{kind} {len(values) // (3 if kind in ('P3', 'P6') else 1)} 1\n{top}\n".encode()
    data = " ".join(map(str, values)).encode() if kind in ("P2", "P3") else np.array(values, ">u2").tobytes()
    path.write_bytes(head + data)
    return path


@pytest.mark.parametrize("kind", ["P2", "P5"])
def test_pgm_states_its_range(tmp_path, kind):
    assert grey(netpbm(tmp_path / "a.pgm", kind, 4095, 4095, 2048, 0)).tolist() == [[255, 128, 0]]
    assert grey(netpbm(tmp_path / "a.pgm", kind, 4095, 1000, 500, 0), white=1000).tolist() == [[255, 128, 0]]
    assert grey(netpbm(tmp_path / "a.pgm", kind, 65535, 65535, 25700, 0)).tolist() == [[255, 100, 0]]
    with pytest.raises(ImageError, match=rf"above 4095 \(in a\.pgm\).*{RANGE}"):
        grey(netpbm(tmp_path / "a.pgm", kind, 65535, 4095, 2048, 0))
    with pytest.raises(ImageError, match=r"a\.pgm: the value 2000 is outside 0\.\.1000"):
        grey(netpbm(tmp_path / "a.pgm", kind, 4095, 2000, 0, 0), white=1000)


@pytest.mark.parametrize("kind", ["P3", "P6"])
def test_ppm_states_its_range(tmp_path, kind):
    read = ImageSet.from_files(netpbm(tmp_path / "a.ppm", kind, 4095, 4095, 2048, 0), prepare)[0]
    assert read.flatten().tolist() == [255, 128, 0]
    with pytest.raises(ImageError, match=RANGE):
        _ = ImageSet.from_files(netpbm(tmp_path / "a.ppm", kind, 65535, 4095, 2048, 0), prepare)[0]


def jpeg2000(path: Path, samples: np.ndarray, bits: int) -> Path:
    """Lossless; Pillow writes 16 bits, so fewer are made by moving the middle grey, which the decoder adds."""
    shift = 32768 - 2 ** (bits - 1)
    Image.fromarray((samples + shift).astype(np.uint16)).save(path)
    data = bytearray(path.read_bytes())
    data[data.find(b"\xff\x4f\xff\x51") + 42] = bits - 1
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("suffix", ["j2k", "jp2"])
def test_jpeg_2000_states_its_range(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    dark = np.arange(0, 1024, 4).reshape(16, 16)
    for bits in (10, 12):
        assert (abs(grey(jpeg2000(path, dark, bits)) - scaled(dark, 2**bits - 1)) <= 1).all()
    assert (grey(jpeg2000(path, dark, 12), white=1023) == scaled(dark, 1023)).all()
    assert (grey(jpeg2000(path, FULL.astype(np.int64), 16)) == (FULL / 257).round()).all()
    with pytest.raises(ImageError, match=rf"above 1020 \(in a\.{suffix}\).*{RANGE}"):
        grey(jpeg2000(path, dark, 16))
