"""Jobs of ours and what they are measured against, on one network, target and set of pictures.

The yardsticks are plain torch, written without the package's engine: one pass of training, the textbook's way of
scoring kernels, one dense evaluation for every mask, and the definitions that scores are compared with.
"""

import copy
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import viscircuits as vc

NETWORKS = {
    "alexnet": "features.10",
    "squeezenet1_1": "features.12.expand3x3",
    "resnet18": "layer4.1.conv2",
    "vgg11": "features.18",
}
CHANNEL = 9
DATA = Path(os.environ.get("VISCIRCUITS_DATA", Path(__file__).parent.parent / "../shared/data"))

Run = Callable[[], object]


@dataclass(frozen=True)
class Setting:
    """A network, one of its channels, and pictures to score or measure on; ``origin`` says where they are from."""

    model: nn.Module
    target: vc.Target
    images: vc.ImageSet
    batch: int
    origin: str

    @cached_property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @cached_property
    def batches(self) -> list[Tensor]:
        """The pictures in the memory layout that our passes use too."""
        layout = vc.trace(self.model, self.images[0].shape).memory_format
        stack = torch.stack([self.images[i] for i in range(len(self.images))])
        own = next(self.model.parameters()).dtype
        return list(stack.to(own).contiguous(memory_format=layout).split(self.batch))

    def few(self, pictures: int, dtype: torch.dtype | None = None) -> "Setting":
        """Returns the first pictures with the same network, or with a copy in another floating type."""
        some = self.images.subset(range(min(pictures, len(self.images))))
        model = self.model if dtype is None else copy.deepcopy(self.model).to(dtype)
        return Setting(model, self.target, some, self.batch, self.origin)


def noise(name: str, pictures: int, batch: int, device: str) -> Setting:
    """Returns a network with random weights and random pictures; seeded."""
    model, _ = vc.zoo.load(name)
    stack = torch.randn(pictures, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    target = vc.Target(NETWORKS[name], CHANNEL)
    return Setting(model.to(device), target, vc.ImageSet.from_tensors(stack), batch, "random weights, noise")


def natural(name: str, pictures: int, batch: int, device: str) -> Setting:
    """Returns a network with trained weights and photographs, each where the data folder has them."""
    weights, folder = DATA / f"weights/{name}-imagenet.safetensors", DATA / "imagenet-1000"
    if not folder.is_dir():
        return noise(name, pictures, batch, device)
    model, prepare = vc.zoo.load(name, weights if weights.is_file() else None)
    every = vc.ImageSet.from_folder(folder, prepare)
    images = every.take(min(pictures, len(every))).in_memory()
    origin = f"{'trained' if weights.is_file() else 'random'} weights, {len(images)} ImageNet pictures"
    return Setting(model.to(device), vc.Target(NETWORKS[name], CHANNEL), images, batch, origin)


# ---- ours ------------------------------------------------------------------------------------------------------------


def scoring(setting: Setting, criterion: str, channels: Sequence[int] = (CHANNEL,)) -> Callable[[], vc.Scores]:
    """Our scores of some channels of the target's layer, each let go when the next comes; the last is returned."""
    vc.trace(setting.model, setting.images[0].shape)
    targets = [vc.Target(setting.target.layer, channel) for channel in channels]

    def run() -> vc.Scores:
        return deque(vc.score_all(setting.model, targets, setting.images, criterion, batch_size=setting.batch), 1)[0]

    return run


def masks(setting: Setting, criterion: str, densities: Sequence[float], pictures: int = 100) -> list[vc.Mask]:
    """Returns a criterion's best kernels at some densities."""
    images = setting.images.subset(range(min(pictures, len(setting.images))))
    scores = vc.score(setting.model, setting.target, images, criterion, batch_size=setting.batch)
    return [scores.select(density=density) for density in densities]


def circuits(setting: Setting, kept: Sequence[vc.Mask]) -> Callable[[], list[Tensor]]:
    """Our responses of some circuits, which are made anew every time."""
    from viscircuits.execution.together import respond_all

    def run() -> list[Tensor]:
        made = [vc.Circuit(setting.model, setting.target, mask) for mask in kept]
        return respond_all([one.execution for one in made], setting.images, frozen=None, batch_size=setting.batch)

    return run


# ---- yardsticks ------------------------------------------------------------------------------------------------------


class _Stop(Exception):
    pass


@contextmanager
def truncated(model: nn.Module, layer: str) -> Iterator[Callable[[Tensor], Tensor]]:
    """While it lasts, a function from pictures to the layer's output, which runs nothing after it."""
    reached: list[Tensor] = []

    def hook(module: nn.Module, inputs: object, output: Tensor) -> None:
        reached.append(output)
        raise _Stop

    def forward(images: Tensor) -> Tensor:
        with suppress(_Stop):
            model(images)
        return reached.pop()

    handle = model.get_submodule(layer).register_forward_hook(hook)
    try:
        yield forward
    finally:
        handle.remove()


def training(setting: Setting) -> Run:
    """Forward to the target and backward to all parameters, none to the pictures."""
    model, batches = setting.model, setting.batches

    def run() -> None:
        with truncated(model, setting.target.layer) as forward:
            for images in batches:
                model.zero_grad()
                forward(images.to(setting.device))[:, setting.target.channel].abs().sum().backward()

    return run


def dense(setting: Setting, kept: Sequence[vc.Mask]) -> Callable[[], list[Tensor]]:
    """For every mask, the network with all other kernels zero, run on all pictures up to the target."""
    model, batches = copy.deepcopy(setting.model), setting.batches

    @torch.no_grad()
    def run() -> list[Tensor]:
        responses = []
        for mask in kept:
            for name, kernels in mask.kept.items():
                keep = (kernels | ~mask.relevant[name])[..., None, None].to(setting.device)
                model.get_parameter(f"{name}.weight").copy_(setting.model.get_parameter(f"{name}.weight") * keep)
            with truncated(model, setting.target.layer) as forward:
                maps = [forward(images.to(setting.device))[:, setting.target.channel] for images in batches]
            responses.append(torch.cat(maps).flatten(1).cpu())
        return responses

    return run


def textbook(setting: Setting, room: int) -> Callable[[], dict[str, Tensor]]:
    """ActGrad with the map of every kernel of a layer in memory, times the retained gradient of the layer's output.

    Gradients are asked of activations only. A layer's maps ``[n, in, out, positions]`` are one product of its unfolded
    input (faster than a grouped convolution), for as many pictures at a time as have room.

    Args:
        setting: what to score.
        room: bytes for maps; those of at least one picture are held.
    """
    model, batches = separate(setting.model).requires_grad_(False), setting.batches

    def run() -> dict[str, Tensor]:
        sums: dict[str, Tensor] = {}
        for images in batches:
            with recorded(model) as calls, truncated(model, setting.target.layer) as forward:
                forward(images.to(setting.device))[:, setting.target.channel].abs().sum().backward()
            for name, (x, output) in calls.items():
                if output.grad is not None:
                    some = max(1, room // (4 * output[0].numel() * x.shape[1]))
                    for xs, gs in zip(x.detach().split(some), output.grad.split(some), strict=True):
                        maps = _maps(xs, model.get_submodule(name))
                        score = maps.mul_(gs.flatten(2)[:, None]).abs_().mean(3).sum(0).T
                        sums[name] = sums[name] + score if name in sums else score
        return sums

    return run


def _maps(x: Tensor, conv: nn.Module) -> Tensor:
    assert isinstance(conv, nn.Conv2d)
    kernels = conv.weight.flatten(2).transpose(0, 1)  # (in, out, taps)
    patches = F.unfold(x, conv.kernel_size, conv.dilation, conv.padding, conv.stride)  # pyright: ignore
    return kernels @ patches.view(len(x), x.shape[1], kernels.shape[2], -1)


def separate(model: nn.Module) -> nn.Module:
    """Returns a copy whose activations write over nothing."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return model


@contextmanager
def recorded(model: nn.Module) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """While it lasts, every convolution leaves its input and its output, which retains its gradient."""
    calls: dict[str, tuple[Tensor, Tensor]] = {}

    def recorder(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            calls[name] = inputs[0], output if output.requires_grad else output.requires_grad_()
            output.retain_grad()

        return hook

    convolutions = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    handles = [module.register_forward_hook(recorder(name)) for name, module in convolutions]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


# ---- equality --------------------------------------------------------------------------------------------------------


def unlike(a: Tensor, b: Tensor) -> float:
    """Returns the largest difference over the largest value."""
    return float((a.double() - b.double()).abs().max() / b.double().abs().max().clamp(min=1e-300))


def from_definition(setting: Setting, criterion: str, kernels: int = 8, pictures: int = 2) -> tuple[float, float]:
    """Returns how far our scores are from their definition, in float32 and in float64, relative to each layer's best.

    The definition is computed in float64 for a few kernels of every layer, one by one: equation 5 from the kernel's own
    map and autograd's gradient, equation 6 from autograd's gradient of one picture's weights.
    """
    exact = setting.few(pictures, torch.float64)
    found = [scoring(each, criterion)() for each in (setting.few(pictures), exact)]
    model, images = separate(exact.model), torch.cat(exact.batches).to(exact.device)
    with recorded(model) as calls, truncated(model, exact.target.layer) as forward:
        response = forward(images)[:, exact.target.channel].abs().flatten(1).sum(1)
    one = (_actgrad if criterion == "actgrad" else _snip)(model, calls, response)
    worst = [0.0, 0.0]
    for name, relevant in found[1].relevant.items():
        rows = relevant.nonzero()
        chosen = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:kernels]].tolist()
        wanted = torch.stack([one(name, o, i) for o, i in chosen]).cpu()
        for place, scores in enumerate(found):
            ours = torch.stack([scores.sums[name][o, i] for o, i in chosen])
            largest = float(scores.sums[name].max().clamp(min=1e-300))
            worst[place] = max(worst[place], float((ours - wanted).abs().max()) / largest)
    return worst[0], worst[1]


One = Callable[[str, int, int], Tensor]


def _actgrad(model: nn.Module, calls: dict[str, tuple[Tensor, Tensor]], response: Tensor) -> One:
    response.sum().backward()

    def one(name: str, o: int, i: int) -> Tensor:
        conv, (x, output) = model.get_submodule(name), calls[name]
        assert isinstance(conv, nn.Conv2d)
        assert output.grad is not None
        a = F.conv2d(x[:, i : i + 1], conv.weight[o : o + 1, i : i + 1], None, conv.stride, conv.padding)  # pyright: ignore
        return (a[:, 0] * output.grad[:, o]).abs().mean((1, 2)).sum().detach()

    return one


def _snip(model: nn.Module, calls: dict[str, tuple[Tensor, Tensor]], response: Tensor) -> One:
    weights = {name: model.get_parameter(f"{name}.weight") for name in calls}
    each = [torch.autograd.grad(own, list(weights.values()), retain_graph=True, allow_unused=True) for own in response]
    gradients = {name: [g[place] for g in each] for place, name in enumerate(weights)}

    def one(name: str, o: int, i: int) -> Tensor:
        return torch.stack([(weights[name][o, i] * g[o, i]).abs().mean() for g in gradients[name]]).sum().detach()

    return one
