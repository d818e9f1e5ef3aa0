"""``viscircuits compare``: what the circuits of several features have in common."""

from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from viscircuits.cli import options
from viscircuits.cli.asked import Folder
from viscircuits.errors import StudyError

if TYPE_CHECKING:
    from viscircuits.mask import Mask
    from viscircuits.study import Study
    from viscircuits.subcircuits.algebra import Overlaps


def compare(
    study: Annotated[list[Path], typer.Argument(metavar="STUDY...", help="Study folders of one model.")],
    density: Annotated[float, typer.Option("--density", "-d", help="Which circuits of the studies.")] = 0.1,
    criterion: options.ShownCriterion = None,
    together: Annotated[
        float, typer.Option("--together", min=0, max=1, help="Mean IoU from which circuits form a group.")
    ] = 0.5,
    at_least: Annotated[
        int | None, typer.Option("--at-least", min=1, help="The core: kernels kept by so many; default: by all.")
    ] = None,
    out: Folder = None,
) -> None:  # fmt: skip
    """Compare the circuits of several features: overlap by layer, groups, the shared core, what each has alone."""
    from viscircuits import store
    from viscircuits.cli.console import print_table
    from viscircuits.cli.findings import Findings, study_of
    from viscircuits.diagram.kinship import kinship
    from viscircuits.study import Study
    from viscircuits.subcircuits.algebra import overlaps, shared_core

    studies = [Study.open(path) for path in study]
    spec = studies[0].header.spec
    for other in studies[1:]:
        if other.header.spec.fingerprint != spec.fingerprint:
            raise StudyError(f"{str(other.path)!r} is of another model or other weights than {str(studies[0].path)!r}")
    chosen = criterion or spec.criteria[0]
    masks = _masks(studies, chosen, density)
    asked = {
        "model": spec.model, "fingerprint": spec.fingerprint, "criterion": chosen, "density": density,
        "targets": list(masks), "together": together, "at_least": at_least,
    }  # fmt: skip
    findings = Findings.create(study_of(out, spec.model), f"compare__{chosen}__{density:g}", "comparison", asked)
    found = overlaps(masks)
    found.save(findings.path / "overlaps.safetensors")
    core = shared_core(list(masks.values()), at_least)
    store.write_tensors(findings.path / "core.safetensors", core.kept, {"kind": "shared core", "at_least": at_least})
    findings.table("overlaps", _pairs(found))
    findings.table("trees", _trees(found))
    title = f"{len(masks)} circuits at density {density:g}, {chosen}"
    plate = kinship(found, title=title).save(findings.path / "overlaps.png")
    rows = _layers(found, core)
    columns = [("layer", False), ("mean IoU", True), ("by chance", True), ("shared core", True)]
    print_table(title, columns, rows)
    groups = [[found.names[i] for i in group] for group in found.groups(together)]
    grouped = [(", ".join(group),) for group in groups]
    print_table(f"groups of mean IoU {together:g}", [("", False)], grouped)
    mean, chance = found.mean()
    findings.finish(
        {"core": core.n_kept, "groups": groups}, f"What {title} have in common",
        f"Their mean overlap is {mean:.2f} (by chance {chance:.2f}); {core.n_kept:,} kernels are shared by "
        f"{'all' if at_least is None else f'at least {at_least}'}. They form {len(groups)} groups of mean IoU "
        f"{together:g}.",
        pictures={f"overlap of {title}": plate},
        tables=[("Layers", [name for name, _ in columns], rows), ("Groups", ["circuits"], grouped)],
    )  # fmt: skip


def _layers(found: "Overlaps", core: "Mask") -> list[tuple[str, ...]]:
    return [
        (
            layer or "all",
            *("–" if isnan(value) else f"{value:.2f}" for value in found.mean(layer)),  # nothing of it in two circuits
            f"{core.counts[layer][0] if layer else core.n_kept:,}",
        )
        for layer in found.iou
    ]


def _masks(studies: "list[Study]", criterion: str, density: float) -> "dict[str, Mask]":
    from viscircuits.model import zoo

    spec = studies[0].header.spec
    model, _ = zoo.load(spec.model, spec.weights, input_size=spec.input_shape[-1])
    masks: dict[str, Mask] = {}
    for one in studies:
        for target in one.header.spec.targets:
            masks[target] = one.circuit(model, target, criterion, density).mask
    if len(masks) < 2:
        raise StudyError(f"expected the circuits of at least two targets, got {', '.join(masks)}")
    return masks


def _pairs(found: "Overlaps") -> list[dict[str, object]]:
    n = len(found.names)
    return [
        {
            "layer": layer,
            "first": found.names[i],
            "second": found.names[j],
            "iou": float(found.iou[layer][i, j]),
            "chance": float(found.chance[layer][i, j]),
        }
        for layer in found.iou
        for i in range(n)
        for j in range(i + 1, n)
    ]


def _trees(found: "Overlaps") -> list[dict[str, object]]:
    return [
        {
            "layer": layer,
            "join": number,
            "one": int(row[0]),
            "other": int(row[1]),
            "distance": row[2],
            "size": int(row[3]),
        }
        for layer in found.iou
        for number, row in enumerate(found.linkage(layer).tolist())
    ]
