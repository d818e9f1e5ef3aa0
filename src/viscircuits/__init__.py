"""viscircuits: find, measure and look at the small circuits inside vision models.

    import viscircuits as vc
    model, prepare = vc.zoo.load("squeezenet1_1", weights="DEFAULT")
    images = vc.ImageSet.from_folder("photos/", prepare)
    scoring, held_out = images.split(0.5, seed=0)
    target = vc.Target("features.10.expand3x3", channel=56)
    scores = vc.score(model, target, scoring, criterion="actgrad")
    circuit = vc.Circuit(model, target, scores.select(density=0.10))
    vc.preservation(circuit, held_out).pearson
    vc.diagram(circuit, scores=scores, images=held_out, prepare=prepare).save("circuit")

Names are resolved when first used, so that importing the package costs nothing.
"""

import importlib
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

from viscircuits.version import __version__ as __version__

_HOMES = {
    # what a network is, and what it looks at
    "trace": "viscircuits.model.trace",
    "NetGraph": "viscircuits.model.graph",
    "zoo": "viscircuits.model.zoo.zoo",
    "ImageSet": "viscircuits.data.images",
    # the core nouns
    "Target": "viscircuits.target",
    "Loss": "viscircuits.target",
    "parse_target": "viscircuits.target",
    "Readout": "viscircuits.readout",
    "respond": "viscircuits.execution.response",
    "Scores": "viscircuits.scores",
    "Mask": "viscircuits.mask",
    "Circuit": "viscircuits.circuit.circuit",
    "CRITERIA": "viscircuits.saliency.registry",
    "score": "viscircuits.saliency.registry",
    "score_all": "viscircuits.saliency.registry",
    "find": "viscircuits.saliency.find",
    "rescaled": "viscircuits.saliency.gates.scales",
    # measuring
    "Preservation": "viscircuits.evaluate.preservation",
    "Reference": "viscircuits.evaluate.preservation",
    "preservation": "viscircuits.evaluate.preservation",
    "faithfulness": "viscircuits.evaluate.faithfulness",
    "Faithfulness": "viscircuits.evaluate.faithfulness",
    "minimality": "viscircuits.evaluate.faithfulness",
    "Minimality": "viscircuits.evaluate.faithfulness",
    "bootstrap": "viscircuits.evaluate.interval",
    "inside": "viscircuits.evaluate.inside",
    "stability": "viscircuits.evaluate.stability",
    "Stability": "viscircuits.evaluate.stability",
    "respond_resampled": "viscircuits.evaluate.resample",
    "Sweep": "viscircuits.evaluate.sweep",
    "sweep": "viscircuits.evaluate.sweep",
    # results and pictures
    "Study": "viscircuits.study.folder",
    "preservation_curve": "viscircuits.plots.curve",
    "faithfulness_curve": "viscircuits.plots.faithfulness",
    "diagram": "viscircuits.diagram.extended",
    "Diagram": "viscircuits.diagram.extended",
    "vertex_pictures": "viscircuits.diagram.gathering",
    "report": "viscircuits.report.report",
    # what drives it
    "render": "viscircuits.optvis.render",
    "Rendering": "viscircuits.optvis.rendering",
    "KernelMap": "viscircuits.optvis.objective",
    "Fourier": "viscircuits.optvis.parameterisation",
    "Maco": "viscircuits.optvis.parameterisation",
    "Accentuation": "viscircuits.optvis.parameterisation",
    "receptive_field": "viscircuits.model.field.receptive_field",
    # errors
    "ViscircuitsError": "viscircuits.errors",
    "UnsupportedOperation": "viscircuits.errors",
    "ModelError": "viscircuits.errors",
    "TargetError": "viscircuits.errors",
    "ImageError": "viscircuits.errors",
    "MaskError": "viscircuits.errors",
    "StudyError": "viscircuits.errors",
    "ArgumentError": "viscircuits.errors",
}

__all__ = [*_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]

if TYPE_CHECKING:
    from viscircuits.circuit.circuit import Circuit as Circuit
    from viscircuits.data.images import ImageSet as ImageSet
    from viscircuits.diagram.extended import Diagram as Diagram
    from viscircuits.diagram.extended import diagram as diagram
    from viscircuits.diagram.gathering import vertex_pictures as vertex_pictures
    from viscircuits.errors import ArgumentError as ArgumentError
    from viscircuits.errors import ImageError as ImageError
    from viscircuits.errors import MaskError as MaskError
    from viscircuits.errors import ModelError as ModelError
    from viscircuits.errors import StudyError as StudyError
    from viscircuits.errors import TargetError as TargetError
    from viscircuits.errors import UnsupportedOperation as UnsupportedOperation
    from viscircuits.errors import ViscircuitsError as ViscircuitsError
    from viscircuits.evaluate.faithfulness import Faithfulness as Faithfulness
    from viscircuits.evaluate.faithfulness import Minimality as Minimality
    from viscircuits.evaluate.faithfulness import faithfulness as faithfulness
    from viscircuits.evaluate.faithfulness import minimality as minimality
    from viscircuits.evaluate.inside import inside as inside
    from viscircuits.evaluate.interval import bootstrap as bootstrap
    from viscircuits.evaluate.preservation import Preservation as Preservation
    from viscircuits.evaluate.preservation import Reference as Reference
    from viscircuits.evaluate.preservation import preservation as preservation
    from viscircuits.evaluate.resample import respond_resampled as respond_resampled
    from viscircuits.evaluate.stability import Stability as Stability
    from viscircuits.evaluate.stability import stability as stability
    from viscircuits.evaluate.sweep import Sweep as Sweep
    from viscircuits.evaluate.sweep import sweep as sweep
    from viscircuits.execution.response import respond as respond
    from viscircuits.mask import Mask as Mask
    from viscircuits.model.field.receptive_field import receptive_field as receptive_field
    from viscircuits.model.graph import NetGraph as NetGraph
    from viscircuits.model.trace import trace as trace
    from viscircuits.model.zoo import zoo as zoo
    from viscircuits.optvis.objective import KernelMap as KernelMap
    from viscircuits.optvis.parameterisation import Accentuation as Accentuation
    from viscircuits.optvis.parameterisation import Fourier as Fourier
    from viscircuits.optvis.parameterisation import Maco as Maco
    from viscircuits.optvis.render import render as render
    from viscircuits.optvis.rendering import Rendering as Rendering
    from viscircuits.plots.curve import preservation_curve as preservation_curve
    from viscircuits.plots.faithfulness import faithfulness_curve as faithfulness_curve
    from viscircuits.readout import Readout as Readout
    from viscircuits.report.report import report as report
    from viscircuits.saliency.find import find as find
    from viscircuits.saliency.gates.scales import rescaled as rescaled
    from viscircuits.saliency.registry import CRITERIA as CRITERIA
    from viscircuits.saliency.registry import score as score
    from viscircuits.saliency.registry import score_all as score_all
    from viscircuits.scores import Scores as Scores
    from viscircuits.study.folder import Study as Study
    from viscircuits.target import Loss as Loss
    from viscircuits.target import Target as Target
    from viscircuits.target import parse_target as parse_target


class CallablePackage(ModuleType):
    """A package that shares its name with a public function, and can be called like it.

    Python binds a package's name to the package as soon as anything in it is imported: ``viscircuits.diagram(circuit)``
    would no longer be a function after that.
    """

    def __call__(self, *args: object, **kwargs: object) -> object:
        """Returns what the function of this name returns."""
        return self._function(*args, **kwargs)

    @property
    def __signature__(self) -> inspect.Signature:
        """The function's signature, which `inspect.signature` looks for here before it looks at `__call__`."""
        return inspect.signature(self._function)

    @property
    def __doc__(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride] (a module's is an attribute)
        """How the function is called, and its docstring: of a module ``help`` shows no signature, only this."""
        return f"{self._function.__name__}{self.__signature__}\n\n{inspect.getdoc(self._function)}"

    @property
    def _function(self) -> Callable[..., object]:
        # looked up when it is needed: the package is imported by the function's own module, and before it
        name = self.__name__.rpartition(".")[2]
        return getattr(importlib.import_module(_HOMES[name]), name)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'viscircuits' has no attribute {name!r}")
    home = _HOMES[name]
    module = importlib.import_module(home)
    if home.startswith(f"viscircuits.{name}."):  # the package of that name can be called, and stays a package
        return importlib.import_module(f"viscircuits.{name}")
    value = module if home.endswith(f".{name}") and not hasattr(module, name) else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
