"""Sentences with a tag for each word, from the user's own files: CoNLL, TSV or JSON Lines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from noisytune._metrics import kinds_with
from noisytune._metrics.tags import are_entities
from noisytune._text import encodable
from noisytune.errors import DataError
from noisytune.lab.kinds import KINDS, Split
from noisytune.lab.tasks._data import DEFAULTS, TaskData, TaskOptions, order_key
from noisytune.lab.tasks._decoding import decode
from noisytune.lab.tasks._tables import stem, suffix

TAGGING = "tagging"
SUFFIXES = (".conll", ".conllu", ".iob", ".iob2", ".bio")
"""Files of these are tagged sentences, whatever else is asked for."""
WORD_NAMES = ("tokens", "words", "text", "sentence")
"""What the words are called in JSON Lines."""
TAG_NAMES = ("ner_tags", "tags", "labels", "pos_tags", "upos", "ner", "pos")
"""What the tags are called."""
HEADERS = [["token", "tag"], ["word", "tag"], ["token", "label"], ["word", "label"], ["tokens", "tags"]]
"""A first line of these names the columns of word and tag."""
DEV_SHARE = 5
"""One sentence in so many becomes dev where no dev file is given."""

Sentence = tuple[tuple[str, ...], tuple[str, ...]]
"""Words and tags."""


def holds_tags(path: Path, options: TaskOptions = DEFAULTS) -> bool:
    """Whether a file is one of tagged sentences: it is asked for, or its name says so."""
    if options.kind is not None:
        return options.kind == TAGGING
    return suffix(path) in SUFFIXES or (options.metric is not None and kinds_with(options.metric) == (TAGGING,))


def load_tags(path: Path, options: TaskOptions = DEFAULTS) -> TaskData:
    """Read tagged sentences, and a dev file where one is given.

    Args:
        path: words and tags in columns with white space or a tab between them and an empty line between sentences, or
            JSON Lines such as ``{"tokens": ["a", "b"], "tags": ["O", "B-PER"]}``.
        options: ``text_columns`` (of the words) and ``label_column`` (of the tags), by number from 0 or by name;
            ``dev_file`` and ``split_seed``.

    Raises:
        DataError: a word without a tag, no sentence, tags that only dev has; names file and line.
    """
    train = read_tags(path, options)
    notices = []
    if options.dev_file is None:
        train, dev = _split_off(train, options.split_seed, path)
        notices.append(f"no dev_file: {len(dev)} of {len(train) + len(dev)} sentences were split off as dev")
    else:
        dev = read_tags(options.dev_file, options)
    names = _in_order({tag for _, tags in train for tag in tags})
    if unknown := sorted({tag for _, tags in dev for tag in tags} - set(names)):
        notices.append(f"{len(unknown)} tags of dev never occur in train ({', '.join(unknown[:3])}): none can be right")
        names += tuple(unknown)
    if len(names) < 2:
        raise DataError(f"{path}: every word has the tag {names[0]!r}; at least two tags are needed")
    kind = KINDS[TAGGING]
    metric = options.metric or kind.metrics(names)[0]
    seen = "entities (B-, I-)" if are_entities(names) else "plain tags"
    notices.append(f"{encodable(path.name)}: {len(names)} tags, read as {seen}")
    evaluate = {"dev": _as_split(dev, names)}
    return TaskData(stem(path), TAGGING, metric, names, _as_split(train, names), evaluate, tuple(notices))


def read_tags(path: Path, options: TaskOptions = DEFAULTS) -> list[Sentence]:
    """The sentences of a file; arguments and errors as for `load_tags`."""
    try:
        text = decode(path)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or 'cannot be read'}; give a file of tagged sentences") from error
    reader = _from_json if suffix(path) in (".jsonl", ".ndjson", ".json") else _from_columns
    sentences = list(reader(path, text, options))
    if not sentences:
        raise DataError(f"{path}: no sentence in it; a word and its tag stand on a line, an empty line ends a sentence")
    return sentences


def _from_columns(path: Path, text: str, options: TaskOptions) -> Iterator[Sentence]:
    """A word and its tag a line; ``# ...`` lines and ``-DOCSTART-`` are no words."""
    tabs = "\t" in text
    places: list[int] | None = None
    words: list[str] = []
    tags: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        cells = line.rstrip("\n").split("\t") if tabs and line.strip() else line.split()
        if not cells or cells[0] == "-DOCSTART-":
            if words:
                yield tuple(words), tuple(tags)
                words, tags = [], []
            continue
        if cells[0].startswith("#") and (len(cells) == 1 or line.startswith("# ")) and not words:
            continue
        if places is None:
            places, header = _places(path, cells, options)
            if header:
                continue
        if max(places) >= len(cells) or not all(cells[place].strip() for place in places):
            raise DataError(
                f"{path}: line {number} has no tag or no word ({line.strip()[:40]!r}); give each word a tag"
            )
        words.append(cells[places[0]].strip())
        tags.append(cells[places[1]].strip())
    if words:
        yield tuple(words), tuple(tags)


def _places(path: Path, first: list[str], options: TaskOptions) -> tuple[list[int], bool]:
    """The columns of word and tag, and whether the first line names the columns."""
    asked = [options.text_columns[0] if options.text_columns else "0", options.label_column or str(len(first) - 1)]
    named = any(not place.isdecimal() for place in asked)
    places = []
    for name in asked:
        if name in first:
            places.append(first.index(name))
        elif name.isdecimal():
            places.append(int(name))
        else:
            raise DataError(f"{path}: no column {name!r}; the first line has {', '.join(first)}")
    return places, named or [first[place].lower() for place in places if place < len(first)] in HEADERS


def _from_json(path: Path, text: str, options: TaskOptions) -> Iterator[Sentence]:
    """An object a line with two lists of one length."""
    words_name, tags_name = "", ""
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{path}: line {number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where} is not JSON ({error}); write one object a line") from error
        if not isinstance(record, dict):
            raise DataError(f"{where} is not a JSON object; write one object a line")
        if not words_name:
            words_name = _named(where, record, options.text_columns[:1] or WORD_NAMES, "text_columns")
            asked = (options.label_column,) if options.label_column else TAG_NAMES
            tags_name = _named(where, record, asked, "label_column")
        words, tags = (_words(where, record, name) for name in (words_name, tags_name))
        if len(words) != len(tags):
            raise DataError(f"{where}: {len(words)} {words_name} and {len(tags)} {tags_name}; each word needs one tag")
        if words:
            yield words, tags


def _words(where: str, record: dict[str, object], name: str) -> tuple[str, ...]:
    """The words or tags of a sentence."""
    values = record.get(name)
    if not isinstance(values, list) or not all(isinstance(one, str | int) and str(one).strip() for one in values):
        raise DataError(f"{where}: {name!r} is no list of words; every sentence needs one")
    return tuple(str(one) for one in values)


def _named(where: str, record: dict[str, object], names: Sequence[str], setting: str) -> str:
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


def _split_off(sentences: list[Sentence], seed: int, path: Path) -> tuple[list[Sentence], list[Sentence]]:
    """Train and dev; sentences with the same words stay on one side."""
    different = sorted({words for words, _ in sentences}, key=lambda words: order_key(seed, *words))
    if len(different) < DEV_SHARE:
        seen = f"{len(different)} different sentences"
        raise DataError(f"{path}: {seen} are too few to split off a dev set; add some or give dev_file")
    held = set(different[: len(different) // DEV_SHARE])
    train, dev = ([one for one in sentences if (one[0] in held) == side] for side in (False, True))
    return train, dev


def _as_split(sentences: list[Sentence], names: tuple[str, ...]) -> Split:
    ids = {name: float(i) for i, name in enumerate(names)}
    return Split(
        tuple(words for words, _ in sentences), tuple(tuple(ids[tag] for tag in tags) for _, tags in sentences)
    )
