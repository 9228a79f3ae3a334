"""How a function becomes a command: settings become options, --debug is added, and errors are one line."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, get_args

from noisytune.cli._errors import one_line_errors
from noisytune.cli._help import help_all, texts
from noisytune.cli._options import Debug, Settings
from noisytune.cli._signals import stoppable


def as_command(function: Callable[..., Any], keeps_trials: bool = False) -> Callable[..., None]:
    """The function as typer takes it.

    Args:
        function: its parameters are arguments and options, or stand for many: see `Settings`.
        keeps_trials: an interruption keeps finished trials; else every signal ends the command, and nothing is left
            half written.
    """
    groups: dict[str, Settings] = {}
    own: list[str] = []
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(function, eval_str=True).parameters.values():
        group = next((known for known in get_args(parameter.annotation) if isinstance(known, Settings)), None)
        if group:
            groups[parameter.name] = group
            parameters += group.parameters()
        else:
            own.append(parameter.name)
            parameters.append(parameter)

    def call(debug: bool, **values: Any) -> None:
        one_line = partial(one_line_errors, values)
        with (one_line if keeps_trials else stoppable(one_line))(debug):
            settings = {name: group.take(values) for name, group in groups.items()}
            function(**{name: values[name] for name in own}, **settings)

    debugging = inspect.Parameter("debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Debug)
    parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in [*parameters, debugging]]
    parameters += help_all(parameters)
    call.__name__, call.__doc__ = function.__name__, texts(function)[0]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return call
