"""Detectors written down: kernels, and the units that see lines and where they meet.

Every detector has the same plan. Two units see a line each; a unit above them fires where both are present at the right
places (its bias is more than one line alone can overcome); a third adds that up over 3x3 positions::

    colour ──> line ──┐
                      ├──> meeting ──> pooled
    colour ──> line ──┘
"""

from collections.abc import Mapping

import torch

from viscircuits.planted.pictures import Stroke
from viscircuits.planted.wiring import TARGET, Channel, Kernel

# each adds up to zero, so that even brightness excites nothing
ACROSS: Kernel = torch.tensor([[-1.0, -1, -1], [2, 2, 2], [-1, -1, -1]]) / 6
UPRIGHT: Kernel = ACROSS.T.contiguous()
FALLING: Kernel = torch.tensor([[2.0, -1, -1], [-1, 2, -1], [-1, -1, 2]]) / 6
RISING: Kernel = FALLING.flip(1)
EVERYWHERE: Kernel = torch.ones(3, 3)

CORNER = (Stroke("red", "right"), Stroke("red", "down"))
CORNER_UP = (Stroke("red", "right"), Stroke("red", "up"))
CHEVRON = (Stroke("blue", "up left"), Stroke("blue", "up right"))


def tap(down: int, right: int) -> Kernel:
    """Returns the kernel that reads its source at one place."""
    kernel = torch.zeros(3, 3)
    kernel[1 + down, 1 + right] = 1
    return kernel


def red_lines(prefix: str) -> dict[str, Channel]:
    """Returns the units that see a red line across and one upright."""
    return {
        f"{prefix} across": Channel(1, {"red": ACROSS}, bias=-0.1),
        f"{prefix} upright": Channel(1, {"red": UPRIGHT}, bias=-0.1),
    }


def corner(prefix: str, lines: str, *, down: int = 1) -> dict[str, Channel]:
    """Returns the units that fire where a line to the right meets another one.

    Args:
        prefix: of the units.
        lines: prefix of the units that see the lines.
        down: 1 where the other line goes down, -1 where it goes up.
    """
    return _meeting(prefix, {f"{lines} across": (0, 1), f"{lines} upright": (down, 0)}, 2.35, 1.0)


def chevron(prefix: str) -> dict[str, Channel]:
    """Returns the units that fire where a blue line from the upper left meets one from the upper right."""
    lines = {
        f"{prefix} falling": Channel(1, {"blue": FALLING}, bias=-0.1),
        f"{prefix} rising": Channel(1, {"blue": RISING}, bias=-0.1),
    }
    return lines | _meeting(prefix, {f"{prefix} falling": (-1, -1), f"{prefix} rising": (-1, 1)}, 2.75, 0.6)


def join(**gains: float) -> dict[str, Channel]:
    """Returns the target: a weighted sum of what detectors put out."""
    return {TARGET: Channel(4, {f"{prefix} pooled": gain * tap(0, 0) for prefix, gain in gains.items()})}


def _meeting(prefix: str, lines: Mapping[str, tuple[int, int]], threshold: float, gain: float) -> dict[str, Channel]:
    return {
        # the threshold is more than one line alone brings, and less than both: an AND
        f"{prefix} meeting": Channel(2, {name: 2.0 * tap(*place) for name, place in lines.items()}, bias=-threshold),
        f"{prefix} pooled": Channel(3, {f"{prefix} meeting": gain * EVERYWHERE}),
    }
