"""``viscircuits compare``: which circuits it takes, what it prints of them, what it refuses."""

import json
from pathlib import Path

import polars as pl
import pytest
import torch
from torch import nn

import viscircuits as vc
from cli.studies import retold, small_study
from viscircuits.data.shapes import generate
from viscircuits.errors import ViscircuitsError
from viscircuits.model.fingerprint import fingerprint
from viscircuits.model.zoo import zoo
from viscircuits.report.findings import sections
from viscircuits.study.folder import Study
from viscircuits.study.spec import Pictures, Spec
from viscircuits.subcircuits.algebra import Overlaps, overlaps, shared_core


@pytest.fixture(scope="module")
def images():
    return vc.ImageSet.from_tensors(zoo.load("shapesnet").prepare(generate(20, seed=3).images))


@pytest.fixture
def call(command_line, monkeypatch):
    """Runs the command and returns what it printed; an error that a user can put right is raised."""
    monkeypatch.setenv("COLUMNS", "160")

    def run(*arguments: object) -> str:
        status, out, err = command_line(*arguments)
        if status:
            assert len(err.strip().splitlines()) == 1
            raise ViscircuitsError(err.strip())
        return out

    return run


def asked(folder: Path, name: str, model: nn.Module, targets: list[vc.Target], images: vc.ImageSet, density: float):
    """A study without measurements, of magnitude at one density."""
    pictures = Pictures.of(images, "drawn")
    spec = Spec(
        model=name, weights=None, fingerprint=fingerprint(model), input_shape=(3, 64, 64),
        targets=tuple(map(str, targets)), scoring=pictures, held_out=pictures, criteria=("magnitude",),
        densities=(density,),
    )  # fmt: skip
    return Study.create(folder, spec)


def test_compare(images, shapesnet, tmp_path, call):
    targets = [vc.Target("features.6", channel) for channel in (1, 5, 9)]
    study = asked(tmp_path / "study", "shapesnet", shapesnet, targets, images, 0.2)
    masks = {}
    for target, scores in zip(targets, vc.score_all(shapesnet, targets, images, "magnitude"), strict=True):
        circuit = vc.Circuit(shapesnet, target, scores.select(density=0.2))
        study.add_circuit(circuit, "magnitude", 0.2)
        masks[str(target)] = circuit.mask
    call("compare", tmp_path / "study", "-d", 0.2, "-o", tmp_path / "study")
    out = tmp_path / "study" / "findings" / "compare__magnitude__0.2"
    found, expected = Overlaps.load(out / "overlaps.safetensors"), overlaps(masks)
    assert found.names == tuple(masks)
    for layer, iou in expected.iou.items():
        torch.testing.assert_close(found.iou[layer], iou, equal_nan=True)
    pairs = pl.read_parquet(out / "overlaps.parquet")
    row = pairs.row(2, named=True)
    assert (row["layer"], row["first"], row["second"]) == ("", "features.6:5", "features.6:9")
    assert row["iou"] == float(expected.iou[""][1, 2])
    assert pl.read_parquet(out / "trees.parquet")["join"].max() == 1
    header = json.loads((out / "findings.json").read_text())
    assert header["found"]["groups"] == [[found.names[i] for i in group] for group in found.groups(0.5)]
    (html,) = sections(tmp_path / "study")
    assert "What 3 magnitude circuits at density 0.2 have in common" in html
    assert not (tmp_path / "study" / "report.html").exists()  # the study's own report takes it in
    with pytest.raises(ViscircuitsError, match="a study of another model"):
        call("compare", tmp_path / "study", "-d", 0.2, "-o", _another(tmp_path, study.header.spec))


def _another(folder, spec):
    return Study.create(folder / "other", spec.model_copy(update={"fingerprint": "0" * 16})).path


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A study of two targets: snip:worst, actgrad, snip at two densities; and one of a third: random, snip."""
    folder = tmp_path_factory.mktemp("two")
    first = small_study(folder / "first", ("features.6:7", "features.10:5"), ("snip:worst", "actgrad", "snip"),
                        (0.3, 0.05))  # fmt: skip
    return first, small_study(folder / "second", ("features.8:3",), ("random", "snip"), (0.3, 0.05))


def compared(said: str) -> list[list[str]]:
    """The rows of the first table that was printed, the one of the circuits."""
    lines = said.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("target"))
    return [
        line.split()
        for line in lines[start + 1 :]
        if line.startswith("features.") and "  " in line.strip() and ":" in line
    ]


def test_compare_prints_the_r_of_every_circuit(two, tmp_path, call):
    first, second = two
    said = call("compare", first.path, second.path, "-d", 0.05, "-o", tmp_path)
    rows = [
        row
        for study in two
        for row in study.measurements().filter(criterion="snip", order="best", density=0.05).to_dicts()
    ]
    assert said.startswith("3 snip circuits at density 0.05")  # the first that both have
    assert [line[:3] for line in compared(said)] == [
        [row["target"], "0.05", f"{row['kept']:,}"] for row in rows
    ]  # as the studies were given and asked
    assert [line[3] for line in compared(said)] == [f"{row['pearson']:.3f}" for row in rows]
    table = pl.read_parquet(tmp_path / "findings" / "compare__snip__0.05" / "circuits.parquet")
    assert table["pearson"].to_list() == [row["pearson"] for row in rows]
    assert table["kept"].to_list() == [row["kept"] for row in rows]
    (page,) = sections(tmp_path)
    for row in rows:
        assert f'<th scope="row">{row["target"]}</th><td>0.05</td><td>{row["kept"]:,}</td>' in page


def test_compare_takes_the_smallest_that_keep_enough(two, tmp_path, call):
    first, second = two
    said = call("compare", first.path, second.path, "--keep", 0.95, "-o", tmp_path)
    expected = []
    for target, study in (("features.6:7", first), ("features.10:5", first), ("features.8:3", second)):
        rows = study.measurements().filter(criterion="snip", order="best", target=target).to_dicts()
        good = [row for row in rows if row["pearson"] >= 0.95]
        best = min(good, key=lambda row: row["density"]) if good else max(rows, key=lambda row: row["pearson"])
        expected.append([target, f"{best['density']:g}"])
    assert [line[:2] for line in compared(said)] == expected
    assert len({density for _, density in expected}) == 2
    assert said.startswith("3 snip circuits (the smallest with |r| >= 0.95)")
    assert (tmp_path / "findings" / "compare__snip__keep-0.95" / "findings.json").is_file()


def test_compare_says_where_a_circuit_is_inverted(two, tmp_path, call):
    turned = retold(
        two[0], tmp_path / "turned",
        lambda table: table.with_columns(pearson=0.163, pearson_signed=-0.163, sd_ratio=0.02),
    )  # fmt: skip
    said = call("compare", turned.path, "--keep", 0.9, "-c", "snip", "-o", tmp_path / "out")
    assert said.startswith("2 snip circuits (the smallest with |r| >= 0.9; 2 of them keep less)")
    assert [line[3:] for line in compared(said)] == [["-0.163", "inverted", "sd", "0.02"]] * 2
    assert "inverted: r is negative" in said


def test_compare_takes_a_control_only_where_it_is_asked_for(two, tmp_path, call):
    said = call("compare", two[0].path, "-d", 0.05, "-o", tmp_path)
    assert said.startswith("2 actgrad circuits at density 0.05")  # not snip:worst, which was asked first
    said = call("compare", two[0].path, "-d", 0.3, "-c", "snip:worst", "-o", tmp_path)
    assert said.startswith("2 snip:worst circuits at density 0.3")
    model = zoo.load("shapesnet").model
    core = shared_core([two[0].circuit(model, target, "snip-worst", 0.3).mask for target in two[0].header.spec.targets])
    header = json.loads((tmp_path / "findings" / "compare__snip-worst__0.3" / "findings.json").read_text())
    assert header["found"]["core"] == core.n_kept


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        (("-d", 0.05, "--keep", 0.9), r"expected --density or --keep, got both \(0\.05 and 0\.9\); give one of them"),
        (("-c", "actgrad"), r"expected criterion 'actgrad' that all studies have, but '.*first' has snip:worst, "
                            r"actgrad, snip; '.*second' has random, snip; give another with --criterion"),
        (("-d", 0.2), r"the study has no density 0\.2; it has 0\.3, 0\.05"),
    ],
)  # fmt: skip
def test_compare_refuses_in_one_line(two, tmp_path, asked, text, call):
    with pytest.raises(ViscircuitsError, match=text) as refused:
        call("compare", *(study.path for study in two), *asked, "-o", tmp_path)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "findings").exists()


def test_compare_refuses_studies_that_share_no_more_than_a_control(two, tmp_path, call):
    other = small_study(tmp_path / "other", ("features.3:7",), ("random", "magnitude"), (0.3,))
    with pytest.raises(
        ViscircuitsError, match=r"expected a criterion, no control, that all studies have, but '.*second' "
    ):
        call("compare", two[1].path, other.path, "-d", 0.3, "-o", tmp_path / "out")
    said = call("compare", two[1].path, other.path, "-d", 0.3, "-c", "random", "-o", tmp_path / "out")
    assert said.startswith("2 random circuits at density 0.3")


def test_compare_takes_every_target_once(two, tmp_path, call):
    with pytest.raises(ViscircuitsError, match=r"expected every target once, got 'features\.6:7' in two studies"):
        call("compare", two[0].path, two[0].path, "-d", 0.3, "-o", tmp_path)


BRANCHES = """
import torch
from torch import nn
from viscircuits.model.zoo.builtin import ShapesTransform
class Branches(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.z, self.b, self.a, self.p, self.q = (torch.nn.Conv2d(n, 4, 3) for n in (3, 4, 4, 4, 8))
    def forward(self, x):
        y = torch.relu(self.z(x))
        b, a = torch.relu(self.b(y)), torch.relu(self.a(y))
        return torch.cat([self.p(a), self.q(torch.cat([b, a], 1))], 1).mean((2, 3))
def make():
    return Branches().eval(), ShapesTransform()
"""


def test_layers_that_are_compared_stand_as_they_run(images, tmp_path, monkeypatch, call):
    """Not in the order in which the targets bring them: z and a, then b. Those of one circuit alone are left out."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "branches.py").write_text(BRANCHES)
    model, _ = zoo.load("branches:make")
    targets = [vc.Target("p", 0), vc.Target("q", 0), vc.Target("q", 1)]
    study = asked(tmp_path / "study", "branches:make", model, targets, images, 0.5)
    for target in targets:
        study.add_circuit(vc.find(model, target, images, criterion="magnitude", density=0.5), "magnitude", 0.5)
    said = call("compare", tmp_path / "study", "-d", 0.5, "--model", "branches:make", "-o", tmp_path / "out")
    layers = [line.split()[0] for line in said.split("in the order in which they run")[1].splitlines()[2:7]]
    assert layers == ["all", "z", "b", "a", "groups"]
    circuits = [row.split() for row in said.splitlines() if row.startswith(("p:", "q:")) and "measured" in row]
    assert [row[3:] for row in circuits] == [["not", "measured"]] * 3
