"""The numbers in the documentation's sentences are those of the committed tables; and the check of that can fail."""

import re
import shutil
import sys
from pathlib import Path

import polars as pl
import pytest

import prose_criteria  # noqa: F401  (these modules enter their sentences when they are imported)
import prose_faithfulness  # noqa: F401
import prose_learned  # noqa: F401
from prose import ENTRIES, PAGES, ROOT, WORDS, Entry, Tables, numbers, problems, prose, rendered, shown, tens, unfounded

TABLES = Tables()
OTHERS = sorted({entry.page for entry in ENTRIES} - set(PAGES))
"""Pages of which only the sentences in entries are checked."""


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def found(page: str, changed: str, tables: Tables = TABLES) -> list[str]:
    return problems(page, changed, ENTRIES, tables)


@pytest.mark.parametrize("page", PAGES)
def test_every_number_in_prose_is_computed_from_a_table(page: str) -> None:
    assert found(page, text(page)) == []


@pytest.mark.parametrize("page", OTHERS)
def test_sentences_of_other_pages_are_computed_too(page: str) -> None:
    assert [problem for problem in found(page, text(page)) if "does not say" in problem] == []


def test_a_number_that_is_written_into_an_entry_is_a_density() -> None:
    assert [loose for entry in ENTRIES for loose in unfounded(entry, TABLES)] == []


# ---- the check can fail ----------------------------------------------------------------------------------------------


def other_number(number: str) -> str:
    """Returns a number with its last digit, or its first word, changed."""
    digits = list(re.finditer(r"\d", number))
    if digits:
        place = digits[-1].start()
        return number[:place] + str((int(number[place]) + 1) % 10) + number[place + 1 :]
    word = next(word for word in re.findall(r"[a-z]+", number.lower()) if word in (*WORDS, "fifty", "hundred"))
    return re.sub(word, "two" if word != "two" else "three", number, count=1, flags=re.IGNORECASE)


@pytest.mark.parametrize("page", PAGES)
def test_changing_any_one_number_of_a_page_fails(page: str) -> None:
    whole = prose(page, text(page))
    for match in list(numbers(whole)):
        changed = whole[: match.start()] + other_number(match[0]) + whole[match.end() :]
        assert found(page, changed), match[0]


@pytest.mark.parametrize(
    "claim",
    [
        "It is 3.5 times as fast.", "It is three times as fast.", "About fifty times fewer.", "A hundred-times gain.",
        "It wins for 10 of 12 channels.", "It wins for three of the twelve.", "Two of these seven fail.",
        "It keeps 45 % of them.", "It keeps 45% of them.", "It keeps ten per cent.", "Here r is 0.77.",
        "Here r is -.08.", "Here it gains (+.5).", "|r| is 0.77.", "- |r| and |w| are .5 and\n|x|",
    ],
)  # fmt: skip
@pytest.mark.parametrize("page", PAGES)
def test_a_number_that_is_in_no_entry_fails(page: str, claim: str) -> None:
    (problem,) = found(page, f"{text(page)}\n\n{claim}\n")
    assert "is in no entry" in problem


@pytest.mark.parametrize(
    "harmless",
    [
        "`density=0.25`", "See [the page](https://example.org/v1.5/three-of-four).", "torch 2.15.0+cu132, Python 3.11.",
        "arXiv:2206.01627", "```python\nx = 0.123\n```", "<!-- 0.5 of it -->", "ResNet-20, layer3.0.conv2:36.",
        "One of them is several times larger.", "It took 12 channels and 500 pictures, one at a time.",
    ],
)  # fmt: skip
def test_code_links_names_and_counts_need_no_entry(harmless: str) -> None:
    assert found(PAGES[0], f"{text(PAGES[0])}\n\n{harmless}\n") == []


@pytest.mark.parametrize("page", PAGES)
def test_leaving_out_a_sentence_fails(page: str) -> None:
    for entry in (entry for entry in ENTRIES if entry.page == page):
        sentence, _ = rendered(entry, TABLES)
        assert any("does not say" in problem for problem in found(page, prose(page, text(page)).replace(sentence, "")))


def test_other_rows_in_a_table_fail(tmp_path: Path) -> None:
    """Every table that entries read: with other numbers in it, at least one sentence is no longer right."""
    for path in TABLES.folder.glob("*.csv"):
        shutil.copy(path, tmp_path)
    read = Tables()
    for entry in ENTRIES:
        rendered(entry, read)
    for name, frame in read.read.items():
        columns = [c for c in ("pearson", "recall", "value", "difference") if c in frame.columns]
        frame.with_columns(pl.col(columns) * 0.5 + 0.01).write_csv(tmp_path / f"{name}.csv")
        changed = Tables(tmp_path)
        assert any(differs(entry, changed) for entry in ENTRIES), name
        shutil.copy(TABLES.folder / f"{name}.csv", tmp_path)


def differs(entry: Entry, tables: Tables) -> bool:
    try:
        return rendered(entry, tables) != rendered(entry, TABLES)
    except AssertionError:
        return True


def test_a_label_that_is_no_density_is_found() -> None:
    loose = Entry("README.md", "It keeps .77 at .10, {} of 12 and {:.2} at three times the size.", lambda t: (3, 0.5))
    assert [problem.split(" in ")[0] for problem in unfounded(loose, TABLES)] == [".77", "12", "three"]


@pytest.mark.parametrize(
    ("value", "spec", "text"),
    [
        (0.276, ".2", ".28"), (0.276, "0.2", "0.28"), (-0.076, ".2", "-.08"), (1.0, ".2", "1.00"), (0.93, "%", "93 %"),
        (3, "w", "three"), (27872, "", "27,872"), (15, "w", "15"), ("fifty", "", "fifty"),
    ],
)  # fmt: skip
def test_how_values_are_printed(value: object, spec: str, text: str) -> None:
    assert shown(value, spec) == text


def test_tens_in_words() -> None:
    assert (tens(52.4), tens(54.9)) == ("fifty", "fifty")


# ---- pages that a benchmark prints -----------------------------------------------------------------------------------


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT / "benchmarks")])


def body(printed: str) -> str:
    """Returns a page without the lines that name torch and the machine."""
    return "\n".join(line for line in printed.splitlines() if "torch " not in line)


@pytest.mark.parametrize("network", ["squeezenet1_1", "shapesnet"])
def test_the_pages_of_the_criteria_are_what_their_benchmark_prints(benchmarks: None, network: str) -> None:
    import criteria

    page = text(f"docs/results/criteria-{network}.md")
    (commit,) = re.findall(r"thread\(s\), commit (.*)\.\n$", page)
    assert body(criteria.markdown(network, TABLES(f"criteria-{network}"), commit)) == body(page)


@pytest.mark.parametrize("name", ["learned", "faithfulness"])
def test_the_tables_below_a_text_are_what_their_benchmark_prints(benchmarks: None, name: str) -> None:
    module = __import__(name)
    printed = text(f"docs/results/{name}.md").partition(module.START)[2].partition(module.END)[0]
    made = module.page() if name == "learned" else module.page(TABLES(name))
    assert body(made.strip()) == body(printed.strip())
