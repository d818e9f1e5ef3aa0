"""Pictures of filters: rendered on the circuit or cut out of images, and where images excite a filter."""

import copy
import math

import jaxtyping
import numpy as np
import pytest
import torch
from torch import nn

from viscircuits.activations.exciting import colours_of, pixels, ranked, seen, strongest
from viscircuits.circuit.circuit import Circuit
from viscircuits.data.colours import Colours
from viscircuits.data.images import ImageSet
from viscircuits.diagram.extended import shown
from viscircuits.diagram.gathering import rendered, vertex_pictures
from viscircuits.errors import ImageError
from viscircuits.mask import Mask, expand_relevant
from viscircuits.model.field.receptive_field import Area
from viscircuits.model.trace import trace
from viscircuits.model.zoo import zoo
from viscircuits.optvis.render import render
from viscircuits.plots.plate import blank
from viscircuits.readout import Readout
from viscircuits.saliency.registry import score
from viscircuits.target import Target, parse_target

TARGET = Target("features.6", 7)


@pytest.fixture(scope="module")
def circuit(shapesnet, shapes):
    return Circuit(shapesnet, TARGET, score(shapesnet, TARGET, shapes[0]).select(density=0.05))


def whole(model: nn.Module, target, shape) -> Circuit:
    graph = trace(model, shape)
    relevant = expand_relevant(graph, Readout(target, graph).relevant_kernels, "kernel")
    return Circuit(model, target, Mask(relevant, relevant, "kernel", shape))


def test_rendered_pictures_are_kept_and_of_the_circuit(circuit, tmp_path):
    content = shown(circuit)
    units = {(v.layer, v.channel) for v in content.vertices if v.kind == "filter" and v.kernel is None}
    told = []
    pictures = vertex_pictures(circuit, content, cache=tmp_path, progress=lambda *step: told.append(step))
    assert pictures.keys() == units
    assert {name for name, _, _ in told} == {"filters drawn"}
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    assert told[-1][1:] == (len(units), len(units))
    sides = {layer: picture.shape for (layer, _), picture in pictures.items()}
    # 5 pixels; 7 behind the pool, and 2 * 4 more; 19 behind the next, and 2 * 8 more
    assert sides == {"features.3": (3, 15, 15), "features.6": (3, 35, 35)}
    again = vertex_pictures(circuit, content, cache=tmp_path)
    assert all((again[unit] == pictures[unit]).all() for unit in units)
    full = rendered(whole(circuit.model, TARGET, circuit.mask.input_shape), [("features.6", 7)])
    assert np.abs(full["features.6", 7] - pictures["features.6", 7]).max() > 0.05


def test_rendering_excites_the_circuit(circuit):
    made = torch.from_numpy(rendered(circuit, [("features.6", 7)])["features.6", 7])
    noise = torch.rand(made.shape, generator=torch.Generator().manual_seed(0))
    colours = colours_of(None, 3)
    canvas = torch.full((2, 3, 64, 64), 0.5)
    top = 32 - 35 // 2
    canvas[0, :, top : top + 35, top : top + 35], canvas[1, :, top : top + 35, top : top + 35] = made, noise
    answers = circuit.respond(ImageSet.from_tensors(colours.prepared(canvas)))
    assert answers[0].max() > 2 * answers[1].max()


def test_what_the_first_start_does_not_find_another_does(shapesnet):
    """Behind its one ReLU, channel 7 has no gradient at any of the first seed's starts."""
    one = [("features.3", 7)]
    alone = render(shapesnet, [Target("features.3", 7, position="center")], prepare=zoo.load("shapesnet").prepare)
    assert alone.notes[0].endswith("nothing to draw")
    circuit = whole(shapesnet, Target("features.3", 7), (3, 64, 64))
    told = []
    made = rendered(circuit, one, steps=40, progress=lambda *step: told.append(step))
    assert not blank(made[one[0]])
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    red, _, blue = made[one[0]].mean((1, 2))
    assert blue > red  # as in the pictures that excite it
    dead = copy.deepcopy(shapesnet)
    nn.init.zeros_(dead.get_parameter("features.3.weight"))
    assert blank(rendered(whole(dead, Target("features.3", 7), (3, 64, 64)), one, steps=2)[one[0]])


def test_a_target_that_is_no_filter_is_rendered_too(shapesnet):
    circuit = whole(shapesnet, parse_target("features.3:2 - 0.5*features.3:4"), (3, 64, 64))
    pictures = vertex_pictures(circuit, shown(circuit, most=10_000))
    assert pictures["", 0].shape[0] == 3
    loss = whole(shapesnet, parse_target("loss"), (3, 64, 64))
    assert ("", 0) not in vertex_pictures(loss, shown(loss), source="none")


class Peak(nn.Module):
    """Its one filter adds up squares of 3 x 3."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1, bias=False)
        self.last = nn.Conv2d(1, 1, 3, padding=1, bias=False)
        nn.init.ones_(self.conv.weight)
        nn.init.ones_(self.last.weight)

    def forward(self, x):
        return self.last(self.conv(x))


def test_the_strongest_place_of_all_images():
    circuit = whole(Peak().eval(), Target("last", 0), (1, 16, 20))
    images = torch.zeros(5, 1, 16, 20)
    images[1, 0, 3, 4], images[3, 0, 9, 18], images[4, 0, 0, 0] = 1.0, 2.0, 1.5
    best = strongest(circuit, ImageSet.from_tensors(images), [("last", 0), ("conv", 0)], batch_size=2)
    assert best["last", 0] == (3, (9, 18), 6.0 * 3)
    assert best["conv", 0].image == 3
    crop = vertex_pictures(circuit, shown(circuit), ImageSet.from_tensors(images), source="crops")["last", 0]
    assert crop.shape == (3, 8, 8)  # a field of 5, shown as 8, moved inside
    assert (crop.max(), np.argwhere(crop[0] == crop.max()).tolist()) == (1.0, [[4, 6]])


def test_ranked_by_hand():
    values = torch.tensor([[0.0, 5.0, 1.0, 2.0], [7.0, -9.0, 0.0, 0.0], [3.0, 3.0, 3.0, 4.0]])
    assert ranked(values, (2, 2), 2) == [(1, (0, 0), 7.0), (0, (0, 1), 5.0)]
    assert ranked(values, (2, 2), 5, least=True) == [(1, (0, 1), -9.0), (0, (0, 0), 0.0), (2, (0, 0), 3.0)]


def test_what_is_seen_lies_inside_the_image(shapesnet):
    graph = trace(shapesnet, (3, 64, 64))
    inside = seen(graph, ("features.3", 0), (7, 7))
    corner = seen(graph, ("features.3", 0), (0, 0))
    assert inside is not None
    assert corner is not None
    assert inside.size == corner.size
    assert (corner.top, corner.left) == (0, 0)
    assert seen(graph, ("classifier.2", 0), ()) is None


def test_colours_and_pixels(shapesnet):
    prepare = zoo.load("shapesnet").prepare
    own = colours_of(prepare, 3)
    assert own != Colours() or math.isclose(own.mean[0], 0.485)
    assert colours_of(None, 3) == Colours()
    assert colours_of(None, 1) == Colours.unchanged(1)
    grey = torch.rand(1, 6, 8)
    assert (pixels(grey, Area(1, 2, 4, 7)) == grey[0, 1:4, 2:7].expand(3, -1, -1).numpy()).all()
    assert pixels(torch.rand(5, 4, 4)).shape == (3, 4, 4)


@pytest.fixture
def unchecked():
    """As a user runs it: without checks of types."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("unchecked")
def test_wrong_sources_are_refused(circuit):
    with pytest.raises(ImageError, match="unknown source 'optvs'; closest: 'optvis'"):
        vertex_pictures(circuit, shown(circuit), source="optvs")
    with pytest.raises(ImageError, match="crops are cut out of images, and there are none"):
        vertex_pictures(circuit, shown(circuit), source="crops")
    assert vertex_pictures(circuit, shown(circuit), source="none") == {}
