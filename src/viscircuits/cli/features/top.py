"""``viscircuits top``: the pictures that excite each channel of some layers most."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from viscircuits.cli import options
from viscircuits.cli.features.options import FolderOption, PictureFoldersOption, pictures_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from viscircuits.activations.top import TopActivations
    from viscircuits.runs.subject import Subject
    from viscircuits.study.findings import Findings
    from viscircuits.types import Progress


def top(
    model: options.ModelArgument,
    layer: Annotated[list[str], typer.Argument(metavar="LAYER...", help="Modules to read, by name.")],
    images: PictureFoldersOption,
    weights: options.WeightsOption = None,
    number: Annotated[
        int, typer.Option("-n", min=1, help="How many a channel, at most one a picture; of more than 12, 6 are drawn.")
    ] = 50,
    channel: Annotated[
        list[int] | None,
        typer.Option("--channel", help="Draw these; repeat.  [dim]default: the 12 with the highest values[/]"),
    ] = None,
    limit: options.LimitOption = None,
    out: FolderOption = None,
    seed: options.SeedOption = 0,
    input_size: options.InputSizeOption = None,
    device: options.DeviceOption = "auto",
    threads: options.ThreadsOption = None,
    white: options.WhiteOption = None,
) -> None:
    """Find the highest activations of every channel: values, pictures and positions; draw contact sheets."""
    from viscircuits.cli.console import print_table, progress_bars
    from viscircuits.cli.findings import finish
    from viscircuits.plots.sheets import all_ranked, contact_sheet
    from viscircuits.report.gathering import liveliest, per_row, strips
    from viscircuits.runs.subject import load
    from viscircuits.study.findings import Findings
    from viscircuits.study.names import slug, study_of
    from viscircuits.target import read_layer

    layer = list(dict.fromkeys(map(read_layer, layer)))
    loaded = load(
        model, weights, images, input_size=input_size, limit=limit, seed=seed, device=device,
        white=white,
    )  # fmt: skip
    question = {**loaded.asked, "layers": list(layer), "n": number}
    name = slug("top", *(one or "logit" for one in layer))
    for one in layer:
        _check_channels(loaded, one, channel or ())
    findings = Findings.create(study_of(out, model), name, "top activations", question)
    with progress_bars() as report:
        tops = kept_tops(loaded, findings, layer, number, report)
    findings.table("top", [row for name, best in tops.items() for row in _rows(name, best, loaded)])
    sheets, total = {}, len(loaded.images)
    whole = all_ranked(number, total)
    for name, best in tops.items():
        drawn = channel or liveliest(best)
        title = f"{name or 'logit'}: what excites {len(drawn)} of {best.n_channels} channels most"
        wide = per_row(best)
        some = f"the strongest {wide} of {best.n} kept" if wide < best.n else f"the strongest {best.n}"
        of = f"the strongest {wide}; pictures: {whole}" if whole else f"{some}, of {total:,} pictures, at most one each"
        note = f"{of}; cut to what the channel sees there"
        sheet = contact_sheet(strips(loaded.scene(), best, drawn, wide), title, note)
        sheets[title] = sheet.publish(findings.file(f"{slug(name or 'logit')}.jpg"))
    shown = [
        (name or "logit", f"{best.n_channels}", whole or f"{best.n}", f"{float(best.values[:, 0].median()):.3g}")
        for name, best in tops.items()
    ]
    columns = [("layer", False), ("channels", True), ("activations each", True), ("median of the highest", True)]
    print_table(f"{model}, {total} pictures", columns, shown)
    finish(
        findings,
        {"activations": sum(best.values.numel() for best in tops.values())},
        f"Top activations of {', '.join(one or 'logit' for one in layer)}",
        f"The {min(number, total):,} highest activations of every channel on {total:,} pictures, at most one a picture"
        f"{f' ({whole})' if whole else ''}.",
        pictures=sheets, tables=[("Layers", [name for name, _ in columns], shown)],
        then=["polysemantic", model, *(one or "logit" for one in layer), *pictures_of(images, weights)],
    )  # fmt: skip


def _check_channels(loaded: "Subject", layer: str, channels: "Sequence[int]") -> None:
    from viscircuits.model.trace import trace
    from viscircuits.readout import Readout
    from viscircuits.target import Target

    graph = trace(loaded.model, loaded.images[0].shape)
    for channel in channels:
        Readout(Target(layer, channel), graph)


def kept_tops(
    loaded: "Subject", findings: "Findings", layers: list[str], number: int, report: "Progress"
) -> "dict[str, TopActivations]":
    """Returns the top activations of layers, in one pass for those that are not in the folder yet.

    Args:
        loaded: the model and its pictures.
        findings: the folder that keeps them.
        layers: modules, by name.
        number: activations a channel.
        report: told how far the pass is.
    """
    from viscircuits.activations.top import top_activations
    from viscircuits.study.names import TOP, slug

    files = {layer: findings.file(TOP, f"{slug(layer or 'logit')}.safetensors") for layer in dict.fromkeys(layers)}
    if missing := [layer for layer, file in files.items() if not file.exists()]:
        for layer, best in top_activations(loaded.model, missing, loaded.images, number, progress=report).items():
            best.save(files[layer])
    return {layer: _kept(loaded, layer, file) for layer, file in files.items()}


def _kept(loaded: "Subject", layer: str, file: "Path") -> "TopActivations":
    from viscircuits import store
    from viscircuits.activations.top import TopActivations
    from viscircuits.model.trace import trace

    top, images = TopActivations.load(file), loaded.images
    place = trace(loaded.model, images[0].shape).output(layer)
    if (top.layer, top.source, top.map_shape, top.n_channels) != (
        layer, images.hash, place.map_shape, place.n_channels,
    ) or int(top.images.max()) >= len(images):  # fmt: skip
        raise store.damaged(file, f"expected the top activations of layer {layer!r} on these {len(images)} pictures")
    return top


def _rows(name: str, best: "TopActivations", loaded: "Subject") -> list[dict[str, object]]:
    return [
        {
            "layer": name,
            "channel": channel,
            "rank": rank,
            "value": float(best.values[channel, rank]),
            "picture": loaded.images.names[int(best.images[channel, rank])],
            "position": list(best.position(channel, rank)),
        }
        for channel in range(best.n_channels)
        for rank in range(best.n)
    ]
