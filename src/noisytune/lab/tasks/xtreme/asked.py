"""What is asked of a task of the benchmark, and whether it can be had."""

from __future__ import annotations

from dataclasses import replace

from noisytune._languages import LANGUAGES
from noisytune.errors import ConfigError
from noisytune.lab.tasks._data import TaskOptions
from noisytune.lab.tasks.xtreme.gather import named
from noisytune.lab.tasks.xtreme.official import DEV, OFFICIAL, TEST, TRAIN, TRAINED, Official
from noisytune.lab.tasks.xtreme.source import Local

XTREME = "xtreme"
"""Stands for its nine tasks."""


def scored_part(name: str, options: TaskOptions) -> str:
    """The part that is scored: test, unless dev is asked for.

    Raises:
        ConfigError: the task has no dev set in its languages, or no layer to choose.
    """
    task, part = OFFICIAL[name], options.scored_split or TEST
    if part == DEV and not has_dev_sets(task):
        raise ConfigError(f"scored_split: {XTREME}/{name} has one set in each language; leave scored_split out")
    if options.layer is not None and task.is_trained:
        raise ConfigError(f"layer is for the retrieval tasks of XTREME, not for {XTREME}/{name}")
    return part


def asked_for(name: str, options: TaskOptions) -> tuple[str, ...]:
    """The languages that are asked for, in alphabetical order.

    Raises:
        ConfigError: the task has no such language.
    """
    known = OFFICIAL[name].languages
    if unknown := [code for code in options.languages if code not in LANGUAGES]:
        raise ConfigError(f"languages: XTREME has no {unknown[0]!r}; choose among {', '.join(LANGUAGES)}")
    found = tuple(sorted(set(options.languages) & set(known)))
    if options.languages and not found:
        asked = named(options.languages)
        raise ConfigError(f"languages: {XTREME}/{name} is not in {asked}; choose among {', '.join(known)}")
    return found or known


def lacks(name: str, options: TaskOptions) -> str:
    """Why a task of the benchmark cannot be loaded from the folder that is given; empty where it can.

    Only the files' names are looked at.

    Args:
        name: a key of `OFFICIAL`.
        options: with ``data_dir``.
    """
    task = OFFICIAL[name]
    if options.languages and not set(options.languages) & set(task.languages):
        return "in none of the languages asked for"
    if not options.data_dir:
        return "without distractors on the Hub" if task.hub_lacks else ""
    source, part = Local.of(options.data_dir), only_what_fits(name, options).scored_split or TEST
    trained = TRAINED.get(task.trained_on, task)
    if not source.find(trained, TRAIN, "en"):
        return f"no {trained.files[TRAIN].format(code='en')}"
    codes = asked_for(name, options)
    if any(source.find(task, part, code) for code in codes):
        return ""
    other = part == TEST and has_dev_sets(task) and any(source.find(task, DEV, code) for code in codes)
    hint = " (scored_split=dev scores its dev files)" if other else ""
    return f"no {task.files[part].format(code=codes[0])}{hint}"


def only_what_fits(name: str, options: TaskOptions) -> TaskOptions:
    """The options without those that some tasks of the benchmark have and this one has not.

    >>> only_what_fits("xquad", TaskOptions(scored_split="dev", layer="oracle")) == TaskOptions()
    True
    """
    task = OFFICIAL[name]
    layer = None if task.is_trained else options.layer
    scored = options.scored_split if has_dev_sets(task) else None
    return replace(options, layer=layer, scored_split=scored)


def has_dev_sets(task: Official) -> bool:
    """Whether the task has dev in its languages, and not in English alone."""
    return len(task.rows.get(DEV, {})) > 1
