"""``viscircuits targets``: what can be asked of a model."""

from typing import TYPE_CHECKING, Annotated

import typer

from viscircuits.cli import options

if TYPE_CHECKING:
    from viscircuits.model.graph import NetGraph


def targets(
    model: options.ModelArgument,
    layer: Annotated[
        str | None, typer.Argument(metavar="[LAYER]", help="Count the kernels relevant to this layer.")
    ] = None,
    weights: options.WeightsOption = None,
    input_size: options.InputSizeOption = None,
) -> None:
    """List a model's layers and channels, in the order in which they run; every one of them can be a target."""
    from rich.text import Text

    from viscircuits.cli.console import out, print_next, print_table
    from viscircuits.model.graph import OUTPUT
    from viscircuits.model.output import is_part, module_of
    from viscircuits.model.trace import trace
    from viscircuits.model.zoo import zoo
    from viscircuits.runs import networks

    network, prepare = networks.load(model, weights, input_size=input_size)
    graph = trace(network, zoo.prepared_shape(prepare))
    if layer is not None:
        return _relevant(graph, layer)
    modules = dict(network.named_modules())
    rows = []
    for name, output in graph.outputs.items():
        kind = type(modules[module_of(name)]).__name__
        kernels = f"{graph.layers[name].n_kernels:,}" if name in graph.layers else ""
        names = f"logit{name}" if name == OUTPUT or is_part(name) else name
        rows.append((names, kind, f"{output.n_channels}", "x".join(map(str, output.map_shape)), kernels))
    size = "x".join(map(str, graph.input_shape))
    columns = [("layer", False), ("module", False), ("channels", True), ("map", True), ("kernels", True)]
    print_table(f"{model}, images {size}", columns, rows)
    if graph.not_scored:
        out.print(f"not scored (attention projections, fixed filters): {', '.join(graph.not_scored)}", style="dim")
    out.print(Text.assemble(("a target is layer:channel, for example ", "dim"), _example(graph)))
    print_next("extract", model, _example(graph), "--images", "FOLDER")


def _example(graph: "NetGraph") -> str:
    scored = [name for name, layer in graph.layers.items() if layer.scored and name in graph.outputs]
    convolutions = [name for name in scored if graph.layers[name].kernel_size]
    return f"{(convolutions or scored or ['logit'])[-1]}:0"


def _relevant(graph: "NetGraph", layer: str) -> None:
    from viscircuits.cli.console import print_table
    from viscircuits.mask import expand_relevant
    from viscircuits.readout import Readout
    from viscircuits.target import Target, parse_target

    target = parse_target(f"{layer}:0")
    assert isinstance(target, Target)
    used = expand_relevant(graph, Readout(target, graph).relevant_kernels, "kernel")
    rows = [(name, f"{int(array.sum()):,}", f"{array.numel():,}") for name, array in used.items()]
    rows.append(("all", f"{sum(int(a.sum()) for a in used.values()):,}", f"{sum(a.numel() for a in used.values()):,}"))
    title = f"kernels relevant to {layer}:0 (it has channels 0 to {graph.output(target.layer).n_channels - 1})"
    print_table(title, [("layer", False), ("relevant", True), ("kernels", True)], rows)
