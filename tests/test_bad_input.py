"""Everything a user can get wrong: the class of the error, and a text with what came and what to do about it."""

import copy
import os
from dataclasses import dataclass
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import viscircuits as vc
from viscircuits.activations.top import population, top_activations
from viscircuits.data.images import ImageSet
from viscircuits.data.shapes import generate
from viscircuits.errors import (
    ArgumentError,
    ImageError,
    MaskError,
    ModelError,
    StudyError,
    TargetError,
    UnsupportedOperation,
    ViscircuitsError,
)

LAYER = "features.10"


class Spectral(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return torch.fft.fft2(self.conv(x)).abs()


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@dataclass
class Bench:
    """What a case starts from; everything a case writes is below ``path``."""

    path: Path
    model: nn.Module
    images: ImageSet
    other: ImageSet
    call: object

    target = vc.Target(LAYER, 5)

    def score(self, target: str | vc.Target = target, criterion: str = "actgrad", **options):
        target = vc.parse_target(target) if isinstance(target, str) else target
        return vc.score(self.model, target, self.images, criterion, **options)

    def select(self, **amount):
        return self.score(criterion="magnitude").select(**amount)

    def sweep(self, **options):
        given = {"criteria": ["random"], "densities": [0.5], **options}
        return vc.sweep(
            vc.Sweep(self.model, [self.target], self.images, self.other, **given), self.path / "table.parquet"
        )

    def circuit(self):
        return vc.Circuit(self.model, self.target, self.select(density=0.5))

    def changed(self, change) -> nn.Module:
        model = copy.deepcopy(self.model)
        with torch.no_grad():
            change(model)
        return model

    def preservation(self, model: nn.Module):
        return vc.preservation(vc.Circuit(model, self.target, self.select(density=0.5)), self.images)

    def photos(self, count: int = 4, size: int = 64) -> Path:
        folder = self.path / "photos"
        folder.mkdir(exist_ok=True)
        for i, image in enumerate(generate(count, seed=7).images):
            Image.fromarray(image.permute(1, 2, 0).numpy()).resize((size + i * (size != 64), size)).save(
                folder / f"{i}.png"
            )
        return folder

    def read(self, name: str = "", content: bytes = b"", prepare=None, size: int = 64):
        folder = self.photos(size=size)
        if name:
            (folder / name).write_bytes(content)
        return list(ImageSet.from_folder(folder, prepare or vc.zoo.load("shapesnet").prepare).batches(2))

    def jpeg(self) -> bytes:
        pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
        Image.fromarray(pixels).save(self.path / "whole.jpg")
        return (self.path / "whole.jpg").read_bytes()

    def weights(self, state: object, cut: int = 0):
        path = self.path / "weights.pt"
        torch.save(state, path)
        path.write_bytes(path.read_bytes()[: -cut or None])
        return vc.zoo.load("shapesnet", path)

    def pictures(self, **changes) -> ImageSet:
        images = torch.rand(3, 3, 64, 64)
        return ImageSet.from_tensors(changes.get("images", images), changes.get("labels"))

    def extract(self, *options: object, images: object = None, target: str = "features.10:5", model: str = "shapesnet"):
        """Runs the command line; raises what it caught, after checking what the user saw."""
        images = self.photos() if images is None else images
        small = ("-c", "random", "-d", "0.5", "-o", self.path / "out", "--device", "cpu")
        status, out, err = self.call("extract", model, target, "-i", images, *small, *options)
        return self.told(status, out, err)

    def told(self, status: int, out: str, err: str):
        assert (status, out) == (1, "")
        assert err.startswith("error: ")
        assert err.count("\n") == 1, err
        assert "Traceback" not in err
        assert " ".join(str(self.call.error).split()) in err
        raise self.call.error

    def inspect(self, name: str, text: str | None = None):
        folder = self.path / name
        folder.mkdir()
        if text is not None:
            (folder / "study.json").write_text(text)
        return self.told(*self.call("inspect", folder))

    def filled(self, *names: str) -> Path:
        (self.path / "out").mkdir()
        for name in names:
            (self.path / "out" / name).write_text("mine")
        return self.path / "out"

    def studied(self):
        photos = self.photos()
        assert self.call(
            "extract", "shapesnet", "features.10:5", "-i", photos, "-c", "random", "-d", "0.5", "-o", self.path / "out",
            "--device", "cpu",
        )[0] == 0  # fmt: skip
        return self


def silence(model: nn.Module) -> None:
    model.features[10].weight[5] = 0


def spoil(model: nn.Module) -> None:
    model.features[3].weight[0, 0, 0, 0] = torch.nan


FRACTION = r"expected a fraction in \(0, 1\], such as 0\.1"
CASES = {
    # targets
    "misspelt layer": (
        TargetError,
        r"layer 'feature\.10' is not in the model; closest: 'features\.10'.*viscircuits targets",
        lambda b: b.score("feature.10:5"),
    ),
    "channel too large": (
        TargetError,
        r"channel 48 is out of range: layer 'features\.10' has channels 0 to 47",
        lambda b: b.score("features.10:48"),
    ),
    "channel below zero": (
        TargetError,
        r"channel -1 is out of range: .* has channels 0 to 47",
        lambda b: b.score("features.10:-1"),
    ),
    "class too large": (
        TargetError,
        r"channel 12 is out of range: the model's output has channels 0 to 11",
        lambda b: b.score("logit:12"),
    ),
    "position outside": (
        TargetError,
        r"position \(8, 0\) is outside the map of layer 'features\.10'.*\(8, 8\)",
        lambda b: b.score("features.10:5@8,0"),
    ),
    "position on a vector": (
        TargetError,
        r"layer 'classifier\.0' has no positions .*; drop '@max'",
        lambda b: b.score("classifier.0:3@max"),
    ),
    "short direction": (
        TargetError,
        r"a direction over layer 'features\.10' needs 48 coefficients, got 2",
        lambda b: b.score(vc.Target(LAYER, direction=[1.0, 2.0])),
    ),
    "no channel": (
        TargetError,
        r"cannot read target 'features\.10' \(a channel number is missing\); expected layer:channel",
        lambda b: b.score("features.10"),
    ),
    "bad weight": (
        TargetError,
        r"cannot read target 'x\*features\.10:5': 'x' is not a number",
        lambda b: b.score("x*features.10:5"),
    ),
    "dead target": (
        TargetError,
        r"target features\.10:5 is dead: .* on these 12 images; choose another channel",
        lambda b: b.preservation(b.changed(silence)),
    ),
    "target twice": (
        TargetError,
        r"two targets read 'features\.10:5'.*give each once",
        lambda b: vc.Sweep(b.model, [b.target, b.target], b.images, b.other),
    ),
    # amounts
    "density 0": (MaskError, rf"density 0 is out of range; {FRACTION}", lambda b: b.select(density=0)),
    "density 1.5": (MaskError, rf"density 1\.5 is out of range; {FRACTION}", lambda b: b.select(density=1.5)),
    "density nan": (MaskError, rf"density nan is out of range; {FRACTION}", lambda b: b.select(density=float("nan"))),
    "density below zero": (
        MaskError,
        rf"density -0\.1 is out of range; {FRACTION}",
        lambda b: b.sweep(densities=[0.5, -0.1]),
    ),
    "no density at all": (
        MaskError,
        r"a sweep needs at least one target, one criterion and one density",
        lambda b: b.sweep(densities=[]),
    ),
    "count too large": (
        MaskError,
        r"count 99999 is out of range: the target has 8456 relevant kernels",
        lambda b: b.select(count=99999),
    ),
    "two amounts": (
        MaskError,
        r"exactly one of density, count and cumulative",
        lambda b: b.select(count=3, density=0.1),
    ),
    "unknown order": (
        MaskError,
        r"unknown order 'x'; expected one of best, worst",
        lambda b: b.select(density=0.5, order="x"),
    ),
    "order in other letters": (MaskError, r"unknown order 'Best'", lambda b: b.select(count=3, order="Best")),
    "no order": (
        ArgumentError,
        r"order: expected one of 'best', 'worst', got None",
        lambda b: b.select(cumulative=0.5, order=None),
    ),
    # criteria and options
    "unknown criterion": (
        MaskError,
        r"unknown criterion 'actgrd'; closest: 'actgrad'; there are actgrad, snip",
        lambda b: b.score(criterion="actgrd"),
    ),
    "unknown control": (
        MaskError,
        r"unknown control 'snip:best'; the only one is 'snip:worst'",
        lambda b: b.sweep(criteria=["snip:best"]),
    ),
    "unknown criterion to limit": (
        MaskError,
        r"unknown criterion 'forse'; closest: 'force'",
        lambda b: b.sweep(limits={"forse": [0.1]}),
    ),
    "unknown granularity": (
        MaskError,
        r"unknown granularity 'channel'; expected one of .*kernel.*filter",
        lambda b: b.sweep(granularity="channel"),
    ),
    "unknown biases": (
        MaskError,
        r"unknown biases 'zero'; expected one of .*masked.*pruned",
        lambda b: b.sweep(biases="zero"),
    ),
    "unknown scaling": (
        MaskError,
        r"unknown normalise 'max'; .*expected one of .*minmax",
        lambda b: b.sweep(normalise="max"),
    ),
    "force without density": (
        MaskError,
        r"force depends on the density: give density=, a fraction in \(0, 1\]",
        lambda b: b.score(criterion="force"),
    ),
    "force at another density": (
        MaskError,
        r"force scores were made for density 0\.5 and select at no other; score again",
        lambda b: b.score(criterion="force", density=0.5).select(density=0.1),
    ),
    # pictures
    "empty folder": (
        ImageError,
        r"no pictures in '.*': it holds no files; expected .*\.jpg",
        lambda b: b.extract(images=b.filled()),
    ),
    "missing folder": (ImageError, r"no folder '.*nowhere'", lambda b: b.extract(images=b.path / "nowhere")),
    "truncated picture": (
        ImageError,
        r"1 of 5 pictures cannot be read: .*a\.jpg: image file is truncated .*Repair or remove",
        lambda b: b.read("a.jpg", b.jpeg()[:-100]),
    ),
    "text as picture": (
        ImageError,
        r"1 of 5 pictures cannot be read: .*a\.png: not a picture in a known format",
        lambda b: b.read("a.png", b"hello"),
    ),
    "pictures of two sizes": (
        ImageError,
        r"expected pictures of one size after prepare; '0\.png' is \[3, 50, 50\] but",
        lambda b: b.read(size=50, prepare=as_it_is),
    ),
    "pictures of another size": (
        ImageError,
        r"expected pictures of the circuit's shape \(3, 64, 64\), got \(3, 32, 32\)",
        lambda b: vc.preservation(b.circuit(), b.pictures(images=torch.rand(3, 3, 32, 32))),
    ),
    "two sizes in a sweep": (
        ImageError,
        r"scoring pictures have shape \(3, 64, 64\), held-out ones \(3, 32, 32\)",
        lambda b: vc.Sweep(b.model, [b.target], b.images, b.pictures(images=torch.rand(3, 3, 32, 32))),
    ),
    "reference of other pictures": (
        ImageError,
        r"to these 12 images, got those of features\.10:5 to 3",
        lambda b: vc.preservation(b.circuit(), b.images, full=reference(b.circuit(), b.pictures())),
    ),
    "nan pictures": (
        ImageError,
        r"expected finite pixels from the caller for image 0, got inf or nan",
        lambda b: b.pictures(images=torch.full((1, 3, 64, 64), torch.nan)),
    ),
    "loss without labels": (
        ImageError,
        r"the loss needs labels, and the image set has none; use folders by class.*predicted",
        lambda b: vc.score(b.model, vc.Loss(), b.pictures()),
    ),
    "label out of range": (
        ImageError,
        r"label 12 is out of range: the model has 12 outputs",
        lambda b: vc.score(b.model, vc.Loss(), b.pictures(labels=[0, 12, 3])),
    ),
    "held out none": (
        ImageError,
        r"--held-out 0 is out of range; expected a fraction in \(0, 1\) or a folder",
        lambda b: b.extract("--held-out", "0"),
    ),
    "held out all": (ImageError, r"--held-out 1 is out of range", lambda b: b.extract("--held-out", "1")),
    "held out nan": (ImageError, r"--held-out nan is out of range", lambda b: b.extract("--held-out", "nan")),
    "held out a word": (
        ImageError,
        r"--held-out 'abc' is neither a fraction in \(0, 1\) nor a folder that exists",
        lambda b: b.extract("--held-out", "abc"),
    ),
    "one picture": (
        ImageError,
        r"--held-out 0\.5 of 1 picture leaves nothing on one side; give --held-out FOLDER",
        lambda b: b.extract(images=b.photos(1)),
    ),
    "too small a part": (
        ImageError,
        r"--held-out 0\.1 of 4 pictures leaves nothing on one side",
        lambda b: b.extract("--held-out", "0.1"),
    ),
    # models
    "unknown model": (
        ModelError,
        r"no model 'squeezenet11'; closest: 'squeezenet1_1'.*package\.module:callable",
        lambda b: b.extract(model="squeezenet11"),
    ),
    "unknown module": (
        ModelError,
        r"cannot make a model with 'nowhere:make': ModuleNotFoundError: No module named 'nowhere'",
        lambda b: b.extract(model="nowhere:make"),
    ),
    "unknown callable": (
        ModelError,
        r"cannot make a model with 'viscircuits\.model\.zoo\.builtin:Shape': AttributeError",
        lambda b: b.extract(model="viscircuits.model.zoo.builtin:Shape"),
    ),
    "missing weights": (ModelError, r"no weight file '.*gone\.pt'", lambda b: b.extract("-w", b.path / "gone.pt")),
    "weights of another model": (
        ModelError,
        r"'.*weights\.pt' does not fit shapesnet: 14 missing .* 2 unexpected \(conv\.weight.*; give a file",
        lambda b: b.weights(Spectral().state_dict()),
    ),
    "truncated weights": (
        ModelError,
        r"'.*weights\.pt' is not a whole weight file",
        lambda b: b.weights(b.model.state_dict(), cut=1000),
    ),
    "weights with code": (
        ModelError,
        r"it holds Python objects \(posix\.mkdir\).*nothing in it was run; make the file with",
        lambda b: b.weights({"features.0.weight": Trap(b.path / "trap")}),
    ),
    "training mode": (
        ModelError,
        r"must be in evaluation mode, but the model is training; call model\.eval\(\) first",
        lambda b: vc.score(b.changed(nn.Module.train), b.target, b.images),
    ),
    "nan weights": (
        ImageError,
        r"target features\.10:5 is not finite on these images; check preprocessing and weights",
        lambda b: b.preservation(b.changed(spoil)),
    ),
    "nan circuit": (
        ImageError,
        r"the circuit's response to target features\.10:5 is not finite",
        lambda b: reference(b.circuit(), b.images).compare(torch.full((12, 64), torch.nan)),
    ),
    "unsupported operation": (
        UnsupportedOperation,
        r"fft.*module 'conv|fft.*test_bad_input\.py",
        lambda b: vc.score(Spectral().eval(), vc.Target("", 0), b.images),
    ),
    "no such device": (
        ModelError,
        r"cannot use device 'cuda:99' \(.*\); expected cpu, cuda or auto",
        lambda b: b.extract("--device", "cuda:99"),
    ),
    # results
    "another study there": (
        StudyError,
        r"'.*out' holds another study \(it differs in normalise; .*choose another folder with --out",
        lambda b: b.studied().extract("--minmax"),
    ),
    "something else there": (
        StudyError,
        r"'.*out' exists and is not a study; choose another folder with --out",
        lambda b: b.extract("-o", b.filled("notes.txt")),
    ),
    "a file there": (
        StudyError,
        r"'.*notes\.txt' exists and is not a study",
        lambda b: b.extract("-o", b.filled("notes.txt") / "notes.txt"),
    ),
    "below a file": (
        StudyError,
        r"cannot write '.*deeper' \(Not a directory\); choose another place",
        lambda b: b.extract("-o", b.filled("notes.txt") / "notes.txt" / "deeper"),
    ),
    "not a study": (
        StudyError,
        r"'.*nothing' is not a study folder: it has no study\.json",
        lambda b: b.inspect("nothing"),
    ),
    "damaged study": (
        StudyError,
        r"study\.json' is not valid JSON .*delete it and run the command again",
        lambda b: b.inspect("bad", '{"format": 1,'),
    ),
    "incomplete study": (
        StudyError,
        r"study\.json' is damaged: viscircuits: Field required",
        lambda b: b.inspect("bad", '{"format": 1}'),
    ),
    "study of the future": (
        StudyError,
        r"has format 99; this version reads format 1",
        lambda b: b.inspect("new", '{"format": 99}'),
    ),
    "damaged table": (
        StudyError,
        r"table\.parquet' is not a whole Parquet file .*; delete it and run again",
        lambda b: (b.path / "table.parquet").write_bytes(b"PAR1 and no more") and b.sweep(),
    ),
    "circuit of another model": (
        StudyError,
        r"was made on another model or other weights .*load the weights it was made with",
        lambda b: b.circuit().save(b.path / "c") or vc.Circuit.load(b.path / "c", b.changed(silence)),
    ),
    "one circuit where several are taken": (
        ArgumentError,
        r"circuits: expected a list \(of a Circuit\), got a Circuit; for one alone give a list of it, \[circuit\]",
        lambda b: vc.faithfulness(b.circuit(), b.other),
    ),
    "a channel that a layer has not, of a population": (
        TargetError,
        r"channel 64 is out of range: layer 'features.3' has channels 0 to 47",
        lambda b: population(
            b.model, top_activations(b.model, ["features.3"], b.other, 2)["features.3"], b.other, [64]
        ),
    ),
    "scores as circuit": (
        StudyError,
        r"is not a circuit file of format 1, but scores of format 1",
        lambda b: b.score().save(b.path / "s") or vc.Circuit.load(b.path / "s", b.model),
    ),
}


def as_it_is(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float()


def reference(circuit: vc.Circuit, images: ImageSet):
    return vc.Reference(vc.respond(circuit.model, circuit.readout, images), str(circuit.target))


@pytest.fixture
def unchecked_types():
    """Without the run-time type checks of the test suite, as users have it."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize("kind", CASES)
def test_bad_input(kind, tmp_path, shapesnet, shapes, command_line):
    expected, text, do = CASES[kind]
    with pytest.raises(ViscircuitsError, match=text) as caught:
        do(Bench(tmp_path, shapesnet, *shapes, command_line))
    assert type(caught.value) is expected
    assert not (tmp_path / "trap").exists()
