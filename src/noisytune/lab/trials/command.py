"""A command as the trial: what it is made of, and how it is run."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from time import perf_counter
from typing import Any

from noisytune._files import digest_of
from noisytune._settings import check, path, switch, text, whole, words
from noisytune.errors import ConfigError, NoisyTuneError, NotFoundError, TrialError
from noisytune.lab.trials.arm import Arm, methods_of
from noisytune.lab.trials.logged import last_lines, run_logged
from noisytune.lab.trials.own import OwnRunner, about_code, checkpoint_for, name_of, noise_of, record_of
from noisytune.lab.trials.runner import OnStep
from noisytune.lab.trials.scores import (
    METRICS_FILES,
    PREDICTIONS,
    Outcome,
    Scoring,
    as_number,
    from_files,
    outcome,
    pattern_of,
    read_items,
)
from noisytune.lab.trials.trial import Trial
from noisytune.records import TrialRecord

PLACES = ("model", "seed", "out", "arm", "noise_lambda")
"""What is filled in: ``{model}`` in the command, and ``NOISYTUNE_MODEL`` in the environment."""
_LAST_WORDS = 20
"""Lines of a log that go with an error."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """A training by a command, and where its scores are.

    Raises:
        ConfigError: a value is not allowed, or the command cannot be read.
    """

    command: str | None = text(
        None,
        "Run this for each trial, with {model}, {seed}, {out}, {arm} and {noise_lambda} filled in.",
        "a command",
        "COMMAND",
    )
    shell: bool = switch("Give the command to /bin/sh. Default: no shell reads it.")
    env: tuple[str, ...] = words(
        "Set this variable for it. Kept in the records: export what is secret.",
        "NAME=VALUE",
        metavar="NAME=VALUE",
        holds=lambda word: re.match(r"[A-Za-z_]\w*=", word) is not None,
    )
    cwd: Path | None = path("Run it in this folder. Default: here.", "DIR")
    metrics_file: str | None = text(
        None,
        f"Read the score from this file of JSON in {{out}}. Default: {', '.join(METRICS_FILES)}, then its output.",
        "a file",
        "FILE",
    )
    score_pattern: str | None = text(
        None, "Read the score from its output: the last match's first group.", "a regular expression", "REGEX"
    )
    predictions: str | None = text(
        None,
        f"Read id, prediction and reference of each example from these JSON Lines in {{out}}. Default: {PREDICTIONS}.",
        "a file",
        "FILE",
    )
    keep_checkpoints: int = whole(
        0, "Keep this many noisy checkpoints when their trials are done.", "a whole number >= 0", lambda n: n >= 0
    )

    def __post_init__(self) -> None:
        check(self)
        if self.metrics_file and self.score_pattern:
            raise ConfigError("metrics_file and score_pattern are two places of one score: give one of them")
        if self.command and not self.words:
            raise ConfigError("the command is empty")
        for name in re.findall(r"(?<!\$)\{([a-z_]+)\}", self.command or ""):
            near = get_close_matches(name, PLACES, n=1, cutoff=0.7) if name not in PLACES else []
            if near:
                raise ConfigError(f"the command has {{{name}}}, which is not filled in: did you mean {{{near[0]}}}?")
        if self.cwd and not self.cwd.is_dir():
            raise NotFoundError(f"cwd {self.cwd}: there is no such folder")

    @property
    def words(self) -> list[str]:
        """The program and its arguments, nothing filled in."""
        try:
            return shlex.split(self.command or "")
        except ValueError as error:
            raise ConfigError(f"the command cannot be read ({error}): {self.command}") from error

    @property
    def files(self) -> dict[str, Path]:
        """The files that its words name, such as its script: all but binary programs."""
        found: dict[str, Path] = {}
        for word in self.words:
            for part in (word, word.partition("=")[2]):
                file = (self.cwd or Path()) / part
                if part and "{" not in part and os.path.isfile(file) and not _is_program(file):
                    found[part] = file
        return found

    @property
    def variables(self) -> dict[str, str]:
        """Those of ``env``."""
        return {name: value for name, _, value in (one.partition("=") for one in self.env)}

    @property
    def name(self) -> str:
        """For tables: its script's, or its program's."""
        named = [file.name for file in self.files.values() if file.suffix in (".py", ".sh", ".R", ".jl")]
        return (named or [Path(self.words[0]).name])[0]

    def filled(self, values: Mapping[str, str]) -> list[str]:
        """What is run, for the values of `PLACES`.

        >>> Command(command="python t.py --out={out} '{x}'").filled({"out": "a b"})
        ['python', 't.py', '--out=a b', '{x}']
        >>> Command(command="cd {out} && ls", shell=True).filled({"out": "a b"})
        ['/bin/sh', '-c', "cd 'a b' && ls"]
        """
        if self.shell:
            quoted = {name: shlex.quote(value) for name, value in values.items()}
            return ["/bin/sh", "-c", _filled(self.command or "", quoted)]
        return [_filled(word, values) for word in self.words]

    def told(self) -> dict[str, Any]:
        """What decides a training's outcome, as part of its trial's settings; another script is another training."""
        told: dict[str, Any] = {"command": self.command}
        if files := self.files:
            told["script"] = {name: digest_of([file])[:16] for name, file in files.items()}
        told |= {"shell": True} if self.shell else {}
        told |= {"env": self.variables} if self.env else {}
        for name in ("metrics_file", "score_pattern", "predictions"):
            told |= {name: getattr(self, name)} if getattr(self, name) else {}
        return told


def _filled(text: str, values: Mapping[str, str]) -> str:
    """``${name}`` is the shell's own.

    >>> _filled("seed={seed}; run ${seed}", {"seed": "3"})
    'seed=3; run ${seed}'
    """
    return re.sub(r"(?<!\$)\{([a-z_]+)\}", lambda place: values.get(place[1], place[0]), text)


def _is_program(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            return b"\0" in stream.read(1024)
    except PermissionError:  # may be run, not read
        return True


@dataclass(frozen=True, kw_only=True)
class CommandRunner(OwnRunner):
    """A `noisytune.lab.trials.runner.Runner` whose trials are runs of a command."""

    command: Command

    @classmethod
    def of(cls, model_dir: Path, command: Command, scoring: Scoring, folder: Path) -> CommandRunner:
        """The runner of a study.

        Raises:
            ConfigError: the command cannot know where its model is, or the pattern is none.
        """
        pattern_of(scoring.score, command.score_pattern)
        files = command.files
        says = [command.command or "", *command.variables.values()]
        if not any("{model}" in text or "NOISYTUNE_MODEL" in text for text in [*says, *map(_text, files.values())]):
            raise ConfigError(
                "the command does not say where its model is: write {model} where the directory belongs, or read "
                "NOISYTUNE_MODEL in the script"
            )
        cwd = command.cwd or Path()
        near = next((file.parent for file in files.values()), cwd)
        about, packages = about_code("command", near, cwd, command.words[0])
        return cls(
            model_dir=model_dir.absolute(),
            command=command,
            scoring=scoring,
            folder=folder.absolute(),
            about=about,
            packages=packages,
        )

    def check(self, trial: Trial, arms: Sequence[Sequence[dict[str, Any]]]) -> tuple[str, ...]:
        """See that the noise of each arm can be put into the checkpoint; nothing is written."""
        from noisytune.checkpoint import perturb_checkpoint

        notices: list[str] = []
        for methods in arms:
            named = {"name": Arm.of(*methods_of(methods)).name, "methods": methods}
            config = noise_of(Trial({**trial.settings, "arm": named}))
            if config:
                notices += perturb_checkpoint(
                    self.model_dir, self._place("checkpoints", trial), config, dry_run=True
                ).notices
        return tuple(dict.fromkeys(notices))

    def run(self, training: Trial, trials: Sequence[Trial], on_step: OnStep) -> Iterator[TrialRecord]:
        """Make the checkpoint, run the command, and read what it left."""
        for trial in trials:
            try:
                yield self._run(trial)
            except NoisyTuneError as error:
                log = self._log(trial)
                said = f"; its output: {log}" if log.is_file() else ""
                failed = TrialError(f"{trial.label} failed: {error}{said}")
                if said:
                    failed.add_note("\n".join(last_lines(log, _LAST_WORDS)))
                raise failed from error

    def _run(self, trial: Trial) -> TrialRecord:
        began, out, log = perf_counter(), self._new_output(trial), self._log(trial)
        log.parent.mkdir(parents=True, exist_ok=True)
        log.unlink(missing_ok=True)
        keep = self.command.keep_checkpoints
        with checkpoint_for(trial, self.model_dir, self.folder / "checkpoints", keep) as (model, applied):
            ready = perf_counter()
            config = noise_of(trial)
            strength = repr(config.noise_lambda if config else 0.0).removesuffix(".0")
            values = dict(zip(PLACES, (str(model), str(trial.seed), str(out), trial.arm, strength), strict=True))
            pattern = pattern_of(self.scoring.score, self.command.score_pattern)
            variables = {name: _filled(value, values) for name, value in self.command.variables.items()}
            variables |= {f"NOISYTUNE_{name.upper()}": value for name, value in values.items()}
            code, said = run_logged(self.command.filled(values), log, pattern, self.command.cwd, variables)
            ended = perf_counter()
        if code:
            how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
            raise TrialError(f"the command {how}: {_last(log)}")
        found = self._outcome(out, said, log)
        timing = {"prepare": ready - began, "train": ended - ready}
        return record_of(trial, self.scoring, found, applied, timing, self.about)

    def _outcome(self, out: Path, said: str | None, log: Path) -> Outcome:
        """What the command left in its folder, or said."""
        name, command = self.scoring.score, self.command
        files = [] if command.score_pattern else [out / (command.metrics_file or "")]
        if not command.score_pattern and not command.metrics_file:
            files = [out / one for one in METRICS_FILES]
        read = from_files(files, name)
        if read is None and (said is None or command.metrics_file):
            places = [f"{name} in {', '.join(file.name for file in files)} of {out}"] if files else []
            lines = (
                [] if command.metrics_file else [f"{command.score_pattern or f'a line {name}: value'} in its output"]
            )
            raise TrialError(
                f"the command ended without a score: looked for {', and for '.join(places + lines)}; it ends with: "
                f"{_last(log)}"
            )
        value = read[0] if read else as_number(said, f"{name} in its output")
        predictions = out / (command.predictions or PREDICTIONS)
        if command.predictions and not predictions.is_file():
            raise TrialError(f"the command wrote no predictions: {predictions} is not there")
        items = read_items(predictions) if predictions.is_file() else None
        return outcome(self.scoring, value, read[1] if read else {}, items)

    def _log(self, trial: Trial) -> Path:
        return self.folder / "logs" / f"{name_of(trial)}.log"


def _last(log: Path) -> str:
    """The last line of a log, short."""
    line = (last_lines(log, 1) or ["(it said nothing)"])[0]
    return line if len(line) <= 200 else f"{line[:197]}..."


def _text(file: Path) -> str:
    return file.read_bytes()[: 2**22].decode(errors="replace")
