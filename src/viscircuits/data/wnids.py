"""The WordNet numbers of ImageNet's 1,000 classes, which name its folders and stand for the outputs of its networks."""

from functools import cache
from importlib.resources import files


@cache
def wnids() -> tuple[str, ...]:
    """Returns the 1,000 numbers, such as ``n01440764``, in the order of the outputs of torchvision's networks."""
    return tuple((files("viscircuits.data") / "wnids.txt").read_text(encoding="ascii").split())
