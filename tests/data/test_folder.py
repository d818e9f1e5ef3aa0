"""Which entries of a folder are pictures and classes: system entries, links, numbers as names."""

import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from viscircuits.data import folder
from viscircuits.data.folder import SYSTEM, _ordered, scan
from viscircuits.data.images import ImageSet
from viscircuits.errors import ImageError

RUBBISH = [*sorted(SYSTEM), "__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "Thumbs.db", ".thumbs"]


def files(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2)).save(root / name)
    return root


def link(place: Path, to: str | Path) -> None:
    os.symlink(to, place, target_is_directory=True)


def found(root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in scan(root)[0]]


@pytest.mark.parametrize("name", RUBBISH)
def test_system_entries_are_no_classes_and_hold_no_pictures(tmp_path, name):
    files(tmp_path, "cat/a.png", "dog/a.png", f"{name}/cat/a.png", f"dog/2019/{name}/b.png", "cat/._a.png")
    images = ImageSet.from_folder(tmp_path, lambda image: torch.zeros(3, 2, 2))
    assert (images.names, images.labels) == (("cat/a.png", "dog/a.png"), (0, 1))
    assert images.class_names == ("cat", "dog")


@pytest.mark.parametrize("name", RUBBISH)
def test_system_entries_beside_pictures_in_the_folder_itself(tmp_path, name):
    files(tmp_path, "a.png", f"{name}/b.png")
    assert scan(tmp_path) == ([tmp_path / "a.png"], [])


def test_what_only_system_entries_hold_is_not_held(tmp_path):
    files(tmp_path, "__MACOSX/a.png", ".b.png", "c/@eaDir/d.png")
    (tmp_path / "c" / "d.heic").write_bytes(b"")
    with pytest.raises(ImageError, match=r"it holds 1 \.heic; expected"):
        scan(tmp_path)


def test_a_folder_whose_own_name_is_hidden_is_read(tmp_path):
    assert found(files(tmp_path / ".photos", "cat/a.png")) == ["cat/a.png"]


@pytest.mark.parametrize(
    ("place", "to"),
    [
        ("cat/all", ".."),
        ("cat/self", "."),
        ("cat/dogs", "../dog"),
        ("cat/2019/spring/up", "../.."),
        ("everything", "."),
        ("kitten", "cat"),
        ("cat/neighbours", "../.."),  # the folder that holds all of this
        ("cat/disk", "/"),
    ],
)
def test_a_link_back_is_no_class_and_repeats_nothing(tmp_path, place, to, caplog):
    root = files(tmp_path / "set", "cat/a.png", "cat/2019/spring/b.png", "dog/a.png", "../other/c.png")
    link(root / place, to)
    assert found(root) == ["cat/2019/spring/b.png", "cat/a.png", "dog/a.png"]
    assert scan(root)[1] == ["cat", "dog"]
    assert place in caplog.text


def test_two_classes_that_link_to_each_other(tmp_path):
    files(tmp_path, "cat/a.png", "dog/a.png")
    link(tmp_path / "cat/x", "../dog")
    link(tmp_path / "dog/x", "../cat")
    assert found(tmp_path) == ["cat/a.png", "dog/a.png"]


def test_a_link_elsewhere_is_followed_once_and_not_back(tmp_path, caplog):
    root, other = files(tmp_path / "set", "cat/a.png", "dog/a.png"), files(tmp_path / "other", "c.png", "deep/d.png")
    link(root / "cat/more", other)
    link(root / "dog/more", other / "deep")  # read already, through cat/more
    link(other / "back", root)
    assert found(root) == ["cat/a.png", "cat/more/c.png", "cat/more/deep/d.png", "dog/a.png"]
    assert "2 links not followed" in caplog.text


def test_what_two_links_lead_to_is_read_once(tmp_path):
    root, other = files(tmp_path / "set", "cat/a.png"), files(tmp_path / "other", "c.png", "deep/d.png")
    link(root / "cat/b", other / "deep")
    link(root / "cat/c", other)  # holds what was read through cat/b
    assert found(root) == ["cat/a.png", "cat/b/d.png", "cat/c/c.png"]


def test_what_lies_in_the_folder_goes_before_links_to_it(tmp_path):
    root = files(tmp_path, "zoo/a.png")
    link(root / "ape", "zoo")  # sorted first
    assert scan(root) == ([root / "zoo/a.png"], ["zoo"])


def test_class_folders_may_be_links(tmp_path):
    store = files(tmp_path / "store", "1/a.png", "2/b.png", ".hidden/c.png")
    root = files(tmp_path / "set", "cat/d.png")
    for name, to in {"ant": "1", "bee": "2", "cow": "1", "dog": ".hidden"}.items():
        link(root / name, store / to)
    assert found(root) == ["ant/a.png", "bee/b.png", "cat/d.png", "dog/c.png"]
    assert scan(root)[1] == ["ant", "bee", "cat", "dog"]  # cow is the folder of ant


def test_a_flat_folder_that_links_to_itself_stays_flat(tmp_path):
    link(files(tmp_path, "a.png", "b.png") / "again", tmp_path)
    assert scan(tmp_path) == ([tmp_path / "a.png", tmp_path / "b.png"], [])


@pytest.mark.parametrize(
    ("names", "order"),
    [
        ([str(i) for i in range(12)], [str(i) for i in range(12)]),
        (["10", "9", "100"], ["9", "10", "100"]),
        (["007", "10", "6", "8"], ["6", "007", "8", "10"]),
        (["1", "01", "2"], ["01", "1", "2"]),
        (["-2", "-10", "3"], ["-10", "-2", "3"]),
        (["000", "011", "002"], ["000", "002", "011"]),
        (["2.5", "10"], ["10", "2.5"]),  # not whole: text
        (["class2", "class10"], ["class10", "class2"]),
        (["²", "10", "9"], ["10", "9", "²"]),  # a superscript is no number
    ],
)
def test_the_order_of_classes(tmp_path, names, order):
    files(tmp_path, *(f"{name}/a.png" for name in names))
    images = ImageSet.from_folder(tmp_path, lambda image: torch.zeros(3, 2, 2))
    assert list(images.class_names) == order
    assert images.names == tuple(f"{name}/a.png" for name in order)
    assert images.labels == tuple(range(len(order)))


def test_one_number_spelt_twice_has_one_order():
    assert _ordered({"1": [], "01": []}) == _ordered({"01": [], "1": []}) == ["01", "1"]


def test_numbers_beside_names_keep_the_order_of_text_and_that_is_said(tmp_path, caplog):
    files(tmp_path, "2/a.png", "10/a.png", "background/a.png")
    assert scan(tmp_path)[1] == ["10", "2", "background"]
    assert "order of text, which is not that of numbers, as 'background' is no number" in caplog.text


@pytest.mark.parametrize("names", [("1", "2", "background"), ("cat", "dog"), ("1", "2", "10")])
def test_an_order_without_surprise_is_not_spoken_of(tmp_path, names, caplog):
    scan(files(tmp_path, *(f"{name}/a.png" for name in names)))
    assert not caplog.text


def test_a_search_that_is_limited_ends_early(tmp_path, monkeypatch):
    root = files(tmp_path / "set", *(f"{name}/{number}.png" for name in ("cat", "dog") for number in range(3)))
    assert len(scan(root, 6)[0]) == 6
    walked = []
    listed = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: walked.append(path) or listed(path))
    with pytest.raises(ImageError, match=r"expected at most 2 pictures in '.*set', met more"):
        scan(root, 2)
    assert len(walked) == 2  # the folder and one of its two
    monkeypatch.setattr(folder, "_OTHERS", 3)
    for number in range(24):
        (root / "cat" / f"{number}.txt").touch()
        (root / "dog" / f"{number}.txt").touch()
    assert len(scan(root, 6)[0]) == len(scan(root)[0]) == 6  # ten others for every picture, and a few
    (root / "bird").mkdir()
    for number in range(16):
        (root / "bird" / f"{number}.txt").touch()
    with pytest.raises(ImageError, match=r"expected pictures in '.*set', met \d+ other files and folders"):
        scan(root, 6)


def test_folders_within_folders_without_end(tmp_path, monkeypatch):
    def walk(top):
        raise RecursionError  # from the thousandth folder on, before Python 3.12

    monkeypatch.setattr(os, "walk", walk)
    with pytest.raises(ImageError, match=r"holds folders within folders without end; expected pictures"):
        scan(tmp_path)
