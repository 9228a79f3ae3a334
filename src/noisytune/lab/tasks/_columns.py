"""Which columns of a user's table hold the text and the label."""

from __future__ import annotations

from noisytune.errors import DataError
from noisytune.lab.tasks._tables import Table

TEXT_NAMES: tuple[tuple[str, ...], ...] = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("question", "answer"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("message", "reply"),
    ("text",),
    ("sentence",),
    ("content",),
    ("message",),
    ("review",),
    ("comment",),
    ("tweet",),
    ("utterance",),
)
"""What the text columns of published data sets are called."""

LABEL_NAMES = (
    "label",
    "labels",
    "gold_label",
    "is_duplicate",
    "class",
    "category",
    "target",
    "score",
    "similarity",
    "sentiment",
    "intent",
    "topic",
)
"""What their label columns are called."""


def choose_columns(
    table: Table, text_columns: tuple[str, ...], label_column: str | None
) -> tuple[tuple[tuple[str, ...], str], tuple[str, ...]]:
    """The text columns and the label column, guessed by their names where they are not given and only one guess fits.

    Args:
        table: the training file.
        text_columns: as the user gave them: none, one or two.
        label_column: as the user gave it, or None.

    Returns:
        ((text columns, label column), notices).

    Raises:
        DataError: no guess fits or several do, more than two text columns, or a column that is used twice.
    """
    notices = []
    if len(text_columns) > 2:
        raise DataError(
            f"{len(text_columns)} text columns are too many: give one, or two for pairs, with --text-columns"
        )
    # A name matches in any case, and only where it is spelt once.
    spelt = {name.strip().lower(): name for name in table.columns}
    if label_column is None:
        labels = [spelt[name] for name in LABEL_NAMES if name in spelt and spelt[name] not in text_columns]
        if len(labels) != 1:
            raise unclear(table, "label", "--label-column", labels)
        label_column = labels[0]
        notices.append(f"label column: {label_column!r} (guessed from its name; --label-column chooses another)")
    if not text_columns:
        found = [tuple(spelt[name] for name in names) for names in TEXT_NAMES if all(name in spelt for name in names)]
        found = [names for names in found if label_column not in names]
        found = [names for names in found if not any(set(names) < set(others) for others in found)]
        if len(found) != 1:
            raise unclear(table, "text", "--text-columns", [" + ".join(names) for names in found])
        text_columns = found[0]
        quoted = " and ".join(repr(name) for name in text_columns)
        notices.append(f"text: {quoted} (guessed from the names; --text-columns chooses others)")
    used = (*text_columns, label_column)
    if len(set(used)) < len(used):
        raise DataError(f"{table.path}: a column is used twice ({', '.join(used)}); text and label need their own")
    return (text_columns, label_column), tuple(notices)


def unclear(table: Table, what: str, option: str, found: list[str]) -> DataError:
    """The error for a guess that fits nowhere or more than once."""
    seen = f"several could be the {what} ({', '.join(found)})" if found else f"none is known as the {what} by its name"
    return DataError(f"{table.path}: {seen}; say which with {option}; the columns are {table.names}")
