"""Every error that noisytune raises on purpose.

::

    NoisyTuneError
    ├── ConfigError             a setting is out of range or unknown                     (also a ValueError)
    ├── AlreadyPerturbedError   the weights carry noise already
    ├── UnsupportedTensorError  a weight that cannot take noise: quantised, meta, sharded ...   (also a TypeError)
    ├── NonFiniteError          NaN or infinity in a weight, or noise would overflow it  (also a ValueError)
    ├── DataError               the user's data: no such column, an empty class, a bad file   (also a ValueError)
    │   └── NotFoundError       what an argument names is not there: a file, a folder, a task    (also a ConfigError)
    ├── RunFolderError          a run folder that cannot be read, written or extended    (also an OSError)
    │   └── DamagedRecordError  a record in it that was not written like this
    ├── TrialError              a trial failed in its worker
    └── MissingExtraError       an optional library is not installed                     (also an ImportError)

The message of each is one line that says what was seen, where, and what to do. The command line prints it as it is.

>>> from noisytune.config import NoisyTuneConfig
>>> try:
...     NoisyTuneConfig(noise_lambda=-1)
... except NoisyTuneError as error:
...     print(type(error).__name__, isinstance(error, ValueError), error)
ConfigError True noise_lambda must be a finite number >= 0, got -1
"""

from __future__ import annotations

from importlib.util import find_spec


class NoisyTuneError(Exception):
    """Base of every error raised on purpose."""


class ConfigError(NoisyTuneError, ValueError):
    """A setting is out of range or unknown."""


class AlreadyPerturbedError(NoisyTuneError):
    """The weights carry noise already.

    Load the clean weights, or say ``again=True`` where they were loaded anew.
    """


class UnsupportedTensorError(NoisyTuneError, TypeError):
    """A weight that cannot take noise as it is.

    Quantised, on the meta device, parametrised ...; the message names the tensor.
    """


class NonFiniteError(NoisyTuneError, ValueError):
    """NaN or infinity in a weight, or noise that would overflow its dtype."""


class DataError(NoisyTuneError, ValueError):
    """Something is wrong with the user's data.

    The message names the file, the row and the column.
    """


class NotFoundError(DataError, ConfigError):
    """What an argument names is not there: a file, a folder, a model, a task."""


class RunFolderError(NoisyTuneError, OSError):
    """A run folder cannot be read, written or extended."""


class DamagedRecordError(RunFolderError):
    """A record of a run folder that is not what noisytune wrote: cut off, changed, or without its outputs."""


class TrialError(NoisyTuneError):
    """A trial failed in its worker.

    The others go on; its reason is kept in the run folder, and the same command tries it again.
    """


class MissingExtraError(NoisyTuneError, ImportError):
    """An optional library is not installed."""


def require(module: str, *, extra: str, needed_for: str) -> None:
    """Raise `MissingExtraError` unless ``module`` can be imported.

    Args:
        module: top-level module, for example ``"scipy"``.
        extra: the extra of noisytune that brings it, for example ``"lab"``.
        needed_for: what the user asked for, for the message.

    Raises:
        MissingExtraError: with the command that installs it.

    >>> require("json", extra="lab", needed_for="an example")
    >>> try:
    ...     require("no_such_library", extra="lab", needed_for="an example")
    ... except MissingExtraError as error:
    ...     print(str(error).partition(": ")[2])
    run  pip install 'noisytune[lab]'
    """
    if find_spec(module) is None:
        raise MissingExtraError(
            f"{needed_for} needs the library {module!r}, which is not installed: run  pip install 'noisytune[{extra}]'"
        )
