"""Study folders: what is written is whole, is found again, is nobody else's, and holds no pickle."""

import ast
import json
import os
import pickletools
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import torch

import viscircuits as vc
from viscircuits import store
from viscircuits.errors import StudyError
from viscircuits.evaluate.sweep import Sweep
from viscircuits.evaluate.table import table
from viscircuits.model.fingerprint import fingerprint
from viscircuits.runs.spec import Origin, spec_of, sweep_of
from viscircuits.study import measurements
from viscircuits.study.folder import Study
from viscircuits.study.measurements import SCHEMA
from viscircuits.study.names import slug
from viscircuits.study.spec import Pictures, Spec

TARGETS = (
    "a:1", "a:1@2,3", "a:1@23", "a:12@3", "a:1@max", "a:1@center", "a.1:1", "a1:1", "logit:3", "logit:33", "loss",
    "loss@predicted",
    "1*a:1 + 1*b:2", "1*a:1 - 1*b:2", "-1*a:1 - 1*b:2", "1*a:1 - 0.5*b:2", "1*a:1 - 5*b:2", "1*a:1 + 1e-05*b:2",
    "a_b:1", "a b:1",
    "couche.é:1", "couche.è:1", "a/b:1", "a.b:1", "../a:1", "a#b:1",
    " + ".join(f"0.25*stages.3.blocks.{i}.mlp.fc1:1" for i in range(40)),
    " + ".join(f"0.25*stages.3.blocks.{i}.mlp.fc1:1" for i in range(41)),
)  # fmt: skip


@pytest.fixture
def spec(shapesnet, shapes):
    scoring, held_out = (Pictures.of(images, "here") for images in shapes)
    return Spec(
        model="shapesnet", weights=None, fingerprint=fingerprint(shapesnet), input_shape=(3, 64, 64),
        targets=("features.10:5",), scoring=scoring, held_out=held_out, criteria=("magnitude",), densities=(0.5, 0.1),
    )  # fmt: skip


@pytest.fixture
def scores(shapesnet, shapes):
    return vc.score(shapesnet, vc.Target("features.10", 5), shapes[0], "magnitude")


def test_create_open_and_go_on(tmp_path, spec):
    made = Study.create(tmp_path / "s", spec, command="viscircuits extract 'a b'")
    assert Study.open(tmp_path / "s").header == made.header
    assert (made.header.spec, made.header.command) == (spec, "viscircuits extract 'a b'")
    (tmp_path / "s" / "mine.txt").write_text("a note")
    again = Study.create(tmp_path / "s", spec, command="another wording")
    assert again.header == made.header


@pytest.mark.parametrize("field", sorted(Spec.model_fields))
def test_another_spec_is_refused(tmp_path, spec, field):
    """Every field counts, but for the words that say where the same content came from."""
    Study.create(tmp_path / "s", spec)
    (tmp_path / "s" / "measurements.parquet").write_bytes(b"something was computed")
    images = Pictures(source="here", count=3, hash="other")
    changes = {
        "model": "other", "weights": "other.pt", "fingerprint": "0", "input_shape": (3, 32, 32),
        "targets": ("logit:3",),
        "scoring": images, "held_out": images, "criteria": ("snip",), "densities": (0.5,), "granularity": "filter",
        "normalise": "minmax", "biases": "pruned", "seed": 1,
        "labels": {"features.10:5": "ring"}, "inside": True,
    }  # fmt: skip
    other = spec.model_copy(update={field: changes[field]})
    if field in ("weights", "labels"):
        assert Study.create(tmp_path / "s", other).header.spec == spec
        return
    with pytest.raises(StudyError, match=rf"holds another study \(it differs in {field};.*--out, or delete"):
        Study.create(tmp_path / "s", other)
    assert Study.open(tmp_path / "s").header.spec == spec


def test_the_same_pictures_under_another_path(tmp_path, spec):
    Study.create(tmp_path / "s", spec)
    elsewhere = spec.scoring.model_copy(update={"source": "/elsewhere"})
    assert Study.create(tmp_path / "s", spec.model_copy(update={"scoring": elsewhere})).header.spec == spec


def test_a_folder_with_only_hidden_files_is_free(tmp_path, spec):
    (tmp_path / ".study.json.x7").write_text("left by a killed process")
    assert Study.create(tmp_path, spec).files() == [("study.json", (tmp_path / "study.json").stat().st_size)]


def test_foreign_folders(tmp_path, spec):
    (tmp_path / "photo.png").write_text("mine")
    with pytest.raises(StudyError, match=r"exists and is not a study; choose another folder with --out"):
        Study.create(tmp_path, spec)
    assert [f.name for f in tmp_path.iterdir()] == ["photo.png"]
    with pytest.raises(StudyError, match=r"is not a study folder: it has no study\.json"):
        Study.open(tmp_path)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda h: "", r"is not valid JSON"),
        (lambda h: json.dumps(h)[:-20], r"is not valid JSON .*delete it and run the command again"),
        (lambda h: "\x00\xff", r"is not valid JSON"),
        (lambda h: "[]", r"is damaged"),
        (lambda h: "null", r"is damaged"),
        (lambda h: "{}", r"has format None; this version reads format 1"),
        (lambda h: json.dumps(h | {"format": 2}), r"has format 2; this version reads format 1"),
        (lambda h: json.dumps({k: v for k, v in h.items() if k != "spec"}), r"is damaged: spec: Field required"),
        (lambda h: json.dumps(h | {"surprise": 1}), r"is damaged: surprise: Extra inputs"),
        (
            lambda h: json.dumps(h | {"spec": h["spec"] | {"seed": "x"}}),
            r"is damaged: spec\.seed: Input should be a valid integer",
        ),
    ],
)
def test_damaged_header(tmp_path, spec, change, text):
    Study.create(tmp_path, spec)
    file = tmp_path / "study.json"
    file.write_text(change(json.loads(file.read_text())), encoding="latin-1")
    for use in (Study.open, lambda path: Study.create(path, spec)):
        with pytest.raises(StudyError, match=text):
            use(tmp_path)


def test_missing_files(tmp_path, spec, shapesnet):
    made = Study.create(tmp_path, spec, command="viscircuits demo")
    with pytest.raises(StudyError, match=r"has no measurements yet; run its command again: viscircuits demo"):
        made.measurements()
    made.measurements_path.write_bytes(b"PAR1")
    with pytest.raises(StudyError, match=r"\.parquet' is not a whole Parquet file .*; delete it and run again"):
        made.measurements()
    assert made.circuits() == []
    with pytest.raises(StudyError, match=r"no circuit 'features\.10-5__snip__0\.1' among the study's 0"):
        made.circuit(shapesnet, "features.10:5", "snip", 0.1)


def test_circuits_and_scores_come_back(tmp_path, spec, scores, shapesnet):
    made = Study.create(tmp_path, spec)
    for target in ("features.10:5", "1*features.10:5 - 0.5*logit:3", "features.10:5@max"):
        for density in (0.1, 1 / 3):
            circuit = vc.find(shapesnet, vc.parse_target(target), held(), criterion="random", density=density)
            path = made.add_circuit(circuit, "random", density)
            back = made.circuit(shapesnet, target, "random", density)
            assert (back.mask, back.target, back.biases) == (circuit.mask, circuit.target, circuit.biases)
            assert path in made.circuits()
    assert len(made.circuits()) == 6
    (tmp_path / "circuits" / ".left.safetensors").write_bytes(b"half a file")
    assert len(made.circuits()) == 6
    with pytest.raises(StudyError, match=r"among the study's 6; closest: 'features\.10-5__random__0\.1'"):
        made.circuit(shapesnet, "features.10:5", "random", 0.2)
    back = vc.Scores.load(made.add_scores(scores))
    assert (back.criterion, back.target, back.n_images) == (scores.criterion, scores.target, scores.n_images)
    assert all(torch.equal(back.sums[name], scores.sums[name]) for name in scores.sums)
    names = [name for name, _ in made.files()]
    assert len(names) == 8
    assert "scores/features.10-5__magnitude.safetensors" in names


def held():
    return vc.ImageSet.from_tensors(torch.zeros(1, 3, 64, 64))


def test_names_of_files_are_unique_and_short():
    names = [
        slug(target, criterion, density)
        for target in TARGETS
        for criterion in ("snip", "snip-worst")
        for density in ("0.1", "0.01")
    ]
    assert len(set(names)) == len(names)
    for name in names:
        assert len((name + ".safetensors").encode()) <= 255
        assert "/" not in name
        assert name.isascii()
    assert slug("features.6:55@7,3", "actgrad", "0.05") == "features.6-55-at-7,3__actgrad__0.05"
    longest = slug("m" * 300, "t" * 300, "u" * 300, "more")
    assert len(longest) <= 255


def test_densities_that_look_alike_have_their_own_files(tmp_path, spec, shapesnet):
    made = Study.create(tmp_path, spec)
    circuit = vc.find(shapesnet, vc.Target("features.10", 5), held(), criterion="random", density=0.1)
    assert len({made.add_circuit(circuit, "random", d) for d in (0.1, 0.1000001, 1 / 3, 0.333333)}) == 4


def is_pickle(content: bytes) -> bool:
    try:
        return len(list(pickletools.genops(content))) > 1
    except Exception:
        return content[:2] == b"PK"  # a zip, as torch.save writes


def test_no_file_is_a_pickle(tmp_path, spec, scores, shapesnet, shapes, monkeypatch):
    from viscircuits.runs.job import run_job

    def forbidden(*args, **kwargs):
        raise AssertionError("pickle")

    for name in ("load", "save"):
        monkeypatch.setattr(torch, name, forbidden)
    for name in ("dump", "dumps", "load", "loads"):
        monkeypatch.setattr(f"pickle.{name}", forbidden)
    job = Sweep(shapesnet, [vc.Target("features.10", 5)], *shapes, ["magnitude", "force"], [0.5, 0.1])
    made = run_job(job, tmp_path / "s", Origin("shapesnet", None, "here", "here"))
    made.circuit(shapesnet, "features.10:5", "force", 0.1)
    monkeypatch.undo()
    files = [f for f in made.path.rglob("*") if f.is_file()]
    assert sorted({f.suffix for f in files}) == [".json", ".parquet", ".png", ".safetensors", ".svg"]
    assert len(files) == 1 + 1 + 2 + 4 + 3  # force has scores for each density
    assert not [f for f in files if is_pickle(f.read_bytes())]
    torch.save({"a": torch.ones(2)}, tmp_path / "p")
    assert is_pickle((tmp_path / "p").read_bytes())


def test_no_module_of_results_can_unpickle():
    may = {"weights.py": "reads files of torch, with weights_only", "steady.py": "copies in memory"}
    for file in (one for one in Path(vc.__file__).parent.rglob("*.py") if one.name not in may):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                assert "pickle" not in ast.unparse(node), file
            if isinstance(node, ast.Attribute):
                assert ast.unparse(node) not in ("torch.load", "torch.save"), file


def test_measurements_are_read_as_written(tmp_path, spec):
    made = Study.create(tmp_path / "[a]*", spec)
    values = {"target": "features.10:5", "criterion": "magnitude", "order": "best", "granularity": "kernel",
              "biases": "masked", "reason": None, "disconnected": False}  # fmt: skip
    frame = table([{name: values.get(name, 0.5 if dtype == pl.Float64 else 3) for name, dtype in SCHEMA.items()}])
    frame.write_parquet(made.measurements_path)
    assert made.measurements().equals(frame)


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.int64, torch.bool, torch.uint8]
)
def test_digest_of_every_dtype(dtype):
    values = torch.tensor([[0, 1], [1, 0]]).to(dtype)
    assert store.digest(values) == store.digest(values.clone())
    assert store.digest(values) == store.digest(values.t().contiguous().t())  # layout does not count
    assert len({store.digest(v) for v in (values, values.flatten(), ~values.bool(), values.to(torch.int8))}) == 4
    store.digest(values[0, 0])


def test_digest_is_pinned():
    assert store.digest(torch.arange(6.0).view(2, 3), "a", b"b") == "2d7a5dbc90f97fff"


def test_atomic_leaves_nothing_after_an_error(tmp_path):
    store.write_json(tmp_path / "a.json", 1)

    def interrupted():
        with store.atomic(tmp_path / "a.json") as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [f.name for f in tmp_path.iterdir()] == ["a.json"]
    assert store.read_json(tmp_path / "a.json") == 1
    long = tmp_path / ("n" * 240 + ".json")
    store.write_json(long, 2)
    assert store.read_json(long) == 2


def test_a_study_in_which_nothing_was_computed_gives_way_to_another(tmp_path, spec):
    Study.create(tmp_path / "s", spec)
    other = spec.model_copy(update={"seed": 7})
    assert Study.create(tmp_path / "s", other).header.spec.seed == 7
    assert Study.open(tmp_path / "s").header.spec.seed == 7


NAMES = ("study.json", "measurements.parquet", "findings.json", "section.json", "section.html", "report.html", ".rungs")


def constants(file: Path) -> set[str]:
    return {node.value for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)}  # fmt: skip


def test_names_of_a_study_s_files_stand_in_one_place():
    root = Path(vc.__file__).parent
    homes = {file for file in root.rglob("*.py") if constants(file) & set(NAMES)}
    assert homes == {root / "study/names.py"}
    assert set(NAMES) <= constants(root / "study/names.py")


def test_a_study_neither_prints_nor_reads_the_command_line():
    for file in (Path(vc.__file__).parent / "study").glob("*.py"):
        tree = ast.parse(file.read_text())
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        assert used.isdisjoint({"print", "sys", "typer", "rich"}), file


WITHOUT_TORCH = """
import sys
from viscircuits.cli.main import run
from viscircuits.study import chosen, findings, folder

study = folder.Study.open(sys.argv[2])
assert chosen.measured(study)[0]["pearson"] == 0.5
run()
"""


def test_a_study_is_read_and_shown_without_torch(tmp_path, spec):
    """torch takes seconds to load, and who looks at a table needs none of it."""
    study = Study.create(tmp_path / "s", spec, command="viscircuits made")
    row = {name: {pl.String: "", pl.Boolean: False}.get(dtype, 0) for name, dtype in SCHEMA.items()}
    row |= {"target": "features.10:5", "criterion": "magnitude", "order": "best", "density": 0.5, "pearson": 0.5,
            "granularity": "kernel", "biases": "masked"}  # fmt: skip
    measurements.write(study.measurements_path, pl.DataFrame([row], SCHEMA), study.hash)
    study.release()
    code = f"{WITHOUT_TORCH}assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code, "inspect", study.path], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(Path(vc.__file__).parents[1])})  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "0.500" in done.stdout


def test_a_question_and_its_sweep_are_made_of_one_another(shapesnet, shapes):
    targets = [vc.Target("features.10", 5), vc.Target("features.3", 7) - vc.Target("features.6", 2)]
    job = Sweep(shapesnet, targets, *shapes, ["magnitude", "snip:worst"], [0.5, 0.1], "filter", "minmax", "pruned", 3)
    origin = Origin("shapesnet", None, "here", "there", {"a": 1}, 255.0, 900)
    spec = spec_of(job, origin)
    assert Origin.of(spec) == origin
    again = sweep_of(spec, shapesnet, *shapes, batch_size=2)
    assert spec_of(again, origin) == spec
    assert again.keys() == job.keys()
    with pytest.raises(StudyError, match="not the model and pictures of the study: held_out differ"):
        sweep_of(spec, shapesnet, shapes[0], shapes[0])
