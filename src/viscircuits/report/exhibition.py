"""What a chapter of a report shows of one target, as data: measurements, circuits' masks, pictures.

`viscircuits.report.gathering` makes it, with the model at hand; `viscircuits.report.chapter` and
`viscircuits.report.headline` write it down without one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Float

from viscircuits.diagram.extended import Diagram
from viscircuits.mask import Mask
from viscircuits.model.field.receptive_field import Area
from viscircuits.plots.plate import Rgb
from viscircuits.study.chosen import Entry


@dataclass(frozen=True, eq=False)
class Portrait:
    """What the target looks for, rendered in a circuit.

    Attributes:
        row: the circuit's measurement; None for the whole model.
        picture: the rendering, of one colour where nothing was found.
    """

    row: Entry | None
    picture: Rgb


@dataclass(frozen=True, eq=False)
class Exhibit:
    """A picture with the responses at the place where it excites the target most, or least.

    Attributes:
        name: of its file.
        picture: the whole picture.
        box: what is seen at that place; None where that is the whole picture, or is not known.
        piece: the picture in the box.
        model, circuit: the responses there.
    """

    name: str
    picture: Rgb
    box: Area | None
    piece: Float[np.ndarray, "3 y x"] | None
    model: float
    circuit: float


@dataclass(frozen=True, eq=False)
class Inside:
    """How far a circuit's filters put out what they put out in the model.

    Attributes:
        layers: a row a layer, see `viscircuits.evaluate.inside.layers`.
        n_images: on how many pictures.
    """

    layers: pl.DataFrame
    n_images: int


@dataclass(frozen=True, eq=False)
class Exhibition:
    """Everything that is shown of one target.

    Attributes:
        target: its text.
        title: its text, and the name of its class where that is known.
        table: its measurements, in the order of `Study.measurements`.
        names: criterion -> what it is called.
        rows: the measurements of the criterion that is shown, the largest circuit first.
        row: the one that is shown.
        masks: the effective mask of the circuit of every row.
        drawn: the diagram of the circuit that is shown.
        portraits: renderings in circuits of shrinking size, the whole model first; none where nothing can be rendered.
        strongest, weakest: the pictures that excite it most and least; None where no pictures are at hand.
        own_pictures: whether they are those that the study measured on.
        inside: how far the filters of the circuit that is shown agree with the model's; None where no pictures are at
            hand.
        sd_ratio: of the circuit that is shown, where the table is older than that column and the pictures tell it.
    """

    target: str
    title: str
    table: pl.DataFrame
    names: Mapping[str, str]
    rows: Sequence[Entry]
    row: Entry
    masks: Sequence[Mask]
    drawn: Diagram
    portraits: Sequence[Portrait]
    strongest: Sequence[Exhibit] | None
    weakest: Sequence[Exhibit] | None
    own_pictures: bool
    inside: Inside | None
    sd_ratio: float | None
