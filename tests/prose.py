"""Numbers in the documentation's prose, computed again from the tables that they speak of.

An *entry* is a page, a sentence with holes, and a function from the tables to what stands in the holes, in order:

    @says(PAGE, "FORCE is above magnitude for {} of {} channels at .5 (medians {:.2} and {:.2}).")
    def _(t: Tables) -> Values:
        a, b = t.pair("squeezenet1_1", "force", "magnitude", 0.5)
        return (a > b).sum(), len(a), a.median(), b.median()

`{}` is a whole number (1,234); `{:w}` the same in words up to twelve; `{:.2}` has two digits behind the point and no
nought before it, `{:0.2}` has one; `{:%}` is a share as a percentage. What a sentence says without a number ("for all
below") is an `assert` in its function. Numbers outside holes must be densities of the tables: they are labels.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from string import Formatter

import polars as pl

ROOT = Path(__file__).parent.parent
README, CRITERIA = "README.md", "docs/criteria.md"
RESULTS, LEARNED, FAITHFULNESS = (f"docs/results/{name}.md" for name in ("README", "learned", "faithfulness"))
PAGES = (README, CRITERIA, RESULTS, LEARNED, FAITHFULNESS)
"""The pages whose every number is in an entry."""
SPOKEN = (CRITERIA,)
"""Pages whose tables hold sentences, which are checked like all others."""

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
MORE_WORDS = {"twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "hundred": 100}

_COUNT = rf"(?:\d[\d,]*|\b(?:{'|'.join((*WORDS, *MORE_WORDS))})\b)"
_DECIMAL = r"(?:\b\d+)?\.\d+\b"
NUMBERS = re.compile(
    rf"(?:{_DECIMAL}|{_COUNT}) ?(?:%|per ?cent\b)"
    rf"|{_COUNT} of (?:(?:the|its|all|these|those|about) )?{_COUNT}"
    rf"|(?:{_DECIMAL}|{_COUNT})[ -]times?\b"
    rf"|{_DECIMAL}",
    re.IGNORECASE,
)
"""A percentage, "N of M", "N times", a decimal number."""

NAMES = re.compile(
    r"torch \d+\.\d+\.\d+\S*|Python \d+\.\d+|arXiv:\d+\.\d+|SqueezeNet ?1\.1|(?:features|layer\d)\.[\w.]*\w(?::\d+)?"
)
"""Numbers that are part of a name: versions, papers, networks and their layers."""

Values = Sequence[object]


@dataclass(frozen=True, eq=False)
class Tables:
    """The committed tables of a folder, by name, each read once; ``read`` are those that were asked for."""

    folder: Path = ROOT / "docs/results"
    read: dict[str, pl.DataFrame] = field(default_factory=dict)

    def __call__(self, name: str) -> pl.DataFrame:
        """Returns the rows of NAME.csv."""
        if name not in self.read:
            self.read[name] = pl.read_csv(self.folder / f"{name}.csv", infer_schema_length=None)
        return self.read[name]

    def criteria(self, network: str, criterion: str, density: float, column: str = "pearson") -> pl.Series:
        """Returns a column of one criterion's circuits at one density, a value a target."""
        return self(f"criteria-{network}").filter(criterion=criterion, density=density, order="best")[column]

    def pair(self, network: str, one: str, other: str, density: float) -> tuple[pl.Series, pl.Series]:
        """Returns |r| of two criteria, the targets in the same order."""
        a, b = self.criteria(network, one, density), self.criteria(network, other, density)
        targets = [self.criteria(network, name, density, "target").to_list() for name in (one, other)]
        assert targets[0] == targets[1]
        return a, b

    def above(self, network: str, one: str, other: str, density: float) -> int:
        """Returns for how many targets the first criterion is above the second."""
        a, b = self.pair(network, one, other, density)
        return int((a > b).sum())

    def cut(self, network: str, criterion: str, density: float) -> int:
        """Returns how many circuits no path leads through."""
        return int(self.criteria(network, criterion, density, "disconnected").sum())

    def densities(self) -> set[float]:
        """Returns every density that a table has."""
        found: set[float] = set()
        for path in self.folder.glob("*.csv"):
            frame = self(path.stem)
            found |= set(frame["density"].drop_nulls().to_list()) if "density" in frame.columns else set()
        return found


@dataclass(frozen=True)
class Entry:
    """One sentence of a page, with holes, and what fills them."""

    page: str
    sentence: str
    values: Callable[[Tables], Values]


@cache
def rendered(entry: Entry, tables: Tables) -> tuple[str, tuple[range, ...]]:
    """Returns a sentence with its holes filled, and where these are."""
    values, text, holes = list(entry.values(tables)), "", []
    for literal, name, spec, _ in Formatter().parse(entry.sentence):
        text += literal
        if name is not None:
            filled = shown(values.pop(0), spec or "")
            holes.append(range(len(text), len(text) + len(filled)))
            text += filled
    assert not values, f"more values than holes in {entry.sentence!r}"
    return text, tuple(holes)


ENTRIES: list[Entry] = []


def says(page: str, sentence: str) -> Callable[[Callable[[Tables], Values]], None]:
    """Returns a decorator that enters a sentence; the function computes what stands in its holes."""
    return lambda values: ENTRIES.append(Entry(page, " ".join(sentence.split()), values))


def shown(value: object, spec: str) -> str:
    """Returns a value as a page prints it."""
    if isinstance(value, str):
        return value
    assert isinstance(value, int | float)
    if spec == "%":
        return f"{100 * value:.0f} %"
    if spec == "w":
        return WORDS[int(value)] if value <= 12 else f"{value:,}"
    if not spec:
        return f"{int(value):,}"
    text = f"{value:.{spec[-1]}f}"
    return text if spec.startswith("0") else re.sub(r"^(-?)0\.", r"\1.", text)


def tens(value: float) -> str:
    """Returns a value to the nearest ten in words."""
    return next(word for word, number in MORE_WORDS.items() if number == round(value, -1))


def prose(page: str, text: str) -> str:
    """Returns a page's text without comments, tables and blocks of code, every run of blanks one blank."""
    text = re.sub(r"<!--.*?-->|```.*?```", "\n\n", text, flags=re.DOTALL)
    if page not in SPOKEN:
        text = re.sub(r"^ *\|.*\| *$", "", text, flags=re.MULTILINE)
    return " ".join(text.split())


def numbers(text: str) -> Iterator[re.Match[str]]:
    """Yields the numbers that have to be in an entry: those outside code, links' ends and names."""
    for pattern in (r"`[^`]*`", r"\]\([^)]*\)", r"https?://\S+", NAMES):
        text = re.sub(pattern, lambda found: "·" * len(found[0]), text)
    return NUMBERS.finditer(text)


def problems(page: str, text: str, entries: Sequence[Entry], tables: Tables) -> list[str]:
    """Returns what is wrong with the numbers of a page: sentences that are missing, numbers that are in no entry."""
    text = prose(page, text)
    found, covered = [], [False] * len(text)
    for entry in (entry for entry in entries if entry.page == page):
        sentence, _ = rendered(entry, tables)
        places = [match.start() for match in re.finditer(re.escape(sentence), text)]
        if not places:
            found.append(f"{page} does not say: {sentence}")
        for place in places:
            covered[place : place + len(sentence)] = [True] * len(sentence)
    for match in numbers(text):
        if not all(covered[match.start() : match.end()]):
            around = text[max(0, match.start() - 40) : match.end() + 40]
            found.append(f"{page}: {match[0]!r} is in no entry: ...{around}...")
    return found


def unfounded(entry: Entry, tables: Tables) -> list[str]:
    """Returns the numbers of a sentence that are neither computed nor a density."""
    sentence, holes = rendered(entry, tables)
    loose = []
    for match in numbers(sentence):
        for part in re.finditer(rf"{_DECIMAL}|{_COUNT}", match[0], re.IGNORECASE):
            place = match.start() + part.start()
            label = re.fullmatch(_DECIMAL, part[0]) and float(part[0]) in tables.densities()
            if not label and not any(place in hole for hole in holes):
                loose.append(f"{part[0]} in {sentence!r}")
    return loose
