"""Agreement inside: how far the filters of a circuit put out what they put out in the model.

A circuit may answer as the model does and get there in another way. Each of its filters is compared with itself in the
full model, on the output of the kernel layer, before any activation: Pearson's r within positions, that is after each
position's mean over the images is subtracted from both.

One pass over the images adds up what r needs, in double precision; no map is kept.
"""

from collections import Counter
from collections.abc import Callable, Mapping

import polars as pl
import torch
from torch import Tensor

from viscircuits.bounds.arguments import checked
from viscircuits.circuit.circuit import Circuit
from viscircuits.data.images import ImageSet, as_images
from viscircuits.errors import ImageError
from viscircuits.execution.loop import batches, judged
from viscircuits.model.calls import KernelCall
from viscircuits.model.guard.clean import clean
from viscircuits.model.instrument import run
from viscircuits.types import Progress

IMAGE, TARGET = "reads the image", "target"
"""Roles of filters that agree for a reason of their own: nothing comes before them, or they are what is asked for."""

_ROUNDING = 1e-12
"""A spread whose square is below this share of the values' squares is rounding."""


@checked
@clean
@torch.no_grad()
def inside(
    circuit: Circuit, images: ImageSet | Tensor, *, batch_size: int = 16, progress: Progress | None = None
) -> pl.DataFrame:
    """Returns a row for every filter with kept kernels on a path from the image to the target.

    Columns: ``layer`` and ``filter``; ``within``, r within positions with its sign, in [-1, 1], and 0 where the filter
    is constant in the circuit; ``role``, "reads the image", "target", or empty. Filters that are constant in the model
    are left out. Layers are in order of execution. Agreement mostly falls with depth: look at medians layer by layer.

    Args:
        circuit: of any granularity, compensated or not.
        images: pictures of the circuit's image size, two at least, that it was not found on.
        batch_size: pictures at a time; changes nothing beyond rounding.
        progress: called after every batch.

    Raises:
        ImageError: pictures of another size, or one only.
    """
    model, graph, readout = circuit.model, circuit.graph, circuit.readout
    used = {
        name: array.flatten(1).any(1) if array.ndim > 1 else array for name, array in circuit.effective.kept.items()
    }
    filters = {name: array.nonzero()[:, 0] for name, array in used.items() if bool(array.any())}
    images = judged(as_images(images), model, [readout])
    if len(images) < 2:
        raise ImageError("agreement inside needs two pictures at least, because each position's mean is subtracted")
    sums: dict[tuple[str, int], _Sums] = {}
    size = batch_size if graph.images_lead(filters) else 1
    for batch in batches(images, model, graph, size, progress=progress, what="inside"):
        both: list[dict[tuple[str, int], Tensor]] = []
        for weights in (circuit.weights, {}):
            seen: dict[tuple[str, int], Tensor] = {}
            run(model, graph, batch.images.clone(), readout.layers, weights=weights, see=_keeping(seen, filters))
            both.append({key: _by_image(values, len(batch.images)) for key, values in seen.items()})
        for key, mine in both[0].items():
            sums.setdefault(key, _Sums()).add(mine, both[1][key])
    roles = _roles(circuit)
    rows = []
    for name, chosen in filters.items():
        calls = [sums[key] for key in sums if key[0] == name]
        mine, theirs, product = (
            torch.stack(each).sum(0) for each in zip(*(c.spreads(len(images)) for c in calls), strict=True)
        )
        constant = mine <= _ROUNDING * torch.stack([c.squares[0] for c in calls]).sum(0)
        varies = theirs > _ROUNDING * torch.stack([c.squares[1] for c in calls]).sum(0)
        r = (product / (mine * theirs).clamp(min=torch.finfo(torch.float64).tiny).sqrt()).clamp(-1, 1)
        r = r.masked_fill(constant, 0.0)
        rows += [
            {"layer": name, "filter": int(f), "within": float(value), "role": roles.get(name, "")}
            for f, value, kept in zip(chosen, r, varies, strict=True)
            if bool(kept)
        ]
    return pl.DataFrame(rows, schema={"layer": pl.String, "filter": pl.Int64, "within": pl.Float64, "role": pl.String})


def layers(table: pl.DataFrame) -> pl.DataFrame:
    """Returns a row a layer: ``layer``, ``role``, ``filters``, and ``within``, the median over these.

    Args:
        table: of `inside`.
    """
    return table.group_by("layer", "role", maintain_order=True).agg(
        pl.len().cast(pl.Int64).alias("filters"), pl.col("within").median()
    )


def medians(table: pl.DataFrame) -> tuple[float | None, float | None]:
    """Returns the median over filters, and that of the layer where it is least; None where there is nothing to compare.

    Filters that read the image and the target's own agree for reasons of their own, and do not count.

    Args:
        table: of `inside`.
    """
    between = table.filter(pl.col("role") == "")
    if between.is_empty():
        return None, None
    return float(between["within"].median()), float(layers(between)["within"].min())  # pyright: ignore[reportArgumentType]


class _Sums:
    """What r within positions needs of one call of a layer, filter by filter."""

    def __init__(self) -> None:
        self.means: list[Tensor] = []  # of each network: sums over images, filters x positions
        self.squares: list[Tensor] = []
        self.product = torch.zeros(())

    def add(self, mine: Tensor, theirs: Tensor) -> None:
        """Adds a batch, images x positions x filters."""
        if not self.means:
            self.means = [torch.zeros(mine.shape[1:], dtype=torch.float64) for _ in range(2)]
            self.squares = [torch.zeros(mine.shape[2], dtype=torch.float64) for _ in range(2)]
            self.product = torch.zeros(mine.shape[2], dtype=torch.float64)
        for i, values in enumerate((mine, theirs)):
            self.means[i] += values.sum(0)
            self.squares[i] += values.square().sum((0, 1))
        self.product += (mine * theirs).sum((0, 1))

    def spreads(self, n: int) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the sums of squares and of products about each position's mean, a number a filter."""
        (a, b), (aa, bb) = self.means, self.squares
        return aa - (a * a).sum(0) / n, bb - (b * b).sum(0) / n, self.product - (a * b).sum(0) / n


def _keeping(seen: dict[tuple[str, int], Tensor], filters: Mapping[str, Tensor]) -> Callable[[KernelCall], Tensor]:
    """What writes down the outputs of some filters, call by call."""
    calls: Counter[str] = Counter()

    def see(call: KernelCall) -> Tensor:
        name = call.layer.name
        if name in filters:
            own = call.output.index_select(call.channel_axis, filters[name].to(call.output.device))
            seen[name, calls[name]] = own.movedim(call.channel_axis, -1)
            calls[name] += 1
        return call.output

    return see


def _by_image(values: Tensor, n: int) -> Tensor:
    """Outputs with the channels last as images x positions x filters."""
    return values.reshape(n, -1, values.shape[-1]).double().cpu()


def _roles(circuit: Circuit) -> dict[str, str]:
    """Layer -> why its filters agree for a reason of their own."""
    graph = circuit.graph
    roles = dict.fromkeys(graph.reading_the_image(), IMAGE)
    for layer in circuit.readout.layers:
        before = [graph.output(layer).node]
        # through what follows a kernel layer one by one: a norm, an activation, a pool
        while len(before) == 1 and before[0] not in graph.kernel_calls:
            before = [node for node in before[0].all_input_nodes if node in graph.axes]
        if len(before) == 1:
            roles[graph.kernel_calls[before[0]]] = TARGET
    return roles
