"""The pytree route: which leaves take noise, and the tree with it."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from noisytune._noise.facts import DTYPES, Facts, largest
from noisytune._noise.moments import Moments
from noisytune._perturb import names, refusals
from noisytune._perturb import steps as perturbation
from noisytune._perturb.quantised import refuse_codes
from noisytune._perturb.target import MemoryTarget
from noisytune.arrays import ArrayTarget, identity
from noisytune.config import NoiseSettings, NoisyTuneConfig
from noisytune.errors import UnsupportedTensorError
from noisytune.jax import _xla
from noisytune.jax._stacks import matrices, spelt
from noisytune.manifest import Manifest

Tree = TypeVar("Tree")


def perturb(
    tree: Tree, config: NoisyTuneConfig | None = None, **settings: Unpack[NoiseSettings]
) -> tuple[Tree, Manifest]:
    """A pytree with noise added: W + U(-lambda/2, lambda/2) * std(W), equation (1) of the paper.

    The tree is not touched; the new one has its structure, dtypes and shardings. A leaf's name is its path joined with
    dots, without a trailing ``value`` (Flax NNX variables). In a dict with ``params`` at the top (Linen variables), and
    in a training state with ``params`` and ``opt_state`` (Flax's ``TrainState``), only what is inside ``params`` gets
    noise, and names begin there; of NNX variables only `nnx.Param` and its kinds do, not batch statistics. Every leaf
    is checked before noise is made for the first.
    Left alone: constant and one-element leaves, integers, random keys, running statistics and rotary frequencies by
    their names, adapters, and what is no array. One array under two paths is tied: it gets one noise and stays one.

    A leaf that stacks experts, or the layers of ``nn.scan``, takes noise by the standard deviation of each matrix in
    it, under names such as ``layers.mlp.kernel[3]``. Its name and the shapes beside it say so, and a notice does, too.

    A pytree has no place for a receipt: nothing tells a tree that was perturbed from a clean one, so the manifest is
    the only record. For the same reason ``scope`` has no effect: every leaf counts as pretrained.

    On the CPU the noise is made by the compiled kernels on the host's memory; on other devices, and for arrays that
    span processes, by 32-bit integer arithmetic under jit, each device for its own part.

    Args:
        tree: leaves float64, float32, float16, bfloat16 or float8, `jax.Array` or NumPy, sharded in any way. Noise
            follows the flat row-major index: a Flax kernel (in, out) gets other noise than torch's weight (out, in).
        config: the settings; or give them by name instead.
        **settings: fields of `NoisyTuneConfig`.

    Returns:
        the new tree, and what was done to which leaf.

    Raises:
        ConfigError: a setting is out of range, or a glob matches no leaf.
        UnsupportedTensorError: a leaf is being traced, was deleted, or has a dtype that takes no noise; leaves are
            codes with their scales, or replicated for pmap; or a training state does not say which are its ``params``.
        NonFiniteError: a weight is NaN or infinite, or so large that noise could overflow its dtype.

    Example:
        >>> params = {"dense": {"kernel": jnp.linspace(-1, 1, 8).reshape(2, 4)}}
        >>> noisy, manifest = perturb(params, noise_lambda=0.15, seed=1)
        >>> manifest.entries[0].name, noisy["dense"]["kernel"].shape
        ('dense.kernel', (2, 4))

    Source: Wu et al. 2022, equation (1).
    """
    config = perturbation.settled(config, settings)
    paths_and_leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    paths, leaves = [path for path, _ in paths_and_leaves], [leaf for _, leaf in paths_and_leaves]
    positions = _positions(paths)
    inside, outside = _place_of_params(tree), _outside_params(tree)
    if inside and not any(name.startswith(inside) for name in positions):
        raise UnsupportedTensorError(f"{type(tree).__name__} has no weights under {inside}*: give its params instead")
    groups = names.tied({name: _identity(leaves[i]) for name, i in positions.items()})
    owners = {own_names[0]: leaves[positions[own_names[0]]] for _, own_names in groups}
    parts = _parts(groups, owners, inside, {name for name, i in positions.items() if _within(outside, paths[i])})
    targets = [target for each in parts.values() for target in each]
    perturbation.choose(targets, config)

    @cache  # a leaf that stacks matrices has a target for each
    def is_replicated(owner: str) -> bool:
        return isinstance(owners[owner], jax.Array) and _is_replicated_for_pmap(owners[owner])

    refusals.refuse_unsupported(targets, lambda target: _problem(target, is_replicated))
    refuse_codes([target for target in targets if target.left_alone != refusals.NOT_IN_PARAMS])
    manifest = perturbation.perturb_targets(targets, config)
    for _, own_names in groups:
        found = [target for target in parts[own_names[0]] if not isinstance(target, _Opaque)]
        if any(target.realised is not None for target in found):
            noisy = _joined(found, owners[own_names[0]])
            for own_name in own_names:
                leaves[positions[own_name]] = noisy
    return jax.tree_util.tree_unflatten(structure, leaves), manifest


def _positions(paths: Sequence[Any]) -> dict[str, int]:
    """The position of each leaf by its name."""
    own_names = [jax.tree_util.keystr(path, simple=True, separator=".").removesuffix(".value") for path in paths]
    if twice := [name for name, count in Counter(own_names).items() if count > 1]:
        raise UnsupportedTensorError(f"two leaves have the same name {twice[0]!r}: rename one, dots in keys included")
    return {name: position for position, name in enumerate(own_names)}


def _place_of_params(tree: Any) -> str:
    """What the names of parameters begin with, where they lie beside what takes no noise: in Linen variables, in a
    training state (Flax's ``TrainState``), in variables inside one; "" where all of the tree counts."""
    if hasattr(tree, "params") and hasattr(tree, "opt_state"):
        return "params." + _place_of_params(tree.params)
    is_dict = isinstance(tree, dict) or type(tree).__name__ == "FrozenDict"
    return "params." if is_dict and isinstance(tree.get("params"), Mapping) else ""


def _outside_params(tree: Any) -> set[tuple[Any, ...]]:
    """The paths of Flax NNX variables that are no parameters: batch statistics, the state of random numbers."""
    nnx = sys.modules.get("flax.nnx")
    if nnx is None:
        return set()
    nodes, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda node: isinstance(node, nnx.Variable))
    return {path for path, node in nodes if isinstance(node, nnx.Variable) and not isinstance(node, nnx.Param)}


def _within(places: set[tuple[Any, ...]], path: tuple[Any, ...]) -> bool:
    """Whether a path leads into one of the places."""
    return any(path[:length] in places for length in range(1, len(path) + 1)) if places else False


def _parts(
    groups: Sequence[tuple[str, list[str]]], owners: Mapping[str, Any], inside: str, outside: set[str]
) -> dict[str, list[_Opaque | _HostTarget | _DeviceTarget]]:
    """A target for each leaf; for each matrix of one that stacks some."""
    stacks = matrices({name: leaf.shape for name, leaf in owners.items() if _holds_weights(leaf)})
    parts: dict[str, list[_Opaque | _HostTarget | _DeviceTarget]] = {}
    for name, own_names in groups:
        canonical, owner = name.removeprefix(inside), own_names[0]
        is_buffer = perturbation.is_usual_buffer(canonical, len(getattr(owners[owner], "shape", ())))
        for indices in stacks.get(owner, [()]):
            target = _target(spelt(canonical, indices), list(own_names), _at(owners[owner], indices))
            if not owner.startswith(inside):
                target.left_alone = refusals.NOT_IN_PARAMS
            elif owner in outside and target.left_alone is None:
                target.left_alone = refusals.NOT_A_PARAM
            elif is_buffer and target.left_alone is None:
                target.left_alone = refusals.BUFFER
            parts.setdefault(owner, []).append(target)
    return parts


def _at(leaf: Any, indices: tuple[int, ...]) -> Any:
    """One matrix of a stack; the leaf itself where it is none."""
    if not indices:
        return leaf
    if isinstance(leaf, np.ndarray) or _on_host(leaf):
        return np.asarray(leaf)[indices]
    with jax.enable_x64(True):
        return leaf[indices]


def _holds_weights(leaf: Any) -> bool:
    """Whether a leaf can be taken apart: its values are at hand, and are floating point."""
    if not isinstance(leaf, jax.Array | np.ndarray) or isinstance(leaf, jax.core.Tracer):
        return False
    is_gone = isinstance(leaf, jax.Array) and leaf.is_deleted()
    return not is_gone and bool(jnp.issubdtype(leaf.dtype, np.floating))


def _joined(parts: Sequence[_HostTarget | _DeviceTarget], leaf: Any) -> Any:
    """A leaf from its matrices, perturbed or left alone: of the same kind, and where it was."""
    held = [part.leaf if part.perturbed is None else part.perturbed for part in parts]
    if len(held) == 1 and held[0].shape == leaf.shape:
        return held[0]
    if not isinstance(leaf, np.ndarray) and not _on_host(leaf):
        return _xla.stacked_like(held, leaf)
    whole = np.stack(held).reshape(leaf.shape)
    return whole if isinstance(leaf, np.ndarray) else _xla.placed_like(whole, leaf)


def _identity(leaf: Any) -> Hashable:
    return identity(leaf) if isinstance(leaf, np.ndarray) else id(leaf)


# --- the kinds of leaves ---


@dataclass
class _Opaque(MemoryTarget):
    """A leaf that is left alone, or refused unless it is excluded: nobody reads or writes its values."""

    problem: str | None = None

    def measure(self, pool: Executor | None) -> Facts:
        raise NotImplementedError

    def write(self, std: float, config: NoisyTuneConfig, pool: Executor | None) -> Moments:
        raise NotImplementedError


@dataclass
class _HostTarget(ArrayTarget):
    """A leaf in the host's memory: the kernels work on a copy."""

    leaf: Any
    perturbed: Any = None

    def write(self, std: float, config: NoisyTuneConfig, pool: Executor | None) -> Moments:
        self.array = np.array(self.array, order="C")
        added = super().write(std, config, pool)
        self.perturbed = self.array if isinstance(self.leaf, np.ndarray) else _xla.placed_like(self.array, self.leaf)
        return added


@dataclass
class _DeviceTarget(MemoryTarget):
    """A leaf on accelerators, or spread over processes."""

    leaf: jax.Array
    perturbed: Any = None

    @property
    def gains_by_threads(self) -> bool:
        """No: every process of several has to launch the same collectives in the same order."""
        return False

    def measure(self, pool: Executor | None) -> Facts:
        moments, non_finite = _xla.moments(self.leaf), 0
        if not moments.is_finite:
            wide = self.leaf if self.dtype == "float64" else self.leaf.astype(jnp.float32)
            non_finite = int((~jnp.isfinite(wide)).sum())
        return Facts(moments, non_finite, largest(moments, self.dtype, lambda: _xla.largest(self.leaf)))

    def write(self, std: float, config: NoisyTuneConfig, pool: Executor | None) -> Moments:
        settings = std, config.noise_lambda, config.distribution, config.seed, self.name
        self.perturbed, added = _xla.add_noise(self.leaf, *settings)
        return added


def _problem(target: _Opaque | _HostTarget | _DeviceTarget, is_replicated: Callable[[str], bool]) -> str | None:
    """Why a target cannot take noise; it may be one matrix of its leaf."""
    if isinstance(target, _Opaque):
        return target.problem
    return "is replicated for pmap: perturb before replicate" if is_replicated(target.own_names[0]) else None


def _is_replicated_for_pmap(leaf: jax.Array) -> bool:
    """Whether a leaf is a row for each device and the first two are the same weights, as ``flax.jax_utils.replicate``
    makes it: as parts of one array, the rows would get different noise."""
    if not leaf.is_fully_addressable or leaf.size == 0 or leaf.ndim == 0:
        return False
    is_row_each = leaf.sharding.shard_shape(leaf.shape) == (1, *leaf.shape[1:])
    if not is_row_each or not 1 < leaf.shape[0] == len(leaf.sharding.device_set):
        return False
    first, second = (np.asarray(shard.data) for shard in leaf.addressable_shards[:2])
    return bool((first == second).all() and (first != first.flat[0]).any())


def _target(name: str, own_names: list[str], leaf: Any) -> _Opaque | _HostTarget | _DeviceTarget:
    shape = tuple(getattr(leaf, "shape", ()))
    dtype = str(getattr(leaf, "dtype", type(leaf).__name__))

    def opaque(problem: str | None = None, left_alone: str | None = None) -> _Opaque:
        return _Opaque(name, own_names, shape, dtype, problem, left_alone=left_alone)

    if isinstance(leaf, jax.core.Tracer):
        return opaque("is being traced: call perturb outside jit, grad and vmap")
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return opaque("has no values: load the weights first")
    if not isinstance(leaf, jax.Array | np.ndarray):
        return opaque(left_alone=refusals.NOT_AN_ARRAY)
    if not jnp.issubdtype(leaf.dtype, np.floating):
        return opaque(left_alone=refusals.not_floating(dtype))
    if dtype not in DTYPES:
        return opaque(refusals.NO_DTYPE)
    if isinstance(leaf, np.ndarray):
        return _HostTarget(name, own_names, shape, dtype, leaf, leaf)
    if leaf.is_deleted():
        return opaque("was deleted or donated to a jit: load the weights again")
    if _on_host(leaf):
        return _HostTarget(name, own_names, shape, dtype, np.asarray(leaf), leaf)
    return _DeviceTarget(name, own_names, shape, dtype, leaf)


def _on_host(leaf: jax.Array) -> bool:
    devices: set[Any] = leaf.sharding.device_set
    return leaf.is_fully_addressable and all(device.platform == "cpu" for device in devices)
