"""``viscircuits compare``: what the circuits of several features have in common."""

from dataclasses import replace
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from viscircuits.cli import options
from viscircuits.cli.features.options import FolderOption
from viscircuits.errors import StudyError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from viscircuits.mask import Mask
    from viscircuits.study.chosen import Entry
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
    spec, common = studies[0].header.spec, _criterion(studies, criterion)
    rows, masks, layers = _circuits(studies, model, common, density, keep)
    question = {
        "model": spec.model, "fingerprint": spec.fingerprint, "criterion": common, "density": density, "keep": keep,
        "targets": list(masks), "together": together, "at_least": at_least,
    }  # fmt: skip
    which = f"{density:g}" if keep is None else f"keep-{keep:g}"
    findings = Findings.create(study_of(out, spec.model), slug("compare", common, which), "comparison", question)
    title = f"{len(masks)} {common} circuits {_at(density, keep, rows)}"
    _tell(findings, study[0], title, rows, masks, _in_order(overlaps(masks), layers), together, at_least)


def _tell(
    findings: "Findings", study: Path, title: str, rows: "list[Entry]", masks: "dict[str, Mask]",
    overlap: "Overlaps", together: float, at_least: int | None,
) -> None:  # fmt: skip
    """Writes and prints what circuits have in common."""
    from viscircuits import store
    from viscircuits.cli.console import print_table
    from viscircuits.cli.findings import finish
    from viscircuits.cli.tables import print_notes
    from viscircuits.plots.kinship import kinship
    from viscircuits.subcircuits.algebra import shared_core

    overlap.save(findings.file("overlaps.safetensors"))
    core = shared_core(list(masks.values()), at_least)
    store.write_tensors(findings.file("core.safetensors"), core.kept, {"kind": "shared core", "at_least": at_least})
    findings.table("circuits", rows)
    findings.table("overlaps", _pairs(overlap))
    findings.table("trees", _trees(overlap))
    plate = kinship(overlap, title=title).publish(findings.file("overlaps.png"))
    compared, shared = _compared(rows), _layers(overlap, core)
    print_table(title, _CIRCUITS, compared)
    print_notes([cells[-1] for cells in compared])
    print_table("by layer, in the order in which they run", _LAYERS, shared)
    groups = [_named(overlap, group) for group in overlap.groups(together)]
    grouped = [(", ".join(group),) for group in groups]
    print_table(f"groups of mean IoU {together:g}, the largest first", [("", False)], grouped)
    mean, chance = overlap.mean()
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
        then=["diagram", study],
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


def _at(density: float | None, keep: float | None, rows: "list[Entry]") -> str:
    if keep is None:
        return f"at density {density:g}"
    short = sum(row["pearson"] < keep for row in rows)
    return f"(the smallest with |r| >= {keep:g}" + (f"; {short} of them keep less)" if short else ")")


def _criterion(studies: "list[Study]", name: str | None) -> str:
    """What was asked for, or the first criterion that all studies have; no control unless asked for."""
    from viscircuits.study.chosen import is_control

    have = [one.header.spec.criteria for one in studies]
    wanted = [one for one in have[0] if not is_control(one)] if name is None else [name]
    shared = set(have[0]).intersection(*have)
    common = [one for one in wanted if one in shared]
    if common:
        return common[0]
    listed = "; ".join(f"{str(one.path)!r} has {', '.join(own)}" for one, own in zip(studies, have, strict=True))
    what = "a criterion, no control," if name is None else f"criterion {name!r}"
    raise StudyError(f"expected {what} that all studies have, but {listed}; give another with --criterion")


def _circuits(
    studies: "list[Study]", named: str | None, criterion: str, density: float | None, keep: float | None
) -> "tuple[list[Entry], dict[str, Mask], list[str]]":
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
            rows.append({**row, "kept": masks[target].n_kept})
    if len(masks) < 2:
        raise StudyError(f"expected the circuits of at least two targets, got {', '.join(masks)}")
    return rows, masks, list(trace(model, spec.input_shape).layers)


def _row(study: "Study", target: str, criterion: str, density: float | None, keep: float | None) -> "Entry":
    """The measurement of the circuit that is compared; without its numbers where none was written."""
    from viscircuits.study.chosen import chosen, measured

    name, _, order = criterion.partition(":")
    if density is not None and not study.measurements_path.is_file():
        return {**dict.fromkeys(_TOLD), "target": target, "criterion": name, "order": order or "best",
                "density": density}  # fmt: skip
    row = chosen(measured(study, target, criterion), density, 1.0 if keep is None else keep)
    return {column: row[column] for column in ("target", "criterion", "order", "density", *_TOLD)}


_TOLD = ("pearson", "pearson_signed", "sd_ratio", "disconnected")


def _compared(rows: "list[Entry]") -> list[tuple[str, ...]]:
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


def _in_order(overlap: "Overlaps", layers: list[str]) -> "Overlaps":
    """The overlaps with their layers as they run; the whole first."""
    ordered = [name for name in ("", *layers) if name in overlap.iou]
    return replace(overlap, iou={n: overlap.iou[n] for n in ordered}, chance={n: overlap.chance[n] for n in ordered})


def _layers(overlap: "Overlaps", core: "Mask") -> list[tuple[str, ...]]:
    """The overlap of the whole, and of every layer that matters to two circuits."""
    rows = []
    for layer in overlap.iou:
        means = overlap.mean(layer)
        if layer and isnan(means[0]):
            continue
        numbers = ("–" if isnan(value) else f"{value:.2f}" for value in means)
        rows.append((layer or "all", *numbers, f"{core.counts[layer][0] if layer else core.n_kept:,}"))
    return rows


def _named(overlap: "Overlaps", group: "Sequence[int]") -> list[str]:
    return [overlap.names[i] for i in group]


def _pairs(overlap: "Overlaps") -> list[dict[str, object]]:
    n = len(overlap.names)
    return [
        {
            "layer": layer,
            "first": overlap.names[i],
            "second": overlap.names[j],
            "iou": float(overlap.iou[layer][i, j]),
            "chance": float(overlap.chance[layer][i, j]),
        }
        for layer in overlap.iou
        for i in range(n)
        for j in range(i + 1, n)
    ]


def _trees(overlap: "Overlaps") -> list[dict[str, object]]:
    return [
        {
            "layer": layer,
            "join": number,
            "one": int(row[0]),
            "other": int(row[1]),
            "distance": row[2],
            "size": int(row[3]),
        }
        for layer in overlap.iou
        for number, row in enumerate(overlap.linkage(layer).tolist())
    ]
