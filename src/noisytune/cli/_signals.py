"""Being stopped: every signal that can be caught ends a command as an error does, so that it cleans up."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
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
            with one_line_errors(debug), _signals_raise():
                try:
                    yield
                except KeyboardInterrupt as error:
                    raise Stopped(signal.SIGINT) from error
        except Stopped as stop:
            how = "Interrupted" if stop.number == signal.SIGINT else f"Stopped by {stop}"
            Console(stderr=True, soft_wrap=True).print(f"{how}. Nothing was left half written.")
            raise typer.Exit(128 + stop.number) from None

    return context


@contextmanager
def _signals_raise() -> Iterator[None]:
    """The first signal raises; those that follow while the command cleans up are ignored. So are those that were."""
    if threading.current_thread() is not threading.main_thread():  # others are given no signals
        yield
        return
    numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    usual = [number for number, handler in before.items() if handler in (signal.SIG_DFL, signal.default_int_handler)]

    def stop(number: int, _: FrameType | None) -> None:
        for other in usual:
            signal.signal(other, signal.SIG_IGN)
        raise Stopped(number)

    for number in usual:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in usual:
            signal.signal(number, before[number])
