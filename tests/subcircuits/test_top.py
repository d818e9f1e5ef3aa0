"""Top activations against a literal search, with ties, vectors, tokens, and every batch size."""

import copy

import pytest
import torch
from torch import nn

import viscircuits as vc
from viscircuits.activations.top import TopActivations, crops, population, top_activations
from viscircuits.errors import ImageError, StudyError, TargetError
from viscircuits.model.field.receptive_field import crop, receptive_field
from viscircuits.model.instrument import run
from viscircuits.model.trace import trace


class Tokens(nn.Module):
    """A convolution, a linear map over the channels of each position, and a vector."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 5, 3, stride=2, padding=1)
        self.mix = nn.Linear(5, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        tokens = self.conv(x).flatten(2).transpose(1, 2)
        return self.head(self.mix(tokens).relu().sum(1))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(1)
    network = Tokens().eval()
    with torch.no_grad():  # whole numbers, so that equal activations are equal to the last bit
        for parameter in network.parameters():
            parameter.copy_(torch.randint(-3, 4, parameter.shape))
    return network


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(2)
    drawn = torch.randint(-2, 3, (23, 2, 7, 9), generator=generator).float()
    drawn[11] = drawn[4]  # equal activations of two pictures in every channel
    drawn[17] = drawn[4]
    drawn[6] = 0  # and of all positions inside one
    return vc.ImageSet.from_tensors(drawn)


def literal(model, images, layer, n):
    """For every channel the best n of (value, image, place): highest value, then lowest image, at the first place."""
    graph = trace(model, images[0].shape)
    found = []
    for i in range(len(images)):
        output = run(model, graph, images[i][None], [layer])[layer][0]
        output = output.movedim(graph.output(layer).channel_axis - 1, 0)
        for c, channel in enumerate(output.reshape(len(output), -1).tolist()):
            best = max(channel)
            found.append((c, -best, i, channel.index(best)))
    rows = {}
    for c, value, i, place in sorted(found):
        rows.setdefault(c, []).append((-value, i, place))
    return [row[:n] for row in rows.values()]


@pytest.mark.parametrize("layer", ["conv", "mix", "head"])
@pytest.mark.parametrize(("n", "batch_size"), [(1, 5), (4, 1), (4, 23), (9, 4), (100, 7)])
def test_equals_a_literal_search(model, images, layer, n, batch_size):
    top = top_activations(model, [layer], images, n, batch_size=batch_size)[layer]
    expected = literal(model, images, layer, n)
    assert top.images.tolist() == [[i for _, i, _ in row] for row in expected]
    assert top.places.tolist() == [[place for _, _, place in row] for row in expected]
    torch.testing.assert_close(top.values, torch.tensor([[value for value, _, _ in row] for row in expected]))
    assert (top.n, top.n_channels, top.source) == (min(n, 23), len(expected), images.hash)


def test_equal_pictures_come_in_their_order(model, images):
    ranks = top_activations(model, ["conv"], images, 23, batch_size=3)["conv"].images.tolist()
    assert all(row.index(4) < row.index(11) < row.index(17) for row in ranks)


def test_several_layers_in_one_pass_and_the_model_is_left_alone(model, images):
    before, hooks = copy.deepcopy(model.state_dict()), [len(m._forward_hooks) for m in model.modules()]
    told = []
    both = top_activations(
        model, ["conv", "head", "conv"], images, 3, batch_size=10, progress=lambda *said: told.append(said)
    )
    assert list(both) == ["conv", "head"]
    for layer in both:
        assert torch.equal(both[layer].images, top_activations(model, [layer], images, 3)[layer].images)
    assert told == [("top activations", done, 23) for done in (10, 20, 23)]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert hooks == [len(m._forward_hooks) for m in model.modules()]
    assert all(p.grad is None for p in model.parameters())


def test_population_is_the_whole_layer_at_each_activation(model, images):
    for layer in ("conv", "mix", "head"):
        top = top_activations(model, [layer], images, 6)[layer]
        graph = trace(model, images[0].shape)
        for channels in (None, [2, 0]):
            vectors = population(model, top, images, channels, batch_size=4)
            for k, c in enumerate(range(top.n_channels) if channels is None else channels):
                torch.testing.assert_close(vectors[k, :, c], top.values[c])
                for rank in range(top.n):
                    output = run(model, graph, images[int(top.images[c, rank])][None], [layer])[layer][0]
                    output = output.movedim(graph.output(layer).channel_axis - 1, 0)
                    expected = output[(slice(None), *top.position(c, rank))]
                    torch.testing.assert_close(vectors[k, rank], expected)


def test_crops_are_receptive_fields(model, images):
    top = top_activations(model, ["conv"], images, 5)["conv"]
    graph = trace(model, images[0].shape)
    cut = crops(graph, top, images, 3, [0, 4])
    assert cut.shape == (2, 2, 3, 3)
    box = receptive_field(graph, "conv", top.position(3, 4))
    assert torch.equal(cut[1], crop(images[int(top.images[3, 4])], box, fill=0.0))
    # the field alone gives the activation
    value = (model.conv.weight[3] * cut[0]).sum() + model.conv.bias[3]
    torch.testing.assert_close(value.detach(), top.values[3, 0])
    with pytest.raises(TargetError, match=r"5 top activations of channels 0 to 4, not \[5\]"):
        crops(graph, top, images, 0, [5])


def test_file(model, images, tmp_path):
    top = top_activations(model, ["mix"], images, 4)["mix"]
    top.save(tmp_path / "top.safetensors")
    again = TopActivations.load(tmp_path / "top.safetensors")
    assert (again.layer, again.map_shape, again.source) == ("mix", (20,), images.hash)
    assert all(torch.equal(getattr(top, n), getattr(again, n)) for n in ("values", "images", "places"))
    assert again.position(1, 2) == top.position(1, 2)
    (tmp_path / "other.safetensors").write_bytes((tmp_path / "top.safetensors").read_bytes()[:-9])
    with pytest.raises(StudyError, match="not a whole safetensors file"):
        TopActivations.load(tmp_path / "other.safetensors")
    scores = vc.score(model, vc.Target("mix", 1), images)
    scores.save(tmp_path / "scores.safetensors")
    with pytest.raises(StudyError, match="not a file of top activations of format 1, but scores of format 1"):
        TopActivations.load(tmp_path / "scores.safetensors")


def test_errors(model, images):
    with pytest.raises(TargetError, match="'cnv' is not in the model; closest: 'conv'"):
        top_activations(model, ["cnv"], images)
    with pytest.raises(ImageError, match="n 0 is out of range"):
        top_activations(model, ["conv"], images, 0)
    top = top_activations(model, ["conv"], images, 3)["conv"]
    with pytest.raises(ImageError, match="not the pictures in which the top activations of layer 'conv' were found"):
        population(model, top, images.subset(range(22)))
    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.conv.bias[2] = float("nan")
    with pytest.raises(ImageError, match="layer 'conv' is not finite"):
        top_activations(broken, ["conv"], images)
