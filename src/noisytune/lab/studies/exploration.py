"""Which of many noises is a good start? Candidates are screened cheaply, the best are trained, and as much is spent on
plain restarts.

A candidate is two numbers, a noise seed and a strength: its noise is made again whenever it is needed. What chooses is
a tenth of the training examples, on which nothing is trained; the verdict is on dev, which chooses nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from noisytune._metrics import direction
from noisytune._pretrained import Model
from noisytune.errors import ConfigError
from noisytune.lab.studies import USUAL_SEEDS
from noisytune.lab.studies.compare import arms_for
from noisytune.lab.studies.study import Study
from noisytune.lab.tasks import TaskData, held_out
from noisytune.lab.trials.arm import PLAIN, Arm, methods_of
from noisytune.lab.trials.settings import TrainingSettings
from noisytune.lab.trials.trial import Trial

HELD_OUT = "held out"
"""The split that chooses."""
MOST_NOISES, MOST_SEEDS, MOST_RESTARTS = 2**16, 2**15, 10_000
FIRST_SEED = 1_000_000
"""Restart j > 0 of seed r has seed ``FIRST_SEED + MOST_RESTARTS * r + j``; the first one has r itself."""
READ = 1 / 3
"""What an example costs that is only read, beside one that is trained on: one pass forwards of three such."""


@dataclass(frozen=True, kw_only=True)
class Exploration:
    """What to explore, and how.

    Raises:
        ConfigError: an arm without noise to choose, a number out of range, or a task or a training that leaves nothing
            to choose by.
    """

    name: str
    """For the report's title."""
    model: Model
    task: TaskData
    arms: tuple[Arm, ...]
    """Each has NoisyTune. Candidate i of a seed is the arm i modulo their number with a noise seed of its own."""
    noise_seeds: int = 32
    """Candidates of each seed."""
    keep: int = 4
    """How many of them are trained as a whole, >= 1."""
    screen: str = "auto"
    """How the others are left out. ``untrained``: by scores of the model with its noise, before any training, which
    only language models have. ``short``: by short trainings, half of the candidates after each, twice as long each
    time. ``auto``: untrained where that is possible."""
    seeds: int = USUAL_SEEDS
    """How often all of this is done, each time with other noises and other restarts: pairs of the report."""
    training: TrainingSettings
    margin: float = 1.0
    """Differences within +- this many points count as equivalent, >= 0."""

    def __post_init__(self) -> None:
        for name, value, least, most in (
            ("noise_seeds", self.noise_seeds, 2, MOST_NOISES),
            ("keep", self.keep, 1, self.noise_seeds),
            ("seeds", self.seeds, 1, MOST_SEEDS),
        ):
            if type(value) is not int or not least <= value <= most:
                raise ConfigError(f"{name} must be a whole number, {least} to {most:,}, got {value!r}")
        if self.screen not in ("auto", "untrained", "short"):
            raise ConfigError(f"screen must be auto, untrained or short, got {self.screen!r}")
        if self.screen == "untrained" and not self.task.of_kind.answers_untrained:
            raise ConfigError(
                f"{self.task.name}: before training its new head knows nothing, so no score tells noises apart: take "
                "screen short"
            )
        if self.task.trained_on:
            raise ConfigError(f"{self.task.name} is scored with the model of another task: explore that one")
        if self.training.select != "last":
            raise ConfigError(
                "what is held out chooses between noises, the last epoch is scored: leave select as it is"
            )
        if self.steps < 1:
            raise ConfigError("max_steps is 0: explore needs whole trainings")
        object.__setattr__(self, "arms", arms_for([self.task.name], self.arms))
        for arm in self.arms:
            (noise,) = [one for one in arm.methods if one["method"] == "noisytune"] or [{}]
            if not noise.get("noise_lambda") or {"noise_seed", "soup"} & noise.keys():
                raise ConfigError(f"arm {arm.name}: explore chooses its noise: give noisytune a strength above 0 alone")

    @property
    def untrained(self) -> bool:
        """Whether candidates are screened before any training."""
        return self.screen == "untrained" or (self.screen == "auto" and self.task.of_kind.answers_untrained)

    @property
    def metric(self) -> str:
        """What chooses: the task's own, or its kind's first where that is undefined on examples to learn from."""
        kind = self.task.of_kind
        return kind.metrics(self.task.labels)[0] if self.task.metric in kind.undefined_on_train else self.task.metric

    @cached_property
    def final(self) -> TaskData:
        """The task as it is trained on: a tenth of its training examples is held out, and scored first."""
        parted = held_out(self.task, HELD_OUT)
        return replace(parted, metric=self.metric, evaluate=parted.evaluate | self.task.evaluate)

    @cached_property
    def screened(self) -> TaskData:
        """The same, with nothing scored but what is held out."""
        screened = {HELD_OUT: self.final.evaluate[HELD_OUT]}
        return replace(self.final, name=f"{self.task.name} (screened)", evaluate=screened)

    @cached_property
    def study(self) -> Study:
        """Both tasks, with the arms as they were asked for: what is checked before anything runs."""
        return Study(
            name=self.name,
            model=self.model,
            tasks=(self.screened, self.final) if self.rounds else (self.final,),
            arms=(PLAIN, *self.arms),
            seeds=(0,),
            training=self.training,
            margin=self.margin,
        )

    @cached_property
    def steps(self) -> int:
        """Of a whole training."""
        return replace(self.training, **self.task.training).steps(len(self.final.train))

    @cached_property
    def rounds(self) -> tuple[tuple[int, int, int], ...]:
        """Of the screening, each: candidates, steps of the training of each, and how many of them are kept."""
        if self.keep == self.noise_seeds:
            return ()
        if self.untrained:
            return ((self.noise_seeds, 0, self.keep),)
        halvings = math.ceil(math.log2(self.noise_seeds / self.keep))
        left = [max(self.keep, math.ceil(self.noise_seeds / 2**done)) for done in range(halvings)] + [self.keep]
        first = max(1, self.steps // 2 ** (halvings + 1))
        steps = [min(self.steps, first * 2**done) for done in range(halvings)]
        return tuple(zip(left[:-1], steps, left[1:], strict=True))

    @cached_property
    def spent(self) -> float:
        """What the candidates of a seed cost, in whole trainings with their scores on what is held out."""
        settings = replace(self.training, **self.task.training)
        batch, read = settings.batch_size * settings.gradient_accumulation, READ * len(self.screened.dev)
        screening = sum(count * (steps * batch + read) for count, steps, _ in self.rounds)
        return self.keep + screening / (self.steps * batch + read)

    @property
    def restarts(self) -> int:
        """Plain trainings of each seed that cost as much, or a little more."""
        return min(MOST_RESTARTS, math.ceil(round(self.spent, 9)))

    def candidate(self, seed: int, number: int) -> Arm:
        """A candidate of a seed, by its number from 0."""
        noise = {"noise_seed": seed * MOST_NOISES + number}
        methods = [
            one | (noise if one["method"] == "noisytune" else {}) for one in self.arms[number % len(self.arms)].methods
        ]
        return Arm.of(*methods_of(methods))

    def screening(self, seed: int, number: int, steps: int) -> Trial:
        """A candidate in a round."""
        arm = replace(self.candidate(seed, number), training={"max_steps": steps})
        return Trial.resolve(self.model, self.study.tasks[0], arm, seed, self.study.training)

    def trained(self, seed: int, number: int) -> Trial:
        """A candidate that was kept."""
        return Trial.resolve(self.model, self.study.tasks[-1], self.candidate(seed, number), seed, self.study.training)

    def restart(self, seed: int, number: int) -> Trial:
        """A plain training of a seed, by its number from 0."""
        own = FIRST_SEED + MOST_RESTARTS * seed + number if number else seed
        return Trial.resolve(self.model, self.study.tasks[-1], PLAIN, own, self.study.training)

    def best(self, scores: Mapping[int, float | None], left: int) -> list[int]:
        """The candidates with the best scores, the first of equal ones; one without a score comes last."""
        better = direction(self.task.kind, self.metric)
        ranked = sorted(scores, key=lambda one: (scores[one] is None, -better * (scores[one] or 0.0), one))
        return ranked[:left]
