"""What stands around a diagram: the title with the numbers, and the key to its lines and colours."""

from collections.abc import Sequence

import torch

from viscircuits.canvas.marks import Bezier, Box, Disc, Mark, Text
from viscircuits.canvas.palette import LEVELS, ramp_role
from viscircuits.canvas.told import percent
from viscircuits.circuit.circuit import Circuit
from viscircuits.data.images import ImageSet
from viscircuits.diagram.content import Content
from viscircuits.diagram.drawing import Drawing
from viscircuits.diagram.inset import Agreement
from viscircuits.scores import Scores
from viscircuits.study.chosen import Entry, called, titled
from viscircuits.study.folder import Study

_LETTER = 6.2
"""Width of a letter of the lines below the title."""


def title(circuit: Circuit) -> str:
    """Returns the diagram's name."""
    return f"Circuit of {circuit.target}"


def about(network: str, criterion: str, density: float, n_images: int | None = None, source: str = "") -> str:
    """Returns in one line what a diagram shows; what is not known is left out.

    Args:
        network: name of the network.
        criterion: what chose the circuit, or "".
        density: kept over relevant structures.
        n_images: how many pictures the circuit was measured on.
        source: where these come from, or "".
    """
    of = f" of {source}" if source else ""
    measured = "" if n_images is None else f"measured on {n_images:,} picture{'s' * (n_images != 1)}{of}"
    return ", ".join(filter(None, (network, criterion, f"density {percent(density)}", measured)))


def about_row(study: Study, row: Entry, images: ImageSet | None = None, source: str = "") -> str:
    """Returns what stands below the title of a row's diagram: network, criterion, density, pictures.

    Args:
        study: a study folder.
        row: which of its measurements.
        images: pictures that the diagram is drawn with; where None those that the study measured on are named.
        source: where they come from, if the study does not know them.
    """
    spec = study.header.spec
    name = titled(called(spec.criteria).get(row["criterion"], row["criterion"]), row["order"])
    if images is None or images.hash == spec.held_out.hash:
        return about(spec.model, name, row["density"], row["n_held_out"], spec.held_out.source)
    return about(spec.model, name, row["density"], len(images), source)


def about_circuit(circuit: Circuit, scores: Scores | None, agreement: Agreement | None) -> str:
    """Returns the line below the title of a circuit's diagram, as far as it and its scores tell.

    Args:
        circuit: what is drawn.
        scores: those that it is drawn by.
        agreement: what the inset shows; it tells on how many pictures.
    """
    n_images = None if agreement is None else agreement.preservation.n_images
    return about(type(circuit.model).__name__, _criterion(circuit, scores), circuit.mask.density, n_images)


def _criterion(circuit: Circuit, scores: Scores | None) -> str:
    """What the scores are called where the circuit keeps the best of them, or the worst; else ""."""
    mask = circuit.mask
    if scores is None or scores.granularity != mask.granularity:
        return ""
    values = torch.cat([scores.sums[name][relevant] for name, relevant in mask.relevant.items()])
    kept = torch.cat([mask.kept[name][relevant] for name, relevant in mask.relevant.items()])
    # selection takes what speaks against the target as nothing, so that it is not the worst either
    values = values.clamp(min=0) if scores.contrast else values
    if not len(values[~kept]) or not len(values[kept]) or values[kept].min() >= values[~kept].max():
        return scores.criterion
    return f"{scores.criterion}, worst first" if values[kept].max() <= values[~kept].min() else ""


def facts(circuit: Circuit, content: Content, agreement: Agreement | None) -> list[str]:
    """Returns the numbers in words, a line each: what is kept of what, what of it is drawn, how well it does.

    Args:
        circuit: what is drawn.
        content: what its diagram shows.
        agreement: with the full model, where that is known.
    """
    mask, effective, kind = circuit.mask, circuit.effective, circuit.mask.granularity
    kept = f"{mask.n_kept:,} of {mask.n_relevant:,} relevant {kind}s kept (density {percent(mask.density)})"
    live = (
        f"{effective.n_kept:,} of them on a path from image to target (effective density {percent(effective.density)})"
    )
    lines = [
        ", ".join([kept, live]),
        ", ".join(filter(None, [f"{circuit.kind} circuit", agreement and agreement.text])),
    ]
    if circuit.disconnected:
        lines.append("Disconnected: no path leads from the image to the target, so nothing else is drawn.")
    if content.bundled:
        lines.append(
            f"Too many edges to draw one by one: {content.bundled:,} kernels are bundled into {len(content.edges)} "
            f"lines, one a pair of layers. Left out: single filters' lines, joins' channels, kernels' pictures."
        )
    return lines


def header(heading: str, about: str, lines: Sequence[str], x: float, width: float) -> tuple[list[Mark], float]:
    """Returns the title, what it is of and the numbers, and how far down they reach; a line too long is shortened.

    Args:
        heading: the title.
        about: the line below it; none where "".
        lines: the numbers.
        x: where they start, in pixels from the left.
        width: that a line has, in pixels.
    """
    texts: list[Mark] = [Text(x, 40, heading, 19, "ink", bold=True)]
    lines = [shortened(about, int(width / _LETTER)), *lines] if about else lines
    texts += [Text(x, 62 + 17 * i, line, 12, "muted") for i, line in enumerate(lines)]
    return texts, 62.0 + 17 * len(lines)


def shortened(line: str, most: int) -> str:
    """Returns a line of at most so many letters: the middle gives way."""
    if len(line) <= most:
        return line
    return f"{line[: most // 2]}…{line[len(line) - most + most // 2 + 1 :]}"


def key(drawing: Drawing, x: float, y: float, blank: int = 0) -> list[Mark]:
    """Returns the key to colours, widths and signs, with its top left corner at (x, y).

    Args:
        drawing: what it explains.
        x, y: the corner.
        blank: filters for which no picture could be rendered.
    """
    if not drawing.content.edges:
        return []
    rows = [_colours(x, y), _widths(drawing, x, y + 52)]
    row = y + 104
    if any(vertex.kind == "join" for vertex in drawing.content.vertices):
        rows.append(_joins(x, row))
        row += 24
    # said, because else a line without a picture looks like a kernel without weights
    singles = len(drawing.thumbnails.places)
    if hidden := singles - drawing.thumbnails.n_shown:
        text = f"{hidden:,} of {singles:,} kernels {'has' if hidden == 1 else 'have'} no room for a picture"
        rows.append([Text(x, row + 4, text, 11, "muted")])
        row += 18
    if blank:
        filters, them = ("filter", "it") if blank == 1 else ("filters", "them")
        text = f"{blank:,} blank {filters}: nothing was found that drives {them}"
        rows.append([Text(x, row + 4, text, 11, "muted")])
    return [mark for part in rows for mark in part]


def _colours(x: float, y: float) -> list[Mark]:
    step = 200 / (2 * LEVELS + 1)
    ramp: list[Mark] = [
        # a little wider than a step: edges that just meet let the paper through
        Box(x + (level + LEVELS) * step, y + 8, step + 0.4, 8, ramp_role(level))
        for level in range(-LEVELS, LEVELS + 1)
    ]
    return [
        Text(x, y, "colour: balance of a kernel's weights, Σw / Σ|w|", 11, "muted"),
        *ramp,
        Text(x, y + 29, "−1 inhibits", 10, "muted"),
        Text(x + 100, y + 29, "0", 10, "muted", "middle"),
        Text(x + 200, y + 29, "excites 1", 10, "muted", "end"),
    ]


def _widths(drawing: Drawing, x: float, y: float) -> list[Mark]:
    measure = drawing.content.measure
    what = measure if measure.startswith("Σ") else f"{measure} score"
    body: list[Mark] = [Text(x, y, f"width: root of a kernel's {what}", 11, "muted")]
    for i, share in enumerate((1 / 16, 1 / 4, 1.0)):
        left = x + 70 * i
        body.append(Bezier(((left, y + 14), (left + 54, y + 14)), "muted", drawing.width_of(share)))
        body.append(Text(left + 27, y + 31, _short(share * drawing.highest), 10, "muted", "middle"))
    return body


def _short(value: float) -> str:
    return f"{value:,.0f}" if 99.5 <= value < 1e6 else f"{value:.2g}"


def _joins(x: float, y: float) -> list[Mark]:
    sign = [Disc(((x + 8, y),), 8, "paper", "wire", 1.4), Text(x + 8, y + 4.5, "+", 13, "ink", "middle")]
    wire = Bezier(((x + 16, y), (x + 44, y)), "wire", 1.6)
    return [wire, *sign, Text(x + 52, y + 4, "signals meet without a kernel (sum, gate)", 11, "muted")]
