"""What is said when a model cannot be traced: where it stumbled, and what to do about it.

Whatever the model, the exporter or the reading of its graph raises becomes one `UnsupportedOperation` with the line of
the model's own code. Not here: errors of ours, which say so themselves and pass through.
"""

import inspect
import os
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import nn

from viscircuits.errors import UnsupportedOperation, ViscircuitsError
from viscircuits.model.tracing.state import hooks_of_all

_HERE = str(Path(__file__).parents[2])
"""The folder of viscircuits: frames below it in a traceback are not the model's."""
_LONGEST = 200
"""Characters of a foreign error that are shown; some print whole tensors or graphs."""


@contextmanager
def explained(model: nn.Module, shape: tuple[int, ...], *, any_batch: bool) -> Iterator[None]:
    """A block whose errors are told in our words.

    Args:
        model: the user's module.
        shape: of one image, ``(c, h, w)``.
        any_batch: whether the number of images must stay free, which a model can stumble on as well.

    Raises:
        UnsupportedOperation: anything but an error of ours was raised inside.
    """
    try:
        yield
    except ViscircuitsError:
        raise
    except (Exception, SystemExit) as error:  # scripts end with sys.exit
        text = f"the model cannot be traced on images of shape {shape}: {_stumbled(error)}."
        fix = next(_fixes(model, error), None)
        if fix is None:
            hint = ", nor fixes the number of images (as len(x) does; take x.shape[0])" if any_batch else ""
            fix = f"Check that model(images) runs at this size and does not branch on the values of a tensor{hint}"
        raise UnsupportedOperation(f"{text} {fix}") from error


def _fixes(model: nn.Module, error: BaseException) -> Iterator[str]:
    """What to do about what a model is known to stumble on, the likeliest first."""
    frames = traceback.extract_tb(error.__traceback__)
    exported = _in_export(frames)
    if any(f"torchvision{os.sep}transforms{os.sep}" in frame.filename for frame in frames):
        names = [name for name, module in model.named_modules() if "transforms" in type(module).__module__]
        where = f" ({', '.join(map(repr, names))}, {type(model.get_submodule(names[0])).__name__})" if names else ""
        yield f"One of torchvision's transforms{where} stands in the model; it belongs into prepare, before the model"
    places = _hooked_places(model)
    # a trial runs on real tensors, where most hooks do no harm; the exporter's have no values to look at
    if (exported or "numpy" in str(error)) and places:
        yield (
            f"Somebody's hook on {', '.join(places)} may do so (one that turns activations into numpy arrays does); "
            f"remove it, or check that model(images) does not branch on the values of a tensor"
        )
    if not exported and _takes_something_else(model, error):
        yield (
            "A model is called as model(images), with one tensor [n, c, h, w]; where yours takes more, or something "
            "else, give a module whose forward(images) calls it"
        )
    if not exported and re.search(r"\b(size|sizes|height|width|shape|shapes|dimension)\b", str(error)):
        yield "Give pictures of a size that the model takes (on the command line --input-size)"
    for part in ("backbone", "encoder", "body"):  # what detectors and segmenters call the network inside
        if isinstance(getattr(model, part, None), nn.Module):
            yield (
                f"Its part model.{part} may do: give that as the model, or check that model(images) runs at this size "
                f"and does not branch on the values of a tensor"
            )


def _hooked_places(model: nn.Module) -> list[str]:
    """The first modules with hooks of somebody's, in words."""
    hooked = [name for name, module in model.named_modules() if module._forward_hooks or module._forward_pre_hooks]
    places = [repr(name) if name else "the model" for name in hooked[:4]]
    return places + (["every module (torch.nn.modules.module.register_module_forward_hook)"] if hooks_of_all() else [])


def _takes_something_else(model: nn.Module, error: BaseException) -> bool:
    """Whether a forward cannot be called with one thing, or takes it for something other than a tensor."""
    try:
        inspect.signature(model.forward).bind(None)
    except (TypeError, ValueError):
        return True
    # a tensor was asked for a key, an attribute or an item that a dict, a list or a record would have
    return isinstance(error, KeyError | AttributeError | IndexError)


def _stumbled(error: BaseException) -> str:
    """The line of the model's own code at which an error arose; what was said there, if not by the exporter."""
    frames = traceback.extract_tb(error.__traceback__)
    # what stands before our last frame is the caller's code, and what is torch's says nothing of the model
    ours = max((place for place, frame in enumerate(frames) if frame.filename.startswith(_HERE)), default=-1)
    own = [frame for frame in frames[ours + 1 :] if f"{os.sep}torch{os.sep}" not in frame.filename]
    where = f" at {own[-1].filename}:{own[-1].lineno} ({own[-1].line})" if own else ""
    if _in_export(frames):  # its texts speak of symbols and guards, which nobody wrote
        return f"it does something{where} that has no fixed graph"
    first = next((line for line in str(error).splitlines() if line.strip()), "")
    return f"run on them, it fails{where} with {type(error).__name__}: {first[:_LONGEST]}"


def _in_export(frames: traceback.StackSummary) -> bool:
    """Whether an error came out of `torch.export`, by the folder that its code stands in."""
    return any(f"{os.sep}export{os.sep}" in frame.filename for frame in frames)
