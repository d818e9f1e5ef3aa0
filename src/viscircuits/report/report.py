"""A report: one page that tells the whole story of a study, needs no other file and loads nothing."""

import shlex
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from viscircuits import store
from viscircuits.bounds.arguments import checked
from viscircuits.canvas.html import framed, listed
from viscircuits.canvas.markup import Html, element, joined
from viscircuits.canvas.page import write_page
from viscircuits.canvas.told import in_words
from viscircuits.card import Card, Shown, few
from viscircuits.data.images import ImageSet, Prepare
from viscircuits.diagram.extended import MOST, Diagram
from viscircuits.diagram.gathering import PictureSource
from viscircuits.report.chapter import Chapter, anchor
from viscircuits.report.findings import sections, styles
from viscircuits.report.gathering import Gathering, is_foreign
from viscircuits.report.outline import contents
from viscircuits.study.chosen import KEEP, name_of
from viscircuits.study.folder import Study
from viscircuits.study.names import DIAGRAMS, REPORT
from viscircuits.study.spec import Header, Pictures, typed
from viscircuits.types import Progress
from viscircuits.version import __version__


@dataclass(frozen=True, repr=False)
class Report(Shown):
    """A written report, with the diagrams that stand in it by name; shows itself in a notebook."""

    html: str
    diagrams: dict[str, Diagram]

    @checked
    def save(self, folder: str | Path) -> list[Path]:
        """Writes ``report.html`` and ``diagrams/`` into a folder, and returns the files, the report first."""
        page = Path(folder) / REPORT
        with store.atomic(page) as temporary:
            temporary.write_text(self.html, encoding="utf-8")
        return [page, *(f for name, d in self.diagrams.items() for f in d.save(store.inside(folder, DIAGRAMS, name)))]

    def _card(self) -> Card:
        return Card("Report", {"bytes": f"{len(self.html.encode()):,}", "diagrams": few([*self.diagrams])})

    def _repr_html_(self) -> str:
        return framed(self.html, "report", 900)


@checked
def report(
    study: Study,
    model: nn.Module,
    *,
    prepare: Prepare | None = None,
    images: ImageSet | None = None,
    source: str = "",
    named: str | None = None,
    criterion: str | None = None,
    density: float | None = None,
    keep: float = KEEP,
    pictures: PictureSource = "optvis",
    most: int = MOST,
    progress: Progress | None = None,
) -> Report:
    """Returns the report of a study: a chapter a target, and how to do it again.

    Args:
        study: a study folder.
        model: the model it was made on.
        prepare: what prepared the pictures; it tells their colours (ImageNet's by default).
        images: pictures that were not scored on, as a rule those that the study measured on; without them, what needs
            them is left out.
        source: where the pictures come from, if they are others than the study's.
        named: what ``viscircuits report --model`` calls the model, where the study's own name does not load it.
        criterion: search the circuits of this one alone; ``NAME:worst`` for a control. Where None of all but controls.
        density: show the circuit with the largest |r| of this density.
        keep: where no density is given: of the circuits with |r| >= keep the one of the smallest density is shown, then
            the one with the larger |r|, then the first; where there is none, the one with the largest |r|.
        pictures: where pictures of filters come from; rendered ones are kept in the study's folder.
        most: draw more edges than this as bundles.
        progress: called as the work goes on.
    """
    spec = study.header.spec
    gathering = Gathering(study, model, prepare, images, source, criterion, density, keep, most, pictures, progress)
    targets = dict.fromkeys(study.measurements()["target"])
    chapters = [Chapter(gathering.exhibition(target), keep, criterion, density) for target in targets]
    title = f"{chapters[0].exhibition.title if len(chapters) == 1 else f'{len(chapters)} targets'} in {spec.model}"
    parts = [*(chapter.html() for chapter in chapters), *sections(study.path)]
    # a name that only its user can resolve has to be given again; others are found in the study itself
    named = named or (spec.model if is_foreign(spec.model) else None)
    options = (
        ("--model", named, None),
        ("-c", criterion, None), ("-d", density, None), ("--keep", keep, KEEP), ("--pictures", pictures, "optvis"),
        ("--most", most, MOST),
    )  # fmt: skip
    # what is as usual is not typed, so that the line is as short as the one that was
    asked = [part for option, value, usual in options if value != usual for part in (option, str(value))]
    parts.append(_again(study, asked))
    notes = {anchor(chapter.exhibition.target): _note(chapter) for chapter in chapters}
    body = [_head(title, study.header), contents(parts, notes), *parts]
    # the drawn ones are kept, so that saving a report draws nothing a second time
    diagrams = {name_of(chapter.exhibition.row): chapter.exhibition.drawn for chapter in chapters}
    return Report(write_page(title, joined(body, "\n"), *styles()), diagrams)


def _head(title: str, header: Header) -> Html:
    spec = header.spec
    facts = {
        "model": spec.model + (f", weights {spec.weights}" if spec.weights else ""),
        "input": " × ".join(map(str, spec.input_shape)),
        "scored on": _pictures(spec.scoring),
        "measured on": _pictures(spec.held_out),
        "criteria": ", ".join(spec.criteria),
        "circuits": f"of {spec.granularity}s, {spec.biases}" + (", min-max scores" if spec.normalise else ""),
    }
    return element("div", element("h1", f"Circuits of {title}"), listed(facts), cls="title")


def _pictures(pictures: Pictures) -> str:
    return f"{pictures.count:,} pictures of {pictures.source}"


def _note(chapter: Chapter) -> str:
    """What the contents say of a target: how much of it is kept, and how well."""
    row = chapter.exhibition.row
    return f"{row['kept']:,} {row['granularity']}s, {_unbroken(in_words(row))}"


def _unbroken(line: str) -> str:
    """Words in which lines break at commas only."""
    # a break inside of "sd ratio 0.12" would tear the number off
    return ", ".join(part.replace(" ", "\N{NO-BREAK SPACE}") for part in line.split(", "))


def _again(study: Study, asked: list[str]) -> Html:
    """How to do it again; ``asked`` are the report's own options."""
    header, spec = study.header, study.header.spec
    facts = {
        "made with": f"{header.versions}, {header.created}"
        + "".join(f"; went on with {other}" for other in header.continued),
        "shown with": f"viscircuits {__version__}, torch {torch.__version__}",
        "model": f"fingerprint {spec.fingerprint}",
        "pictures": f"scored on {spec.scoring.hash}, measured on {spec.held_out.hash}",
        "seed": str(spec.seed),
    }
    report = shlex.join(["viscircuits", "report", study.path.as_posix(), *asked])
    command = f"{typed(header.command)}\n{report}".strip()
    return element("article", element("h2", "Again"), element("pre", command), listed(facts), id="again")
