"""``viscircuits compare``: what the circuits of several features have in common."""

from dataclasses import replace
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from viscircuits.cli import options
from viscircuits.cli.features.options import FolderOption
from viscircuits.errors import StudyError

if TYPE_CHECKING:
    from viscircuits.mask import Mask
    from viscircuits.study.findings import Findings
    from viscircuits.study.folder import Study
    from viscircuits.subcircuits.algebra import Overlaps

DENSITY = 0.1
"""Of the circuits that are compared, unless asked otherwise."""


def compare(
    study: Annotated[list[Path], typer.Argument(metavar="STUDY...", help="Study folders of one model.")],
    density: Annotated[
        float | None,
        typer.Option("--density", "-d", help=f"Which circuits of the studies.  [dim]default: {DENSITY:g}[/]"),
    ] = None,
    keep: Annotated[
        float | None,
        typer.Option("--keep", min=0, max=1, help="In place of --density: of every target the smallest circuit with "
                     "|r| >= KEEP; where there is none, the one with the largest |r|."),
    ] = None,
    criterion: Annotated[
        str | None,
        typer.Option("--criterion", "-c", help="Whose circuits; NAME:worst for a control.  [dim]default: the first "
                     "that all studies have, but no control[/]"),
    ] = None,
    together: Annotated[
        float, typer.Option("--together", min=0, max=1, help="Mean IoU from which circuits form a group.")
    ] = 0.5,
    at_least: Annotated[
        int | None, typer.Option("--at-least", min=1, help="The core: kernels kept by so many; default: by all.")
    ] = None,
    model: options.ModelOption = None,
    out: FolderOption = None,
) -> None:  # fmt: skip
    """Compare the circuits of several features: overlap by layer, groups, the shared core, what each has alone."""
    from viscircuits.study.findings import Findings
    from viscircuits.study.names import slug, study_of
    from viscircuits.subcircuits.algebra import overlaps

    if density is not None and keep is not None:
        raise StudyError(f"expected --density or --keep, got both ({density:g} and {keep:g}); give one of them")
    density = DENSITY if keep is None and density is None else density
    studies = _opened(study)
    spec, chosen = studies[0].header.spec, _criterion(studies, criterion)
    rows, masks, layers = _circuits(studies, model, chosen, density, keep)
    asked = {
        "model": spec.model, "fingerprint": spec.fingerprint, "criterion": chosen, "density": density, "keep": keep,
        "targets": list(masks), "together": together, "at_least": at_least,
    }  # fmt: skip
    which = f"{density:g}" if keep is None else f"keep-{keep:g}"
    findings = Findings.create(study_of(out, spec.model), slug("compare", chosen, which), "comparison", asked)
    title = f"{len(masks)} {chosen} circuits {_at(density, keep, rows)}"
    _tell(findings, title, rows, masks, _in_order(overlaps(masks), layers), together, at_least)


def _tell(
    findings: "Findings", title: str, rows: "list[dict[str, Any]]", masks: "dict[str, Mask]", found: "Overlaps",
    together: float, at_least: int | None,
) -> None:  # fmt: skip
    """Writes and prints what circuits have in common."""
    from viscircuits import store
    from viscircuits.cli.console import print_table
    from viscircuits.cli.findings import finish
    from viscircuits.cli.tables import print_notes
    from viscircuits.plots.kinship import kinship
    from viscircuits.subcircuits.algebra import shared_core

    found.save(findings.file("overlaps.safetensors"))
    core = shared_core(list(masks.values()), at_least)
    store.write_tensors(findings.file("core.safetensors"), core.kept, {"kind": "shared core", "at_least": at_least})
    findings.table("circuits", rows)
    findings.table("overlaps", _pairs(found))
    findings.table("trees", _trees(found))
    plate = kinship(found, title=title).save(findings.file("overlaps.png"))
    compared, shared = _compared(rows), _layers(found, core)
    print_table(title, _CIRCUITS, compared)
    print_notes([cells[-1] for cells in compared])
    print_table("by layer, in the order in which they run", _LAYERS, shared)
    groups = [[found.names[i] for i in group] for group in found.groups(together)]
    grouped = [(", ".join(group),) for group in groups]
    print_table(f"groups of mean IoU {together:g}, the largest first", [("", False)], grouped)
    mean, chance = found.mean()
    finish(
        findings,
        {"core": core.n_kept, "groups": groups}, f"What {title} have in common",
        f"Their mean overlap is {mean:.2f} (by chance {chance:.2f}); {core.n_kept:,} kernels are shared by "
        f"{'all' if at_least is None else f'at least {at_least}'}. They form {len(groups)} groups of mean IoU "
        f"{together:g}.",
        pictures={f"overlap of {title}": plate},
        tables=[("Circuits", [name for name, _ in _CIRCUITS], compared),
                ("Layers", [name for name, _ in _LAYERS], shared),
                ("Groups, the largest first", ["circuits"], grouped)],
    )  # fmt: skip


_CIRCUITS = [("target", False), ("density", True), ("kept", True), ("|r|", False)]
_LAYERS = [("layer", False), ("mean IoU", True), ("by chance", True), ("shared core", True)]


def _opened(paths: list[Path]) -> "list[Study]":
    from viscircuits.study.folder import Study

    studies = [Study.open(path) for path in paths]
    for other in studies[1:]:
        if other.header.spec.fingerprint != studies[0].header.spec.fingerprint:
            raise StudyError(f"{str(other.path)!r} is of another model or other weights than {str(studies[0].path)!r}")
    return studies


def _at(density: float | None, keep: float | None, rows: "list[dict[str, Any]]") -> str:
    if keep is None:
        return f"at density {density:g}"
    short = sum(row["pearson"] < keep for row in rows)
    return f"(the smallest with |r| >= {keep:g}" + (f"; {short} of them keep less)" if short else ")")


def _criterion(studies: "list[Study]", asked: str | None) -> str:
    """What was asked for, or the first criterion that all studies have; no control unless asked for."""
    from viscircuits.study.chosen import is_control

    have = [one.header.spec.criteria for one in studies]
    wanted = [name for name in have[0] if not is_control(name)] if asked is None else [asked]
    common = [name for name in wanted if all(name in own for own in have)]
    if common:
        return common[0]
    listed = "; ".join(f"{str(one.path)!r} has {', '.join(own)}" for one, own in zip(studies, have, strict=True))
    what = "a criterion, no control," if asked is None else f"criterion {asked!r}"
    raise StudyError(f"expected {what} that all studies have, but {listed}; give another with --criterion")


def _circuits(
    studies: "list[Study]", named: str | None, criterion: str, density: float | None, keep: float | None
) -> "tuple[list[dict[str, Any]], dict[str, Mask], list[str]]":
    """The rows of the circuits that are compared, their masks by target, and the model's layers as they run."""
    from viscircuits.cli.command import again
    from viscircuits.model.trace import trace
    from viscircuits.runs.opened import load_model
    from viscircuits.study.chosen import circuit_of

    spec = studies[0].header.spec
    model, _ = load_model(spec, named, again)
    rows, masks = [], {}
    for one in studies:
        for target in one.header.spec.targets:
            if target in masks:
                raise StudyError(f"expected every target once, got {target!r} in two studies; leave one of them out")
            row = _row(one, target, criterion, density, keep)
            masks[target] = circuit_of(one, row, model).mask
            rows.append(row | {"kept": masks[target].n_kept})
    if len(masks) < 2:
        raise StudyError(f"expected the circuits of at least two targets, got {', '.join(masks)}")
    return rows, masks, list(trace(model, spec.input_shape).layers)


def _row(study: "Study", target: str, criterion: str, density: float | None, keep: float | None) -> dict[str, Any]:
    """The measurement of the circuit that is compared; without its numbers where none was written."""
    from viscircuits.study.chosen import chosen, measured

    name, _, order = criterion.partition(":")
    if density is not None and not study.measurements_path.is_file():
        return {**dict.fromkeys(_TOLD), "target": target, "criterion": name, "order": order or "best",
                "density": density}  # fmt: skip
    row = chosen(measured(study, target, criterion), density, 1.0 if keep is None else keep)
    return {column: row[column] for column in ("target", "criterion", "order", "density", *_TOLD)}


_TOLD = ("pearson", "pearson_signed", "sd_ratio", "disconnected")


def _compared(rows: "list[dict[str, Any]]") -> list[tuple[str, ...]]:
    from viscircuits.cli.tables import told_in_a_cell

    return [
        (
            row["target"],
            f"{row['density']:g}",
            f"{row['kept']:,}",
            "not measured" if row["pearson"] is None else told_in_a_cell(row),
        )
        for row in rows
    ]


def _in_order(found: "Overlaps", layers: list[str]) -> "Overlaps":
    """The overlaps with their layers as they run; the whole first."""
    ordered = [name for name in ("", *layers) if name in found.iou]
    return replace(found, iou={n: found.iou[n] for n in ordered}, chance={n: found.chance[n] for n in ordered})


def _layers(found: "Overlaps", core: "Mask") -> list[tuple[str, ...]]:
    """The overlap of the whole, and of every layer that matters to two circuits."""
    means = {layer: found.mean(layer) for layer in found.iou}
    return [
        (
            layer or "all",
            *("–" if isnan(value) else f"{value:.2f}" for value in means[layer]),
            f"{core.counts[layer][0] if layer else core.n_kept:,}",
        )
        for layer in found.iou
        if not layer or not isnan(means[layer][0])
    ]


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
