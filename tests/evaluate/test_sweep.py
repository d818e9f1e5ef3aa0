"""Sweeps: every row once, nothing measured twice, nothing lost at an interruption."""

import signal
import subprocess
import sys
import time
from collections import Counter

import polars as pl
import pytest
import torch

import viscircuits as vc
from viscircuits import readout
from viscircuits.circuit import circuit
from viscircuits.errors import StudyError, TargetError
from viscircuits.evaluate.sweep import Sweep, sweep
from viscircuits.evaluate.table import read_table, table
from viscircuits.runs import spec as specs
from viscircuits.runs.job import run_job
from viscircuits.scores import kept_count
from viscircuits.study.measurements import SCHEMA

TARGETS = (vc.Target("features.6", 3), vc.parse_target("logit:2"))


@pytest.fixture
def job(shapesnet, shapes):
    scoring, held_out = shapes

    def make(**changes):
        given = {"targets": TARGETS, "criteria": ("actgrad", "random", "actgrad:worst"), "densities": (0.5, 0.05)}
        return Sweep(**{"model": shapesnet, "scoring": scoring, "held_out": held_out, **given, **changes})

    return make


def numbers(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.drop("seconds")


def test_one_row_a_key_in_order(job):
    frame = sweep(job())
    assert frame.schema == SCHEMA
    keys = frame.select("target", "criterion", "order", "density").rows()
    assert keys == [tuple(key) for key in job().keys()]  # noqa: SIM118 (not a dict)
    assert len(keys) == len(set(keys)) == 2 * 3 * 2
    assert frame["pearson"].is_between(0, 1).all()
    assert frame["n_scoring"].is_in([12, 1]).all()  # random looks at no picture
    assert (frame["n_held_out"] == 12).all()
    for row in frame.iter_rows(named=True):
        assert row["kept"] == kept_count(row["density"], row["relevant"])
        assert row["effective"] <= row["kept"]
        assert row["sparsity"] == 1 - row["density"]


def test_rows_are_what_the_parts_give(job, shapesnet, shapes):
    """The table against the public functions called one after the other."""
    frame = sweep(job(criteria=("snip:worst",), densities=(0.3,), seed=3))
    for target, row in zip(TARGETS, frame.iter_rows(named=True), strict=True):
        mask = vc.score(shapesnet, target, shapes[0], "snip").select(density=0.3, order="worst")
        circuit = vc.Circuit(shapesnet, target, mask)
        kept = vc.preservation(circuit, shapes[1])
        assert (row["kept"], row["relevant"], row["effective"]) == (
            mask.n_kept,
            mask.n_relevant,
            circuit.effective.n_kept,
        )
        assert (row["pearson"], row["spearman"], row["reason"]) == (kept.pearson, kept.spearman, kept.reason)
        assert (row["pearson_signed"], row["sd_ratio"]) == (kept.signed, kept.sd_ratio)


def test_repeated_options_are_measured_once(job):
    once = job(targets=TARGETS[:1], criteria=("random",), densities=(0.5,))
    twice = job(targets=TARGETS[:1], criteria=("random", "random"), densities=(0.5, 0.5, 0.50))
    assert once.keys() == twice.keys()
    assert sweep(twice).height == 1


def test_targets_that_read_alike_are_not_mixed_up(job):
    """Two directions over one layer: other names, or refused."""
    one, other = (vc.Target("features.10", direction=torch.eye(48)[i]) for i in (0, 1))
    try:
        assert len({key.target for key in job(targets=(one, other)).keys()}) == 2  # noqa: SIM118
    except TargetError as error:
        assert "two targets read" in str(error)  # noqa: PT017


def test_worst_first_is_a_control_of_the_same_size(job):
    made = {}
    sweep(job(criteria=("actgrad:worst", "actgrad")), each=lambda m: made.__setitem__(m.key, m.circuit.mask))
    for key, mask in made.items():
        assert mask.n_kept == made[key._replace(order="worst")].n_kept
    best, worst = (made[(str(TARGETS[0]), "actgrad", order, 0.05)] for order in ("best", "worst"))
    assert best.iou(worst) == 0


def test_force_is_scored_for_every_density(job):
    made = []
    sweep(job(targets=TARGETS[:1], criteria=("force", "snip")), each=made.append)
    assert [m.scores.density for m in made] == [0.5, 0.05, None, None]
    assert made[2].scores is made[3].scores  # scored once


def test_same_seed_same_table_another_seed_another(job):
    options = {"targets": TARGETS[:1], "criteria": ("random",), "densities": (0.9, 0.5)}
    first, again, other = (numbers(sweep(job(seed=seed, **options))) for seed in (1, 1, 2))
    assert first.equals(again)
    assert first["pearson"].to_list() != other["pearson"].to_list()


def test_batch_size_changes_no_selection(job):
    masks = {}
    for size in (1, 5, 64):
        sweep(
            job(criteria=("actgrad",), batch_size=size),
            each=lambda m, s=size: masks.__setitem__((s, m.key), m.circuit.mask),
        )
    for (_, key), mask in masks.items():
        assert mask == masks[1, key]


def test_a_target_is_bound_and_followed_once_not_at_every_density(job, monkeypatch):
    """Two groups of criteria and four densities, of one group of targets; FORCE scores at each density anew."""
    counts = Counter()

    def counting(module, name):
        function = getattr(module, name)

        def count(*args, **kwargs):
            counts[name] += 1
            return function(*args, **kwargs)

        monkeypatch.setattr(module, name, count)

    made = job(criteria=("magnitude", "force,rounds=1"), densities=(0.5, 0.3, 0.2, 0.05))
    counting(readout, "reach")
    counting(readout, "_check")
    circuits = []
    assert sweep(made, each=lambda measurement: circuits.append(measurement.circuit)).height == 2 * 2 * 4
    assert counts == {"reach": len(TARGETS), "_check": len(TARGETS)}
    assert len({id(circuit.readout) for circuit in circuits}) == len(TARGETS)


def test_a_model_is_hashed_once_a_study(job, monkeypatch, tmp_path):
    hashed = []
    for module in (specs, circuit):
        own = module.fingerprint
        monkeypatch.setattr(module, "fingerprint", lambda model, own=own: hashed.append(model) or own(model))
    made = job(targets=TARGETS[:1], criteria=("magnitude", "random"), densities=(0.5, 0.05))
    study = run_job(made, tmp_path / "study", specs.Origin("shapesnet", None, "here", "there"))
    assert len(study.circuits()) == 4
    assert len(hashed) == 1
    loaded = vc.Circuit.load(study.circuits()[0], made.model)  # it was written with the model's own fingerprint
    assert loaded.target == TARGETS[0]


def test_limits(job):
    frame = sweep(job(targets=TARGETS[:1], limits={"actgrad": [0.05]}, scoring_limits={"actgrad": 4}))
    rows = frame.select("criterion", "order", "density", "n_scoring").rows()
    assert rows == [
        ("actgrad", "best", 0.05, 4), ("random", "best", 0.5, 1), ("random", "best", 0.05, 1),
        ("actgrad", "worst", 0.05, 4),
    ]  # fmt: skip


def test_overlap_warns(job, shapes):
    scoring, held_out = shapes
    assert not set(scoring.hashes) & set(held_out.hashes)
    mixed = job(targets=TARGETS[:1], criteria=("random",), densities=(0.5,), held_out=scoring.subset([0, 1, 2]))
    with pytest.warns(UserWarning, match=r"3 of the 3 pictures to measure on were also scored on"):
        sweep(mixed)


def test_a_dead_target_is_told_before_any_work(job, shapesnet):
    import copy

    model = copy.deepcopy(shapesnet)
    with torch.no_grad():
        model.features[10].weight[5] = 0
    done = []
    with pytest.raises(TargetError, match=r"features\.10:5 is dead"):
        sweep(job(model=model, targets=(*TARGETS, vc.Target("features.10", 5))), each=done.append)
    assert not done


@pytest.mark.parametrize("stop", [RuntimeError("disk full"), KeyboardInterrupt()])
def test_an_interrupted_sweep_goes_on(job, tmp_path, stop):
    whole = sweep(job())
    checkpoint, first, second = tmp_path / "table.parquet", [], []

    def until_the_fifth(measurement):
        if len(first) == 4:
            raise stop
        first.append(measurement.key)

    with pytest.raises(type(stop)):
        sweep(job(), checkpoint, until_the_fifth)
    assert read_table(checkpoint).height == 4
    progress = []
    resumed = sweep(job(progress=lambda *p: progress.append(p)), checkpoint, lambda m: second.append(m.key))
    assert numbers(resumed).equals(numbers(whole))
    assert len(second) == 8
    assert not {*first} & {*second}
    told = [done for what, done, total in progress if what == "circuits" and total == 12]
    assert list(dict.fromkeys(told)) == [4, 5, 6, 7, 8, 9, 10, 11, 12]
    assert read_table(checkpoint).height == 12


def test_a_finished_sweep_is_only_read(job, tmp_path):
    checkpoint = tmp_path / "table.parquet"
    sweep(job(), checkpoint)
    before = checkpoint.stat()
    assert sweep(job(), checkpoint, each=lambda m: pytest.fail(f"measured {m.key} again")).height == 12
    assert checkpoint.stat().st_mtime_ns == before.st_mtime_ns
    assert sweep(job(targets=TARGETS[1:], densities=(0.05,)), checkpoint).height == 3  # only what was asked for


def test_a_foreign_table_is_refused(job, tmp_path):
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "t.parquet")
    with pytest.raises(StudyError, match=r"is not a table of measurements of this version"):
        sweep(job(), tmp_path / "t.parquet")


def older(frame: pl.DataFrame, path, *columns: str):
    """Writes a table as an older version wrote it, without the columns that are younger."""
    frame.drop("sd_ratio", *columns).write_parquet(path)
    return path


def test_a_table_older_than_a_column_opens_with_empty_cells(job, tmp_path):
    frame = sweep(job())
    opened = read_table(older(frame, tmp_path / "t.parquet"))
    assert opened.schema == SCHEMA
    assert opened["sd_ratio"].null_count() == opened.height == 12
    assert opened.drop("sd_ratio").equals(frame.drop("sd_ratio"))


def test_a_table_older_than_a_column_is_continued_by_the_same_command(job, tmp_path):
    whole = sweep(job())
    checkpoint, made = older(whole.head(5), tmp_path / "t.parquet"), []
    again = sweep(job(), checkpoint, lambda m: made.append(m.key))
    assert len(made) == 7
    assert numbers(again).drop("sd_ratio").equals(numbers(whole).drop("sd_ratio"))
    assert again["sd_ratio"].null_count() == 5  # what was measured before is not measured again
    assert again["sd_ratio"].drop_nulls().to_list() == whole["sd_ratio"].to_list()[5:]
    assert read_table(checkpoint).height == 12


def test_a_finished_table_older_than_a_column_is_only_read(job, tmp_path):
    checkpoint = older(sweep(job()), tmp_path / "t.parquet")
    before = checkpoint.read_bytes()
    assert sweep(job(), checkpoint, each=lambda m: pytest.fail(f"measured {m.key} again")).height == 12
    assert checkpoint.read_bytes() == before


@pytest.mark.parametrize("change", ["another is missing", "one is unknown", "one has another type"])
def test_a_table_that_differs_in_more_is_refused(job, tmp_path, change):
    frame = sweep(job(targets=TARGETS[:1], criteria=("random",), densities=(0.5,)))
    path = tmp_path / "t.parquet"
    if change == "another is missing":
        older(frame, path, "spearman")
    elif change == "one is unknown":
        older(frame.with_columns(mine=pl.lit(1)), path)
    else:
        older(frame.with_columns(kept=pl.lit("many")), path)
    with pytest.raises(StudyError, match=r"is not a table of measurements of this version"):
        read_table(path)


def test_a_path_may_hold_brackets(job, tmp_path):
    checkpoint = tmp_path / "[x]*" / "t.parquet"
    some = job(targets=TARGETS[:1], criteria=("random",), densities=(0.5,))
    assert sweep(some, checkpoint).equals(sweep(some, checkpoint))


def test_no_rows(tmp_path):
    assert table([]).schema == SCHEMA


VICTIM = """
import sys, time
import viscircuits as vc
from viscircuits.data.shapes import generate
from viscircuits.evaluate.sweep import Sweep, sweep
model, prepare = vc.zoo.load("shapesnet")
scoring, held_out = vc.ImageSet.from_tensors(prepare(generate(8, seed=5).images)).split(0.5)
densities = [i / 1000 for i in range(1000, 0, -1)]
job = Sweep(model, [vc.Target("features.6", 3)], scoring, held_out, ["random"], densities)
def each(measurement):
    measurement.circuit.save(f"{sys.argv[1]}/{measurement.key.density}.safetensors")
    time.sleep(0.05)
sweep(job, sys.argv[1] + "/table.parquet", each)
"""


def test_a_killed_sweep_leaves_whole_files(tmp_path, shapesnet, quick_start):
    victim = subprocess.Popen([sys.executable, "-c", VICTIM, tmp_path], env=quick_start)
    checkpoint = tmp_path / "table.parquet"
    deadline = time.monotonic() + 60
    while not checkpoint.exists() and time.monotonic() < deadline and victim.poll() is None:
        time.sleep(0.02)
    time.sleep(0.3)
    victim.kill()
    assert victim.wait() == -signal.SIGKILL
    frame = read_table(checkpoint)
    assert 0 < frame.height < 1000
    circuits = [f for f in tmp_path.glob("*.safetensors") if not f.name.startswith(".")]
    assert len(circuits) >= frame.height
    for path in circuits:
        assert vc.Circuit.load(path, shapesnet).mask.density == pytest.approx(float(path.stem), abs=1e-3)
