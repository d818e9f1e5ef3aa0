"""The commands that take features apart, and the folders they write."""

import json

import polars as pl
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

import viscircuits as vc
from viscircuits.activations.top import TopActivations, top_activations
from viscircuits.cli.circuits import report
from viscircuits.cli.features import polysemantic, probe, split, top
from viscircuits.data.shapes import generate
from viscircuits.errors import ViscircuitsError
from viscircuits.model.zoo import zoo
from viscircuits.plots import sheets
from viscircuits.probes.experiment import circle_and_corner
from viscircuits.probes.surface import Surface
from viscircuits.report.findings import sections
from viscircuits.subcircuits.polysemantic import Polysemantic

app = typer.Typer()
for name, command in (
    ("top", top.top), ("polysemantic", polysemantic.polysemantic), ("split", split.split),
    ("probe", probe.probe), ("report", report.report),
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
    study, asked = tmp_path / "t", ("top", "shapesnet", "features.3", "features.6", "-i", photos, "--channel", 5)
    said = call(*asked, "-n", 4, "-o", study)
    out = study / "findings" / "top__features.3__features.6"
    expected = top_activations(shapesnet, ["features.3", "features.6"], images, 4)
    for layer, best in expected.items():
        found = TopActivations.load(out / "top" / f"{layer}.safetensors")
        assert torch.equal(found.images, best.images)
        torch.testing.assert_close(found.values, best.values)
    frame = pl.read_parquet(out / "top.parquet")
    assert len(frame) == sum(best.n_channels * 4 for best in expected.values())
    row = frame.filter((pl.col("layer") == "features.6") & (pl.col("channel") == 5) & (pl.col("rank") == 2)).to_dicts()[
        0
    ]
    best = expected["features.6"]
    assert row["picture"] == images.names[int(best.images[5, 2])]
    assert tuple(row["position"]) == best.position(5, 2)
    header = json.loads((out / "findings.json").read_text())
    assert header["asked"]["layers"] == ["features.3", "features.6"]
    assert header["asked"]["images"]["hash"] == images.hash
    page = (study / "report.html").read_text()
    assert str(study / "report.html") in said.replace("\n", "")
    assert page.count("<article") == 1
    assert page.count('src="data:image/svg+xml,') == 2
    with pytest.raises(ViscircuitsError, match=r"holds other findings \(they differ in n\)"):
        call(*asked, "-n", 5, "-o", study)
    with pytest.raises(ViscircuitsError, match="exists and is not a study"):
        call(*asked, "-o", photos)


def test_as_many_as_were_asked_for_are_drawn(photos, images, shapesnet, tmp_path, monkeypatch):
    """All of up to twelve; of more, six, and it says so."""
    seen = []
    made = "viscircuits.plots.sheets.contact_sheet"
    monkeypatch.setattr(made, lambda *given: seen.append(given) or sheets.Plate(1, 1))
    for number in (8, 13):
        call("top", "shapesnet", "features.3", "-i", photos, "-n", number, "--channel", 5, "-o", tmp_path / str(number))
    above = int((top_activations(shapesnet, ["features.3"], images, 8)["features.3"].values[5] > 0).sum())
    assert [len(rows[0].pictures) for rows, *_ in seen] == [above, min(above, 6)]
    assert above == 8
    assert seen[0][2].startswith("the strongest 8, of 20 pictures")
    assert seen[1][2].startswith("the strongest 6 of 13 kept, of 20 pictures")


def test_interrupted_work_goes_on(photos, tmp_path, monkeypatch):
    """Pictures are run once: the second time what was found is read."""
    asked = ("top", "shapesnet", "features.3", "-i", photos, "-n", 2, "--channel", 5, "-o", tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("viscircuits.plots.sheets.contact_sheet", _interrupt)
        with pytest.raises(RuntimeError, match="cut"):
            call(*asked)
    header = tmp_path / "findings" / "top__features.3" / "findings.json"
    assert json.loads(header.read_text())["found"] is None
    with pytest.raises(ViscircuitsError, match="no findings"):
        call("report", tmp_path)
    monkeypatch.setattr("viscircuits.activations.top.top_activations", _interrupt)
    call(*asked)
    assert json.loads(header.read_text())["found"] == {"activations": 48 * 2}


def _interrupt(*_, **__):
    raise RuntimeError("cut")


def test_several_folders_are_one_set(photos, tmp_path):
    call("top", "shapesnet", "features.3", "-i", photos / "a", "-i", photos / "b", "-n", 2, "--channel", 5,
         "-o", tmp_path)  # fmt: skip
    header = json.loads((tmp_path / "findings" / "top__features.3" / "findings.json").read_text())
    assert header["asked"]["images"]["count"] == 20
    assert header["asked"]["images"]["source"] == f"{photos / 'a'}, {photos / 'b'}"


def test_polysemantic(photos, tmp_path):
    call(
        "polysemantic", "shapesnet", "features.6", "-i", photos, "-n", 16, "--min-cluster", 3, "--best", 2,
        "-o", tmp_path,
    )  # fmt: skip
    out = tmp_path / "findings" / "polysemantic__features.6"
    found = Polysemantic.load(out / "polysemantic" / "features.6.safetensors")
    frame = pl.read_parquet(out / "channels.parquet")
    assert frame["channel"].to_list() == [c.channel for c in found.channels]
    assert frame["separation"].to_list() == [c.separation for c in found.channels]
    assert frame["clusters"].max() > 1
    points = pl.read_parquet(out / "points.parquet")
    assert points["channel"].unique(maintain_order=True).to_list() == frame["channel"].to_list()[:2]
    assert points["cluster"].to_list()[:16] == found.channels[0].labels.tolist()
    assert len(list(out.glob("*.jpg"))) == 2


def test_split_by_classes(photos, images, shapesnet, tmp_path):
    call(
        "split", "shapesnet", "features.6:5", "-i", photos, "--by", "classes", "--controls", 1, "-d", 0.5, "-d", 0.1,
        "-o", tmp_path, "--no-pictures",
    )  # fmt: skip
    out = tmp_path / "findings" / "split__features.6-5"
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
    assert "cannot tell: too few controls" in (tmp_path / "report.html").read_text()


def test_probe(tmp_path):
    call("probe", "shapesnet", "features.3:7", "-f", "arc", "-a", "radius=0.2:0.6:3", "-a", "angle=0:360:4",
         "-o", tmp_path)  # fmt: skip
    found = Surface.load(tmp_path / "findings" / "probe__features.3-7__arc" / "arc__model.safetensors")
    assert [axis.name for axis in found.axes] == ["radius", "angle"]
    assert found.axes[1].values == (0, 90, 180, 270)
    call("probe", "shapesnet", "features.3", "--count", 10, "-o", tmp_path)
    table = pl.read_parquet(tmp_path / "findings" / "probe__features.3__ring" / "preferences.parquet")
    assert sorted(table["channel"]) == list(range(48))
    assert table["index"].is_sorted(descending=True)
    assert (tmp_path / "report.html").read_text().count("<article") == 2


@pytest.mark.slow
def test_the_experiment_has_a_control(tmp_path, monkeypatch):
    seen = []

    def few(model, *arguments, **options):
        seen.append(model)
        return circle_and_corner(model, *arguments, **options, radii=(0.3, 0.5), angles=(0.0, 90.0, 180.0, 270.0),
                                 densities=(0.5,))  # fmt: skip

    monkeypatch.setattr("viscircuits.probes.experiment.circle_and_corner", few)
    call("probe", "shapesnet", "features.3:7", "-o", tmp_path)
    out = tmp_path / "findings" / "probe__features.3-7__circle-and-corner"
    weights = [dict(model.named_parameters())["features.3.weight"] for model in seen]
    assert not torch.equal(*weights)
    assert torch.equal(*(weight.flatten().sort().values for weight in weights))
    for name in ("model", "control"):
        assert (out / f"circle-and-corner-{name}.png").is_file()
        assert (out / name / "experiment.json").is_file()
    assert "weights in random order" in (tmp_path / "report.html").read_text()


def test_split_by_clusters_says_so_where_there_are_none(photos, tmp_path):
    with pytest.raises(ViscircuitsError, match="fall into no clusters of 9 or more"):
        call("split", "shapesnet", "features.6:5", "-i", photos, "-n", 18, "--min-cluster", 9, "-o", tmp_path / "s")
    with pytest.raises(ViscircuitsError, match="fall into no clusters of 8 or more"):  # what came to nothing makes way
        call("split", "shapesnet", "features.6:5", "-i", photos, "-n", 16, "--min-cluster", 8, "-o", tmp_path / "s")
    for wrong in ("loss", "features.6:5@max", "logit:3"):
        with pytest.raises(ViscircuitsError, match="expected one channel of a layer"):
            call("split", "shapesnet", wrong, "-i", photos, "-o", tmp_path / "s")


def test_as_many_activations_as_pictures_are_all_of_them(photos, tmp_path, monkeypatch):
    """Asked for 20 or more of 20 pictures, nothing was chosen; and no text speaks of more pictures than there are."""
    seen = []
    made = "viscircuits.plots.sheets.contact_sheet"
    monkeypatch.setattr(made, lambda *given: seen.append(given) or sheets.Plate(1, 1))
    whole = "20 of 20: all of them, ranked"
    for number in (20, 300):
        out = tmp_path / str(number)
        said = call("top", "shapesnet", "features.3", "-i", photos, "-n", number, "--channel", 5, "-o", out)
        assert whole in said
        assert seen[-1][2] == f"the strongest 6; pictures: {whole}; cut to what the channel sees there"
        (page,) = sections(out)
        assert f"The 20 highest activations of every channel on 20 pictures, at most one a picture ({whole})." in page
    said = call("top", "shapesnet", "features.3", "-i", photos, "-n", 19, "--channel", 5, "-o", tmp_path / "19")
    assert "ranked" not in said
    assert "ranked" not in "".join(sections(tmp_path / "19"))


@pytest.mark.parametrize(("number", "all_of_them"), [(300, True), (20, True), (19, False)])
def test_polysemantic_and_split_say_so_too(photos, tmp_path, number, all_of_them):
    whole = "20 of 20: all of them, ranked"
    said = call("polysemantic", "shapesnet", "features.6", "-i", photos, "-n", number, "--min-cluster", 3, "--best", 1,
                "-o", tmp_path / "p")  # fmt: skip
    assert (whole in said) == all_of_them
    assert "channels split, by separation" in said
    (page,) = sections(tmp_path / "p")
    told = f" ({whole})" if all_of_them else ""
    assert f"The {min(number, 20)} most exciting of 20 pictures{told} fall into clusters for" in page
    assert (whole in page) == all_of_them
    assert "Channels whose pictures split, by separation" in page
    channel = pl.read_parquet(tmp_path / "p" / "findings" / "polysemantic__features.6" / "channels.parquet")["channel"][
        0
    ]
    said = call("split", "shapesnet", f"features.6:{channel}", "-i", photos, "-n", number, "--min-cluster", 3,
                "--controls", 1, "-d", 0.5, "--no-pictures", "-o", tmp_path / "s")  # fmt: skip
    assert (whole in said) == all_of_them
    assert (whole in sections(tmp_path / "s")[0]) == all_of_them
