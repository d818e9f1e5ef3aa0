"""Objects show themselves in a few lines, and in a small table without anything that a page would run."""

from viscircuits.card import Card, few


def test_a_card_fits_a_look():
    card = Card("Scores", {"criterion": "snip", "target": "features.10:5", "kernels": 6912})
    assert card.text() == "Scores(criterion: snip, target: features.10:5, kernels: 6912)"
    assert Card("Mask").text() == "Mask()"


def test_long_facts_take_six_lines_at_most_and_are_cut():
    text = Card("Study", {f"name {i}": "x" * 90 for i in range(20)}).text()
    assert len(text.splitlines()) == 6
    assert max(map(len, text.splitlines())) <= 110
    assert text.endswith("...)")
    assert len(Card("Target", {"sum": "a:1 + " * 1000}).html()) < 1000


def test_names_of_others_are_no_markup():
    html = Card("<b>", {"<i>": "<script>alert(1)</script> & more"}).html()
    assert "<script>" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in html
    assert "style=" not in html


def test_many_names_are_counted():
    assert few("abc") == "a, b, c"
    assert few("abcdefg") == "a, b, c, d and 3 more"
