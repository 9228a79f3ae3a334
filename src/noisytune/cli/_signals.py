"""Being stopped: every signal that can be caught ends a command as an error does, so that it cleans up."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from types import FrameType

import typer

from noisytune._console import Console

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGXCPU", "SIGUSR1", "SIGUSR2")
"""From the keyboard, the system, a closed terminal, and the time limits of clusters."""


class Stopped(BaseException):
    """A signal came."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


Handler = Callable[[int, FrameType | None], None]

Context = Callable[[bool], AbstractContextManager[None]]
"""Given whether to debug."""


def stoppable(one_line_errors: Context) -> Context:
    """The context with one more way to leave: one line and the shell's code, 128 + the number of the signal.

    Args:
        one_line_errors: turns an error into one line and an exit code.
    """

    @contextmanager
    def context(debug: bool) -> Iterator[None]:
        try:
            with one_line_errors(debug), heard(dict.fromkeys(_NAMES, _stop)):
                try:
                    yield
                except KeyboardInterrupt as error:
                    raise Stopped(signal.SIGINT) from error
        except Stopped as stop:
            how = "Interrupted" if stop.number == signal.SIGINT else f"Stopped by {stop}"
            Console(stderr=True, soft_wrap=True).print(f"{how}. Nothing was left half written.")
            raise typer.Exit(128 + stop.number) from None

    return context


def _stop(number: int, _: FrameType | None) -> None:
    """The first signal raises; those that follow while the command cleans up are ignored."""
    for other in _numbers(_NAMES).values():
        if signal.getsignal(other) is _stop:
            signal.signal(other, signal.SIG_IGN)
    raise Stopped(number)


@contextmanager
def heard(handlers: Mapping[str, Handler]) -> Iterator[None]:
    """Let signals call these, and afterwards what they called before.

    One that somebody, nohup say, has decided about already is left as it is.

    Args:
        handlers: by names such as ``SIGTERM``; names that the system lacks are passed over.
    """
    if threading.current_thread() is not threading.main_thread():  # others are given no signals
        yield
        return
    before = {name: signal.getsignal(number) for name, number in _numbers(handlers).items()}
    usual = [name for name, handler in before.items() if handler in (signal.SIG_DFL, signal.default_int_handler)]
    for name in usual:
        signal.signal(getattr(signal, name), handlers[name])
    try:
        yield
    finally:
        for name in usual:
            signal.signal(getattr(signal, name), before[name])


def _numbers(names: Iterable[str]) -> dict[str, int]:
    """Those that the system has."""
    return {name: getattr(signal, name) for name in names if hasattr(signal, name)}
