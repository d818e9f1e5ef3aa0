"""Pages that tell the whole story of a study, or of findings: ``viscircuits.report(study, model)``."""

import sys

from viscircuits import CallablePackage

sys.modules[__name__].__class__ = CallablePackage
