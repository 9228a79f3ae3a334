"""How a study is run by a command: on which workers, by which rules, and how it is stopped."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import TYPE_CHECKING, Any

import typer

from noisytune._console import Console
from noisytune._machine import visible_gpus
from noisytune._settings import check, choice, common, number, switch, text, whole
from noisytune.cli._signals import heard
from noisytune.errors import ConfigError, NoisyTuneError

if TYPE_CHECKING:
    from noisytune.lab.engines import LocalEngine, RayEngine
    from noisytune.lab.studies.attempts import Rules


@dataclass(frozen=True, kw_only=True)
class Running:
    """The options of every command that runs trials.

    Raises:
        ConfigError: a value is out of range.
    """

    workers: int | None = common(
        whole(
            None,
            "Run this many trials at a time. Default: one for each core, or for each GPU.",
            ">= 1",
            lambda n: n >= 1,
        )
    )
    engine: str = choice("local", "Run trials on this machine, or on a Ray cluster.", "local", "ray")
    address: str | None = text(
        None, "Connect to this Ray cluster. Default: this machine's, or a new one.", "auto or HOST[:PORT]", "auto|HOST"
    )
    trials_per_gpu: int | None = whole(
        None, "Run this many trials at a time on each GPU.", "a whole number >= 1", lambda n: n >= 1
    )
    launcher: str | None = text(
        None, "Train each trial by this launcher: torchrun, accelerate launch.", "a command that takes -m", "COMMAND"
    )
    gpus_per_trial: int | None = whole(
        None, "Give each trial this many GPUs. Default: one, or all of them with a launcher.", ">= 1", lambda n: n >= 1
    )
    trial_timeout: float | None = number(
        None, "Give a trial up after this long.", "a number of seconds > 0", lambda x: x > 0, "SECONDS"
    )
    fail_fast: bool = switch("Stop at the first trial that fails. Default: the others go on.")

    def __post_init__(self) -> None:
        check(self)
        try:
            shlex.split(self.launcher or "")
        except ValueError as error:
            raise ConfigError(f"launcher {self.launcher!r} is no command: {error}") from error

    def workplace(self) -> LocalEngine | RayEngine:
        """The workers; none is started."""
        from noisytune.lab.engines import LocalEngine, RayEngine

        if self.engine == "ray":
            return RayEngine(self.workers, self.address, self.trials_per_gpu, self.gpus_per_trial)
        if self.address is not None:
            raise ConfigError("address is that of a Ray cluster: give engine=ray too, or leave it out")
        workers, gpus = self.workers, self.gpus_per_trial
        if self.launcher and gpus is None:  # it makes its own use of this machine
            gpus = len(visible_gpus()) or None
            workers = workers or 1
        return LocalEngine(workers, trials_per_gpu=self.trials_per_gpu, gpus_per_trial=gpus)

    def rules(self, stop: Stop, wait_for_others: bool = True) -> Rules:
        """What to do about failures and about other processes, and when to stop."""
        from noisytune.lab.studies.attempts import Rules

        return Rules(
            fail_fast=self.fail_fast,
            trial_timeout=self.trial_timeout,
            wait_for_others=wait_for_others,
            launcher=tuple(shlex.split(self.launcher or "")),
            stopping=lambda: stop.asked,
        )


@dataclass
class Stop:
    """Whether somebody wants the study to stop."""

    number: int = 0
    """The signal that said so; 0: none."""
    running: set[str] = field(default_factory=set)
    """Keys of the trials that run. Where there is none, nothing is to be finished."""

    @property
    def asked(self) -> bool:
        """Whether no more trials may begin."""
        return bool(self.number)

    def watched(self, on_event: Callable[[Any], None]) -> Callable[[Any], None]:
        """The same listener; the trials that run are noted, and it is told when they are the last."""
        from noisytune.lab.trials.events import Notice, TrialDone, TrialFailed, TrialStarted

        said = False

        def told(event: Any) -> None:
            nonlocal said
            if isinstance(event, TrialStarted):
                self.running.add(event.trial.key)
            elif isinstance(event, TrialDone):
                self.running.discard(event.record.key)
            elif isinstance(event, TrialFailed):
                self.running.discard(event.trial.key)
            on_event(event)
            if self.asked and self.running and not said:
                said = True
                trials = f"{len(self.running)} running trial" + "s" * (len(self.running) > 1)
                on_event(Notice(f"stopping once the {trials} are finished; Ctrl-C stops at once"))

        return told


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Let Ctrl-C and SIGTERM stop a study once the trials that run are finished; the second one stops at once.

    A terminal that is closed stops nothing: what would be shown there is dropped.

    Raises:
        typer.Exit: at the end, if it was stopped: with the shell's code, 128 + the number of the signal.
    """
    stop = Stop()
    try:
        with _signals(stop):
            yield stop
    except KeyboardInterrupt:
        how, code = "Interrupted", 128 + (stop.number or signal.SIGINT)
    except NoisyTuneError:
        if not stop.asked:
            raise
        how, code = "Stopped", 128 + stop.number
    else:
        if not stop.asked:
            return
        how, code = "Stopped", 128 + stop.number
    Console(stderr=True, soft_wrap=True).print(f"{how}. Finished trials are kept: the same command goes on from there.")
    raise typer.Exit(code)


def _signals(stop: Stop) -> AbstractContextManager[None]:
    """Note the signals that stop a study."""

    def asked(number: int, _: FrameType | None) -> None:
        again, stop.number = stop.asked, number
        if again or not stop.running:
            raise KeyboardInterrupt

    def hung_up(_: int, __: FrameType | None) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            if stream.isatty():
                os.dup2(nowhere, stream.fileno())

    return heard({"SIGINT": asked, "SIGTERM": asked, "SIGHUP": hung_up})
