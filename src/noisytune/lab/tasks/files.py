"""A task from the user's own file: texts and labels, tagged sentences, questions, or what a language model learns."""

from __future__ import annotations

from pathlib import Path

from noisytune._metrics import METRICS
from noisytune.lab.tasks._data import TaskData, TaskOptions
from noisytune.lab.tasks._from_tables import task_from_tables
from noisytune.lab.tasks._tables import read_table, task_name
from noisytune.lab.tasks.chats import COLUMNS
from noisytune.lab.tasks.language import from_table
from noisytune.lab.tasks.questions import SPANS, holds_questions, load_questions
from noisytune.lab.tasks.tags import holds_tags, load_tags


def load_file(path: Path, options: TaskOptions) -> TaskData:
    """Read a file, and a dev file where one is given, as a task.

    Args:
        path: CSV, TSV, JSON, JSON Lines or Parquet, as it is or compressed; or tagged sentences, or questions.
        options: what is about files is read here.

    Raises:
        DataError: the file cannot be read, columns cannot be found, or the labels make no task.
        MissingExtraError: scikit-learn or pyarrow is not installed.
    """
    if holds_tags(path, options):
        return load_tags(path, options)
    if holds_questions(path, options):
        return load_questions(path, options)
    named = [getattr(options, name) for name in ("label_column", *COLUMNS, "group_column")]
    given = tuple(name for name in (*options.text_columns, *options.join_columns, *named) if name)
    train = read_table(path, given)
    dev = None if options.dev_file is None else read_table(options.dev_file, given)
    found = from_table(task_name(path), train, dev, options)
    if found is None and options.metric in METRICS[SPANS]:
        return load_questions(path, options)
    return found or task_from_tables(task_name(path), train, dev, options)
