"""Damaged and hostile files: every reader refuses them in one line, or reads the right value; nothing hangs."""

import json
import os
import re
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random

import polars as pl
import pytest
import torch

import hostile
import viscircuits
from viscircuits import store
from viscircuits.errors import StudyError, ViscircuitsError
from viscircuits.evaluate.sweep import Sweep, sweep
from viscircuits.study import measurements
from viscircuits.study.findings import Findings
from viscircuits.study.folder import Study
from viscircuits.subcircuits.known import Known

NAMES = (
    "study", "table", "measurements", "findings", "known", "picture", "training", "circuit", "compensated", "rescaled",
    "scores", "overlaps", "surface", "top", "polysemantic", "tensors",
)  # fmt: skip
IN_ALL, SLOWEST = 3000, 20.0


@pytest.fixture(scope="module")
def readers(tmp_path_factory, shapesnet, shapes):
    made = hostile.readers(tmp_path_factory.mktemp("files"), shapesnet, shapes)
    assert tuple(made) == NAMES
    return made


def attacked(reader: hostile.Reader, content: bytes, folder: Path, right: object | None) -> str:
    """What came of reading a content: an error of ours of one line, or the right value, where it is known."""
    began, said = time.monotonic(), ""
    try:
        found = reader.again(content, folder)
    except ViscircuitsError as error:
        said = str(error)
    assert time.monotonic() - began < SLOWEST
    assert said.isprintable()  # one line, too
    assert said or right is None or found in (None, [], right)  # other pictures and numbers count as absent
    return "refused" if said else "read"


def mutations(reader: hostile.Reader, name: str, numbers: range, folder: Path) -> dict[str, int]:
    """Attacks with seeded mutations, half of them on the file as it was before there were digests."""
    right, contents = reader.again(reader.sound, folder), (reader.sound, hostile.older(reader.path))
    counts: dict[str, int] = {}
    for number in numbers:
        random = Random(f"{name} {number}")
        old = number % 2 == 1 or not reader.sealed
        content = hostile.mutated(reader, contents[old], random)
        came = attacked(reader, content, folder, None if old or not hostile.sealed(content, reader.path) else right)
        counts[came] = counts.get(came, 0) + 1
    return counts


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_file_is_refused_or_read_right(readers, tmp_path, name):
    share = IN_ALL // len(NAMES)
    counts = mutations(readers[name], name, range(share // 10 + 1), tmp_path)
    assert sum(counts.values()) * len(NAMES) >= IN_ALL // 10
    assert name in ("picture", "known") or counts["refused"] > 5


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_file_is_refused_or_read_right_at_length(readers, tmp_path, name):
    mutations(readers[name], name, range(IN_ALL // len(NAMES) + 1), tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_files_from_before_there_were_digests_are_read(readers, tmp_path, name):
    reader = readers[name]
    assert reader.again(hostile.older(reader.path), tmp_path) == reader.read(reader.path)


def test_a_flipped_bit_in_scores_is_seen(readers, tmp_path):
    scores, damaged = readers["scores"], bytearray(readers["scores"].sound)
    damaged[-100] ^= 64
    with pytest.raises(StudyError, match=r"is damaged: its content is not what its digest says; delete it and run"):
        scores.again(bytes(damaged), tmp_path)


@pytest.mark.parametrize("name", ["scores", "table", "study", "known", "findings"])
@pytest.mark.parametrize("other", ["folder", "pipe", "device", "empty", "link to nothing"])
def test_what_is_no_file_is_refused_at_once(readers, tmp_path, name, other):
    path = tmp_path / readers[name].path.name
    match other:
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "empty":
            path.touch()
        case _:
            path.symlink_to(tmp_path / "nothing")
    read = readers[name].read
    if name == "findings":  # its reader takes the file of a folder of findings
        folder = tmp_path / "found" / "findings" / "compare"
        folder.mkdir(parents=True)
        path.rename(folder / path.name)
        read = partial(Findings.create, tmp_path / "found", "compare", "comparison", hostile.ASKED)
    if other == "link to nothing" and name in ("known", "findings"):
        return  # nothing has been written yet
    with pytest.raises(StudyError):
        read(*([] if name == "findings" else [path]))


def changed(reader: hostile.Reader, field: str, value: object) -> bytes:
    """A file of today without a digest, and with another value in a field, such as ``spec.seed``."""
    whole = json.loads(reader.sound) if reader.path.suffix == ".json" else hostile.header_of(reader.sound)
    whole.pop("digest", None)
    *above, last = field.split(".")
    holder = whole
    for name in above:
        holder = holder[name]
    holder[last] = value
    return json.dumps(whole).encode() if reader.path.suffix == ".json" else hostile.with_header(reader.sound, whole)


DEEP = json.loads("[" * 80 + "]" * 80)


@pytest.mark.parametrize(
    ("name", "field", "value", "said"),
    [
        ("study", "spec.seed", True, "valid integer"),
        ("study", "spec.seed", 2**64, "less than"),
        ("study", "spec.densities", [0.5, float("nan")], "spec.densities.1: Input should be"),
        ("study", "spec.densities", [2.0], "less than or equal to 1"),
        ("study", "spec.densities", [], "at least 1 item"),
        ("study", "spec.input_shape", [3, 64], "3 sizes of at least 1"),
        ("study", "spec.input_shape", [3, 10**6, 10**6], "of at most 67,108,864 elements"),
        ("study", "spec.input_shape", [3, 64, -64], "3 sizes of at least 1"),
        ("study", "spec.held_out.count", -1, "greater than or equal to 0"),
        ("study", "spec.held_out.count", 10**30, "less than or equal to"),
        ("study", "spec.held_out.white", float("inf"), "finite"),
        ("study", "spec.model", "a\0b", "zero character"),
        ("study", "spec.model", "\ud800", "surrogates"),
        ("study", "command", DEEP, "nested more than 64 deep"),
        ("study", "format", "x\n" * 50, "has format 'x"),
        ("scores", "n_images", 0, "expected a whole number from 1 to"),
        ("scores", "n_images", True, "expected a whole number"),
        ("scores", "n_images", 10**400, "expected a whole number"),
        ("scores", "density", 1.5, "expected a finite number above 0 to 1, or null"),
        ("scores", "layers", ["features.0", "features.0"], "expected a list without doubles of a text"),
        ("scores", "layers", ["features.0", "other"], "is missing or unknown"),
        ("scores", "granularity", "filter", "expected the shape"),
        ("scores", "granularity", DEEP, "nested more than 64 deep"),
        ("scores", "surprise", 1, "unknown field 'surprise'"),
        ("circuit", "input_shape", [3, 10**9, 10**9], "of at most"),
        ("circuit", "target", [[1, {"layer": "a", "channel": "1"}]], "expected a target"),
        ("circuit", "biases", 3, "one of 'masked', 'pruned'"),
        ("compensated", "compensation.n_images", -3, "an object of kind"),
        ("surface", "axes", [["radius", [0.4, 0.2, 0.6], None], ["angle", [0, 1, 2, 3], 360]], "ascending"),
        ("surface", "stimulus", {"family": "Arc"}, "expected a stimulus"),
        ("overlaps", "names", ["a"], "expected the shape"),
        ("top", "map_shape", [1, 1], "expected values from 0 to 0"),
        ("polysemantic", "order", [0] * 48, "its order is none of 48 channels"),
        ("training", "worths", [0.9], "expected the shape"),
        ("known", "numbers", {"a": "much"}, "field 'numbers'"),
        ("findings", "asked", [], "field 'asked': expected an object"),
    ],
)  # fmt: skip
def test_a_field_that_cannot_be_is_refused(readers, tmp_path, name, field, value, said):
    with pytest.raises(StudyError, match=re.escape(said)) as error:
        readers[name].again(changed(readers[name], field, value), tmp_path)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 1000


def test_a_key_that_stands_twice_is_refused(readers, tmp_path):
    twice = readers["study"].sound.replace(b'"seed"', b'"seed": 1, "seed"')
    with pytest.raises(StudyError, match="a key stands twice"):
        readers["study"].again(twice, tmp_path)


@pytest.mark.parametrize(
    ("name", "tensor", "change", "said"),
    [
        ("scores", "features.0", lambda t: t.double().to(torch.int64), "expected float32 or float64 or float16"),
        ("scores", "features.0", lambda t: t[:-1], "tensor 'relevant/features.0': expected the shape"),
        ("scores", "features.0", lambda t: t / 0, "expected finite values"),
        ("circuit", "features.0", lambda t: t.to(torch.uint8), "expected bool, got torch.uint8"),
        ("compensated", "shift/features.3", lambda t: t[:5], "expected the shape"),
        ("overlaps", "iou/", lambda t: t + 1, "expected values from 0 to 1"),
        ("top", "places", lambda t: t - 10**6, "expected values from 0 to"),
        ("polysemantic", "labels", lambda t: t + 10**15, "a label is that of no cluster"),
        ("training", "masks", lambda t: ~t, "expected masks of [3, 1] structures, got [1, 3]"),
    ],
)
def test_a_tensor_that_cannot_be_is_refused(readers, tmp_path, name, tensor, change, said):
    tensors, header = store.read_tensors(readers[name].path)
    tensors[tensor] = change(tensors[tensor])
    store.write_tensors(tmp_path / "made", tensors, header)
    with pytest.raises(StudyError, match=re.escape(said)):
        readers[name].read(tmp_path / "made")


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("pearson", 1.5, "holds 1.5"),
        ("pearson", float("nan"), "holds nan"),
        ("pearson", None, "has empty cells"),
        ("sd_ratio", float("inf"), "holds inf"),
        ("spearman", -2.0, "holds -2.0"),
        ("kept", -1, "holds -1"),
        ("kept", 10**9, "keeps more than there is"),
        ("density", 0.0, "holds 0"),
        ("order", "first", "holds 'first'"),
        ("target", None, "has empty cells"),
        ("density", 0.5, "two rows are of the same circuit"),
    ],
)
def test_a_measurement_that_cannot_be_is_refused(readers, tmp_path, column, value, said):
    frame = pl.read_parquet(readers["table"].path)
    path = tmp_path / "measurements.parquet"
    frame.with_columns(pl.lit(value, frame[column].dtype).alias(column)).write_parquet(path)
    for name in ("table", "measurements"):
        with pytest.raises(StudyError, match=rf"is damaged: .*{said}"):
            readers[name].read(path)


def test_tables_of_another_version(readers, tmp_path, monkeypatch):
    frame, path = pl.read_parquet(readers["table"].path), tmp_path / "measurements.parquet"
    more = frame.with_columns(kendall=0.5)
    monkeypatch.setattr(measurements, "__version__", "0.10.0")
    measurements.write(path, more)
    monkeypatch.undo()
    with pytest.warns(UserWarning, match=r"written by viscircuits 0\.10\.0, and this is .*: left out column 'kendall'"):
        assert measurements.read(path).frame.equals(frame)
    for version in ("0.0.9", viscircuits.__version__, "", "newest"):
        monkeypatch.setattr(measurements, "__version__", version or "0")
        measurements.write(path, more)
        monkeypatch.undo()
        with pytest.raises(StudyError, match=r"not a table of measurements of this version \(unknown column 'kendall'"):
            measurements.read(path)
    more.write_parquet(path)  # by another program: the study's own version counts
    with pytest.warns(UserWarning, match="left out column 'kendall'"):
        assert measurements.read(path, "1.2").frame.equals(frame)


def test_a_newer_table_is_not_written_over(tmp_path, shapesnet, shapes, monkeypatch):
    job = Sweep(shapesnet, [viscircuits.Target("features.3", 7)], *shapes, ["magnitude"], [0.5])
    path = tmp_path / "t.parquet"
    frame = sweep(job)
    monkeypatch.setattr(measurements, "__version__", "99")
    measurements.write(path, frame.with_columns(kendall=0.5))
    monkeypatch.undo()
    before = path.read_bytes()
    with pytest.warns(UserWarning, match="left out"):
        assert sweep(job, path).equals(frame)
    with (
        pytest.warns(UserWarning, match="left out"),
        pytest.raises(StudyError, match=r"what it holds besides would be lost; go on with that version"),
    ):
        sweep(replace(job, densities=[0.5, 0.1]), path)
    assert path.read_bytes() == before


def test_a_panic_of_compiled_code_is_an_error_of_ours(readers, tmp_path, monkeypatch):
    def panics(*args: object, **kwargs: object) -> None:
        raise pl.exceptions.PanicException("index out of bounds\nat thrift")

    monkeypatch.setattr(pl, "read_parquet_schema", panics)
    with pytest.raises(StudyError, match=r"is not a whole Parquet file \(index out of bounds at thrift\); delete it"):
        readers["table"].read(readers["table"].path)


def test_files_that_are_too_large_are_not_read(tmp_path):
    with (tmp_path / "study.json").open("wb") as file:
        file.truncate(2**40)  # takes no room on the disk
    with pytest.raises(StudyError, match="is larger than any such file"):
        Study.open(tmp_path)


def test_known_numbers_of_another_recipe_are_not_read(readers):
    assert len(Known("another", readers["known"].path)) == 0
    assert len(Known("recipe", readers["known"].path)) == 3
