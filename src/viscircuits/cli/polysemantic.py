"""``viscircuits polysemantic``: channels whose most exciting pictures fall into groups."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from viscircuits.cli import options

if TYPE_CHECKING:
    from viscircuits.data.images import ImageSet
    from viscircuits.subcircuits.polysemantic import Polysemantic


class Flat(StrEnum):
    """How population vectors become points on a page."""

    pca = "pca"
    umap = "umap"


def polysemantic(
    model: options.Model,
    layer: Annotated[list[str], typer.Argument(metavar="LAYER...", help="Modules to search, by name.")],
    images: Annotated[Path, typer.Option("--images", "-i", help="Folder of pictures or of class folders.")],
    weights: options.Weights = None,
    number: Annotated[int, typer.Option("-n", min=4, help="Top activations a channel; the papers take 300.")] = 300,
    min_cluster: Annotated[int, typer.Option("--min-cluster", min=2, help="The smallest group that counts.")] = 10,
    flat: Annotated[Flat, typer.Option("--map", help="The 2-D map; umap needs viscircuits[umap].")] = Flat.pca,
    best: Annotated[int, typer.Option("--best", min=1, help="Map and list this many channels a layer.")] = 20,
    limit: options.Limit = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder; default studies/polysemantic-MODEL.")] = None,
    seed: options.Seed = 0,
    input_size: options.InputSize = None,
    device: options.Device = "auto",
    threads: options.Threads = None,
) -> None:
    """Rank channels by how well their most exciting pictures split into clusters."""
    from viscircuits.cli.console import print_table, progress_bars
    from viscircuits.cli.findings import Findings, load
    from viscircuits.study import slug
    from viscircuits.subcircuits.polysemantic import flat_map
    from viscircuits.subcircuits.polysemantic import polysemantic as search
    from viscircuits.subcircuits.top import population, top_activations

    loaded = load(model, weights, images, input_size=input_size, limit=limit, seed=seed, device=device, threads=threads)
    folder = out or Path("studies") / slug("polysemantic", model.replace("/", "-"))
    asked = {**loaded.asked, "layers": list(layer), "n": number, "min_cluster_size": min_cluster, "best": best}
    findings = Findings.create(folder, "polysemantic channels", {**asked, "map": flat.value})
    channels, points = [], []
    with progress_bars() as report:
        tops = top_activations(loaded.model, layer, loaded.images, number, progress=report)
        for name, top in tops.items():
            found = search(loaded.model, top, loaded.images, min_cluster_size=min_cluster, progress=report)
            found.save(folder / "polysemantic" / f"{slug(name or 'logit')}.safetensors")
            channels += _channels(found)
            some = [c.channel for c in found.channels[:best] if c.n_clusters]
            vectors = population(loaded.model, top, loaded.images, some, progress=report) if some else ()
            for channel, own in zip(some, vectors, strict=True):
                points += _points(found, channel, flat_map(own, flat.value, seed).tolist(), loaded.images)
    findings.table("channels", channels)
    if points:
        findings.table("points", points)
    split = sorted((row for row in channels if row["clusters"]), key=lambda row: -float(row["separation"]))  # pyright: ignore
    shown = [
        (f"{r['layer']}:{r['channel']}", ", ".join(map(str, r["sizes"])), *(f"{r[k]:.2f}" for k in _NUMBERS))  # pyright: ignore
        for r in split[:best]
    ]
    columns = [("channel", False), ("clusters of", False), *((name, True) for name in _NUMBERS)]
    print_table(f"{model}: {len(split)} of {len(channels)} channels split", columns, shown)
    findings.finish({"split": len(split), "channels": len(channels)})


_NUMBERS = ("share", "silhouette", "separation")


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
