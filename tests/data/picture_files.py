"""Writers for picture files with the very header that a test wants, and what reads them back."""

import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from viscircuits.data.images import ImageSet

SHORT, LONG, FLOAT = 3, 4, 11  # types of TIFF tags
_CODES = {SHORT: "H", LONG: "I", FLOAT: "f"}
Tags = Mapping[int, tuple[int, list]]


def tiff(path: Path, *pages: tuple[np.ndarray, Tags], packed: bytes | None = None) -> Path:
    """Writes pages ``[h, w]`` or ``[h, w, c]``, each with tags beside (or in place of) those of its array."""
    out, link = bytearray(b"II*\0\0\0\0\0"), 4
    for samples, tags in pages:
        data = samples.astype(samples.dtype.newbyteorder("<")).tobytes() if packed is None else packed
        tags = _usual(samples, len(out), len(data)) | dict(tags)
        out += data + b"\0" * (len(data) % 2)
        entries = b""
        for tag, (form, values) in sorted(tags.items()):
            raw = struct.pack(f"<{len(values)}{_CODES[form]}", *values)
            if len(raw) > 4:
                place, out = len(out), out + raw + b"\0" * (len(raw) % 2)
                raw = struct.pack("<I", place)
            entries += struct.pack("<HHI", tag, form, len(values)) + raw.ljust(4, b"\0")
        out[link : link + 4] = struct.pack("<I", len(out))
        out += struct.pack("<H", len(tags)) + entries + b"\0\0\0\0"
        link = len(out) - 4
    path.write_bytes(out)
    return path


def _usual(samples: np.ndarray, place: int, size: int) -> dict[int, tuple[int, list]]:
    height, width = samples.shape[:2]
    bands = samples.shape[2] if samples.ndim == 3 else 1
    form = {"u": 1, "i": 2, "f": 3}[samples.dtype.kind]
    return {
        256: (LONG, [width]),
        257: (LONG, [height]),
        258: (SHORT, [8 * samples.itemsize] * bands),
        259: (SHORT, [1]),
        262: (SHORT, [1 if bands == 1 else 2]),
        273: (LONG, [place]),
        277: (SHORT, [bands]),
        278: (LONG, [height]),
        279: (LONG, [size]),
        339: (SHORT, [form] * bands),
    }


def png16(path: Path, samples: np.ndarray, **chunks: bytes) -> Path:
    """Writes a 16-bit PNG: grey ``[h, w]``, or ``[h, w, c]`` with two to four bands; further chunks by name."""
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[samples.shape[2] if samples.ndim == 3 else 1]
    height, width = samples.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples.reshape(height, -1))
    head = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    named = {"IHDR": head, **chunks, "IDAT": zlib.compress(rows), "IEND": b""}
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name.encode(), data) for name, data in named.items()))
    return path


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def prepare(image: Image.Image) -> torch.Tensor:
    """The picture as it is, in 0..255, with channels first."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float()


def grey(path: Path, **options) -> np.ndarray:
    """A grey picture file as it is read, in 0..255."""
    picture = ImageSet.from_files(path, prepare, **options)[0]
    assert torch.equal(picture[0], picture[1])
    assert torch.equal(picture[0], picture[2])
    return picture[0].numpy()


def scaled(samples: np.ndarray, white: float) -> np.ndarray:
    """What samples should become."""
    return (samples.astype(np.float64) * 255 / white).round()


def sbit(*bits: int) -> bytes:
    return bytes(bits)
