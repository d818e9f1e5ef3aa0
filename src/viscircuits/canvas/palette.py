"""Colours, light and dark: what is written, what is drawn, and the ramp from inhibition to excitation."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8

Theme = Literal["light", "dark"]

LEVELS = 10
"""Steps of the balance ramp on either side of zero."""

_BLUE, _RED = np.array([20, 90, 170.0]), np.array([190, 20, 30.0])
_PAPER = np.array([247, 247, 247.0])


@dataclass(frozen=True)
class Palette:
    """The colours of one theme; ``grey`` is the ramp's colour of exact balance."""

    paper: str
    ink: str
    muted: str
    faint: str
    panel: str
    wire: str
    focus: str
    grey: str
    blue: str
    red: str
    image0: str = "#cf3f3f"
    image1: str = "#3b9a4a"
    image2: str = "#3b6fcf"

    @cached_property
    def roles(self) -> dict[str, str]:
        """Role -> colour as ``#rrggbb``; the ramp's roles are ``inhibit10`` ... ``even`` ... ``excite10``."""
        names = ("paper", "ink", "muted", "faint", "panel", "wire", "focus", "image0", "image1", "image2")
        roles = {name: getattr(self, name) for name in names}
        for level in range(-LEVELS, LEVELS + 1):
            end = self.red if level > 0 else self.blue
            # a root's bend: the first steps away from grey have to be told from it
            roles[ramp_role(level)] = _mixed(self.grey, end, (abs(level) / LEVELS) ** 0.7)
        return roles


PALETTES: dict[Theme, Palette] = {
    "light": Palette(
        "#ffffff", "#1b1f24", "#5c6570", "#e3e7eb", "#f5f6f8", "#98a1ab", "#d98200", "#ababab", "#0a57a8", "#c20013"
    ),
    "dark": Palette(
        "#15181c", "#eceff3", "#a3adb8", "#2d343b", "#1c2026", "#6f7a86", "#ffb13d", "#858a90", "#5ea8ff", "#ff5f5a"
    ),
}


def balance_role(balance: float) -> str:
    """Returns the ramp's role for a balance in [-1, 1]; only an exact zero is grey."""
    # weights that cancel on paper leave 1e-7 in single precision; 1e-9 keeps rounding from lifting a whole step
    level = int(np.ceil(abs(balance) * LEVELS - 1e-9)) if abs(balance) > 1e-7 else 0
    return ramp_role(level if balance > 0 else -level)


def ramp_role(level: int) -> str:
    """Returns the role of a step of the ramp, from -LEVELS to LEVELS."""
    if level == 0:
        return "even"
    return f"excite{level}" if level > 0 else f"inhibit{-level}"


def heat_map(kernel: Float[np.ndarray, "kh kw"]) -> UInt8[np.ndarray, "kh kw 3"]:
    """Returns a kernel as colours: red above zero, blue below, scaled by its largest weight."""
    # "or": a kernel of zeros stays paper, and nothing is divided by zero
    scale = float(np.abs(kernel).max()) or 1.0
    strength = (np.abs(kernel) / scale)[..., None] ** 0.8
    end = np.where(kernel[..., None] > 0, _RED, _BLUE)
    return (_PAPER + strength * (end - _PAPER) + 0.5).astype(np.uint8)


def image_kernel(kernel: Float[np.ndarray, "c kh kw"]) -> UInt8[np.ndarray, "kh kw 3"]:
    """Returns a kernel on the image as a picture: zero is mid-grey; not of three channels, a heat map."""
    if len(kernel) != 3:
        return heat_map(kernel.sum(0))
    # twice, so that the largest weight just reaches black or white on the way from mid-grey
    scale = 2 * float(np.abs(kernel).max()) or 1.0
    return ((0.5 + kernel.transpose(1, 2, 0) / scale) * 255 + 0.5).clip(0, 255).astype(np.uint8)


def _channels(colour: str) -> Float[np.ndarray, "3"]:
    """``#rrggbb`` as three numbers up to 255."""
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], float)


def _mixed(a: str, b: str, share: float) -> str:
    start, end = _channels(a), _channels(b)
    return "#" + "".join(f"{round(v):02x}" for v in start + share * (end - start))
