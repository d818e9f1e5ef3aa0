"""The WordNet numbers in the package."""

import pytest

from viscircuits.data.wnids import wnids


def test_a_thousand_numbers_in_order():
    numbers = wnids()
    assert len(set(numbers)) == len(numbers) == 1000
    assert list(numbers) == sorted(numbers)
    assert (numbers[0], numbers[1], numbers[-1]) == ("n01440764", "n01443537", "n15075141")
    assert all(len(number) == 9 and number[0] == "n" and number[1:].isdigit() for number in numbers)


@pytest.mark.data
def test_they_are_imagenets_folders(data_dir):
    assert list(wnids()) == sorted(path.name for path in (data_dir / "imagenet-1000").iterdir())
