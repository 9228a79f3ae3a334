"""The lines with which a host says what happened to the noise, one each time."""

from __future__ import annotations

import logging
import math

from noisytune.manifest import Manifest

VISIBLE = logging.WARNING
"""The level of these lines: Python shows nothing below it unless logging is set up."""

TRACED = " (their record was lost; the noise itself was found)"
NOT_WHOLE = "; no process holds its weights whole, so nobody looked whether such noise was in them before"
CANNOT_TELL = "; the model is too small to see whether its weights still carry it"
TOO_SMALL = "; the model is too small to see whether such noise was in it before: start from weights that never had any"


NONE_ASKED = "NoisyTune: noise_lambda is 0: no noise was added"


def added(manifest: Manifest, origin: str = "", doubt: str = "") -> str:
    """Noise went in.

    Args:
        manifest: what was done.
        origin: where the seed comes from, of `Asked.origin`.
        doubt: of `_modules.Found`.
    """
    if manifest.config.noise_lambda == 0:
        return NONE_ASKED
    return f"{manifest.headline()}{origin}{_change(manifest)}{doubt}"


def only_in_training(what: str) -> str:
    """None went in, since the model is evaluated.

    >>> only_in_training("evaluate()")
    'NoisyTune: evaluate() adds no noise: it goes in when training starts'
    """
    return f"NoisyTune: {what} adds no noise: it goes in when training starts"


def _change(manifest: Manifest) -> str:
    """The noise that was really added, in standard deviations of the weights."""
    done = [entry for entry in manifest.perturbed if entry.std and entry.realised_std is not None]
    spread = sum(entry.elements * (entry.std or 0) ** 2 for entry in done)
    noise = sum(entry.elements * (entry.realised_std or 0) ** 2 for entry in done)
    return f", {math.sqrt(noise / spread):.2%} of the weights' standard deviation" if spread else ""
