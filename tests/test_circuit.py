"""Circuits against copies of the model that are edited by hand, and extraction against the circuits."""

import copy
import itertools

import pytest
import safetensors.torch
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from model.toys import TOYS, Compose, Concat, Normed, Plain, Residual, Toy
from viscircuits.circuit.circuit import Circuit
from viscircuits.data.images import ImageSet
from viscircuits.errors import MaskError, StudyError, UnsupportedOperation
from viscircuits.execution.response import respond
from viscircuits.mask import Mask, expand_relevant
from viscircuits.model.flow.reach import reach
from viscircuits.model.trace import trace
from viscircuits.readout import Readout
from viscircuits.target import AnyTarget, Loss, Target
from viscircuits.types import GRANULARITIES, Biases, Granularity

BIASES: tuple[Biases, ...] = ("masked", "pruned")
HEAD = Target("head", 1)


def circuit(
    model: nn.Module,
    target: AnyTarget = HEAD,
    shape: tuple[int, ...] = (3, 10, 8),
    *,
    keep: float = 0.5,
    granularity: Granularity = "kernel",
    biases: Biases = "masked",
    seed: int = 0,
) -> Circuit:
    """A circuit that keeps each relevant structure with some probability."""
    graph = trace(model, shape)
    relevant = expand_relevant(graph, reach(graph, Readout(target, graph).seeds()).used, granularity)
    generator = torch.Generator().manual_seed(seed)
    kept = {name: array & (torch.rand(array.shape, generator=generator) < keep) for name, array in relevant.items()}
    return Circuit(model, target, Mask(kept, relevant, granularity, shape), biases)


def kernels_kept(circuit: Circuit, name: str) -> Tensor:
    """Kernel by kernel, whether anything of it is left; what is not relevant is."""
    shape = circuit.graph.layers[name].shape
    kept, relevant = circuit.mask.kept[name], circuit.mask.relevant[name]
    left = torch.zeros(shape, dtype=torch.bool)
    for out, column in itertools.product(range(shape[0]), range(shape[1])):
        at = out if circuit.mask.granularity == "filter" else (out, column)
        left[out, column] = bool((kept[at] | ~relevant[at]).any())
    return left


def masked_copy(circuit: Circuit) -> Toy:
    """The model with its weights edited in place, kernel by kernel."""
    twin = copy.deepcopy(circuit.model)
    assert isinstance(twin, Toy)
    for name in circuit.mask.kept:
        module = twin.get_submodule(name)
        for out, column in itertools.product(*map(range, circuit.graph.layers[name].shape)):
            at = out if circuit.mask.granularity == "filter" else (out, column)
            factor = (circuit.mask.kept[name][at] | ~circuit.mask.relevant[name][at]).double()
            kernel_of(module, out, column).mul_(factor)
    return twin


def kernel_of(module: nn.Module, out: int, column: int) -> Tensor:
    """One kernel of a layer, to write to."""
    weight = module.weight.data
    if isinstance(module, nn.ConvTranspose2d):
        width, reads = module.out_channels // module.groups, module.in_channels // module.groups
        return weight[out // width * reads + column, out % width]
    return weight[out, column]


def pruned_copy(circuit: Circuit) -> Toy:
    """The masked copy, with hooks behind each filter's affine that silence what has no path from the image."""
    twin = masked_copy(circuit)
    alive: dict[str, Tensor] = {"image": torch.ones(3, dtype=torch.bool)}
    for name, blocks in twin.feeds.items():
        module = twin.get_submodule(name)
        arriving = torch.cat([torch.stack([alive[source] for source in block]).any(0) for block in blocks])
        left = kernels_kept(circuit, name)
        groups = getattr(module, "groups", 1)
        alive[name] = torch.zeros(len(left), dtype=torch.bool)
        for out, column in itertools.product(*map(range, left.shape)):
            source = out // (len(left) // groups) * left.shape[1] + column
            alive[name][out] |= left[out, column] & arriving[source]
            if not arriving[source]:  # a norm behind a concatenation may revive a silent filter, but not what read it
                kernel_of(module, out, column).zero_()
        module = twin.get_submodule(twin.affine.get(name, name))
        module.register_forward_hook(_silence(alive[name]))
    return twin


def _silence(alive: Tensor):
    def hook(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        return output * alive.double().view(1, -1, *[1] * (output.ndim - 2))

    return hook


def head_of(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return model(images)[:, 1].reshape(len(images), -1)


def close(found: Tensor, expected: Tensor) -> bool:
    return found.shape == expected.shape and bool(((found - expected).abs() <= 1e-10 * expected.abs().max()).all())


def by_the_model(part: Circuit, images: Tensor) -> Tensor:
    """Responses of the user's own module with edited weights, the definition that every shortcut has to meet."""
    found = respond(part.model, part.readout, ImageSet.from_tensors(images), weights=part.weights)
    return found.values


@pytest.fixture(scope="module", params=TOYS, ids=lambda toy: toy.__name__)
def toy(request: pytest.FixtureRequest) -> Toy:
    torch.manual_seed(0)
    return request.param().ready()


@pytest.fixture(scope="module")
def residual() -> Toy:
    torch.manual_seed(0)
    return Residual().ready()


# ---- responses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("biases", BIASES)
def test_a_full_mask_is_the_model(toy: Toy, biases: Biases):
    full = circuit(toy, keep=2, biases=biases)
    assert full.mask.density == 1
    images = toy.images()
    found = full.respond(ImageSet.from_tensors(images))
    seen = []
    handle = toy.get_submodule("head").register_forward_hook(lambda module, inputs, output: seen.append(output.clone()))
    laid_out = images.contiguous(memory_format=full.graph.memory_format)
    with torch.no_grad():
        toy(laid_out)
    handle.remove()
    assert close(found, seen[0][:, 1].reshape(len(images), -1))
    assert all(torch.equal(w, toy.get_parameter(name)) for name, w in full.weights.items() if biases == "masked")


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_a_masked_circuit_is_the_model_with_edited_weights(toy: Toy, granularity: Granularity):
    images = toy.images()
    for seed in range(4):
        part = circuit(toy, keep=0.4, granularity=granularity, seed=seed)
        assert close(part.respond(ImageSet.from_tensors(images)), head_of(masked_copy(part), images))


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_a_pruned_circuit_has_no_filters_that_live_on_their_bias(toy: Toy, granularity: Granularity):
    keep = {"weight": 0.1, "kernel": 0.5, "filter": 0.7}[granularity]
    images = toy.images()
    differs = []
    for seed in range(8):
        part = circuit(toy, keep=keep, granularity=granularity, biases="pruned", seed=seed)
        expected = head_of(pruned_copy(part), images)
        assert close(part.respond(ImageSet.from_tensors(images)), expected)
        differs.append(not part.disconnected and not close(head_of(masked_copy(part), images), expected))
    assert any(differs) or granularity != "kernel"  # or this would compare masked with masked


def test_dropping_what_cannot_reach_the_target_is_exact_and_dropping_what_the_image_cannot_reach_is_not():
    model = Plain().ready()
    model.a.bias.data.abs_()
    part = circuit(model, keep=2)
    kept = {name: array.clone() for name, array in part.mask.kept.items()}
    kept["b"][2] = False  # filter 2 of b has no kernel left: what reads it has no path from the image
    kept["c"][:, 3] = False  # nobody reads filter 3 of b: it has no path to the target
    images = model.images()
    pictures = ImageSet.from_tensors(images)
    before = Circuit(model, HEAD, Mask(kept, part.mask.relevant, "kernel", model.shape))

    to_target = {name: array.clone() for name, array in kept.items()}
    to_target["b"][3] = False
    after = Circuit(model, HEAD, Mask(to_target, part.mask.relevant, "kernel", model.shape))
    assert torch.equal(before.respond(pictures), after.respond(pictures))

    model.b.bias.data[2] = 1.0
    from_image = {name: array.clone() for name, array in kept.items()}
    from_image["c"][:, 2] = False
    after = Circuit(model, HEAD, Mask(from_image, part.mask.relevant, "kernel", model.shape))
    assert after.effective == before.effective
    difference = (before.respond(pictures) - after.respond(pictures)).abs().mean(0).view(5, 4)
    assert float(difference.min()) > 1e-3
    difference = head_of(masked_copy(before), images) - head_of(masked_copy(after), images)
    assert float((difference[:, 0] - difference[:, 9]).abs().min()) > 1e-3  # uneven: zero padding at the border
    assert close(
        Circuit(model, HEAD, before.mask, "pruned").respond(pictures),
        Circuit(model, HEAD, after.mask, "pruned").respond(pictures),
    )


@pytest.mark.parametrize("biases", BIASES)
@pytest.mark.parametrize("layer", ["a", "b"])
def test_a_disconnected_circuit_is_constant(biases: Biases, layer: str):
    model = Normed().ready()
    part = circuit(model, keep=2)
    kept = {name: array if name != layer else torch.zeros_like(array) for name, array in part.mask.kept.items()}
    part = Circuit(model, HEAD, Mask(kept, part.mask.relevant, "kernel", model.shape), biases)
    assert part.disconnected
    assert part.effective_density == 0
    images = model.images()
    found = part.respond(ImageSet.from_tensors(images))
    assert torch.equal(found, found[:1].expand_as(found))
    extracted = part.extract()
    assert close(extracted(images), found)
    assert extracted.n_parameters < sum(p.numel() for p in model.parameters())
    if biases == "pruned":
        assert bool((found == 0).all())  # not even the target's own bias is left


def test_pruning_refuses_norms_that_mix_channels():
    """ConvNeXt: a depthwise convolution, then a permutation, then a layer norm over the channels."""
    model = torchvision.models.convnext_tiny(weights=None).eval()
    target = Target("features.1.1.block.3", 7)
    part = circuit(model, target, (3, 32, 32), keep=0.5, biases="pruned")
    with pytest.raises(
        UnsupportedOperation, match=r"'features\.0\.0': layer_norm \(module 'features.*mixes its channels; use bia"
    ):
        _ = circuit(model, target, (3, 32, 32), keep=0.05, biases="pruned").weights
    assert circuit(model, target, (3, 32, 32), keep=2, biases="pruned").weights
    assert part.biases == "pruned"


@pytest.mark.parametrize(
    "tail",
    [
        lambda m, x: m.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2),
        lambda m, x: F.group_norm(x, 2),
        lambda m, x: F.layer_norm(F.max_pool2d(x, 2), [8, 4, 3]),
        lambda m, x: m.norm(x.flatten(2).transpose(1, 2)).mean(1)[..., None, None],
        lambda m, x: m.norm2(x.permute(0, 2, 1, 3)).permute(0, 2, 1, 3),
        lambda m, x: x * m.scale + m.shift,
        lambda m, x: m.shared(x) + m.shared(m.other(x.relu())),
    ],
    ids=["permuted", "group", "pooled", "tokens", "rows", "functional", "shared"],
)
def test_pruning_refuses_what_it_cannot_silence(tail):
    model = Compose(
        lambda m, x: m.head(tail(m, m.a(x))),
        a=nn.Conv2d(3, 8, 3),
        norm=nn.LayerNorm(8),
        norm2=nn.BatchNorm2d(8),
        shared=nn.BatchNorm2d(8),
        other=nn.Conv2d(8, 8, 1),
        head=nn.Conv2d(8, 3, 1),
    )
    model.scale, model.shift = (nn.Parameter(torch.rand(8, 1, 1)) for _ in range(2))
    shape = (3, 10, 8)
    assert circuit(model, shape=shape, keep=0.2).weights
    with pytest.raises(
        UnsupportedOperation, match=r"a pruned circuit cannot silence single filters of 'a'.*use biases='masked'"
    ):
        _ = circuit(model, shape=shape, keep=0.2, biases="pruned").weights


@pytest.mark.parametrize(
    "tail",
    [
        lambda m, x: m.norm(F.dropout(x, training=False)),
        lambda m, x: m.norm(F.max_pool2d(x, 2)),
        lambda m, x: m.norm(x * m.scale),
        lambda m, x: torch.cat([m.first_half(x[:, :4]), m.other_half(x[:, 4:])], 1),
        lambda m, x: torch.cat([n(p) for n, p in zip((m.first_half, m.other_half), x.chunk(2, 1), strict=True)], 1),
        lambda m, x: m.instance(x),
        lambda m, x: m.flat(x.flatten(1)).view(-1, 8, 8, 6),
    ],
    ids=["dropout", "pool", "scale", "sliced", "chunked", "instance", "flattened"],
)
def test_pruning_silences_the_norm_however_it_is_reached(tail):
    model = Compose(
        lambda m, x: m.head(m.probe(tail(m, m.a(x)))),
        a=nn.Conv2d(3, 8, 3),
        norm=nn.BatchNorm2d(8),
        first_half=nn.BatchNorm2d(4),
        other_half=nn.BatchNorm2d(4),
        instance=nn.InstanceNorm2d(8, affine=True),
        flat=nn.BatchNorm1d(8 * 48),
        probe=nn.ReLU(),
        head=nn.Conv2d(8, 3, 1),
    )
    model.scale = nn.Parameter(torch.rand(8, 1, 1))
    for parameter in model.parameters():
        nn.init.uniform_(parameter, 0.5, 1)
    model.double()
    part = circuit(model, Target("probe", 1), keep=2)
    kept = {"a": torch.zeros_like(part.mask.kept["a"])}
    part = Circuit(model, Target("probe", 1), Mask(kept, part.mask.relevant, "kernel", (3, 10, 8)), "pruned")
    pictures = ImageSet.from_tensors(torch.randn(4, 3, 10, 8, dtype=torch.float64))
    assert bool((part.respond(pictures) == 0).all())
    assert bool((Circuit(model, part.target, part.mask).respond(pictures) > 0).all())


def test_a_mask_of_another_target_leaves_what_it_does_not_name():
    model = Residual().ready()
    mask = circuit(model, HEAD, keep=0.5).mask
    for biases in BIASES:
        part = Circuit(model, Target("b", 0), mask, biases)
        assert part.respond(ImageSet.from_tensors(model.images())).shape == (5, 80)


def test_a_mask_that_does_not_fit_is_refused():
    mask = circuit(Plain().ready()).mask
    with pytest.raises(MaskError, match=r"mask of layer 'a', shape \(4, 3\), does not fit the model: \(5, 3\)"):
        Circuit(Residual().ready(), HEAD, mask)
    one = {"a.0": torch.ones(1, 1, dtype=torch.bool)}
    with pytest.raises(MaskError, match=r"mask of layer 'a.0' does not fit the model: no such layer; closest: 'a'"):
        Circuit(Plain().ready(), HEAD, Mask(one, one, "kernel", mask.input_shape))


# ---- extraction ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("biases", BIASES)
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_extraction_equals_the_circuit(toy: Toy, biases: Biases, granularity: Granularity):
    for seed, keep in ((0, 0.4), (1, 0.4), (2, 0.15), (3, 0.75)):
        part = circuit(toy, keep=keep, granularity=granularity, biases=biases, seed=seed)
        extracted = part.extract()
        for n in (1, 2, 5):
            images = toy.images(n)
            assert close(part.respond(ImageSet.from_tensors(images)), by_the_model(part, images))
            assert close(extracted(images), by_the_model(part, images))


@pytest.mark.parametrize(
    "target",
    [
        Target("head", 2, position=(2, 1)),
        Target("head", 0, position="center"),
        Target("head", direction=(0.5, 0.0, -1.0)),
        Target.logit(1),
        Target("b", 1) * 2.0 - Target("head", 0, reduction="mean"),
        Target("nc", 2) + Target("head", 0, position=(0, 0)),
    ],
    ids=str,
)
@pytest.mark.parametrize("biases", BIASES)
def test_extraction_of_every_kind_of_target(residual: Residual, target: AnyTarget, biases: Biases):
    part = circuit(residual, target, keep=0.6, biases=biases)
    images = residual.images()
    assert close(part.extract()(images), by_the_model(part, images))


def test_what_cannot_stand_alone_is_refused():
    model = Concat().ready()
    with pytest.raises(UnsupportedOperation, match="cannot stand alone"):
        circuit(model, Target("head", 0, position="max")).extract()
    classifier = Compose(lambda m, x: m.head(x).mean((2, 3)), head=nn.Conv2d(3, 4, 3))
    with pytest.raises(UnsupportedOperation, match="loss cannot stand alone"):
        circuit(classifier, Loss(), shape=(3, 8, 8)).extract()


NETWORKS = [
    ("resnet18", "layer3.1.conv1", 64, 0.03, False),
    ("densenet121", "features.denseblock2.denselayer3.conv2", 32, 0.03, False),
    ("mobilenet_v3_small", "features.5.block.3.0", 32, 0.2, False),
    ("shufflenet_v2_x1_0", "stage2.2.branch2.5", 32, 0.2, True),
    ("googlenet", "inception4a.branch2.1.conv", 64, 0.03, False),
    ("resnext50_32x4d", "layer1.2.conv2", 32, 0.2, False),
]


@pytest.mark.parametrize(
    ("name", "layer", "size", "keep", "shuffles"),
    [pytest.param(*n, id=n[0]) for n in NETWORKS],
)
def test_extraction_of_real_networks(name: str, layer: str, size: int, keep: float, shuffles: bool):
    options = {"init_weights": False} if name == "googlenet" else {}
    model = torchvision.models.get_model(name, weights=None, **options).double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.3)
    target = Target(layer, 7)
    images = torch.randn(3, 3, size, size, dtype=torch.float64)
    for biases in BIASES:
        part = circuit(model, target, (3, size, size), keep=keep, biases=biases)
        assert not part.disconnected
        extracted = part.extract()
        assert close(extracted(images), by_the_model(part, images))
        assert close(extracted(images[:1]), extracted(images)[:1])
        assert bool(extracted.full_width) == shuffles
        upstream = sum(model.get_parameter(part.graph.layers[n].weight).numel() for n in part.mask.kept)
        assert extracted.n_parameters < upstream * (0.85 if biases == "masked" else 0.65)


def test_extraction_of_a_vision_transformer_keeps_its_class_token():
    model = torchvision.models.VisionTransformer(16, 8, 2, 2, 12, 24).double().eval()
    nn.init.normal_(model.class_token)
    nn.init.normal_(model.heads[-1].weight)
    target = Target("encoder.layers.encoder_layer_1.mlp.0", 3)
    part = circuit(model, target, (3, 16, 16), keep=0.5)
    assert part.graph.not_scored == tuple(n for n in part.graph.layers if "self_attention" in n)
    assert not any("self_attention" in name for name in part.mask.kept)
    images = torch.randn(3, 3, 16, 16, dtype=torch.float64)
    extracted = part.extract()
    assert close(extracted(images), by_the_model(part, images))
    assert {"layer_norm", "scaled_dot_product_attention"} & set(extracted.full_width.values())


ODD = {
    "tied, own biases": lambda m, x: m.head(F.conv2d(F.relu(F.conv2d(x, m.w, m.b1, padding=1)), m.w, m.b2, padding=1)),
    "tied, one bias": lambda m, x: m.head(F.conv2d(F.relu(F.conv2d(x, m.w, m.b1, padding=1)), m.w, padding=1)),
    "ones like": lambda m, x: m.head(m.a(x)[:, :3] + torch.ones_like(x)),
    "constant per image": lambda m, x: m.head(
        torch.cat([m.a(x)[:, :2], m.b1[:1, None, None].expand(x.shape[0], 1, 6, 6)], 1)
    ),
    "norm over channels": lambda m, x: m.head(F.normalize(m.c(x), dim=1)),
    "maximum over rows": lambda m, x: m.head(m.c(x).max(2, keepdim=True)[0] + m.c(x).max(1, keepdim=True)[0]),
    "chunks": lambda m, x: m.head(m.a(x).chunk(2, 1)[1] + x),
    "two outputs": lambda m, x: (m.head(x), m.a(x)),
    "in place through a view": lambda m, x: m.head(_halved(m.a(x)[:, :3])),
    "blur": lambda m, x: m.head(F.conv2d(m.a(x)[:, :3], m.blur, groups=3)),
    "unused gate": lambda m, x: m.head(m.a(x)[:, :3] * torch.sigmoid(m.a(x).mean((2, 3), keepdim=True)[:, 3:])),
    "einsum": lambda m, x: m.head(torch.einsum("nchw,cd->ndhw", m.a(x), m.mix)),
    "prelu": lambda m, x: m.head(F.prelu(m.a(x)[:, :3], m.b1)),
}


def _halved(x: Tensor) -> Tensor:
    x[:, :1].mul_(0.5)
    return x


@pytest.mark.parametrize("biases", BIASES)
@pytest.mark.parametrize("run", ODD.values(), ids=ODD)
def test_extraction_of_odd_graphs(run, biases: Biases):
    model = Compose(run, a=nn.Conv2d(3, 6, 3, padding=1), c=nn.Conv2d(3, 3, 1), head=nn.Conv2d(3, 4, 1))
    model.w, model.b1, model.b2 = (nn.Parameter(torch.randn(*s)) for s in ((3, 3, 3, 3), (3,), (3,)))
    model.mix = nn.Parameter(torch.randn(6, 3))
    model.register_buffer("blur", torch.rand(3, 1, 3, 3))
    model = model.double().eval()
    for seed in range(3):
        part = circuit(model, shape=(3, 6, 6), keep=0.5, biases=biases, seed=seed)
        images = torch.randn(4, 3, 6, 6, dtype=torch.float64)
        assert close(part.extract()(images), by_the_model(part, images))


@pytest.mark.parametrize(
    "position", [(0, 0), "max", *(pytest.param(p, marks=pytest.mark.slow) for p in ((3, 5), "center"))]
)
@pytest.mark.parametrize("biases", BIASES)
def test_a_single_position_is_computed_on_crops(biases: Biases, position):
    model = torchvision.models.squeezenet1_1(weights=None).double().eval()
    target = Target("features.4.expand3x3", 7, position=position)
    for keep in (0.9, 0.3, 0.1):
        part = circuit(model, target, (3, 96, 96), keep=keep, biases=biases)
        images = torch.randn(3, 3, 96, 96, dtype=torch.float64)
        pictures = ImageSet.from_tensors(images)
        expected = by_the_model(part, images)
        with FlopCounterMode(display=False) as cropped:
            assert close(part.respond(pictures, batch_size=2), expected)
        with FlopCounterMode(display=False) as whole:
            by_the_model(part, images)
        assert part.execution.on_crops is not None
        if position != "max":  # the full model finds the place, on whole images
            assert cropped.get_total_flops() < 0.8 * whole.get_total_flops()


@pytest.mark.slow
def test_what_is_run_depends_on_counted_work_alone():
    """A thin circuit runs in the smaller network; the choice is the same every time."""
    model = torchvision.models.squeezenet1_1(weights=None).eval()
    target = Target("features.4.expand3x3", 7)
    savings = [
        circuit(model, target, (3, 64, 64), keep=keep).execution.shrunk().saving for keep in (0.9, 0.5, 0.2, 0.2)
    ]
    assert savings[2] == savings[3] < savings[1] < savings[0] < 1
    mixing = torchvision.models.convnext_tiny(weights=None).eval()  # its norms need all channels back
    wide = circuit(mixing, Target("features.3.1.block.3", 7), (3, 64, 64), keep=0.9)
    assert wide.execution.shrunk().saving > 1
    assert wide.execution.small is None
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(wide.respond(ImageSet.from_tensors(images)), by_the_model(wide, images))


def test_the_extracted_module_stands_alone(tmp_path):
    model = Residual().ready()
    part = circuit(model, Target("head", direction=(1.0, 0.0, 2.0)), keep=0.4, biases="pruned")
    images = model.images()
    extracted = part.extract()
    expected = extracted(images)
    twin = copy.deepcopy(extracted)
    torch.save(extracted.state_dict(), tmp_path / "state.pt")
    for buffer in twin.buffers():
        if buffer.is_floating_point():
            buffer.zero_()
    assert not torch.equal(twin(images), expected)
    twin.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(twin(images), expected)
    assert torch.equal(extracted(images), expected)
    assert extracted.float()(images.float()).dtype == torch.float32


# ---- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("target", [HEAD, Target("b", 0, position=(1, 2)) - 2.0 * Target("head", 2)], ids=str)
def test_a_saved_circuit_comes_back(tmp_path, granularity: Granularity, target: AnyTarget):
    model = Residual().ready()
    part = circuit(model, target, keep=0.5, granularity=granularity, biases="pruned")
    part.save(tmp_path / "part.safetensors")
    again = Circuit.load(tmp_path / "part.safetensors", copy.deepcopy(model))
    assert again.mask == part.mask
    assert (again.target, again.biases, again.mask.granularity) == (target, "pruned", granularity)
    assert list(again.mask.kept) == list(part.mask.kept)
    assert again.mask.n_relevant == part.mask.n_relevant
    pictures = ImageSet.from_tensors(model.images())
    assert torch.equal(again.respond(pictures), part.respond(pictures))


def test_files_that_do_not_fit_are_refused(tmp_path):
    model = Residual().ready()
    path = tmp_path / "part.safetensors"
    circuit(model).save(path)
    other = copy.deepcopy(model)
    other.head.weight.data[0, 0, 0, 0] += 1e-9
    with pytest.raises(StudyError, match="made on another model or other weights"):
        Circuit.load(path, other)
    with pytest.raises(StudyError, match="made on another model"):
        Circuit.load(path, Plain().ready())
    whole = path.read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StudyError, match="not a whole safetensors file"):
        Circuit.load(tmp_path / "cut.safetensors", model)
    safetensors.torch.save_file({"a": torch.ones(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(StudyError, match="not written by viscircuits"):
        Circuit.load(tmp_path / "foreign.safetensors", model)
    torch.save({"a": torch.ones(2)}, tmp_path / "pickle.safetensors")
    with pytest.raises(StudyError, match="not a whole safetensors file"):
        Circuit.load(tmp_path / "pickle.safetensors", model)
    with pytest.raises(StudyError, match="no file"):
        Circuit.load(tmp_path / "absent.safetensors", model)


def test_the_same_weights_in_another_wiring_are_refused(tmp_path):
    def network(run):
        torch.manual_seed(1)
        return Compose(run, a=nn.Conv2d(3, 3, 1), b=nn.Conv2d(3, 3, 1), head=nn.Conv2d(3, 3, 1))

    path = tmp_path / "part.safetensors"
    circuit(network(lambda m, x: m.head(m.b(m.a(x)))), shape=(3, 4, 4)).save(path)
    with pytest.raises(StudyError, match="made on another network"):
        Circuit.load(path, network(lambda m, x: m.head(m.a(x))))


def test_a_circuit_leaves_the_model_as_it_was(toy: Toy):
    before = {name: tensor.clone() for name, tensor in toy.state_dict().items()}
    part = circuit(toy, biases="pruned")
    part.respond(ImageSet.from_tensors(toy.images()))
    part.extract()(toy.images())
    after = toy.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(module._forward_hooks for module in toy.modules())
