"""What is answered before torch is imported: words and numbers of a command line that cannot be right.

A slip of the pen should not cost the seconds that torch and a model take to load. Only what needs neither of them is
looked at; everything else has its line where it is used, and these checks say the same words as those.
"""

import re
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from viscircuits.errors import ImageError, MaskError, ModelError, closest

CRITERIA = ("actgrad", "snip", "force", "magnitude", "random", "activation", "gradient", "learned", "reconstruct")
"""The names in `viscircuits.CRITERIA`, which needs torch; a test compares them."""

TORCHVISION = "0.29"
"""The first numbers of the release whose names stand in ``model/zoo/torchvision.txt``."""


def look_at(parameters: MutableMapping[str, Any]) -> None:
    """Looks at the values of a command, by their names; the names of criteria are put into small letters.

    Raises:
        ViscircuitsError: a value cannot be right.
    """
    checks = {**_CHECKS, "criterion": criterion_of_a_study} if "study" in parameters else _CHECKS
    for name, check in checks.items():
        value = parameters.get(name)
        if value is None:
            continue
        several = isinstance(value, list | tuple)
        checked = [check(one) for one in (value if several else [value])]
        parameters[name] = checked if several else checked[0]


def model(name: str) -> str:
    """Returns the name of a network, where it may be one.

    Names with a colon (timm's, and callables) are left to those who know them, and so is everything where another
    release of torchvision is installed, which may have more networks.

    Raises:
        ModelError: it is neither built in nor torchvision's.
    """
    from importlib import metadata, resources  # half as long to import as all else here

    if ":" in name or Path(name).exists() or not metadata.version("torchvision").startswith(f"{TORCHVISION}."):
        return name
    known = ["shapesnet", *resources.files("viscircuits.model.zoo").joinpath("torchvision.txt").read_text().split()]
    if name not in known:
        raise ModelError(
            f"no model {name!r}{closest(name, known)}; other models load as 'timm:NAME' or 'package.module:callable'"
        )
    return name


def criterion(text: str) -> str:
    """Returns a criterion with its name in small letters: ``SNIP,rounds=10`` is ``snip,rounds=10``.

    Raises:
        MaskError: there is none of that name.
    """
    match = re.fullmatch(r"\s*([^,:\s]+)(.*)", text, flags=re.DOTALL)
    name = match[1].lower() if match else text
    if match is None or name not in CRITERIA:
        raise MaskError(f"unknown criterion {name!r}{closest(name, CRITERIA)}; there are {', '.join(CRITERIA)}")
    return name + match[2]


def criterion_of_a_study(text: str) -> str:
    """Returns a criterion of a study, in small letters where it is one of ours; a study may hold others."""
    try:
        return criterion(text)
    except MaskError:
        return text


def density(value: float) -> float:
    """Returns a density that is a fraction in (0, 1].

    Raises:
        MaskError: it is none.
    """
    if not 0 < value <= 1:
        raise MaskError(f"density {value!r} is out of range; expected a fraction in (0, 1], such as 0.1")
    return value


def device(name: str) -> str:
    """Returns the name of a device that is the CPU or one of CUDA's.

    Raises:
        ModelError: it is neither.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise ModelError(f"unknown device {name!r}; expected cpu, cuda (or cuda:NUMBER) or auto")
    return name


def images(path: Path) -> Path:
    """Returns a place of pictures where something is.

    Raises:
        ImageError: nothing is there.
    """
    if not path.exists():
        raise ImageError(f"no folder {str(path)!r}")
    return path


_CHECKS = {"model": model, "criterion": criterion, "density": density, "device": device, "images": images}
