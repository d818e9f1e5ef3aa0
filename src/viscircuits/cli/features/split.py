"""``viscircuits split``: one subcircuit for each kind of picture that excites a feature, and a verdict."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from viscircuits.cli import options
from viscircuits.cli.features.options import FolderOption, PictureFoldersOption, pictures_of
from viscircuits.errors import ImageError, TargetError

if TYPE_CHECKING:
    from pathlib import Path

    from jaxtyping import Int
    from torch import Tensor

    from viscircuits.data.images import ImageSet
    from viscircuits.runs.subject import Subject
    from viscircuits.study.findings import Findings
    from viscircuits.subcircuits.split import Split
    from viscircuits.target import Target
    from viscircuits.types import Progress


class Kinds(StrEnum):
    """What makes the sets of pictures."""

    clusters = "clusters"
    classes = "classes"


def split(
    model: options.ModelArgument,
    target: Annotated[str, typer.Argument(metavar="TARGET", help="A feature: layer:channel.")],
    images: PictureFoldersOption,
    weights: options.WeightsOption = None,
    by: Annotated[
        Kinds, typer.Option("--by", help="Sets of pictures: clusters of those that excite most, or class folders.")
    ] = Kinds.clusters,
    number: Annotated[int, typer.Option("-n", min=4, help="Clusters: of this many top activations.")] = 300,
    min_cluster: Annotated[int, typer.Option("--min-cluster", min=2, help="Clusters: the smallest that counts.")] = 10,
    criterion: Annotated[str, typer.Option("--criterion", "-c", help="actgrad, snip, magnitude, ...")] = "actgrad",
    density: Annotated[
        list[float] | None,
        typer.Option("--density", "-d", help="Where to measure, in (0, 1]; repeat.  [dim]default: .85 to .005[/]"),
    ] = None,
    tolerance: Annotated[float, typer.Option("--tolerance", min=0, help="The difference that still counts.")] = 0.15,
    controls: Annotated[int, typer.Option("--controls", min=0, help="Random splits; 19 or more for a verdict.")] = 39,
    held_out: Annotated[
        bool, typer.Option("--held-out/--same", help="Measure on one half of each set what was found on the other.")
    ] = True,
    pictures: Annotated[
        bool, typer.Option("--pictures/--no-pictures", help="Render what each circuit looks for.")
    ] = True,
    limit: options.LimitOption = None,
    out: FolderOption = None,
    seed: options.SeedOption = 0,
    input_size: options.InputSizeOption = None,
    device: options.DeviceOption = "auto",
    threads: options.ThreadsOption = None,
    white: options.WhiteOption = None,
) -> None:  # fmt: skip
    """Split a feature by the pictures that excite it, and tell whether its parts are computed apart."""
    from rich.text import Text

    from viscircuits.cli.console import out as console
    from viscircuits.cli.console import print_table, progress_bars
    from viscircuits.cli.findings import finish
    from viscircuits.model.trace import trace
    from viscircuits.plots.sheets import all_ranked
    from viscircuits.readout import Readout
    from viscircuits.runs.subject import load
    from viscircuits.study.findings import Findings
    from viscircuits.study.names import slug, study_of
    from viscircuits.subcircuits.split import DENSITIES
    from viscircuits.subcircuits.split import split as divided
    from viscircuits.target import Target, parse_target

    feature = parse_target(target)
    if not isinstance(feature, Target) or feature.position is not None or not feature.layer:
        raise TargetError(f"cannot split {target!r}: expected one channel of a layer, layer:channel")
    loaded = load(
        model, weights, images, input_size=input_size, limit=limit, seed=seed, device=device,
        white=white,
    )  # fmt: skip
    Readout(feature, trace(loaded.model, loaded.images[0].shape))  # complains before the work starts
    densities = tuple(density or DENSITIES)
    question = {
        **loaded.asked, "target": str(feature), "by": by.value, "n": number, "min_cluster_size": min_cluster,
        "criterion": criterion, "densities": list(densities), "tolerance": tolerance, "controls": controls,
        "held_out": held_out,
    }  # fmt: skip
    findings = Findings.create(study_of(out, model), slug("split", str(feature)), "split", question)
    with progress_bars() as report:
        some, labels, places = (
            _classes(loaded.images, images)
            if by is Kinds.classes
            else _clusters(loaded, feature, number, min_cluster, findings, report)
        )
        outcome = divided(
            loaded.model, feature, some, labels, places=places, criterion=criterion, densities=densities,
            tolerance=tolerance, controls=controls, held_out=held_out, seed=seed,
            kept=findings.file("measured.json"), progress=report,
        )  # fmt: skip
        names = dict(enumerate(some.class_names or ())) if by is Kinds.classes else {}
        plate = _drawn(loaded, outcome, names, pictures, findings, report)
    for name, circuit in zip(outcome.names, outcome.circuits, strict=True):
        circuit.save(findings.file("circuits", f"set-{name}.safetensors"))
    findings.table("curves", outcome.rows())
    findings.table("overlaps", outcome.overlaps())
    findings.table("pictures", _pictures(outcome, names))
    columns, rows = _errors(outcome, names)
    print_table(f"{feature}: {_ERRORS}", columns, rows)
    whole = all_ranked(number, len(loaded.images)) if by is Kinds.clusters else ""
    whole = f"Clusters were looked for in the pictures that excite it most, {whole}. " if whole else ""
    if whole:
        console.print(Text(whole), soft_wrap=True)
    console.print(Text(_shared(outcome)))
    console.print(Text(str(outcome.verdict), style="bold"))
    finish(
        findings,
        _summary(outcome), f"{feature}, split by {by.value}", f"{outcome.verdict}. {_shared(outcome)}.",
        note=whole + _NOTE, pictures={str(outcome.verdict): plate},
        tables=[(_ERRORS.capitalize(), [name for name, _ in columns], rows)],
        then=["extract", model, str(feature), *pictures_of(images[:1], weights)],
    )  # fmt: skip


_ERRORS = "difference at the last density that keeps each circuit's own pictures"
_NOTE = (
    "One circuit for each set of pictures, found from its activation at each picture's strongest place. Solid: its "
    "difference on its own pictures; dashed: on the other sets'. If the sets are answered by distinct computations, a "
    "circuit fails on the others at densities at which it still serves its own; random splits into sets of the same "
    "sizes say what comes from the sets being small."
)


def _classes(images: "ImageSet", sources: "list[Path]") -> "tuple[ImageSet, tuple[int, ...], None]":
    if images.labels is None:
        raise ImageError(f"--by classes needs one folder of class folders, not {', '.join(map(str, sources))}")
    return images, images.labels, None


def _clusters(
    loaded: "Subject", feature: "Target", number: int, min_cluster: int, findings: "Findings", report: "Progress"
) -> "tuple[ImageSet, tuple[int, ...], Int[Tensor, ' n']]":
    from viscircuits.activations.top import population
    from viscircuits.cli.features.top import kept_tops
    from viscircuits.subcircuits.polysemantic import cluster

    if feature.channel is None:
        raise TargetError("clusters are those of a channel's top activations; give layer:channel")
    top = kept_tops(loaded, findings, [feature.layer], number, report)[feature.layer]
    (vectors,) = population(loaded.model, top, loaded.images, [feature.channel], progress=report)
    outcome = cluster(vectors, top.values[feature.channel] > 0, feature.channel, min_cluster)
    if outcome.n_clusters < 2:
        raise ImageError(
            f"the {top.n} pictures that excite {feature} most fall into no clusters of {min_cluster} or more; take "
            f"more pictures, a smaller --min-cluster, or --by classes"
        )
    strongest = loaded.images.subset(top.images[feature.channel].tolist())
    return strongest, tuple(outcome.labels.tolist()), top.places[feature.channel]


def _pictures(outcome: "Split", names: dict[int, str]) -> list[dict[str, object]]:
    return [
        {"set": number, "name": names.get(number, f"set {number}"), "picture": outcome.images.names[index]}
        for number, images in zip(outcome.names, outcome.division.sets, strict=True)
        for index in images.tolist()
    ]


def _drawn(
    loaded: "Subject", outcome: "Split", names: dict[int, str], pictures: bool, findings: "Findings", report: "Progress"
) -> "Path":
    from viscircuits.report.gathering import renderings
    from viscircuits.report.plates import split_plate

    scene = loaded.scene(outcome.images)
    made = renderings(outcome, loaded.prepare, cache=findings.file("cache"), progress=report) if pictures else []
    return split_plate(outcome, scene, names, made).publish(findings.file("split.jpg"))


def _errors(outcome: "Split", names: dict[int, str]) -> tuple[list[tuple[str, bool]], list[tuple[str, ...]]]:
    """Columns and rows of a table: what each circuit is off by on each set."""
    division = outcome.division
    labels = [names.get(number, f"set {number}") for number in outcome.names]
    rows = []
    for name, images, density, errors in zip(
        labels, division.sets, division.densities, division.differences, strict=True
    ):
        rows.append((name, f"{len(images)}", f"{density:g}", *(f"{float(v):.2f}" for v in errors)))
    columns = [("circuit of", False), ("pictures", True), ("density", True)]
    return [*columns, *((f"on {name}", True) for name in labels)], rows


def _shared(outcome: "Split") -> str:
    controls = sorted(control.iou for control in outcome.controls)
    beside = f" (random splits {controls[len(controls) // 2]:.2f}, p = {outcome.iou_p:.3f})" if controls else ""
    return f"Overlap of the circuits: IoU {outcome.division.iou:.2f}{beside}"


def _summary(outcome: "Split") -> "dict[str, str | float | list[str | float]]":
    verdict = outcome.verdict
    return {
        "verdict": verdict.word,
        "reason": verdict.reason,
        "p": verdict.p,
        "excess": verdict.excess,
        "iou": outcome.division.iou,
        "iou_p": outcome.iou_p,
        "densities": list(outcome.division.densities),
    }
