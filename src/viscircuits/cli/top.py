"""``viscircuits top``: the pictures that excite each channel of some layers most."""

from pathlib import Path
from typing import Annotated

import typer

from viscircuits.cli import options


def top(
    model: options.Model,
    layer: Annotated[list[str], typer.Argument(metavar="LAYER...", help="Modules to read, by name.")],
    images: Annotated[Path, typer.Option("--images", "-i", help="Folder of pictures or of class folders.")],
    weights: options.Weights = None,
    number: Annotated[int, typer.Option("-n", min=1, help="How many a channel, at most one a picture.")] = 50,
    limit: options.Limit = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder; default studies/top-MODEL.")] = None,
    seed: options.Seed = 0,
    input_size: options.InputSize = None,
    device: options.Device = "auto",
    threads: options.Threads = None,
) -> None:
    """Find the highest activations of every channel: values, pictures and positions."""
    from viscircuits.cli.console import print_table, progress_bars
    from viscircuits.cli.findings import Findings, load
    from viscircuits.study import slug
    from viscircuits.subcircuits.top import top_activations

    loaded = load(model, weights, images, input_size=input_size, limit=limit, seed=seed, device=device, threads=threads)
    folder = out or Path("studies") / slug("top", model.replace("/", "-"))
    asked = {**loaded.asked, "layers": list(layer), "n": number}
    findings = Findings.create(folder, "top activations", asked)
    with progress_bars() as report:
        found = top_activations(loaded.model, layer, loaded.images, number, progress=report)
    rows = []
    for name, best in found.items():
        best.save(folder / "top" / f"{slug(name or 'logit')}.safetensors")
        rows += [
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
    findings.table("top", rows)
    shown = [
        (name or "logit", f"{best.n_channels}", f"{best.n}", f"{float(best.values[:, 0].median()):.3g}")
        for name, best in found.items()
    ]
    columns = [("layer", False), ("channels", True), ("activations each", True), ("median of the highest", True)]
    print_table(f"{model}, {len(loaded.images)} pictures", columns, shown)
    findings.finish({"activations": len(rows)})
