"""Which methods there are. Each module loads when its method is asked for: naming an arm needs no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module

from noisytune.methods._base import Method

_CLASSES = {
    "reinit": "Reinit",
    "noisytune": "NoisyTune",
    "ema": "EMA",
    "mixout": "Mixout",
    "hype": "HyPe",
    "neftune": "NEFTune",
    "symnoise": "SymNoise",
    "llrd": "LayerwiseDecay",
    "l2sp": "L2SP",
    "recadam": "RecAdamMethod",
    "child_tuning": "ChildTuning",
    "rdrop": "RDrop",
    "r3f": "R3F",
    "sam": "SAM",
}
"""The class of each module, in the order in which methods are applied and shown."""


class _Methods(Mapping[str, type[Method]]):
    def __getitem__(self, name: str) -> type[Method]:
        of_the_class = _CLASSES[name]
        found: type[Method] = getattr(import_module(f"noisytune.methods.{name}"), of_the_class)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(_CLASSES)

    def __len__(self) -> int:
        return len(_CLASSES)


METHODS: Mapping[str, type[Method]] = _Methods()
"""Method name -> class."""
