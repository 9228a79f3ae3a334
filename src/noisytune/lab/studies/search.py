"""Which settings to try next? One Optuna study an arm: settings are asked for, scores are told, and nothing is lost.

The only file that knows Optuna, which is imported when a search is opened.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import quote

from noisytune._settings import check, several
from noisytune.config import NoisyTuneConfig
from noisytune.errors import ConfigError, RunFolderError, require
from noisytune.lab.store import refuse_links
from noisytune.lab.tasks import order_key
from noisytune.lab.trials.settings import TrainingSettings

if TYPE_CHECKING:
    import optuna

SAMPLERS = ("random", "grid", "tpe")
"""How settings are picked."""

_ASKED = "noisytune"
"""The attribute of an Optuna study that says what it searches."""


@dataclass(frozen=True, kw_only=True)
class Space:
    """The values to try of each setting. The defaults are the paper's (Table 1).

    Raises:
        ConfigError: no value, one twice, or one out of range.

    >>> len(Space().grid(noise=False)), len(Space().grid(noise=True))
    (72, 504)
    """

    learning_rate: tuple[float, ...] = several(TrainingSettings, "learning_rate", (7e-6, 1e-5, 2e-5, 3e-5))
    epochs: tuple[int, ...] = several(TrainingSettings, "epochs", (3, 5, 7, 10, 15, 20))
    batch_size: tuple[int, ...] = several(TrainingSettings, "batch_size", (8, 16, 32))
    noise_lambda: tuple[float, ...] = several(NoisyTuneConfig, "noise_lambda", (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3))
    """Of arms with NoisyTune; the others have none."""

    def __post_init__(self) -> None:
        check(self)

    def axes(self, *, noise: bool) -> dict[str, list[Any]]:
        """The values by setting, with or without those of NoisyTune."""
        return {name: list(values) for name, values in asdict(self).items() if noise or name != "noise_lambda"}

    def grid(self, *, noise: bool) -> list[dict[str, Any]]:
        """Every combination, shuffled, the same on every machine.

        Those without NoisyTune come in one order for all arms; an arm with it goes through them again and again, each
        time with another strength. So arms see the same other settings, trial by trial.
        """
        shared = self.axes(noise=False)
        points = [dict(zip(shared, values, strict=True)) for values in product(*shared.values())]
        points.sort(key=lambda point: order_key(0, *map(repr, point.values())))
        if not noise:
            return points
        n = len(self.noise_lambda)
        return [
            point | {"noise_lambda": self.noise_lambda[(place + turn) % n]}
            for turn in range(n)
            for place, point in enumerate(points)
        ]


@dataclass(frozen=True)
class Candidate:
    """One trial of a search."""

    number: int
    """From 0."""
    settings: dict[str, Any]
    """By name, as in `Space`."""
    done: bool = False
    """Whether its score was told."""
    value: float | None = None
    """The score; None where there is none (yet)."""


class Search:
    """The trials of one arm, in an Optuna storage.

    >>> search = Search.open("sqlite://", "example", Space(epochs=(1, 2)), "random", noise=False, asked={})
    >>> for number in range(3):
    ...     search.tell(number, float(search.candidate(number).settings["epochs"]))
    >>> len(search.candidates()), search.best(3).value
    (3, 2.0)
    """

    def __init__(self, study: optuna.Study, space: Space, sampler: str, noise: bool, better: int = 1) -> None:
        """See `open`."""
        self._study = study
        self._better = better
        self._known = _candidates(study)
        self._axes = space.axes(noise=noise)
        self._grid = space.grid(noise=noise) if sampler == "grid" else []
        self._sampler = sampler

    @classmethod
    def open(
        cls,
        storage: str,
        name: str,
        space: Space,
        sampler: str,
        *,
        noise: bool,
        asked: Mapping[str, Any],
        better: int = 1,
    ) -> Self:
        """Begin a search, or go on with it.

        Args:
            storage: any URL that Optuna takes, for example ``sqlite:///FILE``.
            name: of the Optuna study.
            space: what to search.
            sampler: one of `SAMPLERS`. ``tpe``: the first ten trials are random.
            noise: whether the arm has a noise_lambda.
            asked: what else the scores depend on, as JSON values: a search that differs is not gone on with.
            better: -1 where a lower score is better.

        Raises:
            MissingExtraError: Optuna is not installed.
            ConfigError: no such sampler, or the storage cannot be opened.
            RunFolderError: the storage holds a study of this name that searches something else.
        """
        if sampler not in SAMPLERS:
            raise ConfigError(f"sampler must be one of {', '.join(SAMPLERS)}, got {sampler!r}")
        require("optuna", extra="tune", needed_for="noisytune tune")
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)  # it would print a line for each study and trial
        wanted = {**asked, "sampler": sampler, **space.axes(noise=noise)}
        direction: Literal["maximize", "minimize"] = "maximize" if better > 0 else "minimize"
        with _one_line():
            study = optuna.create_study(storage=storage, study_name=name, direction=direction, load_if_exists=True)
            known = study.user_attrs.get(_ASKED)
            if known is None and not study.get_trials(deepcopy=False):
                study.set_user_attr(_ASKED, wanted)
                known = wanted
        if known != wanted:
            raise RunFolderError(
                f"the storage holds another study {name!r}: {_difference(known, wanted)}; choose another run folder "
                "(its name is the study's) or another storage"
            )
        return cls(study, space, sampler, noise, better)

    def candidates(self) -> list[Candidate]:
        """All that were begun, by number. The storage was read when the search was opened, and is not read again."""
        return list(self._known)

    def candidate(self, number: int) -> Candidate:
        """One that was begun, or, for the number after the last, a new one.

        Settings are a function of the number, with ``tpe`` also of the scores told so far: an interrupted search goes
        on as if it had not been interrupted.
        """
        begun = self._known
        if number < len(begun) and begun[number].done:
            return begun[number]
        with _one_line():
            self._study.sampler = self._sampler_of(number)
            trial = self._begun(number) if number < len(begun) else self._new(number)
            settings = {name: trial.suggest_categorical(name, values) for name, values in self._axes.items()}
        begun[number:] = [Candidate(trial.number, settings), *begun[number + 1 :]]
        return begun[number]

    def tell(self, number: int, value: float | None) -> None:
        """Keep a score; None for a trial that has none, which counts as tried. The first one told stays."""
        from optuna.trial import TrialState

        if self._known[number].done:
            return
        state = TrialState.FAIL if value is None else TrialState.COMPLETE
        with _one_line():
            self._study.tell(number, value, state=state, skip_if_finished=True)
        self._known[number] = replace(self._known[number], done=True, value=value)

    def best(self, budget: int) -> Candidate | None:
        """The best score of the first ``budget`` trials, the earliest of equal ones; None where none has a score."""
        scored = [one for one in self._known[:budget] if one.value is not None]
        return max(scored, key=lambda one: self._better * (one.value or 0.0), default=None)

    def _sampler_of(self, number: int) -> optuna.samplers.BaseSampler:
        """One for each trial: its random numbers are the same whatever was asked before, in this process or another."""
        from optuna.samplers import RandomSampler, TPESampler

        return TPESampler(seed=number) if self._sampler == "tpe" else RandomSampler(seed=number)

    def _new(self, number: int) -> optuna.Trial:
        from optuna.trial import TrialState

        if self._grid and not self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            self._study.enqueue_trial(self._grid[number % len(self._grid)])
        return self._study.ask()

    def _begun(self, number: int) -> optuna.Trial:
        """What an interrupted process asked for: it has its settings already."""
        from optuna.trial import Trial

        return Trial(self._study, self._study.get_trials(deepcopy=False)[number]._trial_id)


def _candidates(study: optuna.Study) -> list[Candidate]:
    """What a storage holds, by number."""
    with _one_line():
        return [
            Candidate(trial.number, dict(trial.params), trial.state.is_finished(), trial.value)
            for trial in study.get_trials(deepcopy=False)
            if trial.state.name != "WAITING"
        ]


def sqlite_url(file: Path) -> str:
    """The URL of an SQLite database in a file, whatever characters its path has.

    Args:
        file: absolute.

    Raises:
        RunFolderError: it is a link.

    >>> from sqlalchemy import make_url
    >>> make_url(sqlite_url(Path("/runs/what?/100%.db"))).database
    'file:/runs/what%3F/100%25.db'
    """
    require("optuna", extra="tune", needed_for="noisytune tune")
    from sqlalchemy import URL

    refuse_links(file)
    # SQLite reads the path as a URI, which SQLAlchemy writes into its URL: versions of it differ in what they quote.
    return URL.create("sqlite", database=f"file:{quote(str(file))}", query={"uri": "true"}).render_as_string()


def _difference(known: Mapping[str, Any] | None, wanted: Mapping[str, Any]) -> str:
    if known is None:
        return "noisytune did not write it"
    name = next(name for name in {**known, **wanted} if known.get(name) != wanted.get(name))
    return f"its {name} is {known.get(name)}, not {wanted.get(name)}"


@contextmanager
def _one_line() -> Iterator[None]:
    """Turn what Optuna and its databases raise into one line. The URL stays out of it: it may hold a password."""
    from optuna.exceptions import OptunaError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    # A database that another version of Optuna made is a RuntimeError.
    except (OptunaError, SQLAlchemyError, ImportError, RuntimeError) as error:
        text = str(error.__cause__ or error).strip()
        reason = text.splitlines()[0] if text else type(error).__name__
        raise ConfigError(f"the storage of the search cannot be used: {reason}; give another") from error
