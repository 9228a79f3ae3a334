"""The runner that trains with the transformers Trainer, from tokens that are kept in the run folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Self

from noisytune.errors import RunFolderError, require
from noisytune.lab.tasks import TaskData
from noisytune.lab.trials.runner import OnStep, Speed
from noisytune.lab.trials.tokens import Tokens, cache_name, looked_up, tokenise, without_weights
from noisytune.lab.trials.trial import Trial
from noisytune.records import TrialRecord

if TYPE_CHECKING:
    from noisytune._pretrained import Model

STEPS = 3
"""Optimizer steps that are timed, after as many that warm up."""


@dataclass(frozen=True)
class TransformersRunner:
    """A `noisytune.lab.trials.runner.Runner`; torch and transformers are imported by what a worker calls."""

    model_dir: Path
    model_digest: str
    max_length: int
    """Tokens; longer texts are cut. A task may have its own: `noisytune.lab.tasks.TaskData.training`."""
    cache: Path
    """The folder of the tokens."""

    @classmethod
    def of(cls, model: Model, max_length: int, cache: Path) -> Self:
        """The runner for a model.

        Raises:
            MissingExtraError: a library of the extra ``lab`` is not installed.
        """
        for library in ("torch", "transformers", "accelerate"):
            require(library, extra="lab", needed_for="fine-tuning")
        return cls(model.path.absolute(), model.digest, max_length, cache.absolute())

    @staticmethod
    def warm_up() -> None:
        """Import what every trial needs, and keep it quiet."""
        import torch
        from transformers.utils import logging as transformers_logging

        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        quiet: Any = transformers_logging
        quiet.set_verbosity_error()
        quiet.disable_progress_bar()
        import noisytune.lab.trials.fine_tune  # noqa: F401

    def prepare(self, task: TaskData) -> tuple[str, ...]:
        """Write the tokens of a task, unless they are there. Damaged ones are made again."""
        max_length = (task.trained_on or task).training.get("max_length", self.max_length)
        file = self._file(task.digest, max_length)
        notices = []
        if file.exists():
            try:
                return _read_tokens(file).notices
            except RunFolderError as error:
                notices.append(f"{error}: this was done")
        tokens = tokenise(self.model_dir, task, max_length)
        tokens.write(file)
        return (*notices, *tokens.notices)

    def check(self, trial: Trial, arms: Sequence[Sequence[dict[str, Any]]]) -> tuple[str, ...]:
        """See that the methods of arms can work on the weights."""
        from noisytune.lab.trials.fine_tune import check_arms

        return check_arms(trial, self.model_dir, arms)

    def run(self, training: Trial, trials: Sequence[Trial], on_step: OnStep) -> Iterator[TrialRecord]:
        """Fine-tune."""
        from noisytune.lab.trials.fine_tune import run_trials

        asked = ((trial, self._tokens(trial).evaluate) for trial in trials)
        yield from run_trials(training, self.model_dir, self._tokens(training), asked, on_step)

    def needs(self, trials: Sequence[Trial]) -> dict[str, tuple[Path, ...]]:
        """The model, and the tokens that are prepared."""
        from noisytune._pretrained import files_for_training

        tokens = {self._tokens_of(trial) for trial in trials}
        there = tuple(sorted(file for file in tokens if file.exists()))
        return {"model": tuple(files_for_training(self.model_dir))} | ({"tokens": there} if there else {})

    def at(self, places: Mapping[str, Path]) -> Self:
        """With model and tokens in other folders."""
        return replace(self, model_dir=places["model"], cache=places.get("tokens", self.cache))

    def calibrate(self, trial: Trial, tasks: Sequence[TaskData]) -> Speed:
        """Time a few steps, and count the tokens of all tasks."""
        from noisytune.lab.trials.fine_tune import run_trial

        training = trial.settings["training"]
        tokens = {task.name: tokenise(self.model_dir, task, training["max_length"]) for task in tasks}
        mine, size = tokens[trial.task], STEPS * training["batch_size"] * training.get("gradient_accumulation", 1)
        evaluate = {name: split.first(1) for name, split in mine.evaluate.items()}
        few = replace(mine, train=mine.train.first(size), evaluate=evaluate)
        # Batches hold texts of like length: only a whole pass has known tokens. The first one warms up.
        settings = {**trial.settings, "training": {**training, "epochs": 2, "max_steps": None, "logging": 1}}
        ends: list[float] = []
        record = run_trial(Trial(settings), self.model_dir, few, lambda *_: ends.append(perf_counter()))
        half = len(ends) // 2
        return Speed(
            parameters=self._parameters(record),
            lengths={name: _lengths(each) for name, each in tokens.items()},
            tokens_per_second=sum(few.train.lengths) / (ends[-1] - ends[half - 1]),
            load_seconds=record.timing["load"] + record.timing["prepare"],
        )

    def _parameters(self, record: TrialRecord) -> int:
        """Of the model of a record, without embeddings. Under LoRA a record has norms of what is trained alone."""
        if lora := record.applied.get("lora"):
            model = without_weights(self.model_dir)
            return int(lora["total"]) - (looked_up(model) if model is not None else 0)
        return int(sum(norms["elements"] for role, norms in record.norms.items() if role != "embeddings"))

    def _tokens(self, trial: Trial) -> Tokens:
        return _read_tokens(self._tokens_of(trial))

    def _tokens_of(self, trial: Trial) -> Path:
        settings = trial.settings
        return self._file(settings["task"]["digest"], settings["training"]["max_length"])

    def _file(self, task_digest: str, max_length: int) -> Path:
        from noisytune._files import digest_of
        from noisytune._pretrained import chat_files

        chat = chat_files(self.model_dir)  # with another template a chat has other tokens
        model = self.model_digest + (digest_of(chat)[:16] if chat else "")
        return self.cache / cache_name(model, task_digest, max_length)


@lru_cache(maxsize=4)
def _read_tokens(file: Path) -> Tokens:
    """Kept from trial to trial of a worker."""
    return Tokens.read(file)


def _lengths(tokens: Tokens) -> dict[str, float]:
    """Mean tokens of an example of each split; a task that is trained on another one's has no train."""
    splits = {"train": tokens.train, **tokens.evaluate}
    return {name: sum(split.lengths) / len(split) for name, split in splits.items() if len(split)}
