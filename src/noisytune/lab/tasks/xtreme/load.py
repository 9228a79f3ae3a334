"""The nine tasks of XTREME: trained on English or on all languages, scored in each language."""

from __future__ import annotations

from typing import Any

from noisytune.errors import DataError
from noisytune.lab.kinds import Split
from noisytune.lab.tasks._data import TaskData, TaskOptions
from noisytune.lab.tasks.xtreme.asked import XTREME, asked_for, has_dev_sets, scored_part
from noisytune.lab.tasks.xtreme.gather import Gathered, named
from noisytune.lab.tasks.xtreme.official import DEV, OFFICIAL, TEST, TRAIN, TRAINED, TRANSLATED, Official
from noisytune.lab.tasks.xtreme.source import Hub, Local, Source
from noisytune.lab.tasks.xtreme.training import languages_trained_on, training_examples


class NothingToScoreError(DataError):
    """No language of a task has a file with labels."""


def load_xtreme(name: str, options: TaskOptions) -> TaskData:
    """One task of XTREME, trained on its English training set and scored in each language that is there.

    Its splits are ``dev`` (English, where the task has one) and the languages by their codes; the primary score is the
    mean of the languages. Languages without a file, or without labels in it, are told and left out. Another number of
    rows than the official one is a notice. Retrieval is scored with the model that is trained on XNLI, XQuAD and MLQA
    with the one that is trained on SQuAD.

    Args:
        name: a key of `OFFICIAL`.
        options: ``data_dir`` (the official ``download``; None: from the Hub), ``languages``, ``setting``, ``layer``,
            ``scored_split``, ``train_size`` and ``split_seed``.

    Raises:
        NothingToScoreError: no language has a file with labels.
        DataError: no such folder or file, or a file that is not as the official ones are.
        ConfigError: an option that does not fit the task.
        MissingExtraError: Parquet from the Hub without pyarrow.

    Source: Hu et al., "XTREME: A Massively Multilingual Multi-task Benchmark for Evaluating Cross-lingual
    Generalization", ICML 2020; https://github.com/google-research/xtreme.
    """
    task = OFFICIAL[name]
    part, codes = scored_part(name, options), asked_for(name, options)
    others = languages_trained_on(task, codes, options)
    source = _source(name, part, codes, others, options)
    gathered = Gathered(f"{XTREME}/{name}", task, source)
    scored = {code: split for code in codes if (split := gathered.split(part, code)) is not None}
    if not scored:
        raise NothingToScoreError(_nothing(task, part, codes, gathered))
    evaluate = _beside(task, part, scored, gathered)
    learns = gathered
    if task.trained_on:
        learns = Gathered(f"{XTREME}/{task.trained_on}", TRAINED[task.trained_on], source)
    train, training_rows = training_examples(learns, options, others)
    trained_on = _trained_on(task, train, learns) if task.trained_on else None
    if learns is not gathered and not trained_on:
        gathered.take_over(learns)
    select = next(split for split in ("dev", "en", *scored) if split in evaluate)
    if select != "dev" and part == TEST and not trained_on:
        gathered.say(f"no English dev: select=best would choose the epoch by {select} as it is scored")
    facts = {
        "category": task.category,
        "setting": options.setting,
        "scored": part,
        "languages": list(scored),
        "missing_languages": [code for code in codes if code not in scored],
        "languages_of_benchmark": len(task.languages),
        "training_rows": training_rows,
        "rows": [*gathered.rows, *(learns.rows if trained_on else [])],
    }
    return TaskData(
        name=gathered.name,
        kind=task.kind,
        metric=task.metric,
        labels=task.labels,
        train=train,
        evaluate=evaluate,
        notices=(*_about_languages(gathered, facts, options), *gathered.notices),
        select=select,
        primary=tuple(scored),
        reading={} if options.layer in (None, "official") else {"layer": options.layer},
        trained_on=trained_on,
        training=dict(learns.task.training),
        facts=facts,
    )


def _source(name: str, part: str, codes: tuple[str, ...], others: tuple[str, ...], options: TaskOptions) -> Source:
    if options.data_dir:
        return Local.of(options.data_dir)
    task = OFFICIAL[name]
    learns = TRAINED.get(task.trained_on, task)
    scored = [(task, one, code) for one in dict.fromkeys((part, DEV)) for code in codes]
    training = [(learns, TRAIN, "en"), (learns, DEV, "en"), *((learns, TRANSLATED, code) for code in others)]
    return Hub.of(f"{XTREME}/{name}", [*scored, *training])


def _beside(task: Official, part: str, scored: dict[str, Split], gathered: Gathered) -> dict[str, Split]:
    """The languages, and what is scored beside them: English dev where the task has one, retrieval's dev sets."""
    if not task.is_trained:
        codes = scored if part == TEST and has_dev_sets(task) else {}
        return scored | {f"dev-{code}": dev for code in codes if (dev := gathered.split(DEV, code)) is not None}
    if "en" not in task.rows.get(DEV, {}) or (part == DEV and "en" in scored):
        return scored
    dev = gathered.split(DEV, "en") if task.trained_on else gathered.needed(DEV)
    return {"dev": dev, **scored} if dev else scored


def _trained_on(task: Official, train: Split, learns: Gathered) -> TaskData | None:
    """The task whose trained model is scored; None where questions have no dev set, and so are a task by themselves."""
    dev = learns.split(DEV, "en") if task.is_trained else learns.needed(DEV)
    if dev is None:
        return None
    other = learns.task
    facts = {"rows": learns.rows}
    return TaskData(
        name=learns.name,
        kind=other.kind,
        metric=other.metric,
        labels=other.labels,
        train=train,
        evaluate={"dev": dev},
        notices=tuple(learns.notices),
        training=dict(other.training),
        facts=facts,
    )


def _nothing(task: Official, part: str, codes: tuple[str, ...], gathered: Gathered) -> str:
    """Why no language can be scored, and what to do."""
    where = gathered.source.wanted(task, part, [*gathered.unlabelled, *codes][0])
    other = " or score dev with scored_split=dev" if part == TEST and has_dev_sets(task) else ""
    if gathered.unlabelled:
        return f"{where}: no labels, as in XTREME's own release, so nothing to score; give files with labels{other}"
    return f"{where}: there is no such file, nor of another language; give the official download{other}"


def _about_languages(gathered: Gathered, facts: dict[str, Any], options: TaskOptions) -> list[str]:
    """What is left out, and what the mean is over."""
    known, part = gathered.task.languages, facts["scored"]
    notices = []
    if strange := [code for code in options.languages if code not in known]:
        notices.append(f"not in {named(strange)}")
    if absent := [code for code in facts["missing_languages"] if code not in gathered.unlabelled]:
        notices.append(f"no {part} file of {named(absent)}: left out")
    if unlabelled := [code for code in facts["missing_languages"] if code in gathered.unlabelled]:
        notices.append(f"no labels in the {part} files of {named(unlabelled)}, as in XTREME's own release: not scored")
    if (scored := len(facts["languages"])) < len(known):
        notices.append(f"the score is the mean of {scored} of {len(known)} languages")
    return [f"{gathered.name}: {notice}" for notice in notices]
