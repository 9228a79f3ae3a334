"""Sentences with a tag for each word, from the user's own files: CoNLL, TSV or JSON Lines."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from noisytune._metrics.tags import are_entities
from noisytune._text import encodable
from noisytune.errors import ConfigError, DataError
from noisytune.lab.kinds import KINDS, Split
from noisytune.lab.tasks._columns import group_in
from noisytune.lab.tasks._data import TaskData, TaskOptions
from noisytune.lab.tasks._decoding import decode
from noisytune.lab.tasks._dev import drawn_off, sides
from noisytune.lab.tasks._json import records_of
from noisytune.lab.tasks._tables import suffix, task_name

TAGGING = "tagging"
SUFFIXES = (".conll", ".conllu", ".iob", ".iob2", ".bio")
"""Files of these are tagged sentences, whatever else is asked for."""
UNIVERSAL = ".conllu"
"""Of Universal Dependencies: ten columns, the first numbers the words."""
NO_WORD = re.compile(r"\d+[-.]\d+")
"""The number of what spans several words or is left unsaid: it stands beside the words."""
WORD_NAMES = ("tokens", "words", "text", "sentence")
"""What the words are called in JSON and in rows."""
TAG_NAMES = ("ner_tags", "tags", "labels", "pos_tags", "upos", "ner", "pos")
"""What the tags are called."""
HEADERS = [["token", "tag"], ["word", "tag"], ["token", "label"], ["word", "label"], ["tokens", "tags"]]
"""A first line of these names the columns of word and tag."""
TABLES_ONLY = ("join_columns", "missing_labels", "empty_texts")
"""Settings that say nothing about sentences of words."""


class Sentence(NamedTuple):
    """Words and their tags, in parallel."""

    words: tuple[str, ...]
    tags: tuple[str, ...]
    group: str = ""
    """What it belongs to, where that is asked for."""


def holds_tags(path: Path, options: TaskOptions) -> bool:
    """Whether a file is one of tagged sentences: it is asked for, or its name says so."""
    return options.asks_for(TAGGING) or (options.kind is None and suffix(path) in SUFFIXES)


def load_tags(path: Path, options: TaskOptions) -> TaskData:
    """Read tagged sentences, and a dev file where one is given.

    Args:
        path: words and tags in columns with white space or a tab between them and an empty line between sentences, or
            JSON (a list, or one object a line) such as ``{"tokens": ["a", "b"], "tags": ["O", "B-PER"]}``. Of CoNLL-U
            FORM and UPOS are read.
        options: ``text_columns`` (of the words), ``label_column`` (of the tags) and ``group_column`` (read at a
            sentence's first word), by number from 0 or by name; ``dev_file`` and ``split_seed``.

    Raises:
        DataError: a word without a tag, no sentence, tags that only dev has; names file and line.
    """
    dev = None if options.dev_file is None else read_tags(options.dev_file, options)
    return task_from_sentences(task_name(path), read_tags(path, options), dev, options, where=str(path))


def task_from_sentences(
    name: str, train: list[Sentence], dev: list[Sentence] | None, options: TaskOptions, *, where: str
) -> TaskData:
    """The task of tagged sentences.

    Args:
        name: of the task.
        train: at least one.
        dev: None: some of train.
        options: ``metric`` and ``split_seed``.
        where: file or name, for messages.

    Raises:
        DataError: fewer than two tags, or too few sentences to split.
        ConfigError: a setting of tables.
    """
    if given := options.given(TABLES_ONLY):
        raise ConfigError(f"{' and '.join(given)} say nothing about tagged sentences: {where} has a tag for each word")
    notices: list[str] = []
    facts: dict[str, Any] = {"rows": [{"source": encodable(Path(where).name), "rows": len(train)}]}
    if dev is None:
        train, dev = _split_off(train, options.split_seed, where)
        facts["split_off"] = len(dev)
        whole = ", groups whole" if dev[0].group else ""
        notices.append(f"no dev_file: {len(dev)} of {len(train) + len(dev)} sentences were split off as dev{whole}")
    names = _in_order({tag for one in train for tag in one.tags})
    if unknown := sorted({tag for one in dev for tag in one.tags} - set(names)):
        notices.append(f"{len(unknown)} tags of dev never occur in train ({', '.join(unknown[:3])}): none can be right")
        names += tuple(unknown)
    if len(names) < 2:
        raise DataError(f"{where}: every word has the tag {names[0]!r}; at least two tags are needed")
    kind = KINDS[TAGGING]
    metric = options.metric or kind.metrics(names)[0]
    seen = "entities (B-, I-)" if are_entities(names) else "plain tags"
    notices.append(f"{encodable(Path(where).name)}: {len(names)} tags, read as {seen}")
    if not are_entities(names) and (outside := [name for name in names if name.startswith("O") and name != "O"]):
        notices.append(f"tag_f1 reads tags as seqeval does: {', '.join(outside)} begin with O, as O they never count")
    evaluate = {"dev": _as_split(dev, names)}
    return TaskData(name, TAGGING, metric, names, _as_split(train, names), evaluate, tuple(notices), facts=facts)


def read_tags(path: Path, options: TaskOptions) -> list[Sentence]:
    """The sentences of a file; arguments and errors as for `load_tags`."""
    try:
        text = decode(path)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or 'cannot be read'}; give a file of tagged sentences") from error
    if suffix(path) in (".jsonl", ".ndjson", ".json"):
        sentences = list(sentences_of(str(path), records_of(path, text, cells_are_lists=True), options))
    else:
        sentences = list(_from_columns(path, text, options))
    if not sentences:
        raise DataError(f"{path}: no sentence in it; a word and its tag stand on a line, an empty line ends a sentence")
    return sentences


def _from_columns(path: Path, text: str, options: TaskOptions) -> Iterator[Sentence]:
    """A word and its tag a line; comments and ``-DOCSTART-`` are no words."""
    universal = suffix(path) == UNIVERSAL
    lines = _lines(text)
    usual = Counter(len(cells) for cells in lines if cells and not cells[0].startswith("#")).most_common(1)
    places: list[int] | None = None
    words: list[str] = []
    tags: list[str] = []
    group = ""
    for number, cells in enumerate(lines, start=1):
        if not cells or cells[0] == "-DOCSTART-":
            if words:
                yield Sentence(tuple(words), tuple(tags), group)
                words, tags = [], []
            continue
        # "#" is a word too, where it has as many cells as words have.
        commented = universal or (not words and len(cells) != (usual[0][0] if usual else 0))
        if (cells[0].startswith("#") and commented) or (universal and NO_WORD.fullmatch(cells[0])):
            continue
        if places is None:
            places, header = _places(path, cells, options)
            if header:
                continue
        if max(places) >= len(cells) or not all(cells[place].strip() for place in places):
            seen = " ".join(cells).strip()[:40]
            raise DataError(f"{path}: line {number} has no tag or no word ({seen!r}); give each word a tag")
        if not words and options.group_column:
            group = cells[places[2]].strip()
        words.append(cells[places[0]].strip())
        tags.append(cells[places[1]].strip())
    if words:
        yield Sentence(tuple(words), tuple(tags), group)


def _lines(text: str) -> list[list[str]]:
    """The cells of each line, none of a blank one. Words may hold other breaks and spaces of Unicode."""
    lines = re.split("\r\n|\r|\n", text)
    if "\t" in text:
        return [line.split("\t") if line.strip() else [] for line in lines]
    return [[cell for cell in line.split(" ") if cell.strip()] for line in lines]


def _places(path: Path, first: list[str], options: TaskOptions) -> tuple[list[int], bool]:
    """The columns of word, tag and group, and whether the first line names the columns."""
    form, tag = ("1", "3") if suffix(path) == UNIVERSAL else ("0", str(len(first) - 1))
    if options.group_column in (tag, first[-1]) and suffix(path) != UNIVERSAL:
        tag = str(len(first) - 2)
    asked = [options.text_columns[0] if options.text_columns else form, options.label_column or tag]
    asked += [options.group_column] if options.group_column else []
    named = any(not place.isdecimal() for place in asked)
    places = []
    for name in asked:
        if name.isdecimal():
            places.append(int(name))
        elif name in first:
            places.append(first.index(name))
        else:
            raise DataError(f"{path}: no column {name!r}; the first line has {', '.join(first)}")
    return places, named or [first[place].lower() for place in places[:2] if place < len(first)] in HEADERS


def sentences_of(where: str, records: Iterable[Mapping[str, object]], options: TaskOptions) -> Iterator[Sentence]:
    """The sentences of rows with two lists of one length.

    Args:
        where: file or name, for messages.
        records: ``{"tokens": ["a", "b"], "tags": ["O", "B-PER"]}`` ...; one without words is passed over.
        options: ``text_columns``, ``label_column`` and ``group_column``, by name.

    Raises:
        DataError: no such columns, no lists, or lists of two lengths; names the sentence.
    """
    words_name, tags_name = "", ""
    for number, record in enumerate(records, start=1):
        here = f"{where}: sentence {number}"
        if not words_name:
            words_name = _named(here, record, options.text_columns[:1] or WORD_NAMES, "text_columns")
            asked = (options.label_column,) if options.label_column else TAG_NAMES
            tags_name = _named(here, record, asked, "label_column")
        words, tags = (_words(here, record, name) for name in (words_name, tags_name))
        if len(words) != len(tags):
            raise DataError(f"{here}: {len(words)} {words_name} and {len(tags)} {tags_name}; each word needs one tag")
        group = group_in(record, options.group_column, here, number) if options.group_column else ""
        if words:
            yield Sentence(words, tags, group)


def _words(where: str, record: Mapping[str, object], name: str) -> tuple[str, ...]:
    """The words or tags of a sentence."""
    values = record.get(name)
    if not isinstance(values, list) or not all(isinstance(one, str | int) and str(one).strip() for one in values):
        raise DataError(f"{where}: {name!r} is no list of words; every sentence needs one")
    return tuple(str(one) for one in values)


def _named(where: str, record: Mapping[str, object], names: Sequence[str], setting: str) -> str:
    """The first of the names that the record has."""
    for name in names:
        if name in record:
            return name
    raise DataError(
        f"{where}: none of {', '.join(names)} is among its keys ({', '.join(record)}); say which by {setting}"
    )


def _in_order(tags: set[str]) -> tuple[str, ...]:
    """``O`` first, then by the alphabet: the tag of words that a tokenizer drops is the first."""
    return tuple(sorted(tags, key=lambda tag: (tag != "O", tag)))


def _split_off(sentences: list[Sentence], seed: int, where: str) -> tuple[list[Sentence], list[Sentence]]:
    """Train and dev; groups stay whole, or else sentences with the same words stay on one side."""
    units = [one.group or "\0".join(one.words) for one in sentences]
    if not (held := drawn_off(units, seed)):
        seen = f"{len(set(units))} different {'groups' if sentences[0].group else 'sentences'}"
        raise DataError(f"{where}: {seen} are too few to split off a dev set; add some or give dev_file")
    train, dev = ([sentences[i] for i in places] for places in sides(units, held))
    return train, dev


def _as_split(sentences: list[Sentence], names: tuple[str, ...]) -> Split:
    ids = {name: float(i) for i, name in enumerate(names)}
    groups = tuple(one.group for one in sentences)
    return Split(
        tuple(one.words for one in sentences),
        tuple(tuple(ids[tag] for tag in one.tags) for one in sentences),
        groups=groups if any(groups) else (),
    )
