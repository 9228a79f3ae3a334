"""Fine-tuning methods, each an arm of a study alone or combined: ``noisytune(0.15)+recadam``.

`METHODS` has their classes by name. Every method's equations are plain functions in its own module, for anybody's loop:

    from noisytune.methods import mixout
    mixout.attach_(model, p=0.9)
"""

from noisytune._settings import Setting, setting_of
from noisytune.methods._arms import PLAIN, combine, label, make, method_class, parse
from noisytune.methods._base import Groups, Inputs, Method, Run, Stage
from noisytune.methods._registry import METHODS
from noisytune.methods._stack import Stack

__all__ = [
    "METHODS",
    "PLAIN",
    "Groups",
    "Inputs",
    "Method",
    "Run",
    "Setting",
    "Stack",
    "Stage",
    "combine",
    "label",
    "make",
    "method_class",
    "parse",
    "setting_of",
]
