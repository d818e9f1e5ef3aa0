"""The search for channels of several meanings: known meanings, and the reference implementation's clusters."""

import sys

import pytest
import torch
from meanings import EITHER, layer, pictures

import viscircuits as vc
from viscircuits.activations.top import top_activations
from viscircuits.errors import ImageError, MaskError, StudyError, ViscircuitsError
from viscircuits.subcircuits.polysemantic import NOISE, Clusters, Polysemantic, cluster, flat_map, polysemantic


@pytest.fixture(scope="module")
def model():
    return layer()


@pytest.fixture(scope="module")
def images():
    return pictures()


@pytest.fixture(scope="module")
def found(model, images):
    top = top_activations(model, ["0"], images, 30)["0"]
    return polysemantic(model, top, images, min_cluster_size=5)


def test_the_channel_of_two_meanings_comes_first_and_splits_into_them(found, images):
    assert found.channels[0].channel == EITHER
    best, *others = found.channels
    assert best.n_clusters == 2
    assert best.share > 0.9
    assert best.silhouette > 0.8
    assert best.separation == best.silhouette * best.share
    assert all(other.separation < 0.5 * best.separation for other in others)
    kinds = torch.tensor(images.labels)[found.top.images[EITHER]]
    for number in range(2):
        assert len(kinds[best.labels == number].unique()) == 1
    assert kinds[best.labels == 0][0] != kinds[best.labels == 1][0]
    assert list(best.sizes) == sorted(best.sizes, reverse=True)
    assert [c.separation for c in found.channels] == sorted((c.separation for c in found.channels), reverse=True)


def test_labelled_images_are_what_a_split_takes(found, images):
    chosen, labels, places = found.labelled(EITHER, images)
    assert len(chosen) == len(labels) == len(places) == 30
    own = torch.tensor(chosen.labels)
    for image, kind, place in zip(range(30), own.tolist(), places.tolist(), strict=True):
        assert chosen[image][kind].argmax() == place


def test_memory_limits_give_the_same(model, images, found):
    again = polysemantic(model, found.top, images, min_cluster_size=5, memory=1, batch_size=7)
    assert [c.channel for c in again.channels] == [c.channel for c in found.channels]
    assert all(torch.equal(a.labels, b.labels) for a, b in zip(again.channels, found.channels, strict=True))


def points(seed: int, n: int, d: int, centres: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    middle = 3 * torch.randn(centres, d, generator=generator)
    return middle[torch.randint(centres, (n,), generator=generator)] + torch.randn(n, d, generator=generator)


# Made with hdbscan 0.8.44, HDBSCAN(min_cluster_size=5, algorithm="generic"), clusters numbered by size. The last three
# differ where the point itself counts as a neighbour, as it does in scikit-learn unless told otherwise.
REFERENCE = {
    (0, 60, 3, 3): "00000010221.02121001021110110110010001001122101101002.202120",
    (0, 60, 16, 2): "010010011010000010100001011001010111110011100101101000000100",
    (1, 60, 2, 2): "0....0.1.0..1...1.....1.00...11..0.0..0.0..0..00..0.1.......",
    (3, 60, 2, 2): "..0.1.01.00001..0000.00...10..01.00.0..1...01...1.00..0.0...",
    (3, 60, 3, 3): "1.101001.010..1...01010.01.011000...1..00001100000000.0000.0",
}


@pytest.mark.parametrize("case", REFERENCE)
def test_clusters_are_those_of_the_reference_implementation(case):
    vectors = points(*case)
    expected = "".join(
        "." if label == NOISE else str(label) for label in cluster(vectors, *_all(vectors)).labels.tolist()
    )
    assert expected == REFERENCE[case]


def _all(vectors):
    return torch.ones(len(vectors), dtype=torch.bool), 0, 5


def test_what_is_not_exciting_is_noise():
    vectors = torch.cat([torch.randn(20, 4), torch.randn(20, 4) + 50])
    exciting = torch.ones(40, dtype=torch.bool)
    assert cluster(vectors, exciting, 3, 10).n_clusters == 2
    exciting[30:] = False
    some = cluster(vectors, exciting, 3, 10)
    assert bool((some.labels[30:] == NOISE).all())
    assert (some.channel, some.share) == (3, sum(some.sizes) / 40)
    exciting[5:] = False
    assert cluster(vectors, exciting, 3, 10).sizes == ()


def test_numbers_of_clusters():
    clusters = Clusters(4, torch.tensor([0, 0, 1, NOISE]), 0.5)
    assert (clusters.sizes, clusters.n_clusters, clusters.share, clusters.separation) == ((2, 1), 2, 0.75, 0.375)
    nothing = Clusters(4, torch.tensor([NOISE] * 3), 0.0)
    assert (nothing.sizes, nothing.n_clusters, nothing.share, nothing.separation) == ((), 0, 0.0, 0.0)


def test_flat_map_by_principal_components():
    generator = torch.Generator().manual_seed(0)
    plane = torch.linalg.qr(torch.randn(6, 2, generator=generator).double()).Q
    flat = torch.randn(40, 2, generator=generator).double() * torch.tensor([5.0, 1.0])
    flat -= flat.mean(0)
    flat = flat @ torch.linalg.eigh(flat.T @ flat).eigenvectors.flip(1)  # its own principal axes
    mapped = flat_map(flat @ plane.T + 7)
    torch.testing.assert_close(mapped.abs(), flat.abs())
    assert torch.equal(mapped, flat_map(flat @ plane.T + 7))
    assert flat_map(torch.randn(5, 1)).shape == (5, 2)
    with pytest.raises(MaskError, match="unknown method 'tsne'"):
        flat_map(flat, "tsne")


def test_umap_is_an_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(ViscircuitsError, match="needs umap-learn"):
        flat_map(torch.randn(9, 3), "umap")


def test_file(found, tmp_path):
    found.save(tmp_path / "found.safetensors")
    again = Polysemantic.load(tmp_path / "found.safetensors")
    assert again.min_cluster_size == 5
    assert torch.equal(again.top.values, found.top.values)
    for a, b in zip(again.channels, found.channels, strict=True):
        assert (a.channel, a.silhouette, a.labels.tolist()) == (b.channel, b.silhouette, b.labels.tolist())
    found.top.save(tmp_path / "top.safetensors")
    with pytest.raises(StudyError, match="but top activations of format 1"):
        Polysemantic.load(tmp_path / "top.safetensors")


def test_errors(model, images, found):
    with pytest.raises(ImageError, match="30 activations a channel cannot hold two clusters of 16"):
        polysemantic(model, found.top, images, min_cluster_size=16)
    with pytest.raises(MaskError, match="a cluster has at least 2"):
        polysemantic(model, found.top, images, min_cluster_size=1)
    with pytest.raises(ImageError, match="not the pictures"):
        polysemantic(model, found.top, vc.ImageSet.from_tensors(torch.rand(80, 3, 5, 5)), min_cluster_size=5)
