"""What a task is, once loaded, and how a smaller part of it is taken."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from noisytune._settings import check, choice, path, text, whole, words
from noisytune.errors import DataError
from noisytune.records import digest

Kind = Literal["classification", "regression"]


@dataclass(frozen=True)
class Split:
    """Examples and their targets, in parallel."""

    texts: tuple[tuple[str, ...], ...]
    """One inner tuple an example, with one text or two."""
    targets: tuple[float, ...]
    """Class ids (0.0 .. C-1) or values."""

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, indices: Sequence[int]) -> Split:
        """The examples at ``indices``, in that order."""
        return Split(tuple(self.texts[i] for i in indices), tuple(self.targets[i] for i in indices))


@dataclass(frozen=True)
class TaskData:
    """A task, ready to be tokenised.

    Raises:
        DataError: every training value of a regression is the same.
    """

    name: str
    """For tables and titles."""
    kind: Kind
    metric: str
    """The primary metric's key in `noisytune.lab.kinds.metrics.METRICS`."""
    labels: tuple[str, ...]
    """Class names in id order; empty for regression."""
    train: Split
    dev: Split
    notices: tuple[str, ...]
    """What the user should know, one line each."""
    also: dict[str, Split] = field(default_factory=dict)
    """Further dev sets by name, scored and kept beside; nothing rests on them."""
    part_of: str = ""
    """The name of the whole task, where this is one with a share of its training examples (or all of them) in a study
    of several shares."""
    facts: dict[str, Any] = field(default_factory=dict, compare=False)
    """What was noticed about the data, as plain JSON: see `noisytune.lab.tasks._facts`."""

    def __post_init__(self) -> None:
        values = self.train.targets
        if self.kind == "regression" and values and min(values) == max(values):
            raise DataError(
                f"{self.name}: every training value is {values[0]:g}, there is nothing to learn; "
                "give more training rows or another label_column"
            )

    @cached_property
    def digest(self) -> str:
        """Sixteen hexadecimal digits over everything that a trial's outcome depends on: kind, labels and splits.

        The name, the notices and the primary metric are left out: they decide what is shown, not what is learnt.
        """
        splits = [[split.texts, split.targets] for split in (self.train, self.dev)]
        also = {name: [split.texts, split.targets] for name, split in self.also.items()}
        content = {"kind": self.kind, "labels": self.labels, "splits": splits}
        return digest(content | ({"also": also} if also else {}))

    @property
    def majority(self) -> float | None:
        """Share of the largest class in dev, what guessing would score (0 to 1); None for regression."""
        if self.kind == "regression":
            return None
        return max(Counter(self.dev.targets).values()) / len(self.dev)


@dataclass(frozen=True)
class TaskOptions:
    """What a user may ask of a task. What does not apply to the task at hand is refused, not ignored."""

    train_size: int | None = whole(
        None, "Train on this many examples. Default: all.", "a whole number >= 1", lambda n: n >= 1
    )
    """A smaller number takes a part of what a larger one takes."""
    dev_size: int | None = whole(
        None, "Score this many dev examples. Default: all.", "a whole number >= 1", lambda n: n >= 1
    )
    text_columns: tuple[str, ...] = words(
        "Read the text from this column, or a pair from two.", "names of columns with a comma between", ",", "A[,B]"
    )
    """Files: numbers count from 0 and mean a file without a header."""
    label_column: str | None = text(None, "Read the label from this column.", "the name of a column")
    """Files."""
    dev_file: Path | None = path("Score on this file. Default: a fifth of the task's own, stratified.", "FILE")
    """Files."""
    data_dir: Path | None = path("Read GLUE from here: its official download (CoLA ...). Default: the Hub.", "DIR")
    """GLUE: the folder that holds ``CoLA``, ``SST-2`` ..."""
    language: str = text("english", "Take topics in this language of its corpus.", "a language of the corpus")
    """Topics: any folder of the corpus."""
    metric: str | None = text(None, "Compare by this score. Default: the task's own.", "a metric")
    """For files it also decides how a column of numbers is read, where ``kind`` does not."""
    kind: Kind | None = choice(
        None, "Read labels as classes or as values. Default: what they look like.", "classification", "regression"
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
    split_seed: int = whole(0, "Draw train, dev and parts of them by this number.", "a whole number", lambda n: True)

    def __post_init__(self) -> None:
        check(self)


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


def hold_out(targets: npt.ArrayLike) -> tuple[list[int], list[int]]:
    """Training examples without a tenth of them, and that tenth, drawn evenly over classes or values.

    Always the same ones: what varies between seeds is not the data.

    Args:
        targets: class ids or values, shape (examples,).

    Returns:
        Places of those that are trained on and of those that are not, each in order.

    Raises:
        DataError: fewer than two examples.
    """
    values = np.asarray(targets)
    if len(values) < 2:
        raise DataError(f"protocol clean: a tenth of {len(values)} training examples cannot be split off; give more")
    shuffled = np.random.default_rng(0).permutation(len(values))
    by_target = shuffled[np.argsort(values[shuffled], kind="stable")]
    held = sorted(by_target[::HELD_OUT].tolist())
    return sorted(set(range(len(values))) - set(held)), held


def limit(
    split: Split, size: int | None, *, kind: Kind, labels: tuple[str, ...], option: str, seed: int
) -> tuple[Split, tuple[str, ...]]:
    """Take ``size`` examples with the classes in proportion, every class among them.

    The part for a size contains the part for any smaller size, so that learning curves compare like with like.
    Examples keep their order.

    Args:
        split: what there is.
        size: how many to take; None takes all, and so does a number larger than what there is (with a notice).
        kind: a regression's examples are drawn without regard to their values.
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
    strata = split.targets if kind == "classification" else (0.0,) * len(split)
    members: dict[float, list[int]] = defaultdict(list)
    for index, stratum in enumerate(strata):
        members[stratum].append(index)
    if size < max(1, len(members)):
        need = (
            f"at least {len(members)}, one for each class ({', '.join(labels)})" if len(members) > 1 else "at least 1"
        )
        raise DataError(f"{option} {size} is too small: give {need}")
    ranked: list[tuple[float, float, int]] = []
    for stratum, indices in members.items():
        # Rank / size of the class starts at 0 for every class: the first C places hold one example of each.
        shuffled = sorted(indices, key=lambda i: order_key(seed, str(i), *split.texts[i]))
        ranked += [(rank / len(indices), stratum, index) for rank, index in enumerate(shuffled)]
    return split.take(sorted(index for _, _, index in sorted(ranked)[:size])), ()
