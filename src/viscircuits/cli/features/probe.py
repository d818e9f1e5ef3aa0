"""``viscircuits probe``: drawn stimuli: a surface, the circle and corner experiment, or what a whole layer prefers."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from viscircuits.cli import options
from viscircuits.cli.features.options import FolderOption
from viscircuits.cli.features.parameters import axis_of, setting_of, with_settings
from viscircuits.errors import ImageError, TargetError

if TYPE_CHECKING:
    from torch import nn

    from viscircuits.probes.experiment import CircleAndCorner
    from viscircuits.probes.stage import Stage
    from viscircuits.probes.surface import Peak
    from viscircuits.study.findings import Findings
    from viscircuits.target import Target
    from viscircuits.types import Progress


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
    varied, common = dict(map(axis_of, axis or [])), dict(map(setting_of, settings or []))
    kind = family or ("ring" if ":" not in what else "circle-and-corner")
    question = {
        "model": model, "fingerprint": print_of, "input_shape": list(shape), "what": what, "family": kind,
        "axes": varied, "common": common, "circuits": list(map(str, circuit or [])), "ground": ground, "count": count,
        "control": control, "seed": seed,
    }  # fmt: skip
    findings = Findings.create(study_of(out, model), slug("probe", what, kind), "probe", question)
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
        preferences = detectors(self.network, layer, families, self.stage, progress=report)
        ranked = preferences.ranked(family)
        self.findings.table("preferences", [asdict(p) for p in ranked])
        rows = [
            (str(p.channel), f"{p.index:.2f}", f"{p.strength:.3g}", p.rival, f"{p.rival_strength:.3g}")
            for p in ranked[:15]
        ]
        columns = [("channel", True), ("index", True), (family, True), ("next best", False), ("its strength", True)]
        title = f"{layer}: channels that prefer {family}, by index, {count} stimuli a family"
        print_table(title, columns, rows)
        strips = stimuli_strips(preferences, family, self.stage, [p.channel for p in ranked[:6]])
        sheet = contact_sheet(strips, f"{layer}: what six channels that prefer {family} answer most", "drawn stimuli")
        finish(
            self.findings,
            {"family": family, "best": [p.channel for p in ranked[:15]]}, title,
            f"Channel {ranked[0].channel} prefers {family} most: index {ranked[0].index:.2f} over {ranked[0].rival}.",
            note=_INDEX, pictures={f"best {family} stimuli": sheet.publish(self.findings.file("stimuli.png"))},
            tables=[("Preferences", [name for name, _ in columns], rows)],
            then=["probe", self.model, f"{layer}:{ranked[0].channel}"],
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
        stimulus = with_settings(family_of(family), common)
        shown = {"model": self.network} | {path.stem: Circuit.load(path, self.network) for path in circuits}
        maps = {
            name: surface(each, self.target, stimulus, varied, self.stage, progress=report)
            for name, each in shown.items()
        }
        for name, each in maps.items():
            each.save(self.findings.file(f"{family}__{name}.safetensors"))
        title = f"{self.model} {self.target}"
        drawn = surfaces([maps], labels=[f"response to {family}s"], title=title)
        figure = drawn.publish(self.findings.file(family))
        top, low = maps["model"].peaks()[0], maps["model"].peaks(lowest=True)[0]
        lead = f"Highest: {top.value:.3g} at {_point(top)}; lowest: {low.value:.3g} at {_point(low)}."
        finish(
            self.findings,
            {"highest": top.value, "lowest": low.value}, f"{self.target} over {' and '.join(varied)} of {family}s",
            lead, note="Neither red nor blue: the answer to the empty stage.", pictures={lead: figure},
            then=self._extract(),
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
            title = f"{self.model} {self.target}" + (", weights in random order" if name == "control" else "")
            pictures[title] = experiment_plate(done, title).publish(self.findings.file(f"circle-and-corner-{name}"))
            parts, shared = _parts(done), _overlaps(done)
            for what, columns, rows in ((_ABOUT_PARTS, _PARTS, parts), ("shared kernels", _PAIRS, shared)):
                print_table(f"{title}: {what}", columns, rows)
                tables.append((f"{title}: {what}", [column for column, _ in columns], rows))
            summaries[name] = {" and ".join(row["pair"]): row["iou"] for row in done.overlaps()}
        finish(
            self.findings,
            summaries,
            f"Circles and corners: {self.target}",
            "Arcs over radius and angle, and corners matched to them; a circuit for each of some points (green), and "
            "what these circuits answer to all the others.",
            note=_CONTROL if seed is not None else "", pictures=pictures, tables=tables, then=self._extract(),
        )  # fmt: skip

    def _extract(self) -> list[str]:
        return ["extract", self.model, str(self.target), "--images", "FOLDER"]

    def _circle_and_corner(
        self, network: "nn.Module", common: dict[str, float], report: "Progress"
    ) -> "CircleAndCorner":
        from viscircuits.probes.experiment import circle_and_corner
        from viscircuits.probes.patterns import Arc, Corner

        arc, corner = with_settings(Arc, common), with_settings(Corner, common)
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
    family = {part.name: part.family for part in done.parts}
    return [
        (" and ".join(row["pair"]), f"{row['iou']:.2f}", f"{row['chance']:.2f}", f"{row['count']:,}")
        for row in done.overlaps()
        if family[row["pair"][0]] == family[row["pair"][1]]
    ]


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
