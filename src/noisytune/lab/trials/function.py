"""A Python function as the trial: what it gets, and how what it returns becomes a record."""

from __future__ import annotations

import functools
import inspect
import pickle
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from noisytune.config import NoisyTuneConfig
from noisytune.errors import ConfigError, NoisyTuneError, TrialError, require
from noisytune.lab.trials.arm import methods_of
from noisytune.lab.trials.own import OwnRunner, about_code, record_of, refuse_soup
from noisytune.lab.trials.runner import OnStep
from noisytune.lab.trials.scores import Outcome, Scoring, as_number, in_object, is_number, outcome, pythons
from noisytune.lab.trials.trial import Trial
from noisytune.methods.noisytune import NoisyTune
from noisytune.records import TrialRecord, digest

if TYPE_CHECKING:
    from noisytune.methods import Inputs, Method, Stack

_HOSTS = (
    ("keras", ("Layer",), "noisytune.integrations.keras"),
    ("torch", ("nn", "Module"), "noisytune.torch"),
)
"""Libraries whose models are perturbed in place: the name of the model's class, and where ``perturb_`` is."""


class OwnTrial:
    """What a training function gets: one arm, one seed.

    The arm has to reach the model, or the trial fails: by `perturb_`, or by `methods`, which does that as well.

    >>> import tempfile, torch
    >>> from noisytune.lab import InlineEngine, compare
    >>> def train(trial):
    ...     model = trial.perturb_(torch.nn.Linear(4, 2), exclude=["bias"])
    ...     print(trial.arm, trial.seed, trial.noise and trial.noise.noise_lambda, list(trial.applied))
    ...     return 0.5
    >>> here = {"out": tempfile.mkdtemp(), "engine": InlineEngine(), "rerun": False}
    >>> _ = compare(train, arms=["noisytune(0.1)"], seeds=1, **here)
    plain 0 None []
    noisytune(0.1) 0 0.1 ['noisytune']
    """

    def __init__(self, trial: Trial, model_dir: Path | None, out: Path) -> None:
        self.seed = trial.seed
        """For everything random: head, order of the data, dropout."""
        self.arm = trial.arm
        """Its name: ``plain``, ``noisytune(0.15)`` ..."""
        self.model_dir = model_dir
        """The clean weights that the study was given; None where it was given none."""
        self.out = out
        """An empty folder for whatever is to be kept."""
        self.applied: dict[str, dict[str, Any]] = {}
        """What has been done to the model, by method."""
        self._methods: tuple[Method, ...] = methods_of(trial.settings["arm"]["methods"])
        refuse_soup(self.arm, self._methods)

    @property
    def noise(self) -> NoisyTuneConfig | None:
        """The arm's noise with this seed, for whoever adds it otherwise; None where the arm has none."""
        return next((one.config(self.seed) for one in self._methods if isinstance(one, NoisyTune)), None)

    def perturb_(self, model: Any, exclude: Sequence[str] = ()) -> Any:
        """Add the arm's noise to a model; nothing for the baseline.

        Args:
            model: a `torch.nn.Module` or a built Keras model, which are changed in place; or any tree of JAX, which is
                not.
            exclude: globs of what is new, beside those of the arm: in Keras and JAX nothing marks a new head.

        Returns:
            the model, or the new tree.

        Raises:
            ConfigError: the arm has methods that work while a model trains.
            NoisyTuneError: the model cannot take the noise.
        """
        self._refuse_others()
        config = self.noise
        if config is None:
            return model
        config = config.replace(exclude=(*config.exclude, *exclude))
        for library, path, room in _HOSTS:
            kind: Any = sys.modules.get(library)
            for name in path:
                kind = getattr(kind, name, None)
            if kind and isinstance(model, kind):
                return self._noted(model, import_module(room).perturb_(model, config))
        from noisytune.jax import perturb

        return self._noted(*perturb(model, config))

    def methods(
        self,
        model: Any,
        *,
        total_steps: int | None = None,
        learning_rate: float | None = None,
        regression: bool = False,
        batches: Callable[[], Iterable[Inputs]] | None = None,
    ) -> Stack:
        """The arm's methods on a torch model, noise included, begun: their hooks are ready for a bare loop.

        Call ``optimizer(groups, build)`` in place of building one, ``loss(inputs, compute)`` for each batch,
        ``gradient_()`` before each step, ``run.step += 1`` after it, and ``end_()`` before the model is evaluated. For
        the baseline these do what a plain loop does.

        Args:
            model: its pretrained weights.
            total_steps: optimizer steps of the whole training, for settings that are shares of it.
            learning_rate: the largest one, for methods that ask for it.
            regression: whether the model predicts a value, not a class.
            batches: gives training batches, labels included, for methods that look at the data first.

        Raises:
            NoisyTuneError: a method cannot work on the model.
        """
        from noisytune.methods import Run, Stack

        run = Run(model, self.seed, regression, batches, total_steps=total_steps, learning_rate=learning_rate)
        for method in self._methods:
            method.check(run)
        stack = Stack(self._methods, run)
        self.applied = {method.name: {} for method in self._methods} | stack.begin_()
        return stack

    def _noted(self, model: Any, manifest: Any) -> Any:
        self.applied["noisytune"] = manifest.summary()
        return model

    def _refuse_others(self) -> None:
        others = ", ".join(method.name for method in self._methods if method.name != "noisytune")
        if others:
            raise ConfigError(
                f"arm {self.arm}: perturb_ adds noise alone; trial.methods(model) has the hooks of {others}"
            )

    def check_applied(self) -> None:
        """See that the arm has reached the model.

        Raises:
            TrialError: it has not.
        """
        if self._methods and not self.applied:
            raise TrialError(
                f"the arm {self.arm} was never applied: call trial.perturb_(model) on the pretrained weights, or "
                "trial.methods(model)"
            )


@dataclass(frozen=True)
class Function:
    """A training function that can be sent to a worker process: one that can be imported by its name, others whole."""

    call: Callable[[OwnTrial], Any]

    def __reduce__(self) -> tuple[Any, ...]:
        require("cloudpickle", extra="lab", needed_for="a training function in worker processes")
        import cloudpickle  # type: ignore[import-untyped, unused-ignore]

        return _unpacked, (cloudpickle.dumps(self.call),)

    @property
    def plain(self) -> Any:
        """The function itself, without what is given to it beforehand."""
        call: Any = self.call
        while isinstance(call, functools.partial):
            call = call.func
        return inspect.unwrap(call if inspect.isroutine(call) else type(call))

    @property
    def name(self) -> str:
        """For tables."""
        return str(getattr(self.plain, "__name__", "train"))

    def told(self) -> dict[str, Any]:
        """What is known to decide a training's outcome, as part of its trial's settings.

        The function's own source, what is given to it beforehand, and the plain values that it takes from around it.

        >>> told = Function(functools.partial(as_number, what="x")).told()
        >>> told["function"], told["given"]
        ('as_number', "{'what': 'x'}")
        """
        plain, given = self.plain, []
        call: Any = self.call
        while isinstance(call, functools.partial):
            given += [*map(_said, call.args), *([_said(call.keywords)] if call.keywords else [])]
            call = call.func
        try:
            source: Any = inspect.getsource(plain)
        except (OSError, TypeError):
            code = getattr(plain, "__code__", None)
            source = [code.co_code.hex(), repr(code.co_names)] if code else repr(plain)
        told = {"function": self.name, "script": {self.name: digest(source)}}
        around = {name: _said(value) for name, value in sorted(_around(call, plain).items()) if _is_plain(value)}
        return told | ({"given": ", ".join(given)} if given else {}) | ({"around": around} if around else {})


def _around(call: Any, plain: Any) -> dict[str, Any]:
    """What a function uses beside its arguments: defaults, closure, globals, and of an object its own state."""
    body = plain if inspect.isfunction(plain) else vars(plain).get("__call__")
    found = {}
    if inspect.isfunction(body):
        used = inspect.getclosurevars(body)
        defaults = {name: one.default for name, one in inspect.signature(body).parameters.items()}
        found = {**defaults, **used.globals, **used.nonlocals}
    return found | (vars(call) if not inspect.isroutine(call) and hasattr(call, "__dict__") else {})


def _is_plain(value: Any) -> bool:
    """Whether a value is a number, a text, or a tuple or dictionary of such: what no training changes by the way."""
    if isinstance(value, Mapping):
        return all(map(_is_plain, (*value.keys(), *value.values())))
    if isinstance(value, tuple | frozenset):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | complex | str | bytes | Path)


def _said(value: Any) -> str:
    """A value in words that are the same in every session, whole arrays and objects too.

    >>> _said({"lr": 0.1}), _said(np.zeros(2000)) == _said(np.ones(2000))
    ("{'lr': 0.1}", False)
    """
    if isinstance(value, dict) and not _is_plain(value):
        return "{" + ", ".join(f"{key!r}: {_said(one)}" for key, one in value.items()) + "}"
    if hasattr(value, "__array__") and getattr(value, "ndim", None):
        content = np.ascontiguousarray(value)
        return f"array {content.dtype} {content.shape} {digest([content.tobytes().hex()])}"
    text = repr(value)
    if " at 0x" not in text:
        return text
    state = {name: _said(one) for name, one in sorted(getattr(value, "__dict__", {}).items()) if _is_plain(one)}
    return f"{type(value).__module__}.{getattr(value, '__qualname__', type(value).__qualname__)} {state}"


def _unpacked(content: bytes) -> Function:
    return Function(_Sent(content))


@dataclass(frozen=True)
class _Sent:
    """A function, loaded when it is called: what it misses is then the error of its trial."""

    content: bytes

    def __call__(self, trial: OwnTrial) -> Any:
        return self.load()(trial)

    def load(self) -> Any:
        """Import its module, and whatever that imports."""
        return pickle.loads(self.content)


@dataclass(frozen=True, kw_only=True)
class FunctionRunner(OwnRunner):
    """A `noisytune.lab.trials.runner.Runner` whose trials are calls of a function."""

    function: Function
    name: str
    has_model: bool
    """Whether ``model_dir`` is one."""

    @classmethod
    def of(cls, function: Function, model_dir: Path | None, scoring: Scoring, folder: Path) -> FunctionRunner:
        """The runner of a study.

        Args:
            function: the training.
            model_dir: the clean weights; None where the function knows by itself what to load.
            scoring: how its score is read.
            folder: the run folder.
        """
        file = inspect.getsourcefile(function.plain) if hasattr(function.plain, "__code__") else None
        near = Path(file).parent if file and Path(file).is_file() else Path()
        about, packages = about_code("function", near, Path(), sys.executable)
        return cls(
            model_dir=(model_dir or Path()).absolute(),
            scoring=scoring,
            folder=folder.absolute(),
            about=about,
            packages=packages,
            function=function,
            name=function.name,
            has_model=model_dir is not None,
        )

    def warm_up(self) -> None:
        """Import what the function's module imports."""
        if isinstance(self.function.call, _Sent):
            self.function.call.load()

    def check(self, trial: Trial, arms: Sequence[Sequence[dict[str, Any]]]) -> tuple[str, ...]:
        """Nothing: only the function has the model."""
        return ()

    def run(self, training: Trial, trials: Sequence[Trial], on_step: OnStep) -> Iterator[TrialRecord]:
        """Call the function."""
        for trial in trials:
            asked = OwnTrial(trial, self.model_dir if self.has_model else None, self._new_output(trial))
            began = perf_counter()
            returned = self.function.call(asked)
            timing = {"train": perf_counter() - began}
            try:
                asked.check_applied()
                found = self._outcome(returned)
                yield record_of(trial, self.scoring, found, asked.applied, timing, self.about)
            except NoisyTuneError as error:
                raise TrialError(f"{trial.label} failed: {error}") from error

    def _outcome(self, returned: Any) -> Outcome:
        """What a function returned, read."""
        whole = returned if isinstance(returned, Mapping) else {"scores": pythons(returned)}
        parts = whole if "scores" in whole and set(whole) <= {"scores", "items"} else {"scores": whole}
        scores, items = parts["scores"], parts.get("items")
        if is_number(scores):
            scores = {self.scoring.score: scores}
        if not isinstance(scores, Mapping) or not scores:
            raise TrialError(
                f"{self.name} returned {returned!r:.60}: expected a number, scores by their names, or "
                '{"scores": ..., "items": ...}'
            )
        scores = {str(name): pythons(value) for name, value in scores.items()}
        named = in_object(scores, self.scoring.score)
        if named is None and len(scores) == 1 and self.scoring.score == Scoring().score:
            named = next(iter(scores.values())), scores
        if named is None:
            raise TrialError(
                f"{self.name} returned {', '.join(map(str, scores))}, not {self.scoring.score}: say which is "
                "compared, such as score='accuracy'"
            )
        value = as_number(named[0], self.scoring.score)
        return outcome(self.scoring, value, named[1], None if items is None else _rows(items))


def _rows(items: Any) -> Iterable[Any]:
    """Items as objects: given so, or as columns ``predictions``, ``references`` and perhaps ``groups``."""
    if not isinstance(items, Mapping):
        return list(items)
    columns = [name for name in ("predictions", "references", "groups") if name in items or name != "groups"]
    values = [list(items.get(name, ())) for name in columns]
    if set(items) != set(columns) or len(set(map(len, values))) > 1:
        raise TrialError(
            "items must be rows with prediction and reference, or columns of one length: predictions, references and "
            "perhaps groups"
        )
    names = [name.removesuffix("s") for name in columns]
    return [dict(zip(names, map(pythons, row), strict=True)) for row in zip(*values, strict=True)]
