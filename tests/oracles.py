"""Slow, literal re-implementations of every criterion, one picture and one kernel at a time.

Nothing here comes from the package but the description of a target. The network is run with every kernel layer taken
apart: its output is an explicit sum of the maps of its weights, each computed on its own slice of the input, and
autograd is asked for the gradient of every single map.
"""

import copy
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from viscircuits.target import AnyTarget, Loss, Target

Table = dict[str, Tensor]
"""Layer -> one number a structure."""

_TRANSPOSED = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
_FUNCTIONS = (F.conv1d, F.conv2d, F.conv3d, *_TRANSPOSED, F.linear)
_NAMES = {
    "conv": ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
    "transposed": ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation"),
}


def oracle(
    model: nn.Module, target: AnyTarget, images: Tensor, labels: list[int] | None, *, taps: bool = True
) -> dict[tuple[str, str], Table]:
    """Returns (criterion, granularity) -> scores summed over pictures, for every layer that ran.

    With ``taps=False`` a kernel's map is not taken apart further, and granularity "weight" has no activations.
    """
    sums: dict[tuple[str, str], Table] = defaultdict(dict)
    for index, image in enumerate(images):
        label = None if labels is None else labels[index]
        one = _maps(model, target, image[None], label, taps)
        gradients = weight_gradients(model, target, image[None], label)
        weights = {name: rows_first(model, name, weight) for name, weight in kernel_weights(model).items()}
        for granularity in ("weight", "kernel", "filter"):
            # equation 6: 1/KK sum |w df/dw|; the gradient criterion leaves out w
            one["snip", granularity] = {n: pooled((weights[n] * g).abs(), granularity) for n, g in gradients.items()}
            one["gradient", granularity] = {n: pooled(g.abs(), granularity) for n, g in gradients.items()}
        for key, table in one.items():
            for name, values in table.items():
                sums[key][name] = sums[key].get(name, 0) + values
    for granularity in ("weight", "kernel", "filter"):  # equation 7, once: it looks at no picture
        sums["magnitude", granularity] = {
            n: pooled(rows_first(model, n, w).abs(), granularity) for n, w in kernel_weights(model).items()
        }
    return dict(sums)


def force(
    model: nn.Module,
    target: AnyTarget,
    images: Tensor,
    labels: list[int] | None,
    relevant: Mapping[str, Tensor],
    k: int,
    granularity: str,
    rounds: int = 10,
) -> tuple[Table, dict[str, Tensor]]:
    """Returns the scores of the last round and mask T, from the definition: mask t from scores under mask t - 1."""
    m = sum(int(r.sum()) for r in relevant.values())
    masked = copy.deepcopy(model)
    scores: Table = {}
    mask: dict[str, Tensor] = {}
    for t in range(1, rounds + 1):
        a = t / rounds
        k_t = k if t == rounds else round(k**a * m ** (1 - a))
        scores = {name: torch.zeros(r.shape, dtype=torch.float64) for name, r in relevant.items()}
        for index, image in enumerate(images):
            label = None if labels is None else labels[index]
            gradients = weight_gradients(masked, target, image[None], label, frozen_in=model)
            for name in relevant:
                weight = rows_first(model, name, kernel_weights(model)[name])
                if name in gradients:
                    scores[name] += pooled((weight * gradients[name]).abs(), granularity) * relevant[name]
        ranked = sorted(
            (-float(scores[name].flatten()[i]), layer, i)
            for layer, name in enumerate(relevant)
            for i in relevant[name].flatten().nonzero().flatten().tolist()
        )
        mask = {name: torch.zeros(r.numel(), dtype=torch.bool) for name, r in relevant.items()}
        for _, layer, i in ranked[:k_t]:
            mask[list(relevant)[layer]][i] = True
        mask = {name: flat.view(relevant[name].shape) for name, flat in mask.items()}
        masked = _masked(model, mask, relevant)
    return scores, mask


def relevance(model: nn.Module, target: AnyTarget, shape: tuple[int, ...], labels: bool) -> dict[str, Tensor]:
    """Returns which kernels the target can depend on: a derivative that is not zero for some weights and pictures."""
    found: dict[str, Tensor] = {}
    everywhere = _everywhere(target)
    for seed in range(6):
        generator = torch.Generator().manual_seed(seed)
        other = copy.deepcopy(model).double()
        with torch.no_grad():
            for tensor in other.state_dict().values():
                if tensor.is_floating_point():
                    values = torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
                    tensor.copy_((values if seed % 2 else values - 0.1) / (tensor[0].numel() if tensor.ndim > 1 else 1))
        image = torch.rand(1, *shape, generator=generator, dtype=torch.float64)
        for name, g in weight_gradients(other, everywhere, image, 0 if labels else None).items():
            found[name] = found.get(name, False) | (pooled(g.abs(), "kernel") > 0)
    return {name: kernels for name, kernels in found.items() if bool(kernels.any())}


def pooled(weights: Tensor, granularity: str) -> Tensor:
    """Returns means over taps (kernel), and over a filter's kernels (filter); one number after the other."""
    if granularity == "weight":
        return weights
    kernels = torch.stack([torch.stack([kernel.mean() for kernel in row]) for row in weights])
    return kernels if granularity == "kernel" else torch.stack([row.mean() for row in kernels])


def kernel_weights(model: nn.Module) -> dict[str, Tensor]:
    """Returns layer name -> its weight: every parameter that a kernel function may be called with."""
    return {name.removesuffix(".weight"): p for name, p in model.named_parameters() if p.ndim > 1}


def rows_first(model: nn.Module, name: str, weight: Tensor) -> Tensor:
    """Returns a weight as (out, in/g, *kernel), entry by entry; transposed convolutions store it otherwise."""
    groups = _transposed_groups(model, name)
    if groups is None:
        return weight.detach()
    inputs, per_group = weight.shape[:2]
    result = torch.empty(per_group * groups, inputs // groups, *weight.shape[2:], dtype=weight.dtype)
    for o in range(result.shape[0]):
        for i in range(result.shape[1]):
            result[o, i] = weight[(o // per_group) * (inputs // groups) + i, o % per_group].detach()
    return result


def stored(model: nn.Module, name: str, values: Tensor, like: Tensor) -> Tensor:
    """Returns the inverse of `rows_first`."""
    groups = _transposed_groups(model, name)
    if groups is None:
        return values.expand(like.shape)
    inputs, per_group = like.shape[:2]
    result = torch.empty(like.shape, dtype=values.dtype)
    for o in range(per_group * groups):
        for i in range(inputs // groups):
            result[(o // per_group) * (inputs // groups) + i, o % per_group] = values[o, i]
    return result


def objective(
    model: nn.Module, target: AnyTarget, image: Tensor, label: int | None, frozen_in: nn.Module | None = None
) -> Tensor:
    """Returns the scalar of one picture that gradients start from, straight from design section 4."""
    outputs = _outputs(model, target, image)
    if isinstance(target, Loss):
        if target.predicted:
            with torch.no_grad():
                label = int((frozen_in or model)(image.clone()).argmax())
        return -torch.log_softmax(outputs[""][0], 0)[label]
    total = outputs[target.terms[0][1].layer].new_zeros(())
    for weight, term in target.terms:
        values = _map(model, term, outputs)
        if term.position == "max":
            with torch.no_grad():
                place = _map(model, term, _outputs(frozen_in or model, term, image)).argmax()
            values = values.flatten()[place]
        elif term.position == "center":
            values = values[tuple(size // 2 for size in values.shape)]
        elif term.position is not None:
            values = values[term.position]
        reduce = {"sum_abs": lambda v: v.abs().sum(), "sum": torch.sum, "mean": torch.mean}[term.reduction]
        total = total + weight * reduce(values)
    return total


def weight_gradients(
    model: nn.Module, target: AnyTarget, image: Tensor, label: int | None, frozen_in: nn.Module | None = None
) -> Table:
    """Returns layer -> gradient of one picture's objective for the real parameters, (out, in/g, *kernel)."""
    model = copy.deepcopy(model).requires_grad_(True)
    called: set[str] = set()

    def repeat(call: _Call) -> Tensor:
        called.add(call.name)
        return call.function(**call.given)  # on a copy of its input, which may be overwritten later

    weights = kernel_weights(model)
    with _Calls({id(p): name for name, p in weights.items()}, repeat):
        objective(model, target, image, label, frozen_in).backward()
    return {n: rows_first(model, n, p.grad) for n, p in weights.items() if n in called and p.grad is not None}


@dataclass
class _Call:
    name: str
    function: Callable[..., Tensor]
    given: dict[str, object]
    parts: dict[tuple[int, int], list[Tensor]] = field(default_factory=lambda: defaultdict(list))
    output: Tensor | None = None

    def taken_apart(self, taps: bool) -> Tensor:
        """The same output as an explicit sum of maps, each with a gradient of its own: ``parts[o, i][tap]``."""
        options = {k: v for k, v in self.given.items() if k not in ("input", "weight", "bias", "groups")}
        x, weight, bias = self.given["input"], self.given["weight"].detach(), self.given.get("bias")
        groups, linear = self.given.get("groups", 1), self.function is F.linear
        transposed = self.function in _TRANSPOSED
        out = weight.shape[1] * groups if transposed else weight.shape[0]
        width = weight.shape[0] // groups if transposed else weight.shape[1]
        rows = []
        for o in range(out):
            group = o // (out // groups)
            total = 0
            for i in range(width):
                source = group * width + i
                at = (source, o % (out // groups)) if transposed else (o, i)
                kernel = weight[at][None, None]
                slice_ = x[..., source : source + 1] if linear else x[:, source : source + 1]
                for tap in range(kernel.numel() if taps else 1):
                    one = kernel.clone()
                    if taps:
                        one = torch.zeros_like(kernel).flatten()
                        one[tap] = kernel.flatten()[tap]
                    a = self.function(slice_, one.view(kernel.shape), None, **options)
                    a = a if a.requires_grad else a.requires_grad_(True)
                    a.retain_grad()
                    self.parts[o, i].append(a)
                    total = total + a
            rows.append(total if bias is None else total + bias[o].detach())
        output = torch.cat(rows, -1 if linear else 1)
        output.retain_grad()
        self.output = output
        return output * 1  # what follows may write over it


class _Calls(TorchFunctionMode):
    def __init__(self, names: dict[int, str], replace: Callable[[_Call], Tensor]) -> None:
        super().__init__()
        self.names, self.replace = names, replace

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func not in _FUNCTIONS:
            return func(*args, **kwargs)
        names = _NAMES["transposed" if func in _TRANSPOSED else "conv"]
        given = dict(zip(names, args, strict=False)) | kwargs
        name = self.names.get(id(given["weight"]))
        if name is None:
            return func(*args, **kwargs)
        given["input"] = given["input"].clone()
        return self.replace(_Call(name, func, given))


def _maps(
    model: nn.Module, target: AnyTarget, image: Tensor, label: int | None, taps: bool
) -> dict[tuple[str, str], Table]:
    """Equation 5, 1/HW sum |a df/da|, and VISCNN's activation, 1/HW sum |a|, for one picture."""
    calls: list[_Call] = []

    def replace(call: _Call) -> Tensor:
        calls.append(call)
        return call.taken_apart(taps)

    with _Calls({id(p): name for name, p in kernel_weights(model).items()}, replace):
        f = objective_of_recorded(model, target, image, label)
    f.backward()
    tables: dict[tuple[str, str], Table] = defaultdict(dict)
    for call in calls:
        if call.output.grad is None:  # the target does not depend on this call: it came after, or leads elsewhere
            continue
        for key, values in _of_call(call, model, taps).items():
            tables[key][call.name] = tables[key].get(call.name, 0) + values
    return tables


def objective_of_recorded(model: nn.Module, target: AnyTarget, image: Tensor, label: int | None) -> Tensor:
    """Returns `objective`, with what must be fixed taken from a copy, so that only one run is recorded."""
    return objective(model, target, image, label, frozen_in=copy.deepcopy(model))


def _of_call(call: _Call, model: nn.Module, taps: bool) -> Table:
    weight = rows_first(model, call.name, kernel_weights(model)[call.name])
    result: dict[tuple[str, str], Tensor] = {}
    axis = -1 if call.function is F.linear else 1
    for criterion in ("actgrad", "activation"):

        def score(a: Tensor, g: Tensor, criterion: str = criterion) -> Tensor:
            return (a * (g if criterion == "actgrad" else 1)).abs().mean().detach()

        kernels = torch.zeros(weight.shape[:2], dtype=weight.dtype)
        weights = torch.zeros(*weight.shape[:2], max(1, weight[0, 0].numel()), dtype=weight.dtype)
        for o, i in torch.cartesian_prod(*map(torch.arange, weight.shape[:2])).tolist():
            parts = call.parts[o, i]
            grads = [a.grad for a in parts]
            kernels[o, i] = score(sum(parts), grads[0])
            if taps:
                weights[o, i] = torch.stack([score(a, g) for a, g in zip(parts, grads, strict=True)])
        filters = [
            score(a, g) for a, g in zip(call.output.movedim(axis, 0), call.output.grad.movedim(axis, 0), strict=True)
        ]
        result[criterion, "kernel"] = kernels
        result[criterion, "filter"] = torch.stack(filters)
        if taps:
            result[criterion, "weight"] = weights.view(weight.shape)
    return result


def _outputs(model: nn.Module, target: AnyTarget, image: Tensor) -> dict[str, Tensor]:
    """Module name (with @call, too) -> a copy of its output."""
    wanted = [""] if isinstance(target, Loss) else [term.layer for _, term in target.terms]
    outputs: dict[str, Tensor] = {}
    calls: dict[str, int] = defaultdict(int)
    handles = []
    for name in {w.partition("@")[0] for w in wanted}:

        def hook(module: nn.Module, inputs: object, output: Tensor, name: str = name) -> None:
            outputs.setdefault(name, output.clone())
            outputs[f"{name}@{calls[name]}"] = output.clone()
            calls[name] += 1

        handles.append(model.get_submodule(name).register_forward_hook(hook))
    model(image.clone())
    for handle in handles:
        handle.remove()
    return outputs


def _map(model: nn.Module, term: Target, outputs: Mapping[str, Tensor]) -> Tensor:
    output = outputs[term.layer][0]
    module = model.get_submodule(term.layer.partition("@")[0])
    last = isinstance(module, nn.Linear | nn.LayerNorm)
    channels = list(output.movedim(-1, 0)) if last else list(output)
    if term.channel is not None:
        return channels[term.channel]
    return sum(c * a for c, a in zip(term.direction, channels, strict=True))


def _everywhere(target: AnyTarget) -> AnyTarget:
    if isinstance(target, Loss):
        return Loss()
    total = None
    for _, term in target.terms:
        whole = 1.0 * Target(term.layer, term.channel, term.direction)
        total = whole if total is None else total + whole
    return total


def _masked(model: nn.Module, mask: Mapping[str, Tensor], relevant: Mapping[str, Tensor]) -> nn.Module:
    masked = copy.deepcopy(model)
    with torch.no_grad():
        for name, weight in kernel_weights(masked).items():
            if name in mask:
                keep = mask[name] | ~relevant[name]
                rows = rows_first(model, name, weight)
                keep = keep.view(*keep.shape, *[1] * (rows.ndim - keep.ndim)).expand(rows.shape)
                weight.mul_(stored(model, name, keep, weight))
    return masked


def _transposed_groups(model: nn.Module, name: str) -> int | None:
    """The groups of a transposed convolution, by its module; a bare parameter called ``up`` is one of one group."""
    try:
        module = model.get_submodule(name)
    except AttributeError:
        return 1 if name == "up" else None
    return module.groups if isinstance(module, nn.modules.conv._ConvTransposeNd) else None
