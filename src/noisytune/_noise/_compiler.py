"""Compiling with Numba, so that nothing in the surroundings can break it or change a bit.

What was compiled is kept beside the source or in the user's cache, with a digest: a file that is damaged, or cannot be
read or written, costs a compilation and nothing else. ``NUMBA_DISABLE_JIT`` is meant for people's own functions; these
are compiled all the same, since small floats are words for them, which plain Python would take for numbers.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from threading import RLock
from typing import Any, TypeVar

import llvmlite
import numba
from numba.core.caching import FunctionCache
from numba.core.serialize import dumps

from noisytune._files import publish

logger = logging.getLogger(__name__)

_Function = TypeVar("_Function", bound=Callable[..., Any])

_config: Any = numba.config
_DIGEST_SIZE = 16
_SWITCH = RLock()


def compiled(*, for_python: bool = False, fastmath: Any = False, **options: Any) -> Callable[[_Function], _Function]:
    """Compile when first called.

    Args:
        for_python: whether Python calls it; what only compiled code calls compiles in half of the time.
        fastmath: said for each function: without a word from them, callees would take over their caller's.
        **options: of `numba.njit`.
    """
    options |= {"nogil": True, "error_model": "numpy", "fastmath": fastmath}
    options |= {"no_cpython_wrapper": not for_python, "no_cfunc_wrapper": True}

    def decorate(function: _Function) -> _Function:
        with _compiler_switched_on():
            dispatcher: Any = numba.njit(**options)(function)
        try:
            dispatcher._cache = _Cache(function)
        except RuntimeError:  # there is no place to keep it: every process compiles, about 3 s
            logger.debug("what Numba compiles of noisytune is not kept: no folder for it can be written")
        kept: _Function = _compiled_in_time(dispatcher) if for_python else dispatcher
        return kept

    return decorate


def _compiled_in_time(dispatcher: Any) -> Any:
    """The dispatcher; where the user has switched the compiler off, it is on while the dispatcher needs it."""

    def call(*arguments: Any) -> Any:
        if _config.DISABLE_JIT:
            signature = tuple(map(numba.typeof, arguments))
            if signature not in dispatcher.overloads:
                with _compiler_switched_on():
                    dispatcher.compile(signature)
        return dispatcher(*arguments)

    return call


@contextmanager
def _compiler_switched_on() -> Iterator[None]:
    with _SWITCH:
        _config.reload_config()  # Numba would do it in the middle, where the environment has changed
        before, _config.DISABLE_JIT = _config.DISABLE_JIT, 0
        try:
            yield
        finally:
            _config.DISABLE_JIT = before


class _Cache(FunctionCache):
    """Numba's cache of one function's compilations, in files that are checked."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._cache_file: Any = _Files(
            Path(self._cache_path) / self._impl.filename_base,
            (numba.__version__, llvmlite.__version__, self._impl.locator.get_source_stamp()),
        )

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The compilation for a signature; None if it is not kept, or not usable."""
        try:
            return super().load_overload(sig, target_context)
        except Exception as error:  # whatever is wrong with what was kept, it can be compiled anew
            logger.debug("what Numba had kept of %s is compiled anew: %s", self._name, error)
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep a compilation, where that is possible."""
        try:
            super().save_overload(sig, data)
        except OSError as error:
            logger.debug("%s is compiled by every process: %s", self._name, error)


class _Files:
    """One file for each signature, where Numba has an index and numbered files.

    Args:
        base: the beginning of the files' paths.
        stamp: what a file must have been made with.
    """

    def __init__(self, base: Path, stamp: tuple[Any, ...]) -> None:
        self._base, self._stamp = base, stamp

    def save(self, key: Any, data: Any) -> None:
        """Write, in place of what an earlier source or version left."""
        content = dumps((self._stamp, key, data))
        publish(self._path(key), _digest(content) + content)

    def load(self, key: Any) -> Any:
        """What was kept; None if there is nothing, it is damaged, or of another source or version."""
        try:
            content = self._path(key).read_bytes()
        except OSError:
            return None
        digest, content = content[:_DIGEST_SIZE], content[_DIGEST_SIZE:]
        if digest != _digest(content):
            return None
        stamp, kept_key, data = pickle.loads(content)
        return data if (stamp, kept_key) == (self._stamp, key) else None

    def flush(self) -> None:
        """Forget everything."""
        for file in self._base.parent.glob(f"{self._base.name}.*.nbc"):
            file.unlink()

    def _path(self, key: Any) -> Path:
        signature, machine, _ = key
        return self._base.with_name(f"{self._base.name}.{_digest(repr((signature, machine)).encode()).hex()}.nbc")


def _digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=_DIGEST_SIZE).digest()
