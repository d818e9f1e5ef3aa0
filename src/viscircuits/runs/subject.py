"""A model with the pictures to show it, as a user names both.

Not here: a study's own model and pictures, which nobody names (`viscircuits.runs.opened`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from viscircuits import store
from viscircuits.data.images import ImageSet, Prepare
from viscircuits.model.fingerprint import fingerprint
from viscircuits.model.trace import trace
from viscircuits.report.gathering import Gallery
from viscircuits.runs import networks
from viscircuits.study.spec import Pictures


@dataclass(frozen=True)
class Subject:
    """A model with the pictures to show it.

    Attributes:
        model: on its device.
        prepare: what prepared the pictures.
        images: the pictures.
        asked: what of all this decides what is found, as JSON.
    """

    model: nn.Module
    prepare: Prepare
    images: ImageSet
    asked: Mapping[str, store.Json]

    def scene(self, images: ImageSet | None = None) -> Gallery:
        """Returns what pictures are cut out with; of these pictures, or of all."""
        return Gallery(trace(self.model, self.images[0].shape), images or self.images, self.prepare)


def load(
    model: str, weights: str | None, images: Sequence[Path], *, input_size: int | None, limit: int | None, seed: int,
    device: str, white: float | None = None,
) -> Subject:  # fmt: skip
    """Returns a model and pictures, as the command line names them.

    Args:
        model: as for `viscircuits.runs.networks.load`.
        weights: as for `viscircuits.runs.networks.load`.
        images: one folder, with its classes, or several folders and files together, without.
        input_size: side of the model's input, in pixels; its own where None.
        limit: the most pictures, drawn by the seed; all where None.
        seed: of the draw.
        device: cpu, cuda, cuda:NUMBER or auto.
        white: the value that is white in pictures of more than 8 bits.
    """
    own, prepare = networks.load(model, weights, input_size=input_size)
    everything = _read(images, prepare, white)
    some = everything if limit is None or limit >= len(everything) else everything.take(limit, seed)
    pictures = Pictures.of(some, ", ".join(map(str, images)), white=white)
    asked: dict[str, store.Json] = {
        "model": model,
        "fingerprint": fingerprint(own),
        "input_shape": list(some[0].shape),
        "images": pictures.model_dump(mode="json", exclude_none=True),
        "seed": seed,
    }
    # to its device last: pictures that cannot be read are told before a GPU is woken
    return Subject(networks.on_device(own, device), prepare, some, asked)


def _read(paths: Sequence[Path], prepare: Prepare, white: float | None) -> ImageSet:
    """The pictures of a folder with its classes, or those of several folders and files together, without."""
    if len(paths) == 1 and not paths[0].is_file():
        return ImageSet.from_folder(paths[0], prepare, white=white)
    files: list[Path] = []
    for path in paths:
        files += [path] if path.is_file() else [path / name for name in ImageSet.from_folder(path, prepare).names]
    return ImageSet.from_files(files, prepare, white=white)
