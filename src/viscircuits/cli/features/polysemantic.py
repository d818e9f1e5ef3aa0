"""``viscircuits polysemantic``: channels whose most exciting pictures fall into groups."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from viscircuits.cli import options
from viscircuits.cli.features.options import FolderOption, PictureFoldersOption, pictures_of

if TYPE_CHECKING:
    from pathlib import Path

    from viscircuits.activations.top import TopActivations
    from viscircuits.data.images import ImageSet
    from viscircuits.runs.subject import Subject
    from viscircuits.study.findings import Findings
    from viscircuits.subcircuits.polysemantic import Clusters, Polysemantic
    from viscircuits.types import Progress


class Flat(StrEnum):
    """How population vectors become points on a page."""

    pca = "pca"
    umap = "umap"


def polysemantic(
    model: options.ModelArgument,
    layer: Annotated[list[str], typer.Argument(metavar="LAYER...", help="Modules to search, by name.")],
    images: PictureFoldersOption,
    weights: options.WeightsOption = None,
    number: Annotated[int, typer.Option("-n", min=4, help="Top activations a channel; the papers take 300.")] = 300,
    min_cluster: Annotated[int, typer.Option("--min-cluster", min=2, help="The smallest group that counts.")] = 10,
    flat: Annotated[Flat, typer.Option("--map", help="The 2-D map; umap needs viscircuits\\[umap].")] = Flat.pca,
    best: Annotated[int, typer.Option("--best", min=1, help="Draw this many channels.")] = 6,
    limit: options.LimitOption = None,
    out: FolderOption = None,
    seed: options.SeedOption = 0,
    input_size: options.InputSizeOption = None,
    device: options.DeviceOption = "auto",
    threads: options.ThreadsOption = None,
    white: options.WhiteOption = None,
) -> None:
    """Rank channels by how well their most exciting pictures split into clusters; draw the best as maps."""
    from viscircuits.cli.console import out as console
    from viscircuits.cli.console import print_table, progress_bars
    from viscircuits.cli.features.top import kept_tops
    from viscircuits.cli.findings import finish
    from viscircuits.plots.sheets import all_ranked
    from viscircuits.runs.subject import load
    from viscircuits.study.findings import Findings
    from viscircuits.study.names import slug, study_of
    from viscircuits.target import read_layer

    layer = list(dict.fromkeys(map(read_layer, layer)))
    loaded = load(
        model, weights, images, input_size=input_size, limit=limit, seed=seed, device=device,
        white=white,
    )  # fmt: skip
    question = {**loaded.asked, "layers": list(layer), "n": number, "min_cluster_size": min_cluster}
    name = slug("polysemantic", *(one or "logit" for one in layer))
    findings = Findings.create(
        study_of(out, model), name, "polysemantic channels", {**question, "best": best, "map": flat.value}
    )
    with progress_bars() as report:
        tops = kept_tops(loaded, findings, layer, number, report)
        every = [_searched(loaded, findings, top, min_cluster, report) for top in tops.values()]
        ranked = [(found, clusters) for found in every for clusters in found.channels if clusters.n_clusters]
        ranked.sort(key=lambda one: -one[1].separation)
        points, plates = _mapped(loaded, ranked[:best], flat.value, seed, findings, report)
    channels = [row for found in every for row in _channels(found)]
    findings.table("channels", channels)
    if points:
        findings.table("points", points)
    shown = [_told(found.top.layer, clusters) for found, clusters in ranked]
    columns = [("channel", False), ("clusters of", False), *((name, True) for name in _NUMBERS)]
    total = len(loaded.images)
    best_channel = f"{ranked[0][0].top.layer or 'logit'}:{ranked[0][1].channel}" if ranked else ""
    layers = [one or "logit" for one in layer]
    whole = all_ranked(number, total)
    print_table(f"{model}: {len(shown)} of {len(channels)} channels split, by separation", columns, shown[:_LISTED])
    if whole:
        console.print(f"most exciting pictures of each channel: {whole}", soft_wrap=True)
    finish(
        findings,
        {"split": len(shown), "channels": len(channels)},
        f"Polysemantic channels of {', '.join(layers)}",
        f"The {min(number, total):,} most exciting of {total:,} pictures{f' ({whole})' if whole else ''} fall into "
        f"clusters for {len(shown)} of {len(channels):,} channels.",
        note=_NOTE, pictures=plates,
        tables=[("Channels whose pictures split, by separation", [name for name, _ in columns], shown[:_LISTED])],
        then=[*(("split", model, best_channel) if ranked else ("top", model, *layers)), *pictures_of(images, weights)],
    )  # fmt: skip


_NUMBERS = ("share", "silhouette", "separation")
_LISTED = 20
_NOTE = (
    "Clusters (HDBSCAN) are of what the whole layer answers where the channel is highest: the layer tells these "
    "pictures apart, and the channel does not. Separation: silhouette times the share of pictures in a cluster."
)


def _searched(
    loaded: "Subject", findings: "Findings", top: "TopActivations", min_cluster: int, report: "Progress"
) -> "Polysemantic":
    """The clusters of a layer, from the folder where they are there."""
    from viscircuits import store
    from viscircuits.study.names import slug
    from viscircuits.subcircuits.polysemantic import Polysemantic, polysemantic

    file = findings.file("polysemantic", f"{slug(top.layer or 'logit')}.safetensors")
    if not file.exists():
        polysemantic(loaded.model, top, loaded.images, min_cluster_size=min_cluster, progress=report).save(file)
    found = Polysemantic.load(file)
    if found.top.source != top.source or found.top.layer != top.layer or found.top.n_channels != top.n_channels:
        raise store.damaged(file, f"expected the channels of layer {top.layer!r} on these pictures")
    return Polysemantic(top, found.channels, found.min_cluster_size)


def _mapped(
    loaded: "Subject", ranked: "list[tuple[Polysemantic, Clusters]]", method: str, seed: int, findings: "Findings",
    report: "Progress",
) -> "tuple[list[dict[str, object]], dict[str, Path]]":  # fmt: skip
    """Points of the maps, as rows, and the maps with their pictures."""
    from viscircuits.activations.top import population
    from viscircuits.report.plates import cluster_map
    from viscircuits.study.names import slug
    from viscircuits.subcircuits.polysemantic import flat_map

    points, plates, scene = [], {}, loaded.scene()
    for number, (found, clusters) in enumerate(ranked):
        (vectors,) = population(loaded.model, found.top, loaded.images, [clusters.channel])
        flat = flat_map(vectors, method, seed)
        points += _points(found, clusters.channel, flat.tolist(), loaded.images)
        name = f"{found.top.layer or 'logit'}:{clusters.channel}"
        plate = cluster_map(scene, found, clusters.channel, flat, method)
        plates[name] = plate.publish(findings.file(f"{slug(name)}.jpg"))
        report("maps", number + 1, len(ranked))
    return points, plates


def _told(layer: str, clusters: "Clusters") -> tuple[str, ...]:
    numbers = (f"{getattr(clusters, name):.2f}" for name in _NUMBERS)
    return (f"{layer}:{clusters.channel}", ", ".join(map(str, clusters.sizes)), *numbers)


def _channels(found: "Polysemantic") -> list[dict[str, object]]:
    return [
        {
            "layer": found.top.layer,
            "channel": clusters.channel,
            "rank": rank,
            "clusters": clusters.n_clusters,
            "sizes": list(clusters.sizes),
            "share": clusters.share,
            "silhouette": clusters.silhouette,
            "separation": clusters.separation,
        }
        for rank, clusters in enumerate(found.channels)
    ]


def _points(
    found: "Polysemantic", channel: int, flat: list[list[float]], images: "ImageSet"
) -> list[dict[str, object]]:
    labels = found.of(channel).labels.tolist()
    return [
        {
            "layer": found.top.layer,
            "channel": channel,
            "rank": rank,
            "picture": images.names[int(found.top.images[channel, rank])],
            "value": float(found.top.values[channel, rank]),
            "position": list(found.top.position(channel, rank)),
            "cluster": labels[rank],
            "x": flat[rank][0],
            "y": flat[rank][1],
        }
        for rank in range(found.top.n)
    ]
