"""What a task is, once loaded, and how a smaller part of it is taken."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from noisytune._metrics import METRICS, kinds_with
from noisytune._settings import check, choice, common, path, text, whole, word_or_whole, words
from noisytune.errors import ConfigError, DataError
from noisytune.lab.kinds import KINDS, Kind, Split
from noisytune.records import digest


@dataclass(frozen=True)
class TaskData:
    """A task, ready to be tokenised.

    Raises:
        DataError: nothing can be learnt from the training targets.

    >>> from noisytune.lab.tasks import task_from_rows
    >>> rows = [{"text": f"{word} {i}", "label": word} for word in ("good", "bad") for i in range(10)]
    >>> task = task_from_rows(rows)
    >>> task.kind, task.labels, task.metric, len(task.train), len(task.dev)
    ('classification', ('bad', 'good'), 'accuracy', 16, 4)
    >>> list(task.splits), task.majority, len(task.digest)
    (['train', 'dev'], 0.5, 16)
    """

    name: str
    """For tables and titles."""
    kind: str
    """A key of `noisytune.lab.kinds.KINDS`."""
    metric: str
    """The primary metric's key in `noisytune._metrics.METRICS`."""
    labels: tuple[str, ...]
    """Class names in id order; empty for regression."""
    train: Split
    evaluate: dict[str, Split]
    """What every model is scored on, by name: ``dev``, and others beside it. At least one."""
    notices: tuple[str, ...]
    """What the user should know, one line each."""
    select: str = ""
    """The name in ``evaluate`` that chooses between epochs and settings; empty: the first."""
    primary: tuple[str, ...] = ()
    """The names in ``evaluate`` whose mean is the primary score; empty: the one of ``select``."""
    part_of: str = ""
    """The name of the whole task, where this is one with a share of its training examples (or all of them) in a study
    of several shares."""
    reading: dict[str, Any] = field(default_factory=dict)
    """Settings of the kind for reading answers, as plain JSON: see `noisytune.lab.kinds.Kind.read_by`."""
    trained_on: TaskData | None = None
    """The task whose trained model is evaluated; ``train`` is that task's. None: its own. One training serves all tasks
    with the same `training_digest`."""
    training: dict[str, Any] = field(default_factory=dict)
    """Fields of `noisytune.lab.trials.settings.TrainingSettings` in which this task differs from its study; where
    another task's model is evaluated, that task's count."""
    facts: dict[str, Any] = field(default_factory=dict, compare=False)
    """What was noticed about the data, as plain JSON: see `noisytune.lab.tasks._facts`."""

    def __post_init__(self) -> None:
        if not self.evaluate:
            raise ConfigError(f"{self.name}: nothing to evaluate on; give evaluate a split")
        for name in (self.select, *self.primary):
            if name and name not in self.evaluate:
                raise ConfigError(f"{self.name}: {name!r} is not evaluated; choose among {', '.join(self.evaluate)}")
        self.of_kind.read_by(self.reading)
        if not self.trained_on:
            self.of_kind.check(self.name, self.train.targets)

    @property
    def of_kind(self) -> Kind:
        """What all tasks of its kind have in common."""
        return KINDS[self.kind]

    @property
    def dev(self) -> Split:
        """The examples of ``select``."""
        return self.evaluate[self.select or next(iter(self.evaluate))]

    @property
    def splits(self) -> dict[str, Split]:
        """All of its own, ``train`` first."""
        return self.evaluate if self.trained_on else {"train": self.train, **self.evaluate}

    @property
    def roles(self) -> dict[str, Any]:
        """``select`` and ``primary`` where they are not the first split, and ``reading`` where there is any: what a
        trial must know of them."""
        first = next(iter(self.evaluate))
        select = self.select or first
        roles: dict[str, Any] = {} if select == first else {"select": select}
        if self.primary not in ((), (select,)):
            roles["primary"] = list(self.primary)
        return roles | ({"reading": self.reading} if self.reading else {})

    @cached_property
    def digest(self) -> str:
        """Sixteen hexadecimal digits over everything that a trial's outcome depends on: kind, labels and splits.

        The name, the notices and the primary metric are left out: they decide what is shown, not what is learnt. The
        first split is nameless while it is called ``dev``, so that tasks keep their digests.
        """
        (first, dev), *others = self.evaluate.items()
        mine = [dev] if self.trained_on else [self.train, dev]
        content: dict[str, Any] = {
            "kind": self.kind,
            "labels": self.labels,
            "splits": [split.content for split in mine],
        }
        if others:
            content["also"] = {name: split.content for name, split in others}
        if first != "dev":
            content["first"] = first
        if self.trained_on:
            content["trained_on"] = self.training_digest
        return digest(content | self.roles)

    @cached_property
    def training_digest(self) -> str:
        """The same over what the weights after training depend on: tasks that share it can share a training."""
        if self.trained_on:
            return self.trained_on.training_digest
        content = {"kind": self.kind, "labels": self.labels, "train": self.train.content, "chosen_by": self.dev.content}
        return digest(content)

    @property
    def metric_label(self) -> str:
        """The primary metric for people."""
        return METRICS[self.kind][self.metric].label

    @property
    def majority(self) -> float | None:
        """What guessing the most frequent class of dev would score (0 to 1); None where that says nothing."""
        return self.of_kind.majority(self.dev.targets)


@dataclass(frozen=True)
class TaskOptions:
    """What a user may ask of a task. What does not apply to the task at hand is refused, not ignored.

    Raises:
        ConfigError: a value is out of range; says which and what is allowed.

    >>> TaskOptions(train_size=100, text_columns="question,answer").text_columns
    ('question', 'answer')
    """

    train_size: int | None = whole(
        None, "Train on this many examples. Default: all.", "a whole number >= 1", lambda n: n >= 1
    )
    """A smaller number takes a part of what a larger one takes."""
    dev_size: int | None = whole(
        None, "Score this many dev examples. Default: all.", "a whole number >= 1", lambda n: n >= 1
    )
    text_columns: tuple[str, ...] = common(
        words(
            "Read the text from this column, or a pair from two.", "names of columns with a comma between", ",", "A[,B]"
        )
    )
    """Files: numbers count from 0 and mean a file without a header."""
    label_column: str | None = common(text(None, "Read the label from this column.", "the name of a column"))
    """Files."""
    dev_file: Path | None = path("Score on this file. Default: a fifth of the task's own, stratified.", "FILE")
    """Files."""
    data_dir: Path | None = path("Read GLUE or XTREME from here: the official download. Default: the Hub.", "DIR")
    """GLUE: the folder that holds ``CoLA``, ``SST-2`` ...; XTREME: the one that holds ``xnli``, ``panx`` ..."""
    language: str = text("english", "Take topics in this language of its corpus.", "a language of the corpus")
    """Topics: any folder of the corpus."""
    metric: str | None = text(None, "Compare by this score. Default: the task's own.", "a metric")
    """For files it also decides how a column of numbers is read, where ``kind`` does not."""
    kind: str | None = choice(
        None,
        "Read labels as this kind. Default: what they look like.",
        *(name for name, kind in KINDS.items() if kind.is_trained),
    )
    """Files. Where it is not clear what they look like, an error asks for it."""
    missing_labels: Literal["drop", "keep"] | None = choice(
        None, "Leave out rows whose label stands for none (empty, NA, ?), or keep them as a class.", "drop", "keep"
    )
    """Files. None: empty cells are left out, and words such as ``NA`` among numbers; others (``?``, and ``-1`` beside
    0, 1, 2) stay classes, with a notice."""
    join_columns: tuple[str, ...] = words(
        "Join the texts of these columns into one.", "names of columns with a comma between", ",", "A,B[,C...]"
    )
    """Files: in place of ``text_columns``, with a space between."""
    empty_texts: Literal["drop", "keep"] = choice(
        "drop", "Leave out rows with an empty text in one of two columns, or keep them.", "drop", "keep"
    )
    """Files."""
    languages: tuple[str, ...] = words(
        "Score these languages of XTREME. Default: all that are there.", "codes with a comma between", ",", "L[,L...]"
    )
    """XTREME: ISO 639-1 codes."""
    setting: Literal["transfer", "translate-train-all"] = choice(
        "transfer",
        "Train on XTREME's English examples, or on all languages'.",
        "transfer",
        "translate-train-all",
    )
    """XTREME: ``translate-train-all`` adds the translated training sets; for POS and NER those of the languages."""
    layer: str | int | None = word_or_whole(
        "Compare sentences by this hidden layer. Default: official.", "official", "dev", "oracle"
    )
    """XTREME's retrieval: ``official`` is 8 of 12 layers and 14 of 24; ``dev`` and ``oracle`` are the best by score."""
    scored_split: Literal["test", "dev"] | None = choice(
        None, "Score XTREME on its test sets, or on dev. Default: test.", "test", "dev"
    )
    """XTREME. XQuAD, TyDiQA and Tatoeba have one set each in their languages."""
    prompt_column: str | None = text(None, "Read the prompt from this column.", "the name of a column", "COLUMN")
    """Files for language models."""
    completion_column: str | None = text(
        None, "Read what a language model should say from this one.", "the name of a column", "COLUMN"
    )
    """Files for language models; of choices the right one."""
    choices_column: str | None = text(
        None, "Read choices from this column; the likelier is the answer.", "the name of a column", "COLUMN"
    )
    """Files for language models."""
    group_column: str | None = text(
        None, "Rows with the same value here are not independent.", "the name of a column", "COLUMN"
    )
    """Files: a document, a user, a conversation. A group stays on one side of the split, and is redrawn whole."""
    max_new_tokens: int | None = whole(
        None, "Generate so many tokens. Default: as the longest answer.", "a whole number >= 1", lambda n: n >= 1
    )
    """Language models; answers are generated where this, ``answer_pattern`` or the metric asks for them."""
    answer_pattern: str | None = text(None, "Compare what this finds in answers.", "a regular expression", "REGEX")
    """Language models: what its first group finds, or all where it has none, for the metric ``pattern_match``."""
    also: Path | None = path("Score on this text too, to see forgetting. Default: one of the package.", "FILE")
    """Language models: paragraphs of a .txt file, or a table of texts, chats or completions."""
    split_seed: int = whole(0, "Draw train, dev and parts of them by this number.", "a whole number", lambda n: True)

    def __post_init__(self) -> None:
        check(self)

    def given(self, names: Iterable[str]) -> list[str]:
        """Those of the settings with these names that are not as by default.

        Args:
            names: of fields.

        >>> TaskOptions(train_size=4, layer="dev").given(("layer", "languages"))
        ['layer']
        """
        return [name for name in names if getattr(self, name) != getattr(DEFAULTS, name)]

    def asks_for(self, kind: str) -> bool:
        """Whether a kind is asked for: by its name, or by a metric that it alone has.

        Args:
            kind: a key of `noisytune.lab.kinds.KINDS`.

        >>> TaskOptions(kind="tagging").asks_for("tagging"), TaskOptions(metric="pearson").asks_for("tagging")
        (True, False)
        """
        if self.kind is not None:
            return self.kind == kind
        return self.metric is not None and kinds_with(self.metric) == (kind,)


DEFAULTS = TaskOptions()
"""Nothing asked for."""

HELD_OUT = 10
"""One training example in so many chooses between epochs or settings under the protocol ``clean``."""


def order_key(seed: int, *parts: str) -> bytes:
    """A sort key that shuffles: the same on every machine and in every version of every library.

    >>> order_key(0, "a") == order_key(0, "a"), order_key(0, "a") == order_key(1, "a")
    (True, False)
    """
    return hashlib.blake2b("\0".join((str(seed), *parts)).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def hold_out(spread: npt.ArrayLike, groups: npt.ArrayLike | None = None) -> tuple[list[int], list[int]]:
    """Training examples without a tenth of them, and that tenth, drawn evenly over classes or values.

    Always the same ones: what varies between seeds is not the data.

    Args:
        spread: class ids or values, shape (examples,): `noisytune.lab.kinds.Kind.spread` of the targets.
        groups: shape (examples,), what each belongs to: a tenth of the groups is drawn then, by their first examples.
            None, or none: each example stands for itself.

    Returns:
        Places of those that are trained on and of those that are not, each in order.

    Raises:
        DataError: fewer than two examples.
    """
    values = np.asarray(spread)
    if len(values) < 2:
        raise DataError(f"protocol clean: a tenth of {len(values)} training examples cannot be split off; give more")
    owner = np.arange(len(values))
    if groups is not None and np.size(groups):
        owner = np.unique(np.asarray(groups), return_inverse=True)[1]
    of_units = values[np.unique(owner, return_index=True)[1]]
    shuffled = np.random.default_rng(0).permutation(len(of_units))
    by_target = shuffled[np.argsort(of_units[shuffled], kind="stable")]
    is_held = np.isin(owner, by_target[::HELD_OUT])
    return np.flatnonzero(~is_held).tolist(), np.flatnonzero(is_held).tolist()


def held_out(task: TaskData, name: str) -> TaskData:
    """A task without a tenth of its training examples: see `hold_out`. That tenth is all that is scored.

    Args:
        task: with training examples of its own.
        name: of the split that is scored.
    """
    kept, held = hold_out(task.of_kind.spread(task.train.targets), task.train.groups)
    return replace(
        task,
        name=f"{task.name} (held out)",
        train=task.train.take(kept),
        evaluate={name: task.train.take(held)},
        select="",
        primary=(),
    )


def limit(
    split: Split, size: int | None, *, kind: str, labels: tuple[str, ...], option: str, seed: int
) -> tuple[Split, tuple[str, ...]]:
    """Take ``size`` examples with the classes in proportion, every class among them.

    The part for a size contains the part for any smaller size, so that learning curves compare like with like.
    Examples keep their order.

    Args:
        split: what there is.
        size: how many to take; None takes all, and so does a number larger than what there is (with a notice).
        kind: of the task: says which examples are alike.
        labels: class names in id order, for the error message.
        option: the setting's name, for messages: ``"train_size"``.
        seed: another seed takes another part.

    Returns:
        The part and the notices.

    Raises:
        DataError: ``size`` is not positive, or smaller than the number of classes.
    """
    if size is None:
        return split, ()
    if size >= len(split):
        notice = f"{option} {size}: only {len(split)} examples are there, all are used"
        return split, (notice,) if size > len(split) else ()
    strata = KINDS[kind].strata(split.targets)
    if size < max(1, different := len(set(strata))):
        need = f"at least {different}, one for each class ({', '.join(labels)})" if different > 1 else "at least 1"
        raise DataError(f"{option} {size} is too small: give {need}")
    return split.take(sorted(ranked(split, kind, seed)[:size])), ()


def ranked(split: Split, kind: str, seed: int) -> list[int]:
    """The places of all examples in the order in which smaller parts take them, the classes in proportion.

    Args:
        split: what there is.
        kind: of the task: says which examples are alike.
        seed: another seed gives another order.
    """
    members: dict[float, list[int]] = defaultdict(list)
    for index, stratum in enumerate(KINDS[kind].strata(split.targets)):
        members[stratum].append(index)
    places: list[tuple[float, float, int]] = []
    for stratum, indices in members.items():
        # Rank / size of the class starts at 0 for every class: the first C places hold one example of each.
        shuffled = sorted(indices, key=lambda i: order_key(seed, str(i), *split.texts[i]))
        places += [(rank / len(indices), stratum, index) for rank, index in enumerate(shuffled)]
    return [index for _, _, index in sorted(places)]
