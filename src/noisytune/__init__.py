"""noisytune: a little noise before fine-tuning, done right, and paired evidence whether it helped.

    import noisytune.torch
    manifest = noisytune.torch.perturb_(model, noise_lambda=0.15, seed=1)
    print(manifest)

Importing this package loads no framework; each loads with the module named for it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from noisytune.config import NoisyTuneConfig
    from noisytune.errors import NoisyTuneError
    from noisytune.manifest import Manifest

__version__ = "0.1.0"

__all__ = ["Manifest", "NoisyTuneConfig", "NoisyTuneError", "__version__"]

_HOMES = {"Manifest": "manifest", "NoisyTuneConfig": "config", "NoisyTuneError": "errors"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"noisytune.{_HOMES[name]}"), name)
    if name == "torch":
        return import_module("noisytune.torch")
    raise AttributeError(f"module 'noisytune' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "torch"]
