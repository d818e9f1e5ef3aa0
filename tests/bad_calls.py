"""Values that no argument can take, for every argument of every public function; a script, run without type checks.

    python tests/bad_calls.py FOLDER SHARE SEED

prints one line for every call that ends in another way than in a clear error, and in the end how many calls there were.
The functions and arguments are the package's own; a new one fails until it is given a working call and a kind here.
"""

import inspect
import os
import random
import sys
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

import viscircuits as vc
from viscircuits.data.shapes import generate
from viscircuits.errors import ViscircuitsError
from viscircuits.model.zoo import zoo
from viscircuits.study.spec import Pictures, Spec

NAN, INF, HUGE = float("nan"), float("inf"), 10**30


class Odd:
    """Nothing of ours."""


WHOLE = (1.5, NAN, INF, True, "3", [1], -1, HUGE)
NUMBER = (NAN, INF, -INF, True, "0.1", [0.1], 10**400)
BAD: dict[str, tuple[Any, ...]] = {
    "seed": (*WHOLE, None, 2**63),
    "count": (*WHOLE, 0, 10**6 + 1),
    "large count": (*WHOLE, 0, 2**53 + 1),
    "repeats": (*WHOLE, 0, 1, 10**6 + 1),
    "limit": (*NUMBER[:1], *NUMBER[2:6], 0, -1, None),
    "count or none": (*WHOLE, 10**6 + 1),
    "size": (*WHOLE, 0, 1),
    "pixels": (1.5, NAN, True, "64", -1, 0, 1, (3, 64), (3, 64, 0), (3, NAN, 64), (3, 64, 10**9), HUGE, Odd()),
    "canvas": (*WHOLE, 0, 1, 10**9),
    "memory": (*WHOLE, 0, 2**51, 1),
    "density": (*NUMBER, 0, -0.1, 1.5),
    "densities": (None, 3, "0.1", [], [0], [NAN], [1.5], ["x"], [None], [True]),
    "fraction": (*NUMBER, 0, 1, -0.1, 1.5, None),
    "share": (*NUMBER, -0.1, 1.5, None),
    "level": (*NUMBER, 0, 1, 1.5, None),
    "positive": (*NUMBER, -1, None),
    "white": (*NUMBER, -1, 0),
    "scale": (*NUMBER, -1, 0, None, 10**6),
    "flag": ("x", 3, None, [], 1.5),
    "text": (3, None, b"x", ["x"], 1.5),
    "parts": (3, None, "../x", "/etc"),
    "choice": ("", "x", 3, True, ["x"], Odd()),
    "sign": (0, 2, 1.5, "x", None, NAN),
    "criterion": ("", "x", 3, None, ["actgrad"], "actgrad,x=1", "snip,rounds=0", "actgrad,steps=1000001"),
    "criteria": (None, 3, "actgrad", [], [3], ["x"], ["actgrad:best"], [""]),
    "series": ("", "x", 3, None),
    "limits": (3, "x", {"x": [0.1]}, {"actgrad": [2]}, {"actgrad": "x"}, ["actgrad"], {"actgrad": [0.123]}),
    "scoring limits": (3, "x", {"x": 3}, {"actgrad": 0}, {"actgrad": 1.5}, {"actgrad": "x"}, {"actgrad": -1}),
    "model": (None, 3, "shapesnet", [], {}, Odd(), nn.Conv2d, b"x"),
    "named model": (None, 3, "", "x", ":", "x:y", "sys:exit", "os:getcwd", b"x", []),
    "weights": (3, "", "x", "PLACE/pipe", "PLACE", "PLACE/nowhere.pt", "PLACE/zero", True, b"x"),
    "target": (None, 3, 1.5, b"x", [], {}, Odd(), True, "x"),
    "targets": (None, 3, [], [3], [None], Odd(), [[]], {"a": 1}),
    "rendered": (3, [], [3], [None], Odd(), True, "x", {"a": 1}),
    "loss": ("", "x", 3, None, []),
    "metric": ("", "x", 3, None, []),
    "target text": (3, None, "", "x", "a:", b"x", [], "features.3:1@", "nan*features.3:1", "features.3:1@a,b"),
    "layer": (3, None, "x", "features.99", b"x", []),
    "layer name": (3, None, b"x", []),
    "channel": (1.5, NAN, True, "3", [1], -1, 999, HUGE),
    "index": (1.5, NAN, True, "3", [1], None),
    "position": (3, "x", "middle", [1], (99, 99), (-1, 0), (1.5, 2), (NAN, 0), (True, 0), [[1, 2]], Odd()),
    "place": (3, "x", "middle", (1.5, 2), (NAN, 0), (True, 0), [[1, 2]], Odd()),
    "direction": ([], [0.0], [NAN], ["x"], 3, "x", [[1.0]], [INF], Odd(), [True]),
    "images": (None, 3, "x", b"x", 1.5, Odd(), [], {}, True),
    "some images": (3, "x", b"x", 1.5, Odd(), [], {}, True),
    "circuit": (None, 3, "x", [], Odd(), {}),
    "circuits or none": (3, "x", [3], [None], Odd()),
    "circuits": (None, 3, "x", [], [3], [None], Odd()),
    "scores": (3, "x", [], Odd()),
    "mask": (None, 3, "x", [], Odd()),
    "relevant": (None, 3, "x", [], {"features.3": 3}, {3: 4}),
    "graph": (None, 3, "x", [], Odd()),
    "shape": (None, 3, "x", [], (3,), (3, 0, 64), (3, -1, 64), (3, 1.5, 64), (3, NAN, 64), ("3", 64, 64), (3, 1, 1),
              (3, HUGE, 64), (True, 64, 64), (10**6, 64, 64)),
    "tensor": (None, 3, "x", [], Odd(), torch.zeros(3), torch.full((4, 3, 8, 8), NAN), torch.zeros(0, 3, 8, 8)),
    "picture": (None, 3, "x", [], Odd(), torch.zeros(3), torch.full((3, 8, 8), NAN)),
    "values": (None, 3, "x", Odd(), torch.zeros(3), torch.zeros(2, 2, 2), torch.full((12, 64), NAN)),
    "frozen": (3, "x", Odd(), [3], (3,)),
    "labels": (3, [1], "x", [NAN] * 24, [1.5] * 24, [-1] * 24, ["a"] * 24, [None] * 24),
    "new labels": (3, None, [1], "x", [NAN] * 12, [-1] * 12, ["a"] * 12),
    "names": (3, ["a"], "x", [3] * 24, [None] * 24),
    "class names": (3, [], "x", [3] * 12),
    "classes": (3, None, [], "x", [3], [None]),
    "indices": (3, None, [], "x", [1.5], [NAN], [-1], [99], [True], ["1"], [None], [HUGE]),
    "files": (3, None, [], "", "PLACE/nowhere", "PLACE/pipe", "PLACE/zero", "PLACE", [3], [None], b"x"),
    "folder": (3, None, "", "PLACE/nowhere", "PLACE/pipe", "PLACE/zero", "PLACE/notes.txt", "PLACE/empty", b"x", []),
    "dataset": (None, 3, "x", [], Odd(), {}),
    "unused prepare": (3, "x", [], Odd()),
    "unused cache": (3, "", b"x", []),
    "prepare": (3, "x", [], Odd(), int, lambda image: None, lambda image: sys.exit(3)),
    "needed prepare": (None, 3, "x", [], Odd(), int, lambda image: None, lambda image: sys.exit(3)),
    "file": (3, None, "", "PLACE/nowhere", "PLACE/pipe", "PLACE/zero", "PLACE", "PLACE/notes.txt", b"x"),
    "to": (3, None, "", "PLACE/notes.txt/x", "/proc/nowhere/x", "x" * 5000, b"x", []),
    "to folder": (3, None, "", "PLACE/notes.txt", "PLACE/notes.txt/x", "/proc/nowhere", "x" * 5000, b"x", []),
    "kept": (3, "", "PLACE/notes.txt", "PLACE/notes.txt/x", "/proc/nowhere", "x" * 5000, b"x", []),
    "checkpoint": (3, "", "PLACE/notes.txt", "PLACE/notes.txt/x", "/proc/nowhere/x", "PLACE/pipe", b"x", "x" * 5000),
    "study folder": (3, None, "", "PLACE/nowhere", "PLACE/notes.txt", "PLACE/empty", "PLACE/pipe", b"x"),
    "spec": (None, 3, "x", {}, Odd()),
    "study": (None, 3, "x", {}, Odd()),
    "table": (None, 3, "x", {}, Odd(), []),
    "found": (None, 3, "x", {}, Odd(), []),
    "content": (None, 3, "x", {}, Odd(), []),
    "reference": (3, "x", {}, Odd(), []),
    "job": (None, 3, "x", {}, Odd(), []),
    "done": (3, None),
    "colours": (3, "x", {}, Odd(), []),
    "parameterisation": ("", "x", 3, None, [], Odd()),
    "transforms": (3, None, "x", [3], [None], [Odd()]),
    "progress": (3, "x", [], {}, Odd()),
    "keeper": (3, "x", [], Odd()),
    "each": (3, "x", [], {}, Odd()),
    "more": (3, "x", [], Odd()),
    "memory format": (3, "x", None),
    "outputs": (),  # of a model's run, which only the package calls
}  # fmt: skip
"""Kind of argument -> what it cannot take; PLACE stands for a folder with unpleasant things in it."""

KINDS: dict[str, str] = {
    "seed": "seed", "batch_size": "count", "memory": "memory", "steps": "count", "resamples": "count",
    "repeats": "repeats", "variants": "count", "at_most": "count", "n_random": "count or none", "most": "count",
    "density": "density", "densities": "densities", "fraction": "fraction", "keep": "share", "level": "level",
    "tolerance": "positive", "diversity": "positive", "white": "white", "scale": "scale", "decay": "positive",
    "learning_rate": "positive", "spread": "positive", "limit": "limit", "penalty": "positive",
    "contrast": "positive", "predicted": "flag", "any_batch": "flag", "crop": "flag", "visible": "flag",
    "inside": "flag",
    "disconnected": "flag", "title": "text", "command": "text", "engine": "text", "what": "text", "parts": "parts",
    "granularity": "choice", "normalise": "choice", "biases": "choice", "order": "choice", "reduction": "choice",
    "unreadable": "choice", "theme": "choice", "pictures": "choice", "panel": "choice", "sign": "sign",
    "criterion": "criterion", "criteria": "criteria", "limits": "limits", "scoring_limits": "scoring limits",
    "model": "model",
    "target": "target", "targets": "targets", "loss": "loss", "metric": "metric", "layer": "layer",
    "channel": "channel", "position": "position", "direction": "direction", "images": "images",
    "scoring": "images", "held_out": "images", "circuit": "circuit", "circuits": "circuits", "scores": "scores",
    "mask": "mask", "other": "mask", "relevant": "relevant", "graph": "graph", "input_shape": "shape",
    "frozen": "frozen", "labels": "labels", "names": "names", "class_names": "class names", "indices": "indices",
    "paths": "files", "dataset": "dataset", "prepare": "prepare", "spec": "spec", "study": "study",
    "model_hash": "study",
    "table": "table", "found": "found", "content": "content", "full": "reference", "job": "job", "each": "each",
    "colours": "colours", "parameterisation": "parameterisation", "transforms": "transforms", "cache": "kept",
    "progress": "progress", "checkpoint": "checkpoint", "canvas": "canvas", "memory_format": "memory format",
    "weights": "more", "count": "count", "cumulative": "density", "values": "values", "index": "channel",
    "input_size": "size", "out": "channel", "source": "channel", "image": "picture", "n": "count",
    "outputs": "outputs", "compared": "circuits or none",
    "resume": "kept", "folder": "keeper",
    "batch": "more", "named": "text", "done": "done", "compensation": "more", "about": "text",
}  # fmt: skip
"""Name of an argument -> its kind, unless `OWN` says another one."""

OWN = {
    ("ImageSet.batches", "size"): "count", ("ImageSet.from_folder", "path"): "folder",
    ("ImageSet.from_folder", "prepare"): "needed prepare", ("ImageSet.from_files", "prepare"): "needed prepare",
    ("ImageSet.from_tensors", "images"): "tensor", ("ImageSet.labelled", "labels"): "new labels",
    ("ImageSet.select_classes", "names"): "classes", ("ImageSet.from_files", "labels"): "labels",
    ("Target", "layer"): "layer name", ("Target", "channel"): "index", ("Target", "position"): "place",
    ("Target.at", "position"): "place", ("Target.logit", "index"): "index",
    ("parse_target", "text"): "target text",
    ("Scores.load", "path"): "file", ("Scores.save", "path"): "to", ("Circuit.load", "path"): "file",
    ("Circuit.save", "path"): "to", ("Diagram.png", "path"): "to", ("Diagram.save", "path"): "to",
    ("Rendering.save", "folder"): "to folder", ("Study.open", "path"): "study folder",
    ("Study.create", "path"): "to folder", ("Study.create", "graph"): "text", ("Study.circuit", "target"): "series",
    ("Study.circuit", "criterion"): "series", ("Study.add_circuit", "criterion"): "text",
    ("Faithfulness.area", "name"): "series", ("Faithfulness.curve", "name"): "series",
    ("zoo.load", "name"): "named model", ("zoo.load", "weights"): "weights", ("zoo.is_foreign", "name"): "text",
    ("zoo.categories", "model"): "model", ("zoo.prepared_shape", "prepare"): "needed prepare",
    ("render", "size"): "pixels", ("render", "targets"): "rendered",
    ("vertex_pictures", "source"): "choice", ("vertex_pictures", "images"): "some images",
    ("diagram", "prepare"): "unused prepare", ("vertex_pictures", "prepare"): "unused prepare",
    ("diagram", "cache"): "unused cache", ("vertex_pictures", "cache"): "unused cache",
    ("diagram", "images"): "some images", ("report", "images"): "some images",
    ("report", "source"): "text", ("report", "criterion"): "text",
    ("KernelMap", "position"): "place", ("Reference.compare", "values"): "values", ("bootstrap", "full"): "values",
    ("bootstrap", "circuit"): "values", ("Mask.within", "relevant"): "relevant",
    ("respond", "readout"): "circuit", ("Accentuation", "image"): "picture",
    ("KernelMap", "layer"): "layer name", ("KernelMap", "out"): "index", ("KernelMap", "source"): "index",
    ("Sweep", "batch_size"): "count", ("Study.add_scores", "scores"): "scores",
    ("rescaled", "loss"): "loss", ("ImageSet.from_folder", "up_to"): "large count",
}  # fmt: skip
"""(function, argument) -> its kind, where that is its own."""

MADE = frozenset({
    "NetGraph", "Preservation", "Reference", "Stability", "Faithfulness", "Minimality", "Rendering", "Diagram", "Study",
    "ImageSet", "Scores", "Mask", "Loss",
})  # fmt: skip
"""Classes whose objects functions make; their methods are called here, they themselves are not."""

INNER = frozenset({
    "NetGraph.check", "NetGraph.images_lead", "NetGraph.outline", "NetGraph.output", "NetGraph.reading_the_image",
    "Readout.freeze", "Readout.objective", "Readout.response",
    "Readout.needs_freezing", "Readout.seeds", "Scores.from_file", "Sweep.pictures", "Sweep.plans",
    "Circuit.extract", "Mask.factors",
    "Diagram.html", "Diagram.part", "Diagram.svg", "Rendering.to_pil",
    "KernelMap.layers", "KernelMap.map", "KernelMap.value",
    *(f"{kind}.{name}" for kind in ("Fourier", "Maco", "Accentuation")
      for name in ("at", "distance", "latent", "picture", "start")),
    "Scores.minmax", "Study.gone_on", "Study.holds", "Study.release", "Study.scores",
    "Study.circuits", "Study.files", "Study.measurements", "Sweep.keys", "Sweep.measurements",
    "Minimality.needless",
})  # fmt: skip
"""Methods that take nothing from a user, or are called by the package alone."""


class Calls:
    """A working call of every public function, quick where it can be."""

    def __init__(self, place: Path) -> None:
        self.place, self.count = place, 0
        self.model, self.prepare = zoo.load("shapesnet")
        drawn = generate(24, seed=5)
        images = vc.ImageSet.from_tensors(self.prepare(drawn.images), drawn.labels.tolist())
        self.images, self.other = images.split(0.5, seed=0)
        self.target = vc.Target("features.3", 7)
        self.scores = vc.score(self.model, self.target, self.images, "magnitude")
        self.circuit = vc.Circuit(self.model, self.target, self.scores.select(density=0.3))
        self.drawn = vc.diagram(self.circuit, pictures="none")
        self.job = vc.Sweep(self.model, [self.target], self.images, self.other, ["magnitude"], [0.5, 0.3])
        self.table = vc.sweep(self.job)
        self.study = vc.Study.create(place / "study", self._spec())
        self.study.add_circuit(self.circuit, "magnitude", 0.3)
        self.table.write_parquet(self.study.measurements_path)
        self.circuit.save(place / "circuit.safetensors")
        self.scores.save(place / "scores.safetensors")
        (place / "photos").mkdir()
        for i, picture in enumerate(generate(4, seed=7).images):
            Image.fromarray(picture.permute(1, 2, 0).numpy()).save(place / "photos" / f"{i}.png")
        self.faithful = vc.faithfulness(
            [self.circuit, vc.Circuit(self.model, self.target, self.scores.select(density=0.5))], self.images,
            n_random=1, resamples=10,
        )  # fmt: skip
        self.rendering = vc.render(self.model, self.target, size=64, steps=1)

    def _spec(self) -> Spec:
        from viscircuits.model.fingerprint import fingerprint

        return Spec(
            model="shapesnet", weights=None, fingerprint=fingerprint(self.model), input_shape=(3, 64, 64),
            targets=(str(self.target),), scoring=Pictures.of(self.images, "here"), criteria=("magnitude",),
            held_out=Pictures.of(self.other, "there"), densities=(0.5, 0.3),
        )  # fmt: skip

    def all(self) -> Mapping[str, tuple[Callable[..., Any], Mapping[str, Any]]]:
        """Name -> (function, arguments with which it works)."""
        new = self.place / "new"
        one = {"model": self.model, "target": self.target, "images": self.images}
        shown = {"circuit": self.circuit, "images": self.images}
        with_classes = self.images.labelled([0] * 12, ["a"])
        photos = self.place / "photos"
        dataset = [(Image.new("RGB", (64, 64)), 0)] * 4
        return {
            "trace": (vc.trace, {"model": self.model, "input_shape": (3, 64, 64)}),
            "zoo.load": (zoo.load, {"name": "shapesnet"}),
            "zoo.categories": (zoo.categories, {"model": self.model}),
            "zoo.names": (zoo.names, {}),
            "zoo.is_foreign": (zoo.is_foreign, {"name": "shapesnet"}),
            "zoo.prepared_shape": (zoo.prepared_shape, {"prepare": self.prepare}),
            "ImageSet.batches": (self.images.batches, {}),
            "ImageSet.from_dataset": (vc.ImageSet.from_dataset, {"dataset": _Items(dataset), "prepare": self.prepare}),
            "ImageSet.from_files": (vc.ImageSet.from_files, {
                "paths": [photos / "0.png", photos / "1.png"], "prepare": self.prepare,
            }),
            "ImageSet.from_folder": (vc.ImageSet.from_folder, {"path": photos, "prepare": self.prepare}),
            "ImageSet.from_tensors": (vc.ImageSet.from_tensors, {"images": torch.zeros(24, 3, 8, 8)}),
            "ImageSet.in_memory": (self.images.in_memory, {}),
            "ImageSet.labelled": (self.images.labelled, {"labels": [0] * 12}),
            "ImageSet.select_classes": (with_classes.select_classes, {"names": ["a"]}),
            "ImageSet.split": (self.images.split, {"fraction": 0.5}),
            "ImageSet.subset": (self.images.subset, {"indices": [0, 1]}),
            "ImageSet.take": (self.images.take, {"n": 2}),
            "Target": (vc.Target, {"layer": "features.3", "channel": 7}),
            "Target.at": (self.target.at, {"position": "center"}),
            "Target.logit": (vc.Target.logit, {"index": 3}),
            "parse_target": (vc.parse_target, {"text": "features.3:7"}),
            "Readout": (vc.Readout, {"target": self.target, "graph": self.circuit.graph}),
            "respond": (vc.respond, {"model": self.model, "readout": self.circuit.readout, "images": self.images}),
            "Scores.load": (vc.Scores.load, {"path": self.place / "scores.safetensors"}),
            "Scores.save": (self.scores.save, {"path": new}),
            "Scores.select": (self.scores.select, {"density": 0.3}),
            "Mask.iou": (self.circuit.mask.iou, {"other": self.circuit.mask}),
            "Mask.iou_by_layer": (self.circuit.mask.iou_by_layer, {"other": self.circuit.mask}),
            "Mask.within": (self.circuit.mask.within, {"relevant": self.circuit.mask.relevant}),
            "Circuit": (vc.Circuit, {"model": self.model, "target": self.target, "mask": self.circuit.mask}),
            "Circuit.compensated": (self.circuit.compensated, {"images": self.images}),
            "Circuit.load": (vc.Circuit.load, {"path": self.place / "circuit.safetensors", "model": self.model}),
            "Circuit.respond": (self.circuit.respond, {"images": self.images}),
            "Circuit.save": (self.circuit.save, {"path": new}),
            "score": (vc.score, {**one, "criterion": "magnitude"}),
            "score_all": (vc.score_all, {"model": self.model, "targets": [self.target], "images": self.images}),
            "find": (vc.find, {**one, "density": 0.3, "criterion": "magnitude"}),
            "rescaled": (vc.rescaled, {**shown, "steps": 1}),
            "inside": (vc.inside, shown),
            "preservation": (vc.preservation, shown),
            "Reference.compare": (vc.Reference(
                vc.respond(self.model, self.circuit.readout, self.images), str(self.target)
            ).compare, {"values": self.circuit.respond(self.images)}),
            "faithfulness": (vc.faithfulness, {"circuits": [self.circuit], "images": self.images, "resamples": 5}),
            "Faithfulness.area": (self.faithful.area, {"name": "alone"}),
            "Faithfulness.curve": (self.faithful.curve, {"name": "alone"}),
            "minimality": (vc.minimality, {**shown, "at_most": 2}),
            "bootstrap": (vc.bootstrap, {"full": torch.rand(12, 4), "circuit": torch.rand(12, 4), "resamples": 5}),
            "stability": (vc.stability, {**one, "density": 0.3, "criterion": "magnitude", "repeats": 2}),
            "respond_resampled": (vc.respond_resampled, shown),
            "Sweep": (vc.Sweep, {"model": self.model, "targets": [self.target], "scoring": self.images,
                                 "held_out": self.other}),
            "sweep": (vc.sweep, {"job": self.job}),
            "Study.add_circuit": (self.study.add_circuit, {"circuit": self.circuit, "criterion": "magnitude",
                                                           "density": 0.3}),
            "Study.add_scores": (self.study.add_scores, {"scores": self.scores}),
            "Study.circuit": (self.study.circuit, {"model": self.model, "target": str(self.target),
                                                   "criterion": "magnitude", "density": 0.3}),
            "Study.create": (vc.Study.create, {"path": self.place / "study", "spec": self.study.header.spec}),
            "Study.file": (self.study.file, {}),
            "Study.open": (vc.Study.open, {"path": self.place / "study"}),
            "preservation_curve": (vc.preservation_curve, {"table": self.table}),
            "faithfulness_curve": (vc.faithfulness_curve, {"found": self.faithful}),
            "diagram": (vc.diagram, {"circuit": self.circuit, "pictures": "none"}),
            "Diagram.png": (self.drawn.png, {"path": new}),
            "Diagram.save": (self.drawn.save, {"path": new}),
            "vertex_pictures": (vc.vertex_pictures, {"circuit": self.circuit, "content": self.drawn.content,
                                                     "source": "none"}),
            "report": (vc.report, {"study": self.study, "model": self.model, "pictures": "none"}),
            "render": (vc.render, {"model": self.model, "targets": self.target, "size": 64, "steps": 1}),
            "Rendering.save": (self.rendering.save, {"folder": new}),
            "KernelMap": (vc.KernelMap, {"layer": "features.3", "out": 1, "source": 1}),
            "Fourier": (vc.Fourier, {}),
            "Maco": (vc.Maco, {"images": self.images}),
            "Accentuation": (vc.Accentuation, {"image": torch.rand(3, 64, 64)}),
            "receptive_field": (vc.receptive_field, {"graph": self.circuit.graph, "layer": "features.3",
                                                     "position": (1, 1)}),
        }  # fmt: skip


class _Items:
    """A data set in a list."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


def public() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Every public function, class and method that takes arguments."""
    for name in vc.__all__:
        thing = getattr(vc, name)
        if name == "zoo":
            yield from ((f"zoo.{n}", f) for n in ("load", "categories", "is_foreign", "prepared_shape")
                        if callable(f := getattr(thing, n)))  # fmt: skip
        elif inspect.isclass(thing) and not issubclass(thing, BaseException):
            if name not in MADE:
                yield name, thing
            yield from ((f"{name}.{n}", f) for n, f in inspect.getmembers(thing)
                        if callable(f) and not n.startswith("_") and f"{name}.{n}" not in INNER)  # fmt: skip
        elif isinstance(thing, types.FunctionType | types.ModuleType):
            yield name, thing


def cases(calls: Calls) -> Iterator[tuple[str, str, Any, Callable[..., Any], Mapping[str, Any]]]:
    """Every bad value of every argument of every public function."""
    working = calls.all()
    for name, _ in public():
        function, given = working[name]
        function = sys.modules["viscircuits.diagram.extended"].diagram if name == "diagram" else function
        for parameter in inspect.signature(function).parameters.values():
            if parameter.name in ("shape", "spectrum", "original", "unit"):  # set by the package
                continue
            kind = OWN.get((name, parameter.name)) or KINDS[parameter.name]
            for value in BAD[kind]:
                if value is None and parameter.default is None:
                    continue
                if isinstance(value, str):
                    value = value.replace("PLACE", str(calls.place))
                yield name, parameter.name, value, function, given


def outcome(name: str, argument: str, value: Any, function: Callable[..., Any], given: Mapping[str, Any]) -> str:
    """What is wrong with how a call ends; nothing where it is refused clearly."""
    several = inspect.signature(function).parameters[argument].kind is inspect.Parameter.VAR_POSITIONAL
    options = {k: v for k, v in given.items() if k != argument and not (argument in _ONE_OF and k in _ONE_OF)}
    try:
        made = function(value) if several else function(**options, **{argument: value})
        if inspect.isgenerator(made):
            list(made)
        if isinstance(made, vc.ImageSet):  # pictures are read when they are asked for
            made[0]
        if isinstance(made, vc.Sweep):
            list(made.measurements())
    except ViscircuitsError as error:
        return "" if str(error).count("\n") == 0 else f"LINES {error}"
    except TypeError as error:
        return "" if argument in str(error) else f"TRACEBACK TypeError: {error}"
    except _Hang:
        return "HANG"
    except BaseException as error:
        return f"TRACEBACK {type(error).__name__}: {error}"
    return "SILENT"


_ONE_OF = ("density", "count", "cumulative", "channel", "direction")


class _Hang(BaseException):
    """A call that takes too long."""


def main(folder: Path, share: float, seed: int, only: str = "") -> None:
    import signal
    import time

    def late(*_: object) -> None:
        raise _Hang

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    signal.signal(signal.SIGALRM, late)
    from bad_commands import unpleasant

    unpleasant(folder)
    calls = Calls(folder)
    os.chdir(folder)
    chosen = random.Random(seed)
    count = 0
    for name, argument, value, function, given in cases(calls):
        if (only and only not in f"{name} {argument}") or chosen.random() >= share:
            continue
        count += 1
        signal.alarm(20)
        began = time.monotonic()
        wrong = outcome(name, argument, value, function, given)
        signal.alarm(0)
        took = time.monotonic() - began
        if wrong or (only and took > 1):
            sys.stdout.write(f"{name} {argument} {value!r:.60}: {' '.join(wrong.split())[:300]} ({took:.1f}s)\n")
    sys.stdout.write(f"{count}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
