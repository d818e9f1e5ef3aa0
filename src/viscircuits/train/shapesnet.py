"""How the network that comes with the package was trained, start to end: `train_shapesnet` is the recipe.

First without a penalty, then with it, as the paper's AlexNet was (a penalty from the start empties this small network
before it has learnt anything); at the end kernels that are as good as empty become exactly zero. Every number reported
is of the weights as they are stored, in float16.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from viscircuits.card import Card, Shown, few
from viscircuits.data import shapes
from viscircuits.model.guard.seeded import seeded
from viscircuits.model.zoo.builtin import ShapesNet, ShapesTransform
from viscircuits.store import write_tensors
from viscircuits.train.loop import Milestone, Recipe, accuracy, fit
from viscircuits.train.penalties import conv_weights, penalty

EMPTY = 1e-3
"""A kernel whose mean |w| is not above this is empty: the paper's limit (S_magnitude > .001)."""

DENSE = Recipe(steps=1000, lr=1.5e-3)
SPARSE = Recipe(steps=3500, lr=1.5e-3, warmup=0.02)


@dataclass(frozen=True, repr=False)
class Trained(Shown):
    """A trained network and what is known of it; fractions in [0, 1], one entry a convolution."""

    model: ShapesNet
    accuracy: float
    """On pictures of a seed that the training never saw."""
    kernels: dict[str, float]
    """Fraction of kernels that are not empty."""
    live: dict[str, int]
    """Channels whose rectified response varies over pictures and positions."""
    seconds: float
    reports: tuple[Milestone, ...]

    def _card(self) -> Card:
        kernels = few([f"{name} {share:.0%}" for name, share in self.kernels.items()], 8)
        facts = {"model": type(self.model).__name__, "accuracy": f"{self.accuracy:.3f}", "kernels in use": kernels}
        return Card("Trained", {**facts, "seconds": f"{self.seconds:.0f}"})


def train_shapesnet(
    seed: int = 0,
    *,
    pictures: int = 24_000,
    tests: int = 5_000,
    dense: Recipe = DENSE,
    sparse: Recipe = SPARSE,
    lambda_1: float = 4e-5,
    lambda_2: float = 0.6,
    trim: bool = True,
    out: str | Path | None = None,
    progress: Callable[[Milestone], None] | None = None,
) -> Trained:
    """Returns a sparse `ShapesNet` trained from nothing, measured on pictures it has not seen.

    Args:
        seed: Of the initial weights, the batches and the pictures (``2 * seed``; the tests are of ``2 * seed + 1``).
        pictures: How many to train on.
        tests: How many to measure on; the first 1000 also serve the reports.
        dense: The first training, without a penalty; its own seed is replaced by ``seed``.
        sparse: The second, with it.
        lambda_1: Strength of the penalty in the second training (eq. 15).
        lambda_2: Its balance between groups (1) and single weights (0).
        trim: Set kernels with mean absolute weight <= 1e-3 to exactly zero at the end.
        out: Where to write the weights as float16; written once, whole, when all is done.
        progress: Called with each report of both trainings.
    """
    began = time.perf_counter()
    train, test = shapes.generate(pictures, seed=2 * seed), shapes.generate(tests, seed=2 * seed + 1)
    held_out, prepare, model = (test.images[:1000], test.labels[:1000]), ShapesTransform(), _initial(seed)
    weights = list(conv_weights(model).values())

    def run(recipe: Recipe, extra: Callable[[], Tensor] | None) -> list[Milestone]:
        data = (train.images, train.labels)
        return fit(model, *data, prepare, recipe, penalty=extra, held_out=held_out, progress=progress)

    reports = run(replace(dense, seed=seed), None)
    # another seed, or the second training would see the batches of the first once more
    reports += run(replace(sparse, seed=seed + 1), lambda: penalty(weights, lambda_1=lambda_1, lambda_2=lambda_2))
    if trim:
        trim_kernels(model)
    # before anything is measured, so that every number is of the weights that people will load
    stored = {name: tensor.half() for name, tensor in model.state_dict().items()}
    model.load_state_dict({name: tensor.float() for name, tensor in stored.items()})
    right, seconds = accuracy(model, test.images, test.labels, prepare), time.perf_counter() - began
    live = live_channels(model, held_out[0])
    trained = Trained(model, right, kernel_fractions(model), live, seconds, tuple(reports))
    if out is not None:
        write_tensors(out, stored, _header(trained, seed, dense, sparse, lambda_1, lambda_2, trim))
    return trained


def trim_kernels(model: nn.Module, limit: float = EMPTY) -> None:
    """Sets every convolution kernel with mean |w| <= ``limit`` to exactly zero, in place."""
    with torch.no_grad():
        for weight in conv_weights(model).values():
            # by the mean, as the paper's limit is, so that it does not depend on the size of a kernel
            weight[_magnitude(weight) <= limit] = 0


def kernel_fractions(model: nn.Module, limit: float = EMPTY) -> dict[str, float]:
    """Returns the fraction of kernels with mean |w| > ``limit``, for each convolution."""
    return {name: float((_magnitude(w) > limit).float().mean()) for name, w in conv_weights(model).items()}


def live_channels(model: ShapesNet, images: Tensor, least: float = 1e-3) -> dict[str, int]:
    """Returns how many channels of each convolution have a rectified response that varies.

    Args:
        model: the network.
        images: Pictures, as bytes.
        least: The standard deviation above which a response counts as varying.
    """
    live, x = {}, ShapesTransform()(images)
    with torch.no_grad():
        for name, module in model.features.named_children():
            x = module(x)
            if isinstance(module, nn.Conv2d):
                live[f"features.{name}"] = int((x.relu().std(dim=(0, 2, 3)) > least).sum())
    return live


def _initial(seed: int) -> ShapesNet:
    """A new network of a seed, after He et al. (2015); the caller's random state stays as it was."""
    with seeded(seed):
        model = ShapesNet(len(shapes.OBJECTS))
        for parameter in model.parameters():
            if parameter.ndim > 1:
                nn.init.kaiming_normal_(parameter, nonlinearity="relu")  # torch's smaller default lets channels die
            else:
                nn.init.zeros_(parameter)
    return model


def _magnitude(weight: Tensor) -> Tensor:
    return weight.detach().abs().mean(dim=(2, 3))  # [out, in]


def _header(
    trained: Trained, seed: int, dense: Recipe, sparse: Recipe, lambda_1: float, lambda_2: float, trim: bool
) -> dict:
    """What the weights file says of itself."""
    return {
        "model": "ShapesNet",
        "classes": list(shapes.OBJECTS),
        "recipe": {"seed": seed, "dense": asdict(dense), "sparse": asdict(sparse)}
        | {"lambda_1": lambda_1, "lambda_2": lambda_2, "trimmed": trim},
        "accuracy": trained.accuracy,
        "kernels": trained.kernels,
    }
