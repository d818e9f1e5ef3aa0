"""A graph of operations as a module of its own, which can be copied, pickled, trained and exported like any other.

`torch.fx.GraphModule` is traced anew when it is unpickled, which our functions do not bear, and operations of torch do
not pickle at all. So a program keeps its steps as plain data beside the code that is made from them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate


class Program(nn.Module):
    """Operations on images and stored tensors.

    Nothing is written to it while it runs, so that several threads may run it at once.
    """

    def __init__(self, graph: fx.Graph, tensors: Mapping[str, Tensor]) -> None:
        """Builds the module.

        Args:
            graph: one placeholder (the images), ``get_attr`` nodes for the tensors, calls of functions, the output.
            tensors: by the name that a node asks for; dots lead through submodules. Parameters become the module's
                parameters, all others its buffers; those that no node asks for are left out.
        """
        super().__init__()
        for node in graph.nodes:
            if node.op == "get_attr":
                _register(self, str(node.target), tensors[str(node.target)])
        self._steps = [_step(node) for node in graph.nodes]
        self._run = _compiled(graph)

    def forward(self, images: Float[Tensor, "n ..."]) -> Any:
        """Returns what the graph puts out."""
        return self._run(self, images)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_run"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._run = _compiled(_graph(self._steps))


class _Step(NamedTuple):
    """A node of a graph."""

    name: str
    op: str
    target: "str | _Named | Callable[..., Any]"
    args: Any
    kwargs: Any


@dataclass(frozen=True)
class _Result:
    """What another step gave, as an argument."""

    name: str


@dataclass(frozen=True)
class _Named:
    """Something of torch's that does not pickle: an operation, a memory format."""

    name: str  # as torch prints it

    @property
    def meant(self) -> Any:
        thing: Any = torch
        for part in self.name.split("."):
            thing = getattr(thing, part)
        return thing


def _plain(argument: Any) -> Any:
    if isinstance(argument, fx.Node):
        return _Result(argument.name)
    kept = not isinstance(argument, torch.memory_format | torch.layout | torch.dtype)
    return argument if kept else _Named(str(argument).removeprefix("torch."))


def _step(node: fx.Node) -> _Step:
    args, kwargs = map_aggregate((node.args, node.kwargs), _plain)  # pyright: ignore[reportGeneralTypeIssues]
    target = _Named(f"ops.{node.target}") if isinstance(node.target, torch._ops.OpOverload) else node.target
    return _Step(node.name, node.op, target, args, kwargs)


def _graph(steps: list[_Step]) -> fx.Graph:
    graph, made = fx.Graph(), dict[str, fx.Node]()

    def meant(plain: Any) -> Any:
        if isinstance(plain, _Result):
            return made[plain.name]
        return plain.meant if isinstance(plain, _Named) else plain

    for step in steps:
        args, kwargs = map_aggregate((step.args, step.kwargs), meant)  # pyright: ignore[reportGeneralTypeIssues]
        made[step.name] = graph.create_node(step.op, meant(step.target), args, kwargs, step.name)
    return graph


def _compiled(graph: fx.Graph) -> Callable[[nn.Module, Tensor], Any]:
    code, namespace = graph.python_code("self"), dict[str, Any]()
    exec(compile(code.src, "<operations of a circuit>", "exec"), code.globals, namespace)
    return namespace["forward"]


def _register(module: nn.Module, name: str, tensor: Tensor) -> None:
    *path, last = name.split(".")
    for part in path:
        if part not in module._modules:
            module.add_module(part, nn.Module())
        module = module.get_submodule(part)
    if isinstance(tensor, nn.Parameter):
        module.register_parameter(last, tensor)
    else:
        module.register_buffer(last, tensor)
