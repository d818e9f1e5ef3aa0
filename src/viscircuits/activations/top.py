"""The images that excite each channel of a layer most, found in one pass.

Convention: at most one activation an image, the highest on its map. Channels stand along the first axis, ranks along
the second, best first; equal activations are in the order of their images, and on one map the first position counts. So
a result depends on the images and their order alone. Places are flat indices into a channel's map, as everywhere.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from viscircuits import store
from viscircuits.bounds.arguments import checked
from viscircuits.card import Card, Shown, sized
from viscircuits.data.images import ImageSet
from viscircuits.errors import ImageError, TargetError
from viscircuits.execution.loop import batches
from viscircuits.model.field.receptive_field import crop, receptive_field
from viscircuits.model.graph import NetGraph
from viscircuits.model.guard.clean import clean
from viscircuits.model.instrument import run
from viscircuits.model.output import with_channels
from viscircuits.model.trace import trace
from viscircuits.store.checks import TEXT, Fields, listed, whole
from viscircuits.store.kinds import FLOATS, INTS, Array, Kind
from viscircuits.types import Progress

FORMAT = 1
"""Version of the file; a file with another number is refused."""


@dataclass(frozen=True, repr=False)
class TopActivations(Shown):
    """The highest activations of every channel of a layer.

    Args:
        layer: the module whose output was read.
        map_shape: the shape of one channel's map; ``()`` for a vector.
        values: channel x rank, descending.
        images: index of each one's picture in the image set.
        places: where on its map, flat.
        source: content hash of the image set.
    """

    layer: str
    map_shape: tuple[int, ...]
    values: Float[Tensor, "c n"]
    images: Int[Tensor, "c n"]
    places: Int[Tensor, "c n"]
    source: str

    def _card(self) -> Card:
        return Card("TopActivations", {
            "layer": self.layer, "channels": f"{self.n_channels:,}", "map": sized(self.map_shape),
            "activations a channel": f"{self.n:,}", "images of hash": self.source,
        })  # fmt: skip

    @property
    def n_channels(self) -> int:
        """Number of channels."""
        return len(self.values)

    @property
    def n(self) -> int:
        """Number of activations a channel."""
        return self.values.shape[1]

    def position(self, channel: int, rank: int) -> tuple[int, ...]:
        """Returns where on the map an activation stands: ``(y, x)`` for a convolution."""
        where = torch.unravel_index(self.places[channel, rank], self.map_shape) if self.map_shape else ()
        return tuple(int(index) for index in where)

    def save(self, path: str | Path) -> None:
        """Writes the activations as safetensors with a JSON header, atomically."""
        header: dict[str, store.Json] = {
            "layer": self.layer,
            "map_shape": list(self.map_shape),
            "source": self.source,
        }
        store.save(path, _KIND, {name: getattr(self, name) for name in _TENSORS}, header)

    @classmethod
    def load(cls, path: str | Path) -> "TopActivations":
        """Returns activations that `save` wrote; a `StudyError` for any other file."""
        tensors, header = store.load(path, _KIND)
        return cls(header["layer"], tuple(header["map_shape"]), **tensors, source=header["source"])


_TENSORS = ("values", "images", "places")

FIELDS = {"layer": TEXT, "map_shape": listed(whole(1, 2**31), most=3), "source": TEXT}
"""Of the header of a file that holds top activations, with or without more."""


def arrays(fields: Fields, names: Iterable[str] = ()) -> dict[str, Array]:
    """Returns what the tensors of top activations have to be in a file."""
    # a place beyond the map would be an error far from the file, when a crop is cut
    axes, places = ("channels", "ranks"), math.prod(fields["map_shape"])
    return {
        "values": Array(FLOATS, axes),
        "images": Array(INTS, axes, 0.0),
        "places": Array(INTS, axes, 0.0, places - 1.0),
    }


_KIND = Kind("top activations", "a file of top activations", FIELDS, arrays, (FORMAT,))


@checked
@clean
def top_activations(
    model: nn.Module,
    layers: Sequence[str],
    images: ImageSet,
    n: int = 300,
    *,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> dict[str, TopActivations]:
    """Returns layer -> the n highest activations of each of its channels, at most one an image.

    One pass over the images; memory holds 2 n activations a channel, whatever the number of images.

    Args:
        model: a network in evaluation mode; it is left exactly as it was.
        layers: modules to read, by name.
        images: the pictures to search.
        n: how many a channel, at least 1; no more than there are pictures are kept.
        batch_size: pictures at a time; changes no result beyond rounding.
        progress: called as the work goes on.

    Raises:
        TargetError: no such layer.
        ImageError: no layer or activation asked for; activations that are not finite.
    """
    if n < 1 or not layers:
        raise ImageError(f"expected at least one layer and one activation a channel, got {list(layers)} and n = {n}")
    graph = trace(model, images[0].shape)
    best = {layer: _Best(graph, layer, min(n, len(images))) for layer in dict.fromkeys(layers)}
    for start, outputs in _outputs(model, graph, list(best), images, batch_size, progress):
        for layer, output in outputs.items():
            best[layer].add(output, start)
    return {layer: one.finished(images.hash) for layer, one in best.items()}


@checked
@clean
def population(
    model: nn.Module,
    top: TopActivations,
    images: ImageSet,
    channels: Sequence[int] | None = None,
    *,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> Float[Tensor, "k n c"]:
    """Returns what all channels of the layer do where some of them are highest: one vector an activation (paper 8.9).

    Args:
        model: the network that ``top`` was found in.
        top: the activations.
        images: the same pictures.
        channels: whose activations; of all channels where None.
        batch_size: pictures at a time; changes no result beyond rounding.
        progress: called as the work goes on.
    """
    if images.hash != top.source or int(top.images.max()) >= len(images):
        raise ImageError(
            f"these are not the pictures in which the top activations of layer {top.layer!r} were found: hash "
            f"{images.hash}, expected {top.source}; give the same pictures in the same order"
        )
    for channel in channels or ():
        if not 0 <= channel < top.n_channels:
            raise TargetError(
                f"channel {channel} is out of range: layer {top.layer!r} has channels 0 to {top.n_channels - 1}"
            )
    whose = torch.arange(top.n_channels) if channels is None else torch.tensor(list(channels))
    which, places = top.images[whose], top.places[whose]
    wanted = which.unique()  # sorted, as searchsorted needs it; a picture that excites many channels is run once
    vectors = torch.empty(*which.shape, top.n_channels)
    graph = trace(model, images[0].shape)
    some = images.subset(wanted.tolist())
    for start, outputs in _outputs(model, graph, [top.layer], some, batch_size, progress, "population"):
        maps = _maps(graph, top.layer, outputs[top.layer])  # (b, c, p)
        here = torch.isin(which, wanted[start : start + len(maps)])
        rows = torch.searchsorted(wanted, which[here]) - start
        vectors[here] = maps[rows.to(maps.device), :, places[here].to(maps.device)].to(vectors)
    return vectors


def crops(
    graph: NetGraph, top: TopActivations, images: ImageSet, channel: int, ranks: Sequence[int], *, fill: float = 0.0
) -> Float[Tensor, "k c h w"]:
    """Returns the receptive fields of some of a channel's top activations, cut from their pictures.

    Args:
        graph: the network, traced at the size of the pictures.
        top: the activations.
        images: the pictures in which they were found.
        channel: whose.
        ranks: which; 0 is the highest.
        fill: what stands for pixels beyond the border; 0 is the mean colour of normalised pictures.
    """
    if not 0 <= channel < top.n_channels or not all(0 <= rank < top.n for rank in ranks):
        raise TargetError(
            f"layer {top.layer!r} has {top.n} top activations of channels 0 to {top.n_channels - 1}, not {list(ranks)} "
            f"of channel {channel}"
        )
    cut = []
    for rank in ranks:
        box = receptive_field(graph, top.layer, top.position(channel, rank))
        cut.append(crop(images[int(top.images[channel, rank])], box, fill=fill))
    return torch.stack(cut)


class _Best:
    """The best so far of one layer: n a channel, and a buffer of newcomers that are sorted in when there are n."""

    def __init__(self, graph: NetGraph, layer: str, n: int) -> None:
        self.graph, self.layer, self.n = graph, layer, n
        none = torch.empty(graph.output(layer).n_channels, 0)
        self.parts = [(none, none.long(), none.long())]

    def add(self, output: Float[Tensor, "b ..."], start: int) -> None:
        """Takes in the outputs for some pictures, of which the first is number ``start``."""
        maps = _maps(self.graph, self.layer, output)
        values = maps.amax(2)
        if not bool(torch.isfinite(values).all()):
            raise ImageError(f"layer {self.layer!r} is not finite on some pictures; check preprocessing and weights")
        entering = values > self._least().to(values)  # finding where costs more than finding how much
        places = torch.zeros_like(values, dtype=torch.long)
        places[entering] = maps[entering].argmax(1)  # the first of equal positions
        numbers = torch.arange(start, start + len(values)).expand(values.shape[1], -1)
        values = values.to(torch.promote_types(values.dtype, torch.float32))
        self.parts.append((values.T.cpu(), numbers, places.T.cpu()))
        # sorting n newcomers at once costs little more than sorting one batch
        if sum(part[0].shape[1] for part in self.parts[1:]) >= self.n:
            self._merge()

    def _least(self) -> Float[Tensor, " c"]:
        """What a channel's activation must be above to be among its n best, as far as is known."""
        kept = self.parts[0][0]
        return kept[:, -1] if kept.shape[1] == self.n else kept.new_full((len(kept),), -torch.inf)

    def _merge(self) -> None:
        values, numbers, places = (torch.cat(parts, 1) for parts in zip(*self.parts, strict=True))
        # earlier pictures stand first, and a stable sort keeps them so
        order = torch.sort(values, dim=1, descending=True, stable=True).indices[:, : self.n]
        self.parts = [(values.gather(1, order), numbers.gather(1, order), places.gather(1, order))]

    def finished(self, source: str) -> TopActivations:
        """Returns the n best of every channel."""
        self._merge()
        return TopActivations(self.layer, self.graph.output(self.layer).map_shape, *self.parts[0], source)


def _maps(graph: NetGraph, layer: str, output: Float[Tensor, "b ..."]) -> Float[Tensor, "b c p"]:
    place = graph.output(layer)
    return with_channels(output).movedim(place.channel_axis, 1).reshape(len(output), place.n_channels, -1)


@torch.no_grad()
def _outputs(
    model: nn.Module, graph: NetGraph, layers: Sequence[str], images: ImageSet, batch_size: int,
    progress: Progress | None, what: str = "top activations",
) -> Iterator[tuple[int, Mapping[str, Tensor]]]:  # fmt: skip
    for batch in batches(images, model, graph, batch_size, progress=progress, what=what):
        yield batch.start, run(model, graph, batch.images, layers)
