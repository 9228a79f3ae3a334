"""NoisyTune on NumPy arrays: ``noisytune.arrays.perturb_arrays_(weights, noise_lambda=0.15, seed=1)``.

For weights that are in no framework, or in one that hands them out as arrays: a mapping from names to arrays, with the
dtypes of NumPy and ml_dtypes (bfloat16, float8).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Self, Unpack

import numpy as np
from numpy.lib.array_utils import byte_bounds

from noisytune._noise import facts, kernels
from noisytune._noise import moments as moments_module
from noisytune._noise.facts import DTYPES, Facts
from noisytune._noise.kernels import Array
from noisytune._noise.moments import Moments
from noisytune._perturb import names, refusals
from noisytune._perturb import steps as perturbation
from noisytune._perturb.quantised import refuse_codes
from noisytune._perturb.target import MemoryTarget, set_padding_rows
from noisytune.config import NoiseSettings, NoisyTuneConfig
from noisytune.errors import UnsupportedTensorError
from noisytune.manifest import Manifest


def perturb_arrays(
    arrays: Mapping[str, Array],
    config: NoisyTuneConfig | None = None,
    *,
    base_prefix: str | None = None,
    padding_rows: Mapping[str, int] | None = None,
    **settings: Unpack[NoiseSettings],
) -> tuple[dict[str, Array], Manifest]:
    """`perturb_arrays_` on a copy: returns the new arrays, and what was done to them.

    Arrays that share all their memory share it in the copy as well.

    Args:
        arrays: as for `perturb_arrays_`; they stay as they are, and may be read-only.
        config: the settings; or give them by name instead.
        base_prefix: as for `perturb_arrays_`.
        padding_rows: as for `perturb_arrays_`.
        **settings: fields of `NoisyTuneConfig`.

    Raises:
        NoisyTuneError: as `perturb_arrays_`.

    Example:
        >>> clean = {"weight": np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)}
        >>> noisy, manifest = perturb_arrays(clean, noise_lambda=0.15, seed=1)
        >>> bool((noisy["weight"] != clean["weight"]).all()), manifest.entries[0].name
        (True, 'weight')
    """
    copies: dict[Hashable, Array] = {}
    copied = {name: copies.setdefault(identity(array), np.array(array)) for name, array in arrays.items()}
    manifest = perturb_arrays_(copied, config, base_prefix=base_prefix, padding_rows=padding_rows, **settings)
    return copied, manifest


def perturb_arrays_(
    arrays: Mapping[str, Array],
    config: NoisyTuneConfig | None = None,
    *,
    base_prefix: str | None = None,
    padding_rows: Mapping[str, int] | None = None,
    **settings: Unpack[NoiseSettings],
) -> Manifest:
    """Add noise to arrays, in place: W + U(-lambda/2, lambda/2) * std(W), equation (1) of the paper.

    Under the same names, in the same row-major order, the noise is that of `noisytune.torch.perturb_`, bit for bit.
    Every array is checked before the first is written. Constant and one-element arrays and integers are left alone.
    Nothing tells a mapping that was perturbed from a clean one: the manifest is the only record. For the same
    reason ``scope`` has no effect: every array counts as pretrained.

    Args:
        arrays: canonical name -> array of any shape; float64, float32, float16, bfloat16 or float8. Arrays with the
            same memory, shape and strides are tied: perturbed once, under the first of their names.
        config: the settings; or give them by name instead.
        base_prefix: attribute of the base model in the names, such as ``"bert"``: left out of the canonical names.
        padding_rows: name -> row that gets no noise, as torch's ``Embedding(padding_idx=...)``.
        **settings: fields of `NoisyTuneConfig`.

    Returns:
        what was done to which array.

    Raises:
        ConfigError: a setting is out of range, or a glob or a padding row matches no array.
        UnsupportedTensorError: a value is no array, is read-only, overlaps another, its dtype takes no noise, or arrays
            are codes with their scales.
        NonFiniteError: a weight is NaN or infinite, or so large that noise could overflow its dtype.

    Example:
        >>> weights = {"weight": np.linspace(-1, 1, 8, dtype=np.float32)}
        >>> [entry.name for entry in perturb_arrays_(weights, noise_lambda=0.15, seed=1).perturbed]
        ['weight']

    Source: Wu et al. 2022, equation (1).
    """
    config = perturbation.settled(config, settings)
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise UnsupportedTensorError(
                f"{name} is not a NumPy array but {type(array).__name__}: convert or leave out"
            )
    groups = names.tied({name: identity(array) for name, array in arrays.items()}, base_prefix)
    targets = [each for name, own_names in groups for each in _matrices(name, own_names, arrays[own_names[0]])]
    set_padding_rows(targets, padding_rows or {})
    for target in targets:
        target.left_alone = perturbation.why_no_parameter(target)
    perturbation.choose(targets, config)
    refusals.refuse_unsupported(targets, _problem)
    refuse_codes(targets)
    spans = ((byte_bounds(target.array), target) for target in targets if target.left_alone is None and target.size)
    refusals.refuse_overlaps([refusals.Span(0, *bounds, target) for bounds, target in spans])
    return perturbation.perturb_targets(targets, config)


def identity(array: Array) -> Hashable:
    """Equal for two arrays if and only if they are the same numbers in memory.

    Args:
        array: of any shape; whatever is no array, or is empty, equals itself alone.

    >>> row = np.arange(4.0)
    >>> identity(row) == identity(row[:]), identity(row) == identity(row.copy())
    (True, False)
    """
    if not isinstance(array, np.ndarray) or array.size == 0:
        return id(array)
    return array.ctypes.data, array.shape, array.strides, array.dtype


@dataclass
class ArrayTarget(MemoryTarget):
    """An array in the CPU's memory.

    >>> ArrayTarget.of("weight", ["bert.weight"], np.zeros((2, 3), np.float32)).dtype
    'float32'
    """

    array: Array

    @classmethod
    def of(cls, name: str, own_names: list[str], array: Array) -> Self:
        """The target that an array is.

        Args:
            name: canonical name, for which the noise is drawn.
            own_names: its names as they were given; several where it is tied.
            array: of any shape and dtype.
        """
        return cls(name, own_names, array.shape, array.dtype.name, array)

    def measure(self, pool: Executor | None) -> Facts:
        """See `MemoryTarget`."""
        return facts.of(self.array.reshape(-1), pool)

    def write(self, std: float, config: NoisyTuneConfig, pool: Executor | None) -> Moments:
        """See `MemoryTarget`."""
        flat = self.array.reshape(-1)
        settings = std, config.noise_lambda, config.distribution, config.seed, self.name
        added = [kernels.add_noise_(flat[run], *settings, start=run.start, pool=pool) for run in self.runs]
        if not np.may_share_memory(flat, self.array):
            self.array[...] = flat.reshape(self.shape)
        return moments_module.merge(added)


def _matrices(name: str, own_names: list[str], array: Array) -> list[ArrayTarget]:
    """An array; each of the experts where it stacks some."""
    if not names.is_stack(name, array.shape):
        return [ArrayTarget.of(name, own_names, array)]
    experts = enumerate(array)
    return [ArrayTarget.of(names.expert(name, index), list(own_names), expert) for index, expert in experts]


def _problem(target: ArrayTarget) -> str | None:
    if target.dtype not in DTYPES:
        return refusals.NO_DTYPE
    if not target.array.dtype.isnative:
        return f"has a dtype that takes no noise ({target.array.dtype!r}): convert it to native float32, or exclude it"
    return None if target.array.flags.writeable else "is read-only: use perturb_arrays, which copies"
