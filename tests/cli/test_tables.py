"""Tables of studies: the order of rows, columns younger than a table, the sign and the amplitude beside |r|."""

import re

import polars as pl
import pytest

from cli.studies import DENSITIES, TARGETS, retold, small_study
from viscircuits.study.folder import Study

CRITERIA = ("snip:worst", "actgrad", "random", "snip")
"""Asked in an order that is neither that of the alphabet nor the one in which they are measured."""


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return small_study(tmp_path_factory.mktemp("tables") / "study", criteria=CRITERIA)


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    """A terminal in which no cell is folded."""
    monkeypatch.setenv("COLUMNS", "160")


def lines_of(out: str) -> list[str]:
    """The rows of the table of agreements."""
    return [line for line in out.splitlines() if re.match(r"\s+0\.\d+ ", line)]


# ---- order -----------------------------------------------------------------------------------------------------------


def test_rows_stand_as_they_were_asked(study):
    expected = [
        (target, criterion, order, density)
        for target in TARGETS
        for criterion, order in (("snip", "best"), ("snip", "worst"), ("actgrad", "best"), ("random", "best"))
        for density in DENSITIES
    ]
    assert study.measurements().select("target", "criterion", "order", "density").rows() == expected


@pytest.mark.parametrize("seed", range(3))
def test_whatever_the_order_in_which_they_were_written(study, tmp_path, seed):
    """An interrupted command that went on writes its rows in another order."""
    mixed = retold(study, tmp_path / "s", lambda table: table.sample(fraction=1, shuffle=True, seed=seed))
    assert (
        pl.read_parquet(mixed.measurements_path)["criterion"].to_list() != study.measurements()["criterion"].to_list()
    )
    assert mixed.measurements().equals(study.measurements())


def test_columns_of_what_is_printed_stand_so_too(study, command_line):
    _, out, _ = command_line("inspect", study.path)
    head = next(line for line in out.splitlines() if line.lstrip().startswith("density"))
    assert re.split(r"\s{2,}", head.strip()) == ["density", "kept", "snip", "snip, worst first", "actgrad", "random"]
    assert [line.split()[0] for line in lines_of(out)] == ["0.3", "0.08"]


def test_chapters_curve_and_table_of_a_report_stand_so_too(study, command_line, tmp_path):
    mixed = retold(study, tmp_path / "s", lambda table: table.reverse())
    assert command_line("report", mixed.path, "--pictures", "none", "-o", tmp_path / "out")[0] == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert re.findall(r"<h2>([^<]*)</h2>", page)[:2] == list(TARGETS)
    heads = re.findall(r'<th scope="col">([^<]*)</th>', page)
    start = heads.index("snip")
    assert heads[start : start + 4] == ["snip", "snip, worst first", "actgrad", "random"]
    rows = re.findall(r'<tr[^>]*><th scope="row">([\d.]+ %)</th>', page)
    assert rows == ["30 %", "8 %"] * 2


# ---- older tables ----------------------------------------------------------------------------------------------------


def test_a_table_older_than_a_column_opens(study, command_line, tmp_path):
    older = retold(study, tmp_path / "s", lambda table: table.drop("sd_ratio"))
    frame = older.measurements()
    assert frame["sd_ratio"].null_count() == frame.height
    assert frame.drop("sd_ratio").equals(study.measurements().drop("sd_ratio"))
    status, out, _ = command_line("inspect", older.path)
    assert status == 0
    assert "sd" not in out.split("files")[0].replace("used", "")
    assert "viscircuits made" in out
    assert command_line("diagram", older.path, "--pictures", "none", "-o", tmp_path / "d")[0] == 0
    assert command_line("report", older.path, "--pictures", "none", "-o", tmp_path / "out")[0] == 0


def test_its_page_still_says_how_far_the_responses_spread(command_line, tmp_path):
    """From the pictures, where they are at hand."""
    made = small_study(tmp_path / "made", ("features.10:5",), ("actgrad",), (0.05,))
    (ratio,) = made.measurements()["sd_ratio"]
    assert ratio < 0.5
    older = retold(made, tmp_path / "s", lambda table: table.drop("sd_ratio"))
    assert command_line("report", older.path, "--pictures", "none", "-o", tmp_path / "out")[0] == 0
    assert f"spread only {ratio:.2g} times as far" in (tmp_path / "out" / "report.html").read_text()


# ---- what is printed -------------------------------------------------------------------------------------------------


def changed(study: Study, folder, r: float, sd: float, *, targets=TARGETS, density: float = 0.08) -> Study:
    """The study with other numbers for actgrad's circuits of one density."""
    here = (pl.col("criterion") == "actgrad") & (pl.col("density") == density) & pl.col("target").is_in(targets)
    values = {"pearson": abs(r), "pearson_signed": r, "sd_ratio": sd, "disconnected": False, "reason": None}
    return retold(
        study, folder, lambda table: table.with_columns(
            pl.when(here).then(pl.lit(value, table.schema[name])).otherwise(pl.col(name)).alias(name)
            for name, value in values.items()
        ),
    )  # fmt: skip


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    return small_study(tmp_path_factory.mktemp("single") / "study", TARGETS[:1])


@pytest.mark.parametrize(
    ("r", "sd", "cell"),
    [(-0.163, 0.02, "-0.163 inverted sd 0.02"), (-0.9, 0.7, "-0.900 inverted"), (0.9, 0.31, "0.900 sd 0.31"),
     (0.9, 0.003, "0.900 sd <0.01"), (0.9, 0.5, "0.900")],
)  # fmt: skip
def test_sign_and_amplitude_stand_beside_r(single, command_line, tmp_path, r, sd, cell):
    status, out, _ = command_line("inspect", changed(single, tmp_path / "s", r, sd).path)
    assert status == 0
    line = lines_of(out)[-1]
    assert re.split(r"\s{2,}", line.strip())[2] == cell
    assert ("inverted: r is negative" in out) == ("inverted" in cell)
    assert line.isascii()  # a terminal may know no other letters


def test_of_several_targets_the_median_and_how_many_are_inverted(study, command_line, tmp_path):
    one = changed(study, tmp_path / "a", -0.4, 0.2, targets=TARGETS[:1])
    both = changed(one, tmp_path / "b", 0.6, 0.4, targets=TARGETS[1:])
    _, out, _ = command_line("inspect", both.path)
    assert re.split(r"\s{2,}", lines_of(out)[-1].strip())[4] == "0.500 (1 inverted) sd 0.3"
    assert "inverted: r is negative, of so many of the 2 targets" in out
    assert "2 targets, median" in out


@pytest.mark.slow
def test_pages_and_diagrams_show_the_sign(single, command_line, tmp_path):
    """All places at once: headline, list of targets, table, curve, tiles; nowhere the |r| alone."""
    turned = changed(single, tmp_path / "s", -0.9637, 0.0213)
    asked = ("-d", 0.08, "--images", tmp_path / "none")
    assert command_line("report", turned.path, *asked[:2], "-o", tmp_path / "out")[0] == 0
    page = (tmp_path / "out" / "report.html").read_text()
    words = re.sub(r"<[^>]*>", "", page)
    assert "keep it with r = −0.964, inverted" in words  # the headline
    assert "sd ratio 0.021, on 12 pictures that were not scored on" in words
    assert "−0.964<small>inverted</small><small>sd 0.021</small>" in page  # the table
    assert "<b>8 %</b>, r = −0.964<br>inverted, sd 0.021<br>" in page  # the tile
    assert not re.search(r"(?<!−)0\.964", words)


def test_the_list_of_targets_shows_the_sign(study, command_line, tmp_path):
    turned = changed(study, tmp_path / "s", -0.9637, 0.0213)
    assert command_line("report", turned.path, "-d", 0.08, "-c", "actgrad", "--pictures", "none",
                        "-o", tmp_path / "out")[0] == 0  # fmt: skip
    contents = (tmp_path / "out" / "report.html").read_text().split("<nav")[1].split("</nav>")[0]
    assert contents.replace("\N{NO-BREAK SPACE}", " ").count("kernels, r = −0.964, inverted, sd ratio 0.021") == 2
