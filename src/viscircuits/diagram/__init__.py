"""Pictures of what was measured: the only home of matplotlib.

``viscircuits.diagram`` is both this package and the function that draws a circuit. Python binds a package's name to the
package as soon as anything in it is imported, so the package itself can be called: ``viscircuits.diagram(circuit)`` is
`viscircuits.diagram.extended.diagram(circuit)`, and ``viscircuits.diagram.curve`` stays a module.
"""

import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Returns the diagram of a circuit: see `viscircuits.diagram.extended.diagram`."""
        from viscircuits.diagram.extended import diagram

        return diagram(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
