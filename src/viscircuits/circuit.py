"""A circuit: model + target + mask.

A circuit is the user's own network with edited parameters, nothing else. *Masked*: kernels that are not kept are zero
and everything else stays, so a filter without kernels still puts out its bias. *Pruned*: such filters are silent, and
what only they fed goes with them (paper 8.7). *Mean-compensated*: masked, with what removed kernels put out on average
added to the biases. *Rescaled*: masked, with kept kernels multiplied by trained numbers (`viscircuits.compensation`).
Never one of these two unless asked for.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor, fx, nn

from viscircuits import store
from viscircuits.bounds import check_fields, check_study, checked
from viscircuits.compensation import Means, Scales, means
from viscircuits.data.images import Batch, ImageSet
from viscircuits.errors import MaskError, StudyError, TargetError, UnsupportedOperation, closest
from viscircuits.header import BOOLS, FLOATS, IMAGE, TEXT, Array, Fields, Kind, maybe, one_of, record, whole
from viscircuits.mask import Mask, axes_of, expand_relevant
from viscircuits.model.affine import silenced
from viscircuits.model.aligned import AlignedCrops
from viscircuits.model.clean import clean
from viscircuits.model.crops import tried_crops
from viscircuits.model.fingerprint import fingerprint
from viscircuits.model.graph import NetGraph, outline
from viscircuits.model.instrument import needed_filters, run
from viscircuits.model.reach import Reach, reach
from viscircuits.model.shrink import Shrunk, shrink
from viscircuits.model.trace import trace
from viscircuits.readout import Frozen, Readout
from viscircuits.response import Rows, freeze, judged, masked_weights, rows_of, to_model
from viscircuits.target import JSON, AnyTarget, Loss, Target, as_target, target_from_json, target_to_json
from viscircuits.types import GRANULARITIES, Progress

Biases = Literal["masked", "pruned"]
"""What becomes of a filter without kernels: it keeps its bias, or it is silent."""

FORMAT = 1
COMPENSATED = 2
"""Versions of the circuit file, without and with compensation; a file with another number is refused."""

SHIFT, SCALE = "shift/", "scale/"
"""What stands before a layer's name where a file holds its mean contributions, or its scales."""


@dataclass(frozen=True, eq=False)
class Circuit:
    """The part of a model that a mask keeps for a target.

    Args:
        model: the user's module, in evaluation mode; never changed.
        target: what the circuit computes.
        mask: what is kept. What it keeps beyond what is relevant to this target cannot change it and is left out, so
            that the mask of a circuit (of an intersection, say) always has the target's own denominator.
        biases: "masked" or "pruned".
        compensation: mean contributions of what this mask removes (see `compensated`), or scales of what it keeps (see
            `viscircuits.rescaled`).
    """

    model: nn.Module
    target: AnyTarget
    mask: Mask
    biases: Biases = "masked"
    compensation: Means | Scales | None = None

    @clean
    def __post_init__(self) -> None:
        check_fields(self)
        object.__setattr__(self, "target", as_target(self.target))
        if self.biases not in ("masked", "pruned"):
            raise MaskError(f"biases must be 'masked' or 'pruned', got {self.biases!r}")
        layers = self.graph.layers
        for name, kept in self.mask.kept.items():
            layer = layers.get(name)
            if layer is None:
                raise MaskError(f"mask of layer {name!r} does not fit the model: no such layer{closest(name, layers)}")
            expected = layer.structure_shape(self.mask.granularity)
            if expected != tuple(kept.shape):
                raise MaskError(
                    f"mask of layer {name!r}, shape {tuple(kept.shape)}, does not fit the model: {expected}"
                )
        own = expand_relevant(self.graph, self.readout.relevant_kernels, self.mask.granularity)
        object.__setattr__(self, "mask", self.mask.within(own))
        if self.compensation is not None and (self.biases != "masked" or self.compensation.mask != self.mask):
            raise MaskError(
                "compensation holds for a circuit with biases='masked' and for the mask that it was made for; make it "
                "anew with circuit.compensated(images) or viscircuits.rescaled(circuit, images)"
            )

    @checked
    def compensated(self, images: ImageSet, *, batch_size: int = 16, progress: Progress | None = None) -> "Circuit":
        """Returns the circuit with its removed structures replaced by their mean contribution.

        Args:
            images: pictures to take the mean over; those that were scored on, not those to measure on.
            batch_size: pictures at a time.
            progress: called after every batch.

        Raises:
            MaskError: the circuit is pruned: its silent filters are to put out nothing.
            UnsupportedOperation: a layer has neither a bias nor a batch norm of its own.
        """
        found = means(self.model, self.readout, self.mask, images, batch_size=batch_size, progress=progress)
        return replace(self, compensation=found)

    def __call__(self, *args: object, **kwargs: object) -> None:
        """Raises a `TypeError` that says how a circuit is run."""
        raise TypeError(
            "a circuit is not called; give circuit.respond(images) an ImageSet or a tensor, or run "
            "circuit.extract()(tensor)"
        )

    @property
    def kind(self) -> str:
        """What the circuit is besides its mask, in words for figures and tables."""
        return self.biases if self.compensation is None else f"{self.biases}, {self.compensation.kind}"

    @cached_property
    def graph(self) -> NetGraph:
        """The model's graph for the mask's image size."""
        return trace(self.model, self.mask.input_shape)

    @cached_property
    def readout(self) -> Readout:
        """The target bound to the graph."""
        return Readout(self.target, self.graph)

    @cached_property
    def _conducting(self) -> dict[str, Bool[Tensor, "out in"]]:
        """Layer -> kernels that are kept at least in part, or are not relevant and so never removed."""
        factors = self.mask.factors(self.graph)
        conducting = {}
        for name in self.mask.kept:
            layer = self.graph.layers[name]
            conducting[name] = layer.out_first(factors[layer.weight]).reshape(*layer.shape, -1).any(2)
        return conducting

    @cached_property
    def _reach(self) -> Reach:
        return reach(self.graph, self.readout.seeds(), self._conducting)

    @cached_property
    def effective(self) -> Mask:
        """The kept structures that lie on a path from the image to the target; the rest are dead ends."""
        used = expand_relevant(self.graph, self._reach.used, self.mask.granularity)
        kept = {name: kept & used.get(name, torch.tensor(False)) for name, kept in self.mask.kept.items()}
        return Mask(kept, self.mask.relevant, self.mask.granularity, self.mask.input_shape)

    @property
    def effective_density(self) -> float:
        """Effective kept structures over relevant ones, in [0, 1]."""
        return self.effective.density

    @property
    def disconnected(self) -> bool:
        """Whether no path at all leads from the image to the target."""
        return not self._reach.connected

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        """The parameters that differ from the model's own, by name."""
        masked = masked_weights(self.model, self.graph, self.mask)
        if self.compensation is not None:
            return masked | self.compensation.edits(self.model, self.graph)
        if self.biases == "masked":
            return masked
        for name in self.mask.kept.keys() & self._reach.used.keys():  # what only silent filters feed goes with them
            layer = self.graph.layers[name]
            used = self._reach.used[name].reshape(*layer.shape, *[1] * len(layer.kernel_size))
            masked[layer.weight] *= layer.stored(used).to(masked[layer.weight])
        return masked | silenced(self.model, self.graph, self.dead)

    @cached_property
    def dead(self) -> dict[str, Bool[Tensor, " out"]]:
        """Layer -> relevant filters of which no kernel lies on a path from the image to the target."""
        effective = self.effective.kept
        return {name: _filters(array) & ~_filters(effective[name]) for name, array in self.mask.relevant.items()}

    @checked
    @clean
    def respond(
        self,
        images: ImageSet | Tensor,
        *,
        frozen: Frozen | None = None,
        batch_size: int = 16,
        progress: Progress | None = None,
    ) -> Float[Tensor, "n p"]:
        """Returns the circuit's responses, images x positions (or one number an image).

        Args:
            images: pictures of the mask's image size.
            frozen: what the full model fixes, when known (see `respond`); found by running the full model otherwise.
            batch_size: pictures at a time.
            progress: called after every batch.

        Raises:
            ImageError: pictures of another size.
        """
        images = judged(images, self.model, [self.readout])
        batches = images.batches(batch_size, self.graph.memory_format, progress=progress, what="responses")
        rows = Rows(len(images))
        for batch in batches:
            rows.add(self.respond_to(batch, frozen))
        return rows.tensor

    @clean
    @torch.no_grad()
    def respond_to(self, batch: Batch, frozen: tuple[Tensor | None, ...] | None = None) -> Float[Tensor, "n p"]:
        """Returns the responses to one batch; ``frozen`` is that of the whole set.

        Runs whatever is least work: the user's module with edited weights, the physically smaller network, and, for a
        single position, either of them on the part of each image that the position sees. All give the same responses.
        """
        images, labels = to_model(batch, self.model, self.graph)
        here = freeze(self.model, self.readout, images) if frozen is None else rows_of(frozen, batch)
        if self._on_crops is not None:
            return self._on_crops(images, here)
        if self._small is not None:
            outputs = self._small.outputs(images)
        else:
            outputs = run(
                self.model, self.graph, images.clone(), self.readout.layers, weights=self.weights,  # a copy to write to
                filters=needed_filters(self.graph, self.readout.relevant_kernels),
            )  # fmt: skip
        return self.readout.response(outputs, here, labels).cpu()

    @cached_property
    def _small(self) -> Shrunk | None:
        """The physically smaller network, where it is less work."""
        small = self._shrunk()
        return small if small.saving < 1 else None

    @cached_property
    def _on_crops(self) -> "Callable[[Tensor, Frozen], Tensor] | None":
        """The circuit on crops of images, where its target is one position that does not see the whole image."""
        if not isinstance(self.target, Target) or self.target.position is None:
            return None
        crops = tried_crops(self.model, self.graph, self.target.layer)
        return None if crops is None else _OnCrops(self, crops)

    @clean
    def extract(self) -> Shrunk:
        """Returns a standalone, physically smaller module that computes the target as this circuit does.

        It takes images ``[n, c, h, w]`` of the mask's size and returns the response, ``[n, p]``. Its attribute
        ``full_width`` says which layers could not be narrowed, and why.

        Raises:
            UnsupportedOperation: the target is a loss (it needs labels) or reads each image's arg-max.
        """
        if isinstance(self.target, Loss) or self.readout.needs_freezing():
            raise UnsupportedOperation(
                f"target {self.target} cannot stand alone: it needs labels or the full model's arg-max"
            )
        return self._shrunk(_Head(self.readout))

    @clean
    def _shrunk(self, head: nn.Module | None = None, after: fx.Node | None = None) -> Shrunk:
        graph = trace(self.model, self.mask.input_shape, any_batch=True)
        conducting = self._conducting if self.biases == "masked" else self._reach.used
        return shrink(self.model, graph, self.readout.seeds(), conducting, self.weights, head, after)

    @checked
    def save(self, path: str | Path, *, study: str = "") -> None:
        """Writes the circuit (not the model) as safetensors with a JSON header, atomically.

        ``study`` is the hash of the study that it belongs to.
        """
        check_study(study)
        header: dict[str, store.Json] = {
            "kind": "circuit",
            "format": FORMAT if self.compensation is None else COMPENSATED,
            "model": fingerprint(self.model),
            "target": target_to_json(self.target),
            "biases": self.biases,
            "granularity": self.mask.granularity,
            "input_shape": list(self.mask.input_shape),
            "kept": self.mask.n_kept,
            "relevant": self.mask.n_relevant,
            "zero_scores": self.mask.zero_scores,
            **({"study": study} if study else {}),
        }
        tensors = dict(self.mask.kept)
        if self.compensation is not None:
            match self.compensation:
                case Means(shifts=values):
                    kind, before = "mean", SHIFT
                case Scales(scales=values):
                    kind, before = "scales", SCALE
            header["compensation"] = {"kind": kind, "n_images": self.compensation.n_images}
            tensors |= {before + name: value for name, value in values.items()}
        store.write_tensors(path, tensors, header)

    @classmethod
    @checked
    def load(cls, path: str | Path, model: nn.Module) -> "Circuit":
        """Returns a saved circuit on its model.

        Raises:
            StudyError: not a circuit file, of another version, or made on another model or other weights.
        """
        tensors, header = store.read_tensors(path, KIND)
        if header["model"] != fingerprint(model):
            raise StudyError(
                f"{str(path)!r} was made on another model or other weights (fingerprint {header['model']!r}, this "
                f"model has {fingerprint(model)}); load the weights it was made with"
            )
        return _restored(cls, model, tensors, header)


class _OnCrops:
    """A circuit with a target at one position, on the part of each image that the position sees."""

    def __init__(self, whole: Circuit, crops: AlignedCrops) -> None:
        assert isinstance(whole.target, Target)
        self.whole, self.crops = whole, crops
        shape = (whole.mask.input_shape[0], *crops.size)
        mask = replace(whole.mask, input_shape=shape)
        target = replace(whole.target, position="max")  # each image has a position of its own on its crop
        self.circuit = Circuit(whole.model, target, mask, whole.biases, whole.compensation)
        assert self.circuit.mask == whole.mask

    def __call__(self, images: Tensor, frozen: Frozen) -> Float[Tensor, "n 1"]:
        (layer,) = self.whole.readout.layers
        width, small = (c.graph.output(layer).map_shape[1] for c in (self.whole, self.circuit))
        found = [self.crops.at(divmod(place, width)) for place in self._places(len(images), frozen[0])]
        parts = torch.stack([image[:, *box.slices] for image, (box, _) in zip(images, found, strict=True)])
        places = torch.tensor([y * small + x for _, (y, x) in found])
        return self.circuit.respond_to(Batch(parts, None, 0), (places,))

    def _places(self, n: int, frozen: Tensor | None) -> list[int]:
        """Where on the flat map each image is read."""
        if frozen is not None:
            return frozen.tolist()
        assert isinstance(self.whole.target, Target)
        where, shape = self.whole.target.position, self.whole.graph.output(self.whole.target.layer).map_shape
        y, x = where if isinstance(where, tuple) else (size // 2 for size in shape)
        return [y * shape[1] + x] * n


class _Head(nn.Module):
    """The last step of an extracted circuit: from module outputs to the target's response."""

    def __init__(self, readout: Readout) -> None:
        super().__init__()
        outputs = {name: readout.graph.output(name) for name in readout.layers}
        places = {name: (output.shape, output.channel_axis) for name, output in outputs.items()}
        self._outline = readout.target, readout.graph.input_shape, places
        self._readout = _outlined(*self._outline)

    def forward(self, outputs: dict[str, Tensor]) -> Tensor:
        return self._readout.response(outputs, (None,) * len(self._readout.terms))

    def __getstate__(self) -> dict[str, Any]:  # graphs do not pickle
        return {name: value for name, value in self.__dict__.items() if name != "_readout"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._readout = _outlined(*self._outline)


def _outlined(target: AnyTarget, shape: tuple[int, ...], outputs: dict[str, tuple[tuple[int, ...], int]]) -> Readout:
    return Readout(target, outline(shape, outputs))


def _filters(array: Bool[Tensor, "out ..."]) -> Bool[Tensor, " out"]:
    return array.flatten(1).any(1) if array.ndim > 1 else array


def _restored(cls: type[Circuit], model: nn.Module, tensors: dict[str, Tensor], header: dict[str, Any]) -> Circuit:
    given = {name.partition("/")[2]: t for name, t in tensors.items() if name.startswith((SHIFT, SCALE))}
    tensors = {name: t for name, t in tensors.items() if not name.startswith((SHIFT, SCALE))}
    everything = {name: torch.ones_like(kept) for name, kept in tensors.items()}
    mask = Mask(tensors, everything, header["granularity"], tuple(header["input_shape"]), header["zero_scores"])
    try:
        circuit = cls(model, target_from_json(header["target"]), mask, header["biases"])
    except (MaskError, TargetError) as error:
        raise StudyError(f"the circuit was made on another network: {error}") from None
    if (circuit.mask.n_kept, circuit.mask.n_relevant) != (header["kept"], header["relevant"]):
        raise StudyError("the circuit was made on another network: the kernels relevant to its target are others")
    if header["format"] == COMPENSATED:
        return replace(circuit, compensation=_compensation(circuit, given, header["compensation"]))
    return circuit


def _compensation(circuit: Circuit, given: dict[str, Tensor], said: Mapping[str, Any]) -> Means | Scales:
    what = {"mean": Means, "scales": Scales}.get(said["kind"])
    if what is None:
        raise StudyError(f"the circuit has a compensation that this version does not know: {said['kind']!r}")
    layers, whole = circuit.graph.layers, circuit.mask.granularity
    for name, array in given.items():
        expected = None if name not in layers else layers[name].structure_shape("filter" if what is Means else whole)
        if tuple(array.shape) != expected:
            raise StudyError(f"the circuit was made on another network: its compensation of {name!r} does not fit")
    return what(circuit.mask, given, said["n_images"])


def _arrays(fields: Fields, names: Iterable[str]) -> dict[str, Array]:
    found = {}
    for name in names:
        layer = name.removeprefix(SHIFT).removeprefix(SCALE)
        axes = axes_of(layer, "filter" if name.startswith(SHIFT) else fields["granularity"])
        found[name] = Array(BOOLS if layer == name else FLOATS, axes)
    return found


def _fits(fields: Fields, tensors: Mapping[str, Tensor]) -> str:
    wanted = {"mean": SHIFT, "scales": SCALE}
    said = fields.get("compensation", {"kind": None})["kind"]
    other = [name for kind, before in wanted.items() if kind != said for name in tensors if name.startswith(before)]
    if (said is not None) != (fields["format"] == COMPENSATED) or (other and said in (None, *wanted)):
        return "its compensation does not fit its format"
    return ""


KIND = Kind(
    "circuit",
    "a circuit file",
    {
        "model": TEXT,
        "target": JSON,
        "biases": one_of(*get_args(Biases)),
        "granularity": one_of(*GRANULARITIES),
        "input_shape": IMAGE,
        "kept": whole(),
        "relevant": whole(),
        "zero_scores": whole(),
        "compensation": maybe(record(kind=TEXT, n_images=whole(1))),
        "study": maybe(TEXT),
    },
    _arrays,
    (FORMAT, COMPENSATED),
    _fits,
)
