"""Only named formats are opened: a file says itself what it is, and some formats start programs."""

import os
from pathlib import Path

import pytest
import torch
from PIL import Image, features

from viscircuits.data.folder import SUFFIXES
from viscircuits.data.images import ImageSet
from viscircuits.data.reading.decoding import FORMATS
from viscircuits.errors import ImageError


def pixels(image: Image.Image) -> torch.Tensor:
    return torch.tensor(list(image.tobytes()), dtype=torch.float32).view(image.height, image.width, 3).permute(2, 0, 1)


@pytest.fixture
def ghostscript(tmp_path, monkeypatch) -> Path:
    """A program called gs, first on the path; returns the file that it makes when it is started."""
    started = tmp_path / "bin" / "started"
    program = tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {started}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)  # so that Pillow looks again
    return started


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_postscript_by_any_name_starts_nothing(tmp_path, ghostscript, suffix):
    with (tmp_path / f"a{suffix}").open("wb") as file:
        Image.new("RGB", (8, 8), "red").save(file, "EPS")
    with pytest.raises(ImageError, match=r"a\.\w+: not a picture in a known format \(JPEG, PNG, "):
        ImageSet.from_files([tmp_path / f"a{suffix}"], pixels)[0]
    assert not ghostscript.exists()


def test_other_formats_are_not_even_tried(tmp_path, monkeypatch):
    Image.init()
    tried = []
    for name in Image.OPEN.keys() - {*FORMATS}:
        monkeypatch.setitem(Image.OPEN, name, (lambda *_: None, lambda _, name=name: tried.append(name)))
    (tmp_path / "a.png").write_bytes(b"neither here nor there")
    with pytest.raises(ImageError, match="not a picture in a known format"):
        ImageSet.from_files([tmp_path / "a.png"], pixels)[0]
    assert not tried


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_every_ending_that_counts_as_a_picture_has_a_format_that_is_read(tmp_path, suffix):
    if suffix == ".avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    mode = {".pgm": "L", ".pbm": "1"}.get(suffix, "RGB")
    Image.new(mode, (16, 16), "white").save(tmp_path / f"a{suffix}")
    assert float(ImageSet.from_files([tmp_path / f"a{suffix}"], pixels)[0].min()) > 250
    (tmp_path / f"a{suffix}").rename(tmp_path / "other.png")  # whatever it is called
    assert float(ImageSet.from_files([tmp_path / "other.png"], pixels)[0].min()) > 250
