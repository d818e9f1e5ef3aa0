"""From a picture file, or a Pillow picture, to upright 8-bit RGB.

==========================  ========================================================================================
the file holds              it becomes
==========================  ========================================================================================
1 to 8 bits a sample        as it is; grey three times; TIFF whose 0 is white is inverted
palette                     its colours
CMYK, YCbCr, Lab            RGB by Pillow's plain conversion, colour profiles aside
alpha, a transparent colour laid on white, as on a page, because the colour stored beneath is arbitrary
EXIF orientation            turned upright
animation, MPO              the first picture
several pages (TIFF)        refused; smaller copies of the one page do not count
grey of 10 to 16 bits       scaled to 8 bits, from 0..white (`viscircuits.data.reading.white`), and inverted where 0
                            is white
16-bit colour               the high bytes; refused where the set has no value above a quarter of 65535
32-bit, signed, float grey  refused unless the header or the caller says what is white
==========================  ========================================================================================

Pillow is asked for the formats of `FORMATS` alone, whatever a file is called: it has others that start programs
(Ghostscript for PostScript) or follow names in the file.

Not here: names, lists of damaged files, ``prepare`` (`viscircuits.data.sources`).
"""

import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import IO

from PIL import Image, ImageOps
from PIL.TiffImagePlugin import TiffImageFile

from viscircuits.data.reading.depth import depth_of
from viscircuits.data.reading.white import Survey, Whites
from viscircuits.errors import ImageError

_LARGEST = 4 * 2**30
_SUBFILE, _OLD_SUBFILE, _SHORT = 254, 255, 3  # two TIFF tags and a type


FORMATS = (
    "JPEG", "PNG", "GIF", "BMP", "DIB", "PPM",  # those that Pillow knows without loading more come first
    "TIFF", "WEBP", "JPEG2000", *(["AVIF"] if find_spec("PIL.AvifImagePlugin") else []),  # AVIF: since Pillow 11.3
)  # fmt: skip
"""What Pillow calls the formats that are read: those of `viscircuits.data.folder.SUFFIXES`; MPO is a kind of JPEG."""


class UnreadableError(ImageError):
    """One picture that cannot be decoded."""


def rgb(image: Image.Image, whites: Whites, survey: Survey) -> Image.Image:
    """Returns the picture upright, in 8-bit RGB, over white where it is transparent.

    Args:
        image: as it was opened.
        whites: knows what is white in the set.
        survey: the other pictures of the set, for a picture whose header does not say.
    """
    depth = depth_of(image)  # before what follows leaves the header behind
    image = ImageOps.exif_transpose(image)
    if depth is not None:
        image = whites.eight_bits(image, depth, survey)
    if image.has_transparency_data:
        page = Image.new("RGBA", image.size, "white")
        page.alpha_composite(image.convert("RGBA"))
        image = page
    return image.convert("RGB")


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """Yields the picture of a file, to be decoded inside; what goes wrong there is its `UnreadableError`."""
    try:
        if _size(path) == 0:
            raise ValueError("the file is empty")
        # from a path, Pillow 13 maps the file into memory, with the sides of turned grey TIFFs exchanged too early
        with path.open("rb") as file, identified(file) as image:
            _turn_to_page(image)
            yield image
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        limit = f"PIL.Image.MAX_IMAGE_PIXELS = {Image.MAX_IMAGE_PIXELS}"
        raise UnreadableError(f"{path}: more pixels than {limit} allows; make it smaller, or raise the limit") from None
    except Image.UnidentifiedImageError:
        raise UnreadableError(f"{path}: not a picture in a known format ({', '.join(FORMATS)})") from None
    except Exception as error:  # on damaged bytes Pillow's decoders raise almost anything
        raise UnreadableError(f"{path}: {error}") from error


def identified(file: IO[bytes] | BytesIO, formats: tuple = FORMATS) -> Image.Image:
    """Returns the picture of an open file, not decoded yet; Pillow's UnidentifiedImageError if of no such format."""
    return Image.open(file, formats=formats)


def content(path: Path) -> bytes:
    """Returns the bytes of a picture file; what cannot be read is an `UnreadableError`."""
    try:
        size = _size(path)
        if size > _LARGEST:
            raise UnreadableError(f"{path}: {size / 2**30:.1f} GB; expected a picture of at most 4 GB")
        with path.open("rb") as file:
            return file.read(size)  # and no more: what the system makes up as it is read may have no end
    except OSError as error:
        raise UnreadableError(f"{path}: {error.strerror}") from error


def _size(path: Path) -> int:
    """The bytes of a file; a pipe or a device is not even opened, as that may wait for ever."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableError(f"{path}: a pipe, a device or a folder; expected a regular file")
    return status.st_size


def decode(path: Path, whites: Whites, survey: Survey) -> Image.Image:
    """Returns the file's picture in upright RGB, with the file closed again.

    Args:
        path: the file.
        whites: knows what is white in the set.
        survey: the other pictures of the set, for a picture whose header does not say.

    Raises:
        UnreadableError: it cannot be decoded.
    """
    with opened(path) as image:
        return rgb(image, whites, survey)


def _turn_to_page(image: Image.Image) -> None:
    if not isinstance(image, TiffImageFile) or image.fp is None:
        return
    pages = _full_pages(image.fp)
    if len(pages) > 1:
        raise ValueError(f"{len(pages)} pages, where one picture is expected; save each page as a file of its own")
    if pages and pages[0]:
        image.seek(pages[0])


def _full_pages(file: IO[bytes]) -> list[int]:
    """The numbers of the pages that are no smaller copies; Pillow would stumble over pages of a kind it cannot read."""
    pages: list[int] = []
    seen: set[int] = set()
    try:
        order, big, place = _tiff_start(file)
        while place and place not in seen:
            reduced, following = _tiff_directory(file, place, order, big)
            pages += [] if reduced else [len(seen)]
            seen.add(place)
            place = following
    except (struct.error, OverflowError):  # cut off: what was met counts
        pass
    return pages


def _tiff_start(file: IO[bytes]) -> tuple[str, bool, int]:
    file.seek(0)
    head = file.read(16)
    order = "<" if head.startswith(b"II") else ">"
    big = 43 in head[2:4]
    (place,) = struct.unpack_from(order + "Q", head, 8) if big else struct.unpack_from(order + "I", head, 4)
    return order, big, place


def _tiff_directory(file: IO[bytes], place: int, order: str, big: bool) -> tuple[bool, int]:
    """Whether a page is a smaller copy, and the place of the next."""
    count_form, size, value_at, link_form = ("Q", 20, 12, "Q") if big else ("H", 12, 8, "I")
    file.seek(place)
    (count,) = struct.unpack(order + count_form, file.read(struct.calcsize(count_form)))
    entries = file.read(min(count, 0xFFFF) * size)
    reduced = False
    for at in range(0, count * size, size):
        tag, form = struct.unpack_from(order + "HH", entries, at)
        if tag in (_SUBFILE, _OLD_SUBFILE):
            (value,) = struct.unpack_from(order + ("H" if form == _SHORT else "I"), entries, at + value_at)
            reduced |= bool(value & 1) if tag == _SUBFILE else value == 2
    (following,) = struct.unpack(order + link_form, file.read(struct.calcsize(link_form)))
    return reduced, following
