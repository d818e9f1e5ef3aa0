"""A small training loop for pictures that fit in memory: seeded, silent, and safe to interrupt.

It writes no file, so Ctrl-C leaves nothing behind; callers store the result atomically once it is whole. Progress goes
to a callback. Which pictures and which penalty is the caller's choice.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from viscircuits.bounds.arguments import checked
from viscircuits.errors import ImageError

Preprocess = Callable[[Tensor], Tensor]
"""uint8 pictures to what the model takes."""


@dataclass(frozen=True)
class Recipe:
    """How to train: everything but the model, the pictures and the penalty."""

    steps: int = 3000
    batch: int = 128
    optimiser: Literal["adamw", "sgd"] = "adamw"
    lr: float = 3e-3
    warmup: float = 0.1
    """Fraction of the steps over which the rate rises; it then falls to 0 along half a cosine."""
    weight_decay: float = 0.0
    momentum: float = 0.9
    """Of SGD; AdamW keeps its own."""
    flips: bool = True
    """Turn each batch by a random one of the eight symmetries of the square."""
    every: int = 250
    """Steps between two reports."""
    seed: int = 0


@dataclass(frozen=True)
class Milestone:
    """What the loop says of itself every ``Recipe.every`` steps; means since the last report."""

    step: int
    loss: float
    """Mean cross-entropy, without the penalty."""
    penalty: float
    accuracy: float | None
    """On the pictures held out, as a fraction; None where there are none."""


@checked
def fit(
    model: nn.Module,
    images: UInt8[Tensor, "n c h w"],
    labels: Int64[Tensor, " n"],
    prepare: Preprocess,
    recipe: Recipe,
    *,
    penalty: Callable[[], Tensor] | None = None,
    held_out: tuple[Tensor, Tensor] | None = None,
    progress: Callable[[Milestone], None] | None = None,
) -> list[Milestone]:
    """Returns the reports of a training that changes ``model`` in place and leaves it in evaluation mode.

    Args:
        model: From pictures to logits; its device is where the training runs.
        images: Pictures, kept as bytes and prepared a batch at a time.
        labels: Their classes.
        prepare: Turns a batch of bytes into what the model takes.
        recipe: Steps, rates and the seed of everything random here; the initial weights are the caller's.
        penalty: Added to the loss at every step.
        held_out: Pictures and classes for the accuracy of each report.
        progress: Called with each report; an exception it raises ends the training.
    """
    if len(images) == 0 or len(images) != len(labels):
        raise ImageError(f"expected as many labels as pictures, and one at least; got {len(labels)} and {len(images)}")
    reports, values = [], []
    try:
        model.train()
        for step, value in enumerate(_steps(model, images, labels, prepare, recipe, penalty), start=1):
            values.append(value)
            if step % recipe.every == 0 or step == recipe.steps:
                loss, extra = torch.stack(values).mean(0).tolist()
                right = accuracy(model, *held_out, prepare) if held_out else None
                reports.append(Milestone(step, loss, extra, right))
                values = []
                if progress:
                    progress(reports[-1])
    finally:
        # also after Ctrl-C: a model left in training mode would give other responses without a word
        model.eval()
    return reports


def accuracy(
    model: nn.Module,
    images: UInt8[Tensor, "n c h w"],
    labels: Int64[Tensor, " n"],
    prepare: Preprocess,
    batch: int = 500,
) -> float:
    """Returns the fraction of pictures whose largest logit is their class, in evaluation mode; restores the mode.

    Args:
        model: From pictures to logits.
        images: Pictures, as bytes.
        labels: Their classes.
        prepare: Turns a batch of bytes into what the model takes.
        batch: Pictures at a time.
    """
    device, training = next(model.parameters()).device, model.training
    try:
        model.eval()
        with torch.no_grad():
            right = [
                (model(prepare(x).to(device)).argmax(1).cpu() == y).sum()
                for x, y in zip(images.split(batch), labels.split(batch), strict=True)
            ]
    finally:
        model.train(training)
    return int(torch.stack(right).sum()) / len(labels)


def _steps(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    prepare: Preprocess,
    recipe: Recipe,
    penalty: Callable[[], Tensor] | None,
) -> Iterator[Float[Tensor, "2"]]:
    """Yields the cross-entropy and the penalty of each step after it was taken."""
    device = next(model.parameters()).device
    optimiser, schedule = _optimiser(model, recipe)
    # its own stream, so that neither the caller's random numbers nor another thread change a training
    rng = torch.Generator().manual_seed(recipe.seed)
    for _ in range(recipe.steps):
        batch = torch.randint(len(images), (recipe.batch,), generator=rng)
        x = prepare(_symmetry(images[batch], rng) if recipe.flips else images[batch])
        x = x.to(device, memory_format=torch.channels_last)  # on a CPU pooling is then several times faster
        loss = nn.functional.cross_entropy(model(x), labels[batch].to(device))
        extra = penalty() if penalty else loss.new_zeros(())
        optimiser.zero_grad()
        (loss + extra).backward()
        optimiser.step()
        schedule.step()
        # on the device still: a number read at every step would make it wait for each
        yield torch.stack([loss, extra]).detach()


def _optimiser(model: nn.Module, recipe: Recipe) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    weights, lr, decay = model.parameters(), recipe.lr, recipe.weight_decay
    if recipe.optimiser == "adamw":
        optimiser = torch.optim.AdamW(weights, lr, weight_decay=decay)
    else:
        optimiser = torch.optim.SGD(weights, lr, recipe.momentum, weight_decay=decay)
    rise = max(1, round(recipe.warmup * recipe.steps))

    def rate(step: int) -> float:
        done = (step - rise) / max(1, recipe.steps - rise)
        return (step + 1) / rise if step < rise else (1 + math.cos(math.pi * done)) / 2

    return optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, rate)


def _symmetry(images: UInt8[Tensor, "n c h w"], rng: torch.Generator) -> Tensor:
    """The batch under one of the eight symmetries of the square."""
    turns, mirror = torch.randint(4, (), generator=rng), torch.randint(2, (), generator=rng)
    turned = torch.rot90(images, int(turns), (2, 3))
    return turned.flip(3) if mirror else turned
