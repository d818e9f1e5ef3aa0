"""``viscircuits probe``: drawn stimuli: a surface, the circle and corner experiment, or what a whole layer prefers."""

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from viscircuits.cli import options
from viscircuits.errors import ImageError, TargetError, closest

if TYPE_CHECKING:
    from viscircuits.probes.experiment import CircleAndCorner

S = TypeVar("S")


def probe(
    model: options.Model,
    what: Annotated[
        str,
        typer.Argument(metavar="TARGET|LAYER", help="layer:channel (read at its centre) or layer:channel@y,x for "
                       "surfaces; a layer for the channels that prefer a family."),
    ],
    weights: options.Weights = None,
    family: Annotated[
        str | None,
        typer.Option("--family", "-f", help="arc, corner, ring, square, line, grating or texture.  [dim]default: the "
                     "circle and corner experiment; for a layer: ring[/]"),
    ] = None,
    axis: Annotated[
        list[str] | None,
        typer.Option("--axis", "-a", metavar="NAME=FIRST:LAST:COUNT", help="A parameter to vary; twice for a surface. "
                     "A full turn leaves out its end."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", metavar="NAME=NUMBER", help="A parameter that all stimuli have in common."),
    ] = None,
    circuit: Annotated[
        list[Path] | None, typer.Option("--circuit", help="Saved circuits to probe beside the model; repeat for more.")
    ] = None,
    ground: Annotated[float, typer.Option("--ground", min=0, max=1, help="Grey behind the stimuli.")] = 0.5,
    count: Annotated[int, typer.Option("--count", min=1, help="Stimuli a family, for a layer.")] = 200,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder; default probes/MODEL-WHAT.")] = None,
    seed: options.Seed = 0,
    input_size: options.InputSize = None,
    device: options.Device = "auto",
    threads: options.Threads = None,
) -> None:  # fmt: skip
    """Show drawn stimuli in the receptive field of a position and map what a model and its circuits answer."""
    from viscircuits.cli.console import progress_bars
    from viscircuits.cli.job import on_device
    from viscircuits.model import zoo
    from viscircuits.optvis.colour import probe as colours_of
    from viscircuits.probes.stage import Stage
    from viscircuits.study import slug
    from viscircuits.target import Target, parse_target

    network, prepare = zoo.load(model, weights, input_size=input_size)
    network = on_device(network, device, threads)
    colours, shape = colours_of(prepare)
    target = parse_target(what) if ":" in what else Target(what, 0)
    if not isinstance(target, Target):
        raise TargetError(f"a probe reads one channel or class, not {target}")
    target = target.at("center") if target.position is None and target.layer else target
    stage = Stage.of(network, target, shape, mean=colours.mean, std=colours.std, ground=ground)
    folder = out or Path("probes") / slug(model.replace("/", "-"), what)
    varied, common = dict(map(_axis, axis or [])), dict(map(_setting, settings or []))
    with progress_bars() as report:
        if ":" not in what:
            _layer(network, what, stage, family or "ring", count, seed, report)
        elif family is None:
            _experiment(network, target, stage, common, folder, f"{model} {target}", report)
        else:
            _surface(network, target, stage, family, varied, common, circuit or [], folder, f"{model} {target}", report)


def _layer(network: Any, layer: str, stage: Any, family: str, count: int, seed: int, report: Any) -> None:
    from viscircuits.cli.console import print_table
    from viscircuits.probes.detectors import detectors, standard_families

    families = standard_families(count, seed=seed, pixels=min(stage.box.size))
    found = detectors(network, layer, families, stage, progress=report)
    rows = [
        (str(p.channel), f"{p.index:.2f}", f"{p.strength:.3g}", p.rival, f"{p.rival_strength:.3g}")
        for p in found.ranked(family)[:15]
    ]
    columns = [("channel", True), ("index", True), (family, True), ("next best", False), ("its strength", True)]
    print_table(f"{layer}: channels that prefer {family}, {count} stimuli a family", columns, rows)


def _surface(
    network: Any, target: Any, stage: Any, family: str, varied: dict[str, list[float]], common: dict[str, float],
    circuits: list[Path], folder: Path, title: str, report: Any,
) -> None:  # fmt: skip
    from viscircuits.circuit import Circuit
    from viscircuits.diagram.surface import surfaces
    from viscircuits.probes.stimulus import family_of
    from viscircuits.probes.surface import surface

    if len(varied) != 2:
        raise ImageError("a surface needs --axis twice, for instance --axis radius=0.15:0.7:12 --axis angle=0:360:24")
    stimulus = _with(family_of(family), common)
    shown = {"model": network} | {path.stem: Circuit.load(path, network) for path in circuits}
    found = {name: surface(each, target, stimulus, varied, stage, progress=report) for name, each in shown.items()}
    for name, each in found.items():
        each.save(folder / f"{family}__{name}.safetensors")
    _told(surfaces([found], labels=[f"response to {family}s"], title=title).save(folder / family))


def _experiment(
    network: Any, target: Any, stage: Any, common: dict[str, float], folder: Path, title: str, report: Any
) -> None:
    from viscircuits.cli.console import print_table
    from viscircuits.probes.experiment import circle_and_corner
    from viscircuits.probes.stimulus import Arc, Corner

    arc, corner = _with(Arc, common), _with(Corner, common)
    done = circle_and_corner(network, target, stage, arc=arc, corner=corner, progress=report)
    done.save(folder)
    print_table("circuits of single points, and how far off they are elsewhere", _PARTS, _parts(done))
    rows = [
        (" and ".join(row["pair"]), f"{row['iou']:.2f}", f"{row['chance']:.2f}", f"{row['count']:,}")
        for row in done.overlaps()
        if len({part.family for part in done.parts if part.name in row["pair"]}) == 1
    ]
    print_table("shared kernels", [("pair", False), ("IoU", True), ("chance", True), ("kept", True)], rows)
    _told(_drawn(done, title).save(folder / "circle-and-corner"))


_PARTS = [
    ("circuit", False), ("radius", True), ("angle", True), ("response", True), ("density", True), ("there", True),
    ("own angle", True), ("own radius", True), ("far angles", True),
]  # fmt: skip


def _parts(done: "CircleAndCorner") -> list[tuple[str, ...]]:
    rows = []
    for part in done.parts:
        radius, angle = part.peak.point["radius"], part.peak.point["angle"]
        off = part.differences(done.full[part.family]).values()
        numbers = (
            f"{part.peak.value:.3g}",
            f"{part.found.circuit.mask.density:.3g}",
            *(f"{value:.2f}" for value in off),
        )
        rows.append((part.name, f"{radius:.2f}", f"{angle:g}°", *numbers))
    return rows


def _drawn(done: "CircleAndCorner", title: str) -> Any:
    from viscircuits.diagram.surface import surfaces

    rows, marks = [], {}
    for number, (family, full) in enumerate(done.full.items()):
        own = [part for part in done.parts if part.family == family]
        rows.append({"model": full} | {part.name: part.surfaces[family] for part in own})
        marks |= {(number, part.name): part.peak.point for part in own}
    return surfaces(rows, marks=marks, labels=[f"response to {family}" for family in done.full], title=title)


def _told(files: tuple[Path, ...]) -> None:
    from rich.text import Text

    from viscircuits.cli.console import out as console

    for file in files:
        console.print(Text(str(file)), soft_wrap=True)


def _axis(text: str) -> tuple[str, list[float]]:
    """``angle=0:360:24`` as a name and values; a whole turn is not closed, because its end is its start."""
    name, _, numbers = text.partition("=")
    try:
        first, last, count = numbers.split(":")
        start, stop, n = float(first), float(last), int(count)
    except ValueError:
        raise ImageError(f"cannot read --axis {text!r}; expected NAME=FIRST:LAST:COUNT, as in angle=0:360:24") from None
    if n < 2:
        raise ImageError(f"--axis {text!r} needs at least two values")
    closed = not (name in ("angle", "phase", "colour") and stop - start in (90, 180, 360))
    return name, [start + i * (stop - start) / (n - closed) for i in range(n)]


def _setting(text: str) -> tuple[str, float]:
    name, _, number = text.partition("=")
    try:
        return name, float(number)
    except ValueError:
        raise ImageError(f"cannot read --set {text!r}; expected NAME=NUMBER, as in thickness=0.2") from None


def _with(family: type[S], common: dict[str, float]) -> S:
    known = [field.name for field in fields(family)]  # pyright: ignore[reportArgumentType] (families are dataclasses)
    for name in common:
        if name not in known:
            raise ImageError(f"{family.__name__} has no parameter {name!r}{closest(name, known)}")
    return family(**common)
