"""What a picture's header says of samples that have more than 8 bits: which value is white, and whether 0 is.

Convention: values are samples as Pillow hands them over. It keeps TIFF and PNG grey as it is, and scales the grey of
PPM and JPEG 2000 files to 16 bits (`Depth.scale`); of 16-bit colour it keeps the high bytes alone (`Depth.cut`).
Not here: what becomes of a picture whose header says nothing (`viscircuits.data.reading.white`).
"""

import math
import numbers
import struct
from dataclasses import dataclass
from typing import IO, Literal, final

import numpy as np
from PIL import Image
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile

FULL = 65535.0
"""The largest value of 16 bits."""

SampleType = Literal["16-bit", "signed 16-bit", "32-bit", "floating-point"]
Evidence = Literal["samples", "sBIT", "MaxSampleValue"]

_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT, _MAXIMA = 258, 262, 339, (281, 341)  # TIFF tags
_SIGNED, _FLOATING = 2, 3  # values of SampleFormat


@final
@dataclass(frozen=True)
class Depth:
    """What is known of a picture with more than 8 bits a sample before its pixels are read."""

    kind: SampleType = "16-bit"
    white: float | None = None
    """The value that the header calls white; None: it says nothing."""
    evidence: Evidence | None = None
    """What of all pictures of the set has to be seen as well; None: nothing."""
    cut: bool = False
    """Colour, of which Pillow keeps the high bytes."""
    inverted: bool = False
    """Zero is white."""
    scale: float = 1.0
    """What Pillow multiplied the values of the file by."""

    @property
    def question(self) -> tuple[Evidence | None, float | None]:
        """What pictures share that are judged together: sBIT asks once for each number of bits."""
        return self.evidence, self.white if self.evidence == "sBIT" else None

    def shown(self, image: Image.Image) -> float:
        """Returns what a picture adds to the evidence: its largest sample, or the one that its header states."""
        if self.evidence == "MaxSampleValue" and self.white is not None:
            return self.white
        if not self.cut:
            return float(np.asarray(image).max())
        colours = [np.asarray(image.getchannel(band)).max() for band in image.getbands() if band != "A"]
        return 256.0 * float(max(colours)) + 255.0  # the most that such a high byte can stand for


def depth_of(image: Image.Image) -> Depth | None:
    """Returns what the header of a picture says, as it was opened, not turned or converted; None for up to 8 bits."""
    if isinstance(image, TiffImageFile):
        return _tiff(image.tag_v2, image.mode)
    file: IO[bytes] | None = getattr(image, "fp", None)  # None once the pixels are read
    if image.format == "PNG" and file is not None:
        return _png(file)
    if image.format == "JPEG2000" and file is not None:
        top = 2.0 ** _jpeg2000_bits(file) - 1
        return _scaled(image.mode, top, (FULL + 1) / (top + 1))  # it shifts
    if isinstance(image, PpmImageFile) and image.mode != "F":
        top = _ppm_top(image)
        return _scaled(image.mode, top, FULL / top)
    if image.mode == "F":
        return Depth("floating-point")
    if image.mode == "I":
        return Depth("32-bit")
    return Depth(evidence="samples") if image.mode.startswith("I;16") else None


def _tiff(tags: ImageFileDirectory_v2, mode: str) -> Depth | None:
    bits = max(_values(tags, _BITS), default=1.0)
    if bits <= 8:
        return None
    form = max(_values(tags, _SAMPLE_FORMAT), default=1.0)
    kind = _tiff_kind(bits, form)
    cut = mode not in ("I", "F") and not mode.startswith("I;16")
    inverted = _values(tags, _PHOTOMETRIC) == [0]
    if stated := [value for tag in _MAXIMA for value in _values(tags, tag) if 0 < value < math.inf]:
        most = math.inf if form == _FLOATING else 2.0**bits - 1
        return Depth(kind, min(max(stated), most), "MaxSampleValue", cut, inverted)
    if bits < 16:
        return Depth(kind, 2.0**bits - 1, None, cut, inverted)
    return Depth(kind, None, "samples" if kind == "16-bit" else None, cut, inverted)


def _tiff_kind(bits: float, form: float) -> SampleType:
    if form == _FLOATING:
        return "floating-point"
    if bits > 16:
        return "32-bit"
    return "signed 16-bit" if form == _SIGNED else "16-bit"


def _values(tags: ImageFileDirectory_v2, tag: int) -> list[float]:
    held = tags.get(tag, ())
    return [float(value) for value in (held if isinstance(held, tuple) else (held,)) if isinstance(value, numbers.Real)]


def _png(file: IO[bytes]) -> Depth | None:
    chunks = _png_chunks(file)
    bits, colour = chunks[b"IHDR"][8:10]
    if bits <= 8:
        return None
    stated = max(chunks.get(b"sBIT", b"\0")[: 3 if colour & 2 else 1], default=0)  # beyond colours stands alpha
    if stated == 16:
        return Depth(white=FULL, cut=colour != 0)
    if 0 < stated < 16:
        return Depth(white=2.0**stated - 1, evidence="sBIT", cut=colour != 0)
    return Depth(evidence="samples", cut=colour != 0)


def _png_chunks(file: IO[bytes]) -> dict[bytes, bytes]:
    """The chunks before the pixels that are asked for here, by name; Pillow does not keep sBIT."""
    chunks: dict[bytes, bytes] = {}
    place = file.tell()
    try:
        file.seek(8)
        while len(head := file.read(8)) == 8 and head[4:] not in (b"IDAT", b"IEND"):
            length = int.from_bytes(head[:4])
            if head[4:] in (b"IHDR", b"sBIT"):
                chunks[head[4:]] = file.read(length)
                length = 0
            file.seek(length + 4, 1)  # four bytes of checksum
    finally:
        file.seek(place)  # Pillow goes on reading where it stood
    return chunks


def _jpeg2000_bits(file: IO[bytes]) -> int:
    """The precision of the widest component, from the SIZ segment of the code stream."""
    place = file.tell()
    try:
        file.seek(0)
        data = file.read()
    finally:
        file.seek(place)
    start = data.find(b"\xff\x4f\xff\x51") + 40
    (count,) = struct.unpack_from(">H", data, start)
    return max((byte & 0x7F) + 1 for byte in data[start + 2 : start + 2 + 3 * count : 3])


def _ppm_top(image: PpmImageFile) -> float:
    """The largest value that the header allows; 65535 for wide grey that is decoded already, as Pillow made it so."""
    args = image.tile[0][3] if image.tile else None
    if isinstance(args, tuple) and isinstance(args[-1], int) and args[-1] > 0:
        return float(args[-1])
    return FULL if image.mode == "I" else 255.0


def _scaled(mode: str, top: float, scale: float) -> Depth | None:
    """What a format states whose values Pillow scales to 16 bits, or 8 for colour."""
    colour = not mode.startswith("I")
    if top <= 255 or (colour and top < FULL):
        return None
    if top == FULL:  # as good as nothing stated: it is what the type can hold
        return Depth(evidence="samples", cut=colour)
    return Depth(white=FULL, scale=scale)
