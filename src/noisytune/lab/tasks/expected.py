"""What a benchmark's task holds by its official numbers, without its files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from noisytune.lab.tasks._data import TaskData, TaskOptions
from noisytune.lab.tasks.glue import OFFICIAL as GLUE_TASKS
from noisytune.lab.tasks.xtreme import OFFICIAL as XTREME_TASKS
from noisytune.lab.tasks.xtreme import TRAINED, XTREME, only_what_fits
from noisytune.lab.tasks.xtreme.asked import asked_for, scored_part
from noisytune.lab.tasks.xtreme.official import TRAIN, TRANSLATED
from noisytune.lab.tasks.xtreme.training import languages_trained_on


@dataclass(frozen=True)
class Expected:
    """Rows of a task."""

    name: str
    train_rows: int
    scored_rows: int
    """Of all its splits."""
    languages: tuple[str, ...] = ()
    """Codes of those that are scored; empty where a task is of one language."""
    trained_on: str = ""
    """The task whose trained model is scored; empty: its own."""
    training: dict[str, Any] = field(default_factory=dict)
    """As in `noisytune.lab.tasks.TaskData.training`."""

    @classmethod
    def of(cls, task: TaskData) -> Expected:
        """Of a task that is loaded."""
        return cls(
            task.name,
            len(task.train),
            sum(map(len, task.evaluate.values())),
            tuple(task.facts.get("languages", ())),
            task.trained_on.name if task.trained_on else "",
            (task.trained_on or task).training,
        )

    def in_shares(self, shares: Iterable[float], training: dict[str, Any]) -> list[Expected]:
        """With these training settings; once for each share of the training rows, where there are shares."""
        whole = replace(self, training=training)

        def part(share: float) -> Expected:
            rows = round(share * self.train_rows)
            return replace(whole, name=f"{self.name} {100 * share:g} %" if share != 1 else self.name, train_rows=rows)

        return list(map(part, shares)) or [whole]


def languages_of(name: str) -> tuple[str, ...]:
    """The languages of a task of XTREME; none of another."""
    task = XTREME_TASKS.get(name.partition("/")[2]) if name.startswith(f"{XTREME}/") else None
    return task.languages if task else ()


def expected(name: str, options: TaskOptions) -> Expected | None:
    """The official numbers of a task of GLUE or XTREME; None of any other.

    A number that is not known, as of translated questions, is taken to be English's.

    Args:
        name: as in `noisytune.lab.tasks.TASKS`.
        options: ``train_size``, ``dev_size``, and of XTREME ``languages``, ``setting`` and ``scored_split``.

    Raises:
        ConfigError: an option that does not fit the task.

    >>> expected("glue/rte", TaskOptions(train_size=1000))
    Expected(name='glue/rte', train_rows=1000, scored_rows=277, languages=(), trained_on='', training={})
    >>> expected("xtreme/xquad", TaskOptions(languages=("de", "zh"))).scored_rows
    2380
    """
    benchmark, _, task = name.partition("/")
    if benchmark == XTREME and task in XTREME_TASKS:
        return _of_xtreme(task, only_what_fits(task, options))
    if benchmark == "glue" and task in GLUE_TASKS:
        official = GLUE_TASKS[task]
        scored = [official.dev_rows, *([official.other_dev[2]] if official.other_dev else [])]
        return Expected(name, _at_most([official.train_rows], options.train_size), _each(scored, options.dev_size))
    return None


def _of_xtreme(name: str, options: TaskOptions) -> Expected:
    task, codes = XTREME_TASKS[name], asked_for(name, options)
    learns = TRAINED.get(task.trained_on, task)
    english = learns.rows[TRAIN]["en"] or 0
    others = languages_trained_on(task, codes, options)
    train = [english, *(learns.rows[TRANSLATED][code] or english for code in others)]
    rows = task.rows[scored_part(name, options)]
    codes = tuple(code for code in codes if code in rows)
    scored = [rows[code] or 0 for code in codes]
    return Expected(
        f"{XTREME}/{name}",
        _at_most(train, options.train_size),
        _each(scored, options.dev_size),
        codes,
        f"{XTREME}/{task.trained_on}" if task.trained_on else "",
        dict(learns.training),
    )


def _at_most(rows: Iterable[int], size: int | None) -> int:
    return min(sum(rows), size) if size else sum(rows)


def _each(rows: Iterable[int], size: int | None) -> int:
    return sum(min(one, size) if size else one for one in rows)
