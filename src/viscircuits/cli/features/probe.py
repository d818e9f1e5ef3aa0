"""``viscircuits probe``: drawn stimuli: a surface, the circle and corner experiment, or what a whole layer prefers."""

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from viscircuits.cli import options
from viscircuits.cli.features.options import FolderOption
from viscircuits.errors import ImageError, TargetError, closest

if TYPE_CHECKING:
    from torch import nn

    from viscircuits.probes.experiment import CircleAndCorner
    from viscircuits.probes.stage import Stage
    from viscircuits.probes.surface import Peak
    from viscircuits.study.findings import Findings
    from viscircuits.target import Target
    from viscircuits.types import Progress

S = TypeVar("S")


def probe(
    model: options.ModelArgument,
    what: Annotated[
        str,
        typer.Argument(metavar="TARGET|LAYER", help="layer:channel (read at its centre) or layer:channel@y,x for "
                       "surfaces; a layer for the channels that prefer a family."),
    ],
    weights: options.WeightsOption = None,
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
    control: Annotated[
        bool, typer.Option("--control/--no-control", help="The experiment once more, with weights in random order.")
    ] = True,
    out: FolderOption = None,
    seed: options.SeedOption = 0,
    input_size: options.InputSizeOption = None,
    device: options.DeviceOption = "auto",
    threads: options.ThreadsOption = None,
) -> None:  # fmt: skip
    """Show drawn stimuli in the receptive field of a position and map what a model and its circuits answer."""
    from viscircuits.cli.console import progress_bars
    from viscircuits.data.colours import probe as colours_of
    from viscircuits.model.fingerprint import fingerprint
    from viscircuits.probes.stage import Stage
    from viscircuits.runs import networks
    from viscircuits.study.findings import Findings
    from viscircuits.study.names import slug, study_of
    from viscircuits.target import Target, parse_target

    network, prepare = networks.load(model, weights, input_size=input_size)
    print_of = fingerprint(network)
    network = networks.on_device(network, device)
    colours, shape = colours_of(prepare)
    target = parse_target(what) if ":" in what else Target(what, 0)
    if not isinstance(target, Target):
        raise TargetError(f"a probe reads one channel or class, not {target}")
    target = target.at("center") if target.position is None and target.layer else target
    stage = Stage.of(network, target, shape, mean=colours.mean, std=colours.std, ground=ground)
    varied, common = dict(map(_axis, axis or [])), dict(map(_setting, settings or []))
    kind = family or ("ring" if ":" not in what else "circle-and-corner")
    asked = {
        "model": model, "fingerprint": print_of, "input_shape": list(shape), "what": what, "family": kind,
        "axes": varied, "common": common, "circuits": list(map(str, circuit or [])), "ground": ground, "count": count,
        "control": control, "seed": seed,
    }  # fmt: skip
    findings = Findings.create(study_of(out, model), slug("probe", what, kind), "probe", asked)
    job = _Probe(network, target, stage, findings, model)
    with progress_bars() as report:
        if ":" not in what:
            job.layer(kind, count, seed, report)
        elif family is None:
            job.experiment(common, seed if control else None, report)
        else:
            job.surface(kind, varied, common, circuit or [], report)


@dataclass(frozen=True)
class _Probe:
    """What is probed, and where it is written."""

    network: "nn.Module"
    target: "Target"
    stage: "Stage"
    findings: "Findings"
    model: str

    def layer(self, family: str, count: int, seed: int, report: "Progress") -> None:
        from viscircuits.cli.console import print_table
        from viscircuits.cli.findings import finish
        from viscircuits.plots.sheets import contact_sheet
        from viscircuits.probes.detectors import detectors, standard_families
        from viscircuits.report.gathering import stimuli_strips

        layer = self.target.layer
        families = standard_families(count, seed=seed, pixels=min(self.stage.box.size))
        found = detectors(self.network, layer, families, self.stage, progress=report)
        ranked = found.ranked(family)
        self.findings.table("preferences", [asdict(p) for p in ranked])
        rows = [
            (str(p.channel), f"{p.index:.2f}", f"{p.strength:.3g}", p.rival, f"{p.rival_strength:.3g}")
            for p in ranked[:15]
        ]
        columns = [("channel", True), ("index", True), (family, True), ("next best", False), ("its strength", True)]
        title = f"{layer}: channels that prefer {family}, by index, {count} stimuli a family"
        print_table(title, columns, rows)
        strips = stimuli_strips(found, family, self.stage, [p.channel for p in ranked[:6]])
        sheet = contact_sheet(strips, f"{layer}: what six channels that prefer {family} answer most", "drawn stimuli")
        finish(
            self.findings,
            {"family": family, "best": [p.channel for p in ranked[:15]]}, title,
            f"Channel {ranked[0].channel} prefers {family} most: index {ranked[0].index:.2f} over {ranked[0].rival}.",
            note=_INDEX, pictures={f"best {family} stimuli": sheet.save(self.findings.file("stimuli.png"))},
            tables=[("Preferences", [name for name, _ in columns], rows)],
        )  # fmt: skip

    def surface(
        self, family: str, varied: dict[str, list[float]], common: dict[str, float], circuits: list[Path],
        report: "Progress",
    ) -> None:  # fmt: skip
        from viscircuits.circuit.circuit import Circuit
        from viscircuits.cli.findings import finish
        from viscircuits.plots.surface import surfaces
        from viscircuits.probes.families import family_of
        from viscircuits.probes.surface import surface

        if len(varied) != 2:
            raise ImageError(
                "a surface needs --axis twice, for instance --axis radius=0.15:0.7:12 --axis angle=0:360:24"
            )
        stimulus = _with(family_of(family), common)
        shown = {"model": self.network} | {path.stem: Circuit.load(path, self.network) for path in circuits}
        found = {
            name: surface(each, self.target, stimulus, varied, self.stage, progress=report)
            for name, each in shown.items()
        }
        for name, each in found.items():
            each.save(self.findings.file(f"{family}__{name}.safetensors"))
        title = f"{self.model} {self.target}"
        drawn = surfaces([found], labels=[f"response to {family}s"], title=title)
        png, _ = drawn.save(self.findings.file(family))
        top, low = found["model"].peaks()[0], found["model"].peaks(lowest=True)[0]
        lead = f"Highest: {top.value:.3g} at {_point(top)}; lowest: {low.value:.3g} at {_point(low)}."
        finish(
            self.findings,
            {"highest": top.value, "lowest": low.value}, f"{self.target} over {' and '.join(varied)} of {family}s",
            lead, note="White: the answer to the empty stage.", pictures={lead: png},
        )  # fmt: skip

    def experiment(self, common: dict[str, float], seed: int | None, report: "Progress") -> None:
        from viscircuits.cli.findings import finish
        from viscircuits.plots.surface import experiment_plate
        from viscircuits.probes.control import shuffled

        networks = {"model": self.network}
        if seed is not None:
            networks["control"] = shuffled(self.network, seed)
        from viscircuits.cli.console import print_table

        pictures, tables, summaries = {}, [], {}
        for name, network in networks.items():
            try:
                done = self._circle_and_corner(network, common, report)
            except ImageError as error:
                if name == "model":
                    raise
                summaries[name] = str(error)
                continue
            done.save(self.findings.file(name))
            said = f"{self.model} {self.target}" + (", weights in random order" if name == "control" else "")
            pictures[said], _ = experiment_plate(done, said).save(self.findings.file(f"circle-and-corner-{name}"))
            parts, shared = _parts(done), _overlaps(done)
            for what, columns, rows in ((_ABOUT_PARTS, _PARTS, parts), ("shared kernels", _PAIRS, shared)):
                print_table(f"{said}: {what}", columns, rows)
                tables.append((f"{said}: {what}", [column for column, _ in columns], rows))
            summaries[name] = done.summary()
        finish(
            self.findings,
            {name: _found(summary) for name, summary in summaries.items()},
            f"Circles and corners: {self.target}",
            "Arcs over radius and angle, and corners matched to them; a circuit for each of some points (green), and "
            "what these circuits answer to all the others.",
            note=_CONTROL if seed is not None else "", pictures=pictures, tables=tables,
        )  # fmt: skip

    def _circle_and_corner(
        self, network: "nn.Module", common: dict[str, float], report: "Progress"
    ) -> "CircleAndCorner":
        from viscircuits.probes.experiment import circle_and_corner
        from viscircuits.probes.patterns import Arc, Corner

        arc, corner = _with(Arc, common), _with(Corner, common)
        return circle_and_corner(network, self.target, self.stage, arc=arc, corner=corner, progress=report)


_INDEX = (
    "Index: how much more the best tenth of the family's stimuli raise the channel than those of the next best family "
    "do, over both; 1: no other family moves it upwards."
)
_CONTROL = (
    "The second picture is the control: the same network with the numbers of each parameter in random order. What it "
    "shows too is due to the architecture and the probe, not to what was learned."
)
_ABOUT_PARTS = "circuits of single points, and how far off they are elsewhere"
_PAIRS = [("pair", False), ("IoU", True), ("chance", True), ("kept", True)]


def _point(peak: "Peak") -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in peak.point.items())


def _overlaps(done: "CircleAndCorner") -> list[tuple[str, ...]]:
    return [
        (" and ".join(row["pair"]), f"{row['iou']:.2f}", f"{row['chance']:.2f}", f"{row['count']:,}")
        for row in done.overlaps()
        if len({part.family for part in done.parts if part.name in row["pair"]}) == 1
    ]


def _found(summary: Any) -> Any:
    """The overlaps in short; a text where there was nothing to find."""
    if isinstance(summary, str):
        return summary
    return {" and ".join(row["pair"]): row["iou"] for row in summary["overlaps"]}


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


def _axis(text: str) -> tuple[str, list[float]]:
    """``angle=0:360:24`` as a name and values; a whole turn is not closed, because its end is its start."""
    from viscircuits.bounds.ranges import MOST, Real, Whole, within

    name, _, numbers = text.partition("=")
    try:
        first, last, count = numbers.split(":")
        start, stop, n = float(first), float(last), int(count)
    except ValueError:
        raise ImageError(f"cannot read --axis {text!r}; expected NAME=FIRST:LAST:COUNT, as in angle=0:360:24") from None
    within("--axis: first value", start, Real(raised=ImageError))
    within("--axis: last value", stop, Real(raised=ImageError))
    within("--axis: count", n, Whole(2, MOST, ImageError))
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
