"""A task from a table, or from one for train and one for dev: columns are chosen, labels read, rows counted."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from noisytune.errors import DataError
from noisytune.lab.kinds import KINDS, Split
from noisytune.lab.tasks._columns import Columns, choose_columns, find_column, read_groups
from noisytune.lab.tasks._data import TaskData, TaskOptions
from noisytune.lab.tasks._dev import split_off_dev
from noisytune.lab.tasks._labels import Reading, is_missing, label_texts, read_labels
from noisytune.lab.tasks._rows import LeftOut, Rows, as_split
from noisytune.lab.tasks._tables import Table
from noisytune.lab.tasks.label_sets import holds_sets, read_label_sets


def task_from_tables(name: str, train: Table, dev: Table | None, options: TaskOptions) -> TaskData:
    """The task that a table holds.

    Args:
        name: of the task.
        train: training examples; without ``dev`` a fifth of them is split off.
        dev: with the columns of ``train``.
        options: the columns, ``group_column``, ``kind``, ``metric``, ``missing_labels``, ``empty_texts``,
            ``split_seed``.

    Raises:
        DataError: columns cannot be found, or the labels make no task.
        MissingExtraError: scikit-learn is not installed.
    """
    tables = [train] if dev is None else [train, dev]
    columns, guesses = choose_columns(train, options)
    notices = [notice for table in tables for notice in table.notices] + list(guesses)
    sets = holds_sets(train.columns[columns.label], options)
    parts = [read_rows(table, columns, options, sets) for table in tables]
    where = f"{train.path}: column {columns.label!r}"
    labels = [
        label for rows in parts for texts, label in zip(rows.texts, rows.labels, strict=True) if None not in texts
    ]
    reading = read_label_sets(labels, options, where) if sets else read_labels(labels, options, where)
    notices += [f"{train.path.name}: column {columns.label!r}: {told}" for told in reading.notices]
    splits: list[Split] = []
    left_out: list[dict[str, Any]] = []
    for rows in parts:
        split, out = as_split(rows, reading.target)
        if not split.targets:
            raise DataError(
                f"{rows.where}: each of the {len(rows.labels)} rows lacks a text or a label; check the columns"
            )
        if out.places:
            notices.append(tell_left_out(rows, out, len(columns.texts)))
        for reason, places in (("no text", out.without_text), ("no label", out.without_label)):
            left_out += [{"source": rows.name, "reason": reason, "rows": len(places)}] if places else []
        splits.append(split)
    if isinstance(reading, Reading):
        check_labels(splits, parts, reading, where)
    facts: dict[str, Any] = {"rows": [{"source": rows.name, "rows": len(rows.labels)} for rows in parts]}
    facts["left_out"] = left_out
    if len(splits) == 2:
        ours, theirs = splits
    else:
        ours, theirs = split_off_dev(splits[0], reading.kind, str(train.path), options.split_seed)
        facts["split_off"] = len(theirs)
        how = "stratified by class" if reading.names else "at random"
        whole = ", groups whole" if theirs.groups else ""
        notices.append(f"no dev_file: {len(theirs)} of {len(splits[0])} rows were split off as dev, {how}{whole}")
    together = not dev and not theirs.groups
    if not together:
        known = set(ours.texts)
        if repeated := sum(texts in known for texts in theirs.texts):
            facts["in_both"] = repeated
            notices.append(
                f"{repeated} of {len(theirs)} dev rows have the same text as a training row: the scores flatter"
            )
    if repeated := sum(len(split) - len(set(split.texts)) for split in splits):
        facts["repeated"] = repeated
        told = f"{train.path.name}: {repeated} rows repeat the text of another row"
        notices.append(told + (" and stay on its side of the split" if together else ""))
    notices += unbalanced(reading, theirs) if options.metric is None and isinstance(reading, Reading) else []
    metric = options.metric or KINDS[reading.kind].metrics(reading.names)[0]
    return TaskData(name, reading.kind, metric, reading.names, ours, {"dev": theirs}, tuple(notices), facts=facts)


def read_rows(table: Table, columns: Columns, options: TaskOptions, sets: bool) -> Rows:
    """The chosen columns; numbers among the texts become text.

    Args:
        table: what there is.
        columns: their names in the training table; in another one they may differ in case.
        options: ``empty_texts``, ``group_column``.
        sets: whether labels are sets: then they may be lists.

    Raises:
        DataError: no such column, or a cell that holds a list or an object.
    """
    chosen = [find_column(table, name) for name in (*columns.texts, columns.label)]
    for name in chosen[:-1] if sets else chosen:
        odd = next((cell for cell in table.columns[name] if isinstance(cell, (list, tuple, dict, bytes))), None)
        if odd is not None:
            raise DataError(
                f"{table.path}: column {name!r} holds a {type(odd).__name__}; one text or label a cell is needed"
            )
    cells = zip(*(table.columns[name] for name in chosen[:-1]), strict=True)
    texts = [tuple(None if is_missing(cell) else str(cell) for cell in row) for row in cells]
    if columns.joined:
        texts = [(" ".join(text for text in row if text is not None) or None,) for row in texts]
    elif options.empty_texts == "keep":
        texts = [row if set(row) == {None} else tuple(text or "" for text in row) for row in texts]
    labels = table.columns[chosen[-1]]
    if sets:
        labels = [json.dumps(list(cell)) if isinstance(cell, (list, tuple)) else cell for cell in labels]
    return Rows(str(table.path), texts, label_texts(labels), groups=read_groups(table, options.group_column))


def tell_left_out(rows: Rows, out: LeftOut, texts: int) -> str:
    """How many rows are no examples, and why."""
    reasons, ways = [], []
    if out.without_text:
        reasons.append(f"{len(out.without_text)} without {'a text' if texts > 1 else 'the text'}")
        ways += ["empty_texts=keep"] if any(any(rows.texts[i]) for i in out.without_text) else []
    if out.without_label:
        reasons.append(f"{len(out.without_label)} without a label")
        ways += ["missing_labels=keep"] if any(rows.labels[i] is None for i in out.without_label) else []
    told = f"{rows.name}: {len(out.places)} of {len(rows.labels)} rows are left out: {', '.join(reasons)}"
    return told + (f"; {' and '.join(ways)} would keep them" if ways else "")


def check_labels(splits: list[Split], parts: list[Rows], reading: Reading, where: str) -> None:
    """Refuse labels that nothing can be learnt from.

    Raises:
        DataError: one class or value only, a class that only dev has, or nearly as many classes as rows.
    """
    train = splits[0]
    seen = Counter(train.targets)
    if len(seen) < 2:
        only = f"class, {reading.names[int(train.targets[0])]!r}" if reading.names else f"value, {train.targets[0]:g}"
        raise DataError(f"{where} has only one {only}; at least two are needed")
    if not reading.names:
        return
    if len(seen) > max(2, len(train) / 2):
        raise DataError(
            f"{where} has {len(seen)} classes in {len(train)} rows: it looks like an identifier or a text; "
            "choose another with label_column"
        )
    if missing := [name for i, name in enumerate(reading.names) if i not in seen]:
        raise DataError(
            f"{parts[-1].where}: {some(missing)} never occurs in {parts[0].name}; add training rows or remove it"
        )


def unbalanced(reading: Reading, dev: Split) -> list[str]:
    """A notice where always guessing the largest class comes 0.4 of the way from an even chance to 1."""
    share = KINDS[reading.kind].majority(dev.targets)
    if share is None or share < (even := 1 / len(reading.names)) + 0.4 * (1 - even):
        return []
    counts = KINDS[reading.kind].counts(dev.targets, len(reading.names))
    largest = f"{100 * share:.1f} % of dev is of the class {reading.names[counts.index(max(counts))]!r}"
    return [f"{largest}: accuracy says little, and metric=macro_f1 or metric=matthews weighs all classes"]


def some(names: list[str]) -> str:
    """A few class names, for a message.

    >>> some(["a", "b"])
    "class 'a', 'b'"
    """
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return "class " + ", ".join(repr(name) for name in names[:3]) + more
