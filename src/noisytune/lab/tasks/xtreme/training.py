"""What a task is trained on: English, or as many languages as there are."""

from __future__ import annotations

from noisytune.errors import DataError
from noisytune.lab.kinds import Split
from noisytune.lab.tasks._data import TaskOptions, ranked
from noisytune.lab.tasks.xtreme.gather import Gathered, named
from noisytune.lab.tasks.xtreme.official import TRAIN, TRAINED, TRANSLATED, Official

ALL_LANGUAGES = "translate-train-all"
"""The setting that trains on other languages too."""


def languages_trained_on(task: Official, codes: tuple[str, ...], options: TaskOptions) -> tuple[str, ...]:
    """The languages beside English whose training examples are looked for: those that are scored.

    A model that is trained on XNLI for retrieval knows XNLI's languages, whichever it is scored in.

    Args:
        task: that is scored.
        codes: languages that are asked for.
        options: ``setting`` and ``languages``.
    """
    if options.setting != ALL_LANGUAGES:
        return ()
    known = TRAINED.get(task.trained_on, task).rows[TRANSLATED]
    wanted = options.languages or (known if task.trained_on == "xnli" else codes)
    return tuple(sorted(code for code in wanted if code in known))


def training_examples(
    gathered: Gathered, options: TaskOptions, others: tuple[str, ...]
) -> tuple[Split, dict[str, int]]:
    """The training examples, and how many there are of each language.

    Args:
        gathered: reads them.
        options: ``train_size`` and ``split_seed``.
        others: languages beside English.

    Raises:
        DataError: there are none in English, or none in any other language that is asked for.
    """
    parts = {"en": gathered.needed(TRAIN)}
    for code in others:
        if (split := gathered.split(TRANSLATED, code)) is not None:
            parts[code] = split
    found = [code for code in parts if code != "en"]
    if others and not found:
        where = gathered.source.wanted(gathered.task, TRANSLATED, others[0])
        raise DataError(f"{where}: there is no such file, nor of another language; setting=transfer needs none")
    if options.setting == ALL_LANGUAGES and not others:
        gathered.say("trained on English alone: no other language that is asked for is one of its")
    if others:
        gathered.say(f"trained on English and {named(found)}")
    if lacking := [code for code in others if code not in parts]:
        gathered.say(f"no training examples in {named(lacking)}")
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
