"""Which circuit of a study is shown, and what is told of it: sign, amplitude, shared maps, trained gates."""

import random
import re

import pytest

from diagram.tables import row, study
from viscircuits.canvas import told
from viscircuits.diagram.legend import about_row
from viscircuits.errors import StudyError
from viscircuits.evaluate.table import table
from viscircuits.report.headline import Numbers
from viscircuits.study.chosen import asked_as, called, chosen, is_control, measured, name_of

CRITERIA = ("actgrad", "snip", "learned,steps=5", "random", "actgrad:worst")


def shown(folder, rows, criteria=CRITERIA, *, criterion=None, density=None, keep=0.9) -> tuple[str, float]:
    made = study(folder, rows, criteria)
    found = chosen(measured(made, criterion=criterion), density, keep)
    return asked_as(found["criterion"], found["order"]), found["density"]


# ---- the choice ------------------------------------------------------------------------------------------------------


def test_another_criterion_than_the_first_may_keep_enough(tmp_path):
    rows = [row("actgrad", 0.5, 0.8), row("actgrad", 0.1, 0.4), row("snip", 0.5, 0.95), row("snip", 0.1, 0.3)]
    assert shown(tmp_path, rows) == ("snip", 0.5)


def test_the_smallest_of_all_that_keep_enough(tmp_path):
    rows = [row("actgrad", 0.5, 0.99), row("actgrad", 0.1, 0.5), row("snip", 0.5, 0.92), row("snip", 0.1, 0.91)]
    assert shown(tmp_path, rows) == ("snip", 0.1)


def test_of_equal_densities_the_larger_r_then_the_order_asked(tmp_path):
    rows = [row("actgrad", 0.1, 0.91), row("snip", 0.1, 0.93), row("learned,steps=5", 0.1, 0.93)]
    assert shown(tmp_path, rows) == ("snip", 0.1)
    other = ("learned,steps=5", "snip", "actgrad")
    assert shown(tmp_path / "b", rows, other) == ("learned,steps=5", 0.1)  # as asked, not as the table happens to stand


def test_none_keeps_enough_then_the_largest_r_of_all(tmp_path):
    rows = [row("actgrad", 0.5, 0.6), row("actgrad", 0.1, 0.2), row("snip", 0.5, 0.4), row("snip", 0.1, -0.7)]
    assert shown(tmp_path, rows) == ("snip", 0.1)


@pytest.mark.parametrize("control", ["random", "actgrad:worst", "random:worst"])
def test_controls_are_no_candidates_unless_asked_for(tmp_path, control):
    rows = [row("actgrad", 0.5, 0.91), row(control, 0.5, 0.99), row(control, 0.1, 0.98)]
    assert shown(tmp_path / "a", rows) == ("actgrad", 0.5)
    assert shown(tmp_path / "b", rows, criterion=control) == (control, 0.1)
    assert shown(tmp_path / "c", rows[1:]) == (control, 0.1)  # there is nothing else
    assert shown(tmp_path / "d", rows, density=0.5) == ("actgrad", 0.5)


def test_a_criterion_restricts_the_search(tmp_path):
    rows = [row("actgrad", 0.5, 0.95), row("snip", 0.1, 0.99), row("actgrad:worst", 0.1, 0.97)]
    assert shown(tmp_path, rows, criterion="actgrad") == ("actgrad", 0.5)
    with pytest.raises(StudyError, match=r"no criterion 'force'; it has 'actgrad', 'actgrad:worst', 'snip'"):
        shown(tmp_path, rows, criterion="force")


def test_a_density_shows_its_best(tmp_path):
    rows = [row("actgrad", 0.5, 0.95), row("actgrad", 0.1, 0.5), row("snip", 0.1, 0.6), row("random", 0.1, 0.9)]
    assert shown(tmp_path, rows, density=0.1) == ("snip", 0.1)
    assert shown(tmp_path, rows, density=0.1, criterion="actgrad") == ("actgrad", 0.1)
    with pytest.raises(StudyError, match=r"no density 0\.2; it has 0\.5, 0\.1$"):
        shown(tmp_path, rows, density=0.2)


def test_the_choice_literally(tmp_path):
    """Against the rule, read one condition after the other, on many random tables."""
    generator = random.Random(0)
    for number in range(40):
        rows = [
            row(criterion, density, generator.choice([0.5, 0.7, 0.9, 0.95, -0.9]))
            for criterion in CRITERIA for density in (0.5, 0.1)
        ]  # fmt: skip
        good = [r for r in rows if r["pearson"] >= 0.9 and r["criterion"] != "random" and r["order"] == "best"]
        if good:
            least = [r for r in good if r["density"] == min(g["density"] for g in good)]
            best = [r for r in least if r["pearson"] == max(g["pearson"] for g in least)]
            assert shown(tmp_path / str(number), rows) == (best[0]["criterion"], best[0]["density"])


def test_worst_first_has_names_of_its_own():
    rows = row("actgrad", 0.1, 0.5), row("actgrad:worst", 0.1, 0.5)
    assert [name_of(one) for one in rows] == ["a-1__actgrad__0.1", "a-1__actgrad-worst__0.1"]
    assert [is_control(name) for name in ("actgrad", "random", "snip:worst", "learned,steps=5:worst")] == [
        False, True, True, True,
    ]  # fmt: skip
    assert called(["snip,rounds=2:worst", "snip,rounds=2", "actgrad"]) == {
        "snip,rounds=2": "snip",
        "actgrad": "actgrad",
    }


def test_a_row_says_network_criterion_density_pictures(tmp_path):
    made = study(tmp_path, [row("learned,steps=5", 0.1, 0.5)], CRITERIA)
    (one,) = measured(made)
    assert about_row(made, one) == "net, learned, density 10 %, measured on 24 pictures of photos"
    assert about_row(made, one | {"criterion": "actgrad", "order": "worst"}).startswith("net, actgrad, worst first, ")


# ---- how it is told --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("r", "sd", "words", "cell"),
    [
        (0.93, 0.8, "|r| = 0.930", ("0.930", [])),
        (0.93, 0.5, "|r| = 0.930", ("0.930", [])),
        (0.93, 0.12, "|r| = 0.930, sd ratio 0.12", ("0.930", ["sd 0.12"])),
        (-0.163, 2.0, "r = −0.163, inverted", ("−0.163", ["inverted"])),
        (-0.163, 0.0013, "r = −0.163, inverted, sd ratio 0.0013", ("−0.163", ["inverted", "sd <0.01"])),
        (0.0, 0.0, "|r| = 0.000, sd ratio 0", ("0.000", ["sd 0"])),
        (0.4, None, "|r| = 0.400", ("0.400", [])),
    ],
)
def test_sign_and_amplitude(r, sd, words, cell):
    one = row("snip", 0.1, r, sd=sd)
    assert told.in_words(one) == words
    assert told.in_a_cell(one) == cell


def test_a_cell_without_a_path():
    assert told.in_a_cell(row("snip", 0.1, 0.0, sd=0.0, disconnected=True)) == ("0*", [])


def test_responses_are_told_without_exponents():
    assert [told.number(v) for v in (0.01234, -7.0, 999.4, 1049.7, -25310.0, 1e6)] == [
        "0.0123", "-7", "999", "1,050", "-25,310", "1e+06",
    ]  # fmt: skip


def headline(*rows, keep=0.9, searched="the study") -> str:
    frame = table(rows)
    numbers = Numbers(frame, called(frame["criterion"]), frame.to_dicts()[0], keep, searched)
    return re.sub(r"<[^>]*>", "", numbers.headline())


def test_the_headline_names_what_is_shown():
    said = headline(row("snip", 0.1, 0.93), row("random", 0.1, -0.02, sd=0.001))
    assert said.startswith("100 of 1,000 relevant kernels (10 %), chosen by snip, keep it with |r| = 0.930 on 24 ")
    assert "24 pictures that were not scored on; 100 of them lie on a path" in said
    assert said.endswith("As many random kernels: r = −0.020, inverted, sd ratio 0.001.")
    for word in ("No circuit", "map that all", "Gates", "spread", "control"):
        assert word not in said


def test_the_headline_says_that_none_keeps_enough_and_where_it_looked():
    one = row("snip", 0.1, 0.7)
    assert headline(one).startswith("No circuit of the study keeps |r| ≥ 0.9. The best: 100 of")
    assert headline(one, searched="the study by snip").startswith("No circuit of the study by snip keeps")
    assert headline(one, searched="").startswith("100 of 1,000")
    assert headline(one, keep=0.7).startswith("100 of 1,000")


@pytest.mark.parametrize(
    ("r", "within", "keep", "said"),
    [
        (0.95, 0.79, 0.9, True), (0.95, 0.81, 0.9, False), (-0.95, 0.2, 0.9, True), (0.5, 0.2, 0.9, True),
        (0.95, 0.69, 0.8, True), (0.95, 0.75, 0.8, False), (0.5, 0.45, 0.9, False), (0.5, float("nan"), 0.9, False),
        (0.95, None, 0.9, False),
    ],
)  # fmt: skip
def test_a_map_that_all_pictures_share_is_told(r, within, keep, said):
    one = row("snip", 0.1, r, pearson_within=within)
    assert ("Much of this agreement is a map that all pictures share" in headline(one, keep=keep)) == said
    assert (f"({within:.3f} within positions)" in headline(one, keep=keep)) if said else True


@pytest.mark.parametrize("name", ["learned", "learned,steps=5,densities=0.2/0.1"])
def test_trained_gates_are_told(name):
    said = headline(row(name, 0.1, 0.95))
    assert "Gates were trained for this response, so r alone is no evidence that the network computes it this" in said
    assert "docs/criteria.md" in said


@pytest.mark.parametrize("name", ["snip", "actgrad,steps=5", "random", "learned:worst", "reconstruct"])
def test_other_circuits_have_no_trained_gates(name):
    assert "Gates" not in headline(row(name, 0.1, 0.95))


def test_amplitude_is_told_once():
    said = headline(row("snip", 0.1, 0.95, sd=0.12))
    assert "keep it with |r| = 0.950, sd ratio 0.12, on 24 pictures" in said
    assert said.count("0.12") == 2  # the number, and what it means
    assert "Its responses spread only 0.12 times as far as the model's, which |r| does not see." in said
    assert "spread" not in headline(row("snip", 0.1, 0.95, sd=0.5))
    assert "spread" not in headline(row("snip", 0.1, 0.95, sd=None))


def test_controls_say_that_they_are_controls():
    assert "chosen at random, keep it" in headline(row("random", 0.1, 0.5))
    for name in ("random", "snip:worst"):
        assert "This circuit is a control." in headline(row(name, 0.1, 0.5))


def test_the_table_of_a_chapter_follows_what_is_shown():
    rows = [
        row("snip", 0.1, 0.95, effective=11), row("snip", 0.5, 0.99, effective=22), row("actgrad", 0.1, -0.3, sd=0.2),
        row("actgrad", 0.9, 0.7), row("actgrad:worst", 0.1, 0.0, disconnected=True),
    ]  # fmt: skip
    frame = table(rows)
    html = Numbers(frame, called(frame["criterion"]), frame.to_dicts()[0], 0.9, "").table()
    head = re.findall(r'<th scope="col">(.*?)</th>', html)
    assert head == ["density", "kept", "effective", "snip", "actgrad", "actgrad, worst first"]
    lines = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", line) for line in re.findall(r"<tr[^>]*>(.*?)</tr>", html)[1:]]
    assert lines == [
        ["90 %", "900", "", "", "0.700", ""],  # a density that the shown criterion was not run at
        ["50 %", "500", "22", "0.990", "", ""],
        ["10 %", "100", "11", "0.950", "−0.300<small>inverted</small><small>sd 0.2</small>", "0*"],
    ]
    assert html.count('class="marked"') == 1
    assert "Effective, of snip: kernels on a path" in html
    for note in ("Inverted: r is negative.", "Sd: the standard deviation of the circuit's responses"):
        assert note in html
    assert "Inverted" not in Numbers(frame[:2], called(["snip"]), frame.to_dicts()[0], 0.9, "").table()
