"""Rendered pictures on disk, by the hash of all that decides what they look like.

One safetensors file a picture. A file that is damaged, or was written by another version, counts as absent.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from viscircuits import store
from viscircuits.errors import StudyError
from viscircuits.optvis.rendering import Picture
from viscircuits.store.checks import TEXT, number, whole
from viscircuits.store.kinds import FLOATS, Array, Kind
from viscircuits.version import __version__

FORMAT = 1
"""Version of the picture file; a file with another number is rendered again."""


@dataclass(frozen=True)
class Cache:
    """A folder of rendered pictures; no folder, no cache.

    Args:
        folder: where the files are.
        recipe: all that the pictures of one call have in common: network, options, sizes.
    """

    folder: Path | None
    recipe: tuple[str, ...] = ()

    def read(self, *own: str) -> Picture | None:
        """Returns the picture of this recipe and its own texts (objective, seed), if it is there whole."""
        if self.folder is None:
            return None
        file = self._file(*own)
        try:
            tensors, header = store.load(file, _KIND)
        except StudyError:  # damaged, cut off, or of another kind: rendered again, and written over
            return None
        value = float(header["value"])
        return Picture(tensors["image"], header["objective"], value, header["seed"], header["note"])

    def write(self, picture: Picture, *own: str) -> None:
        """Keeps a picture."""
        if self.folder is None:
            return
        header: dict[str, store.Json] = {
            "objective": picture.objective,
            "value": picture.value,
            "seed": picture.seed,
            "note": picture.note,
        }
        store.save(self._file(*own), _KIND, {"image": picture.image}, header)

    def _file(self, *own: str) -> Path:
        assert self.folder is not None
        # other versions of torch round differently, and after some hundred steps that shows
        versions = (str(FORMAT), __version__, torch.__version__)
        return store.inside(self.folder, f"{store.digest(*versions, *self.recipe, *own)}.safetensors")


_KIND = Kind(
    "picture",
    "a rendered picture",
    {"objective": TEXT, "value": number(), "seed": whole(-(2**63), 2**64 - 1), "note": TEXT},
    lambda fields, names: {"image": Array(FLOATS, ("channels", "height", "width"))},
    (FORMAT,),
    lambda fields, tensors: "" if tensors["image"].numel() else "its picture is empty",
)
