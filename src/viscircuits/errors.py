"""Every error a user can cause; each text says what was expected, what came, where, and the fix.

::

    ViscircuitsError            catch this to catch everything below
    ├── UnsupportedOperation    the model does something we have no rule for (the text names op, module and line)
    ├── ModelError              a model that cannot be loaded, or is not in evaluation mode
    ├── TargetError             a layer, channel or position that is not there; a dead target
    ├── ImageError              unreadable, empty or unlabelled images
    ├── MaskError               a density, count or mask that does not fit
    ├── StudyError              a results folder or file that is missing, foreign or damaged
    └── ArgumentError           an argument of the wrong type (a TypeError as well)

`Cancelled` is none of them: nobody erred.

Not here: checks of our own invariants, which are plain ``assert``.
"""

import difflib
from collections.abc import Iterable


class ViscircuitsError(Exception):
    """Something the caller can put right; the text says how."""


class UnsupportedOperation(ViscircuitsError):
    """An operation of the model that has no rule; never a silently wrong number."""


class ModelError(ViscircuitsError):
    """A model that cannot be found, loaded or used as it is."""


class TargetError(ViscircuitsError):
    """A target that the model does not have, or that never responds."""


class ImageError(ViscircuitsError):
    """Images that cannot be read, do not fit the model, or lack what the job needs."""


class MaskError(ViscircuitsError):
    """A density, a count or a mask that does not fit the network."""


class StudyError(ViscircuitsError):
    """A study folder or a file in it that cannot be used."""


class ArgumentError(ViscircuitsError, TypeError):
    """An argument of a type that the function does not take; the text names it and what is expected."""


class Cancelled(Exception):
    """Raise it in a ``progress`` to end a call between two batches; nothing is left behind, and nobody erred."""


def closest(name: str, candidates: Iterable[str]) -> str:
    """Returns ``"; closest: 'a', 'b'"`` for a misspelt name, or an empty string when nothing is near."""
    names = list(candidates)
    # letters first; a short word that is part of a long name ("conv1" of "block.conv1.weight") shares too few of them
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5) or [c for c in names if name and name in c][:3]
    return "; closest: " + ", ".join(map(repr, near)) if near else ""
