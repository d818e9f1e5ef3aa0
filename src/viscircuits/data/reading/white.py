"""Which value is white in pictures of more than 8 bits, so that they can become pictures of 8 bits.

Convention: never a stretch by picture. White is what the caller gives; else what the header states; else, for 16-bit
samples, 65535, provided that some picture of the whole set has a sample above a quarter of that. A set without one
holds ten or twelve bits, or is dark: nobody can tell, so it is refused. Two statements are compared with the set:
samples with PNG's ``sBIT`` s fill 16 bits by the standard, but many writers leave them at 0..2**s - 1, which a single
larger sample disproves; and TIFF's ``MaxSampleValue`` may be each picture's own largest, which differing ones suggest.
"""

import math
import threading
from collections.abc import Callable, Iterator
from numbers import Real
from typing import final

import numpy as np
from PIL import Image

from viscircuits.data.reading.depth import FULL, Depth
from viscircuits.errors import ImageError

White = int | float
"""A sample value that is white."""
Survey = Callable[[Depth], Iterator[tuple[str, float]]]
"""The name of every picture of a set that shares this one's question, and what `Depth.shown` gives for it."""

_LOCK = threading.RLock()  # one for all sets: a lock of its own would keep a set from being copied


@final
class Whites:
    """Answers for the pictures of one set, which is looked through once for each question."""

    def __init__(self, given: White | None = None) -> None:
        if given is not None and (isinstance(given, bool) or not isinstance(given, Real) or not 0 < given < math.inf):
            raise ImageError(f"expected white= as a number above 0, such as 4095 for twelve bits, got {given!r}")
        self.given = None if given is None else float(given)
        self._answers: dict[object, float | str | None] = {}

    def eight_bits(self, image: Image.Image, depth: Depth, survey: Survey) -> Image.Image:
        """Returns the picture with 8 bits a sample.

        Args:
            image: as it was opened.
            depth: what its header says.
            survey: asked for the other pictures of the set, where the header leaves a question.

        Raises:
            ValueError: something is wrong with this picture alone.
            ImageError: nobody can tell what is white in this set.
        """
        if not depth.cut:
            return _grey(image, depth, self._white(image, depth, survey))
        if self.given is not None:
            raise ValueError("16-bit colour is read by its high bytes, not by white=; convert the file to 8 bits")
        answer = self._answer(depth, survey)
        if isinstance(answer, str):
            raise ImageError(f"{answer}; of 16-bit colour the high bytes are read, so convert the files to 8 bits")
        white = depth.white if answer is None else answer
        if white is not None and white < FULL:
            raise ValueError(f"16-bit colour is read by its high bytes, but white is {_short(white)}: make it 8 bits")
        return image

    def _white(self, image: Image.Image, depth: Depth, survey: Survey) -> float:
        if self.given is not None:
            return self.given if depth.scale == 1 else float(round(self.given * depth.scale))  # as Pillow rounds
        answer = self._answer(depth, survey)
        if isinstance(answer, str):
            raise ImageError(
                f"{answer}; give the value that is white with white=N (--white N), such as 4095 for twelve bits, "
                f"or {FULL:.0f} if the pictures are that dark"
            )
        white = depth.white if answer is None else answer
        if white is None:
            raise ValueError(
                f"{depth.kind} grey has no fixed white; convert the file to 8 or 16 bits, or give the value that is "
                f"white with white=N (--white N); the largest here is {_short(float(np.asarray(image).max()))}"
            )
        return white

    def _answer(self, depth: Depth, survey: Survey) -> float | str | None:
        """White by the evidence of the set; None where the header stands; a text where nobody can tell."""
        if depth.evidence is None:
            return None
        with _LOCK:
            if depth.question not in self._answers:
                self._answers[depth.question] = _judged(depth, survey(depth))
            return self._answers[depth.question]


def _judged(depth: Depth, shown: Iterator[tuple[str, float]]) -> float | str | None:
    if depth.evidence == "MaxSampleValue":
        return _agreed({value: name for name, value in shown})
    # colour is known by its high bytes, so that fewer than 8 significant bits show in none of them
    limit = FULL / 4 if depth.white is None else max(depth.white, 255.0)
    largest, where = -math.inf, ""
    for name, value in shown:
        if value > limit:
            return FULL
        if value > largest:
            largest, where = value, name
    if depth.white is not None:
        return None
    return (
        f"no sample of the set's 16-bit pictures is above {_short(largest)} (in {where}), a quarter of the range or "
        "less, and their headers do not state the range"
    )


def _agreed(stated: dict[float, str]) -> str | None:
    if len(stated) == 1 or all(math.log2(value + 1).is_integer() for value in stated):
        return None
    (low, first), *_, (high, last) = sorted(stated.items())
    return (
        f"the headers state different largest values, {_short(low)} (in {first}) and {_short(high)} (in {last}), "
        "which may be those of each picture"
    )


def _grey(image: Image.Image, depth: Depth, white: float) -> Image.Image:
    samples = np.asarray(image, np.float64)
    if not np.isfinite(samples).all():
        raise ValueError("it holds inf or nan")
    for value in (float(samples.min()), float(samples.max())):
        if not 0 <= value <= white:
            shown, top = (n if depth.scale == 1 else round(n / depth.scale) for n in (value, white))
            raise ValueError(
                f"the value {_short(shown)} is outside 0..{_short(top)}, where the last is white; give the value that "
                "is white with white=N (--white N), or convert the file to 8 bits"
            )
    grey = ((white - samples if depth.inverted else samples) / (white / 255)).round().astype(np.uint8)
    if isinstance(clear := image.info.get("transparency"), int):
        grey[samples == clear] = 255  # on white, as all that is transparent
    return Image.fromarray(grey)


def _short(value: White) -> str:
    return f"{value:.10g}"
