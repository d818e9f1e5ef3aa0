"""A circuit: model + target + mask.

A circuit is the user's own network with edited parameters, nothing else. *Masked*: kernels that are not kept are zero
and everything else stays, so a filter without kernels still puts out its bias. *Pruned*: such filters are silent, and
what only they fed goes with them (paper 8.7). *Mean-compensated*: masked, with what removed kernels put out on average
added to the biases. *Rescaled*: masked, with kept kernels multiplied by trained numbers. Never one of these two
(`viscircuits.circuit.compensation`) unless asked for.

Not here: how a circuit runs (`viscircuits.execution`), and its file (`viscircuits.circuit.file`).
"""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from viscircuits.bounds.arguments import check_fields, check_model_hash, check_study, checked
from viscircuits.card import Card, Shown, sized
from viscircuits.circuit import file
from viscircuits.circuit.compensation import Means, Scales, means
from viscircuits.circuit.stored_target import target_from_json
from viscircuits.data.images import ImageSet
from viscircuits.errors import MaskError, StudyError, TargetError, closest
from viscircuits.execution.alone import extract
from viscircuits.execution.execution import Execution
from viscircuits.execution.response import masked_weights
from viscircuits.mask import Mask, expand_relevant
from viscircuits.model.fingerprint import fingerprint
from viscircuits.model.flow.affine import silenced
from viscircuits.model.flow.reach import Paths, Reach
from viscircuits.model.graph import NetGraph
from viscircuits.model.guard.clean import clean
from viscircuits.model.small.shrink import Shrunk
from viscircuits.model.trace import trace
from viscircuits.readout import Frozen, Readout, bound
from viscircuits.target import AnyTarget, as_target
from viscircuits.types import Biases, Progress


@dataclass(frozen=True, eq=False, repr=False)
class Circuit(Shown):
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
        # names and shapes first: in what follows a mask of another network would fail somewhere inside torch
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
        # the target's own denominator, also where the mask comes from another target or an intersection
        own = expand_relevant(self.graph, self.readout.relevant_kernels, self.mask.granularity)
        object.__setattr__(self, "mask", self.mask.within(own))
        if self.compensation is not None and (self.biases != "masked" or self.compensation.mask != self.mask):
            raise MaskError(
                "compensation holds for a circuit with biases='masked' and for the mask that it was made for; make it "
                "anew with circuit.compensated(images) or viscircuits.rescaled(circuit, images)"
            )

    def _card(self) -> Card:
        mask = self.mask
        effective = vars(self).get("effective")  # only where it is known: finding it walks the whole graph
        return Card("Circuit", {
            "model": type(self.model).__name__, "target": self.target,
            "keeps": f"{mask.n_kept:,} of {mask.n_relevant:,} relevant {mask.granularity}s",
            "density": f"{mask.density:.4g}", "effective density": effective and f"{effective.density:.4g}",
            "kind": self.kind, "compensation": self.compensation,
            "image": sized(mask.input_shape),
        })  # fmt: skip

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
        shifts = means(self.model, self.readout, self.mask, images, batch_size=batch_size, progress=progress)
        return replace(self, compensation=shifts)

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
        # shared by all circuits of the target, so that what is relevant to it is found once
        return bound(self.target, self.graph)

    @cached_property
    def _conducting(self) -> dict[str, Bool[Tensor, "out in"]]:
        """Layer -> kernels that are kept at least in part, or are not relevant and so never removed."""
        factors = self.mask.factors(self.graph)
        conducting = {}
        for name in self.mask.kept:
            layer = self.graph.layers[name]
            # any weight of a kernel that is kept lets something through
            conducting[name] = layer.out_first(factors[layer.weight]).reshape(*layer.shape, -1).any(2)
        return conducting

    @cached_property
    def _paths(self) -> Paths:
        return Paths(self.graph, self.readout.seeds(), self._conducting)

    @property
    def _reach(self) -> Reach:
        return self._paths.reach

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
        # copies: the model's own parameters are never written to
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
        # filters that never had a relevant kernel cannot change the target, so they are left alone
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
        return self.execution.respond(images, frozen=frozen, batch_size=batch_size, progress=progress)

    @cached_property
    def execution(self) -> Execution:
        """What runs for this circuit: the model with its weights, read at its target."""
        # a masked circuit's dead ends still put out their biases, so they have to run
        conducting = self._conducting if self.biases == "masked" else self._reach.used
        return Execution(self.model, self.graph, self.readout, self.weights, conducting, self._paths)

    @clean
    def extract(self) -> Shrunk:
        """Returns a standalone, physically smaller module that computes the target as this circuit does.

        It takes images ``[n, c, h, w]`` of the mask's size and returns the response, ``[n, p]``. Its attribute
        ``full_width`` says which layers could not be narrowed, and why.

        Raises:
            UnsupportedOperation: the target is a loss (it needs labels) or reads each image's arg-max.
        """
        return extract(self.execution)

    @checked
    def save(self, path: str | Path, *, study: str = "", model_hash: str = "") -> None:
        """Writes the circuit (not the model) as safetensors with a JSON header, atomically.

        Args:
            path: the file.
            study: the hash of the study that it belongs to.
            model_hash: the fingerprint of the model, where it is known; it is found otherwise.
        """
        check_study(study)
        check_model_hash(model_hash)
        # hashing reads every weight, which for a large model takes longer than writing a circuit
        own = model_hash or fingerprint(self.model)
        file.save(path, self.mask, self.target, self.biases, self.compensation, model=own, study=study)

    @classmethod
    @checked
    def load(cls, path: str | Path, model: nn.Module) -> "Circuit":
        """Returns a saved circuit on its model.

        Raises:
            StudyError: not a circuit file, of another version, or made on another model or other weights.
        """
        stored = file.load(path)
        header, own = stored.header, fingerprint(model)
        if header["model"] != own:
            raise StudyError(
                f"{str(path)!r} was made on another model or other weights (fingerprint {header['model']!r}, this "
                f"model has {own}); load the weights it was made with"
            )
        try:
            circuit = cls(model, target_from_json(header["target"]), stored.mask, header["biases"])
        except (MaskError, TargetError) as error:
            raise StudyError(f"the circuit was made on another network: {error}") from None
        # weights of the same names and shapes may be wired otherwise, and then other kernels matter
        if (circuit.mask.n_kept, circuit.mask.n_relevant) != (header["kept"], header["relevant"]):
            raise StudyError("the circuit was made on another network: the kernels relevant to its target are others")
        compensation = file.compensation_in(stored, circuit.mask, circuit.graph)
        return circuit if compensation is None else replace(circuit, compensation=compensation)


def _filters(array: Bool[Tensor, "out ..."]) -> Bool[Tensor, " out"]:
    return array.flatten(1).any(1) if array.ndim > 1 else array
