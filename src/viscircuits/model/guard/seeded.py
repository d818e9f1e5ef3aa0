"""Random weights from a seed, drawn by one thread for itself: the global random state belongs to all threads."""

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class seeded(TorchDispatchMode):
    """A block in which torch's operations on a CPU draw what they would draw after ``torch.manual_seed(seed)``."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        options = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags or options.get("generator") is not None:
            return func(*args, **options)
        # a generator belongs to one kind of device
        if any(isinstance(value, Tensor) and value.device.type != "cpu" for value in args):
            return func(*args, **options)
        if not any(argument.name == "generator" for argument in func._schema.arguments):
            func = getattr(func.overloadpacket, "generator", func)  # torch.randn(3) is another operation with one
        return func(*args, **{**options, "generator": self.generator})
