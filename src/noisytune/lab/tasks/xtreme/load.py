"""The nine tasks of XTREME: trained on English or on all languages, scored in each language."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from noisytune._languages import LANGUAGES
from noisytune.errors import ConfigError, DataError
from noisytune.lab.kinds import Split
from noisytune.lab.tasks._data import DEFAULTS, TaskData, TaskOptions, ranked
from noisytune.lab.tasks.xtreme.gather import Gathered, named
from noisytune.lab.tasks.xtreme.official import DEV, OFFICIAL, TEST, TRAIN, TRAINED, TRANSLATED, Official
from noisytune.lab.tasks.xtreme.source import Hub, Local, Source

XTREME = "xtreme"
"""Stands for its nine tasks."""
ALL_LANGUAGES = "translate-train-all"
"""The setting that trains on other languages too."""


def load_xtreme(name: str, options: TaskOptions = DEFAULTS) -> TaskData:
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
        DataError: no such folder or file, no language, or a file that is not as the official ones are.
        ConfigError: an option that does not fit the task.
        MissingExtraError: Parquet from the Hub without pyarrow.

    Source: Hu et al., "XTREME: A Massively Multilingual Multi-task Benchmark for Evaluating Cross-lingual
    Generalization", ICML 2020; https://github.com/google-research/xtreme.
    """
    task = OFFICIAL[name]
    part = scored_part(name, options)
    codes = asked_for(name, options)
    translated = _translated(task, codes, options)
    source = _source(name, task, part, codes, translated, options)
    gathered = Gathered(f"{XTREME}/{name}", task, source)
    scored = {code: split for code in codes if (split := gathered.split(part, code)) is not None}
    if not scored:
        raise DataError(_nothing(name, task, part, codes, gathered))
    trained_on = _trained(task.trained_on, options, source, translated) if task.trained_on else None
    train, of_languages = (trained_on.train, {}) if trained_on else _training(gathered, options, translated)
    evaluate = {**_dev(task, part, scored, gathered), **scored}
    missing = [code for code in codes if code not in scored]
    facts = {
        "category": task.category,
        "setting": options.setting,
        "scored": part,
        "languages": list(scored),
        "missing_languages": missing,
        "languages_of_benchmark": len(task.languages),
        "training_rows": of_languages or (trained_on.facts["training_rows"] if trained_on else {}),
        "rows": gathered.rows,
    }
    notices = [*_about_languages(task, part, scored, missing, gathered, options), *gathered.notices]
    return TaskData(
        name=f"{XTREME}/{name}",
        kind=task.kind,
        metric=task.metric,
        labels=task.labels,
        train=train,
        evaluate=evaluate,
        notices=tuple(notices),
        select=next(split for split in ("dev", "en", *scored) if split in evaluate),
        primary=tuple(scored),
        trained_on=trained_on,
        facts=facts,
    )


def scored_part(name: str, options: TaskOptions) -> str:
    """The part that is scored: test, unless dev is asked for.

    Raises:
        ConfigError: the task has no dev set in its languages, or no layer to choose.
    """
    task, part = OFFICIAL[name], options.scored_split or TEST
    if part == DEV and not _has_dev_sets(task):
        raise ConfigError(f"scored_split: {XTREME}/{name} has one set in each language; leave scored_split out")
    if options.layer is not None and task.kind != "retrieval":
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
    return (
        "" if any(source.find(task, part, code) for code in codes) else f"no {task.files[part].format(code=codes[0])}"
    )


def only_what_fits(name: str, options: TaskOptions) -> TaskOptions:
    """The options without those that some tasks of the benchmark have and this one has not.

    >>> only_what_fits("xquad", TaskOptions(scored_split="dev", layer="oracle")) == TaskOptions()
    True
    """
    task = OFFICIAL[name]
    layer = options.layer if task.kind == "retrieval" else None
    scored = options.scored_split if _has_dev_sets(task) else None
    return replace(options, layer=layer, scored_split=scored)


def _has_dev_sets(task: Official) -> bool:
    """Whether the task has dev in its languages, and not in English alone."""
    return len(task.rows.get(DEV, {})) > 1


def _translated(task: Official, codes: Iterable[str], options: TaskOptions) -> tuple[str, ...]:
    """The languages beside English whose training examples are looked for."""
    if options.setting != ALL_LANGUAGES:
        return ()
    trained = TRAINED.get(task.trained_on, task)
    known = trained.rows[TRANSLATED]
    # A model that is trained on XNLI knows XNLI's languages, whichever it is scored in.
    wanted = options.languages or (codes if set(codes) <= {"en", *known} else known)
    return tuple(sorted(code for code in wanted if code in known))


def _source(
    name: str, task: Official, part: str, codes: Iterable[str], translated: Iterable[str], options: TaskOptions
) -> Source:
    if options.data_dir:
        return Local.of(options.data_dir)
    trained = TRAINED.get(task.trained_on, task)
    training = [(trained, TRAIN, "en"), (trained, DEV, "en"), *((trained, TRANSLATED, code) for code in translated)]
    return Hub.of(f"{XTREME}/{name}", [*((task, part, code) for code in codes), *training])


def _trained(name: str, options: TaskOptions, source: Source, translated: tuple[str, ...]) -> TaskData:
    """The task whose trained model is scored."""
    task = TRAINED[name]
    gathered = Gathered(f"{XTREME}/{name}", task, source)
    train, of_languages = _training(gathered, options, translated)
    evaluate = {"dev": gathered.needed(DEV)}
    facts = {"training_rows": of_languages, "rows": gathered.rows}
    notices = tuple(gathered.notices)
    return TaskData(f"{XTREME}/{name}", task.kind, task.metric, task.labels, train, evaluate, notices, facts=facts)


def _training(gathered: Gathered, options: TaskOptions, translated: tuple[str, ...]) -> tuple[Split, dict[str, int]]:
    """The training examples, of all languages in proportion where their number is limited, and each one's number."""
    parts = {"en": gathered.needed(TRAIN)}
    found = {code: split for code in translated if (split := gathered.split(TRANSLATED, code)) is not None}
    if translated:
        lacking = [code for code in translated if code not in found]
        gathered.say(f"trained on English and {named(list(found)) or 'nothing else'}")
        if lacking:
            gathered.say(f"no training examples in {named(lacking)}")
        if not found:
            where = gathered.source.wanted(gathered.task, TRANSLATED, translated[0])
            raise DataError(f"{where}: there is no such file, nor of another language; setting=transfer needs none")
    parts |= found
    return mixed(parts, gathered.task.kind, options.train_size, options.split_seed)


def mixed(parts: dict[str, Split], kind: str, size: int | None, seed: int) -> tuple[Split, dict[str, int]]:
    """The examples of several languages as one split, each language in proportion.

    The part for a size contains the part for any smaller size.

    Args:
        parts: language -> examples.
        kind: of the task.
        size: how many to take; None takes all.
        seed: another seed takes another part.

    Returns:
        The split, and the examples of each language in it.
    """
    total = sum(map(len, parts.values()))
    if len(parts) > 1 and size is not None and size < total:
        places = sorted(
            (rank / len(split), code, index)
            for code, split in parts.items()
            for rank, index in enumerate(ranked(split, kind, seed))
        )[:size]
        parts = {code: parts[code].take(sorted(i for _, other, i in places if other == code)) for code in parts}
    elif size is not None and size < total:
        return parts["en"], {"en": size}  # the last step of every task takes the part
    texts = tuple(text for split in parts.values() for text in split.texts)
    targets = tuple(target for split in parts.values() for target in split.targets)
    return Split(texts, targets), {code: len(split) for code, split in parts.items()}


def _dev(task: Official, part: str, scored: dict[str, Split], gathered: Gathered) -> dict[str, Split]:
    """English dev, where the task has one and it is not scored anyway."""
    if "en" not in task.rows.get(DEV, {}) or (part == DEV and "en" in scored):
        return {}
    dev = gathered.split(DEV, "en") if task.trained_on else gathered.needed(DEV)
    return {"dev": dev} if dev else {}


def _nothing(name: str, task: Official, part: str, codes: tuple[str, ...], gathered: Gathered) -> str:
    """Why no language can be scored, and what to do."""
    where = gathered.source.wanted(task, part, codes[0])
    other = " or score dev with scored_split=dev" if part == TEST and _has_dev_sets(task) else ""
    if gathered.unlabelled:
        return f"{where}: no labels, as in XTREME's own release, so nothing to score; give files with labels{other}"
    return f"{where}: there is no such file, nor of another language; give the official download{other}"


def _about_languages(
    task: Official, part: str, scored: dict[str, Split], missing: list[str], gathered: Gathered, options: TaskOptions
) -> list[str]:
    """What is left out, and what the mean is over."""
    notices = []
    mean = f"the score is the mean of {len(scored)} of {len(task.languages)} languages"
    if strange := [code for code in options.languages if code not in task.languages]:
        notices.append(f"not in {named(strange)}")
    absent = [code for code in missing if code not in gathered.unlabelled]
    if absent:
        notices.append(f"no {part} file of {named(absent)}: left out")
    if unlabelled := [code for code in missing if code in gathered.unlabelled]:
        notices.append(f"no labels in the {part} files of {named(unlabelled)}, as in XTREME's own release: not scored")
    if len(scored) < len(task.languages):
        notices.append(mean)
    return [f"{gathered.name}: {notice}" for notice in notices]
