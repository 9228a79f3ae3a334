"""NoisyTune on JAX pytrees: ``noisy, manifest = noisytune.jax.perturb(params, noise_lambda=0.15, seed=1)``.

Flax NNX state, Linen parameters, Equinox or Haiku trees, plain nested dicts: whatever JAX can flatten. Works whether or
not ``jax_enable_x64`` is set.
"""

from __future__ import annotations

from noisytune.errors import MissingExtraError

try:
    import jax as _  # noqa: F401
except ModuleNotFoundError as error:
    raise MissingExtraError("noisytune.jax needs JAX: run  pip install 'noisytune[jax]'") from error

from noisytune.jax._perturb import perturb

__all__ = ["perturb"]
