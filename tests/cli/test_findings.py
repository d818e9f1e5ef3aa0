"""The commands that take features apart, and the folders they write."""

import json

import polars as pl
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

import viscircuits as vc
from viscircuits.cli import compare, polysemantic, split, top
from viscircuits.data.shapes import generate
from viscircuits.errors import ViscircuitsError
from viscircuits.model import zoo
from viscircuits.model.fingerprint import fingerprint
from viscircuits.study import Pictures, Spec, Study
from viscircuits.subcircuits.algebra import Overlaps, overlaps
from viscircuits.subcircuits.polysemantic import Polysemantic
from viscircuits.subcircuits.top import TopActivations, top_activations

app = typer.Typer()
for name, command in (
    ("top", top.top), ("polysemantic", polysemantic.polysemantic), ("split", split.split), ("compare", compare.compare),
):  # fmt: skip
    app.command(name)(command)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Twenty pictures in two class folders."""
    folder = tmp_path_factory.mktemp("photos")
    for i, image in enumerate(generate(20, seed=3).images):
        (folder / "ab"[i % 2]).mkdir(exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / "ab"[i % 2] / f"{i:02}.png")
    return folder


@pytest.fixture(scope="module")
def images(photos):
    return vc.ImageSet.from_folder(photos, zoo.load("shapesnet").prepare)


def call(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_top(photos, images, shapesnet, tmp_path):
    call("top", "shapesnet", "features.3", "features.6", "-i", photos, "-n", 4, "-o", tmp_path / "t")
    expected = top_activations(shapesnet, ["features.3", "features.6"], images, 4)
    for layer, best in expected.items():
        found = TopActivations.load(tmp_path / "t" / "top" / f"{layer}.safetensors")
        assert torch.equal(found.images, best.images)
        torch.testing.assert_close(found.values, best.values)
    frame = pl.read_parquet(tmp_path / "t" / "top.parquet")
    assert len(frame) == sum(best.n_channels * 4 for best in expected.values())
    row = frame.filter((pl.col("layer") == "features.6") & (pl.col("channel") == 5) & (pl.col("rank") == 2)).to_dicts()[
        0
    ]
    best = expected["features.6"]
    assert row["picture"] == images.names[int(best.images[5, 2])]
    assert tuple(row["position"]) == best.position(5, 2)
    header = json.loads((tmp_path / "t" / "findings.json").read_text())
    assert header["asked"]["layers"] == ["features.3", "features.6"]
    assert header["asked"]["images"]["hash"] == images.hash
    call("top", "shapesnet", "features.3", "features.6", "-i", photos, "-n", 4, "-o", tmp_path / "t")  # the same again
    with pytest.raises(ViscircuitsError, match=r"holds other findings \(they differ in n\)"):
        call("top", "shapesnet", "features.3", "features.6", "-i", photos, "-n", 5, "-o", tmp_path / "t")
    with pytest.raises(ViscircuitsError, match="exists and holds no findings"):
        call("top", "shapesnet", "features.3", "-i", photos, "-o", photos)


def test_polysemantic(photos, tmp_path):
    call(
        "polysemantic", "shapesnet", "features.6", "-i", photos, "-n", 16, "--min-cluster", 3, "--best", 2,
        "-o", tmp_path / "p",
    )  # fmt: skip
    found = Polysemantic.load(tmp_path / "p" / "polysemantic" / "features.6.safetensors")
    frame = pl.read_parquet(tmp_path / "p" / "channels.parquet")
    assert frame["channel"].to_list() == [c.channel for c in found.channels]
    assert frame["separation"].to_list() == [c.separation for c in found.channels]
    assert frame["clusters"].max() > 1
    points = pl.read_parquet(tmp_path / "p" / "points.parquet")
    assert points["channel"].unique(maintain_order=True).to_list() == frame["channel"].to_list()[:2]
    assert points["cluster"].to_list()[:16] == found.channels[0].labels.tolist()


def test_split_by_classes(photos, images, shapesnet, tmp_path):
    out = tmp_path / "s"
    call(
        "split", "shapesnet", "features.6:5", "-i", photos, "--by", "classes", "--controls", 1, "-d", 0.5, "-d", 0.1,
        "-o", out,
    )  # fmt: skip
    header = json.loads((out / "findings.json").read_text())
    assert header["found"]["verdict"] == "cannot tell"
    assert "too few controls" in header["found"]["reason"]
    curves = pl.read_parquet(out / "curves.parquet")
    assert curves["density"].unique().to_list() == [0.1, 0.5, 1.0]
    assert len(curves) == 2 * 3 * 4
    pictures = pl.read_parquet(out / "pictures.parquet")
    assert pictures.select("name", "picture").rows() == [(n[0], n) for n in images.names]
    for number in range(2):
        circuit = vc.Circuit.load(out / "circuits" / f"set-{number}.safetensors", shapesnet)
        assert circuit.mask.density == pytest.approx(header["found"]["densities"][number], abs=0.01)
        assert str(circuit.target) == "features.6:5@max"
    assert pl.read_parquet(out / "overlaps.parquet")["division"].n_unique() == 2


def test_split_by_clusters_says_so_where_there_are_none(photos, tmp_path):
    with pytest.raises(ViscircuitsError, match="fall into no clusters of 9 or more"):
        call("split", "shapesnet", "features.6:5", "-i", photos, "-n", 18, "--min-cluster", 9, "-o", tmp_path / "s")
    for wrong in ("loss", "features.6:5@max", "logit:3"):
        with pytest.raises(ViscircuitsError, match="expected one channel of a layer"):
            call("split", "shapesnet", wrong, "-i", photos, "-o", tmp_path / "s")


def test_compare(images, shapesnet, tmp_path):
    targets = [vc.Target("features.6", channel) for channel in (1, 5, 9)]
    pictures = Pictures.of(images, "drawn")
    spec = Spec(
        model="shapesnet", weights=None, fingerprint=fingerprint(shapesnet), input_shape=(3, 64, 64),
        targets=tuple(map(str, targets)), scoring=pictures, held_out=pictures, criteria=("magnitude",),
        densities=(0.2,),
    )  # fmt: skip
    study = Study.create(tmp_path / "study", spec)
    masks = {}
    for target, scores in zip(targets, vc.score_all(shapesnet, targets, images, "magnitude"), strict=True):
        circuit = vc.Circuit(shapesnet, target, scores.select(density=0.2))
        study.add_circuit(circuit, "magnitude", 0.2)
        masks[str(target)] = circuit.mask
    call("compare", tmp_path / "study", "-d", 0.2, "-o", tmp_path / "c")
    found, expected = Overlaps.load(tmp_path / "c" / "overlaps.safetensors"), overlaps(masks)
    assert found.names == tuple(masks)
    for layer, iou in expected.iou.items():
        torch.testing.assert_close(found.iou[layer], iou, equal_nan=True)
    pairs = pl.read_parquet(tmp_path / "c" / "overlaps.parquet")
    row = pairs.row(2, named=True)
    assert (row["layer"], row["first"], row["second"]) == ("", "features.6:5", "features.6:9")
    assert row["iou"] == float(expected.iou[""][1, 2])
    assert pl.read_parquet(tmp_path / "c" / "trees.parquet")["join"].max() == 1
    header = json.loads((tmp_path / "c" / "findings.json").read_text())
    assert header["found"]["groups"] == [[found.names[i] for i in group] for group in found.groups(0.5)]
