"""What a rendering is: pictures with the values they reach, the parts to show, and how they are saved."""

import base64
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from viscircuits import store
from viscircuits.bounds.arguments import checked
from viscircuits.card import Card, Shown, few, plain, sized
from viscircuits.model.field.receptive_field import Area, crop

_MOST = 12
"""Pictures that a notebook shows at once."""


class Picture(NamedTuple):
    """One rendered picture.

    Attributes:
        image: its values, in [0, 1].
        objective: what it was made to raise (or lower), as a text.
        value: what the objective is worth on the picture as it is, without transforms.
        seed: the seed it grew from.
        note: what was done that one would not expect, such as how a dead start was handled; mostly empty.
        window: the receptive field, where it was asked for.
    """

    image: Float[Tensor, "c h w"]
    objective: str
    value: float
    seed: int
    note: str = ""
    window: Area | None = None

    def __repr__(self) -> str:
        return self._card().text()

    def _repr_html_(self) -> str:
        return self._card().html() + _shown([self])

    def _card(self) -> Card:
        area = self.window
        rows = area and f"rows {area.top} to {area.bottom}, columns {area.left} to {area.right}"
        return Card("Picture", {
            "raises": self.objective, "value": f"{self.value:.4g}", "size": sized(self.image.shape), "seed": self.seed,
            "receptive field": rows, "note": self.note,
        })  # fmt: skip

    def cropped(self) -> Float[Tensor, "c y x"]:
        """Returns the part in the window; the whole image where there is none."""
        return self.image if self.window is None else crop(self.image, self.window)

    def bytes(self) -> UInt8[Tensor, "c y x"]:
        """Returns the part in the window, in steps of 1/255."""
        return (self.cropped() * 255).round().to(torch.uint8)


@dataclass(frozen=True, eq=False, repr=False)
class Rendering(Shown):
    """Rendered pictures, in the order of the objectives; those of one objective stand together."""

    pictures: tuple[Picture, ...]

    def _card(self) -> Card:
        objectives = dict.fromkeys(picture.objective for picture in self.pictures)
        sizes = dict.fromkeys(sized(picture.image.shape) for picture in self.pictures)
        return Card("Rendering", {
            "pictures": f"{len(self):,}", "raise": few([*objectives]),
            "values": few([f"{value:.4g}" for value in self.values]), "size": few([*sizes]),
            "bytes": f"{sum(picture.image.nbytes for picture in self.pictures):,}",
            "notes": few([*dict.fromkeys(filter(None, self.notes))], 2),
        })  # fmt: skip

    def _repr_html_(self) -> str:
        return super()._repr_html_() + _shown(self.pictures[:_MOST])

    @property
    def images(self) -> Float[Tensor, "n c h w"]:
        """The whole images, in [0, 1]."""
        return torch.stack([picture.image for picture in self.pictures])

    @property
    def values(self) -> tuple[float, ...]:
        """What each objective is worth on its picture."""
        return tuple(picture.value for picture in self.pictures)

    @property
    def notes(self) -> tuple[str, ...]:
        """What there is to say about each picture; mostly empty."""
        return tuple(picture.note for picture in self.pictures)

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Picture:
        return self.pictures[index]

    def __iter__(self) -> Iterator[Picture]:
        return iter(self.pictures)

    @checked
    def save(self, folder: str | Path) -> list[Path]:
        """Writes one PNG a picture, cropped to its window, and returns the files: ``000-OBJECTIVE.png`` and so on."""
        files = []
        for number, (picture, shown) in enumerate(zip(self.pictures, self.to_pil(), strict=True)):
            # texts of objectives hold characters that file systems refuse, and can be of any length
            name = "".join(letter if letter.isalnum() or letter in ".,-" else "_" for letter in picture.objective)[:80]
            files.append(Path(folder) / f"{number:03d}-{name}.png")
            with store.atomic(files[-1]) as temporary:
                shown.save(temporary, format="png")
        return files

    def to_pil(self) -> list[Any]:
        """Returns the pictures as Pillow's, cropped to their windows."""
        return _pil(self.pictures)


def _pil(pictures: Iterable[Picture]) -> list[Any]:
    # here, because torchvision takes longer to import than the rest of this module
    from torchvision.transforms.functional import to_pil_image

    return [to_pil_image(picture.bytes()) for picture in pictures]


def _shown(pictures: Sequence[Picture]) -> str:
    """Pictures as HTML, which holds them; nothing for those of a number of channels that no screen has."""
    colours = [picture for picture in pictures if len(picture.image) in (1, 3)]
    images = []
    for picture, image in zip(colours, _pil(colours), strict=True):
        buffer = io.BytesIO()
        image.save(buffer, format="png")
        data = base64.b64encode(buffer.getvalue()).decode()
        images.append(f'<img src="data:image/png;base64,{data}" alt="{escape(plain(picture.objective))}">')
    return f"<p>{' '.join(images)}</p>" if images else ""
