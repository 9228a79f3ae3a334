"""Sentences with a tag for each word: the files of UD-POS and PAN-X."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from noisytune.errors import DataError
from noisytune.lab.kinds import Split
from noisytune.lab.tasks._decoding import decode
from noisytune.lab.tasks.xtreme.parquet import class_names, columns_of
from noisytune.lab.tasks.xtreme.part import Part, told

HUB_TAGS = ("pos_tags", "ner_tags")
"""What the tags are called on the Hub."""

Word = tuple[int, str, str]
"""Its line, itself, its tag."""


def read_tags(path: Path, labels: Sequence[str], code: str, train: bool) -> Part:
    """The sentences of a file: a word, a tab and its tag on a line, an empty line between sentences.

    Words of raw PAN-X begin with their language, as in ``de:Berlin``: that is taken off. A word without a tag, or with
    the tag ``_``, is read as O (PAN-X) or X (UD-POS), as the official code does.

    Args:
        path: the file.
        labels: the tags in id order.
        code: of the language.
        train: whether it is trained on.

    Raises:
        DataError: no word, too many cells, or an unknown tag; names the line.
    """
    sentences = list(_sentences(path, decode(path)))
    if not sentences:
        raise DataError(f"{path}: no sentence in it; a word and its tag stand on a line, an empty line ends a sentence")
    words = [word for sentence in sentences for word in sentence]
    if not any(tag for _, _, tag in words):
        return Part(None, len(sentences))
    prefix = f"{code}:"
    if all(word.startswith(prefix) for _, word, _ in words):
        sentences = [[(line, word.removeprefix(prefix).strip(), tag) for line, word, tag in one] for one in sentences]
    return _part(sentences, labels, path, "line")


def read_hub_tags(files: Sequence[Path], labels: Sequence[str], code: str, train: bool) -> Part:
    """The same from Parquet files of the Hub.

    Raises:
        DataError: a column is missing, or a tag is unknown; names the row.
    """
    columns = columns_of(files, ("tokens",))
    name = next((name for name in HUB_TAGS if name in columns), "")
    if not name:
        raise DataError(f"{files[0]}: no column of tags; the columns are {', '.join(columns)}")
    known = class_names(files[0], name) or list(labels)
    sentences = []
    for row, (words, ids) in enumerate(zip(columns["tokens"], columns[name], strict=True), start=1):
        if len(words) != len(ids):
            raise DataError(f"{files[0]}: row {row} has {len(words)} words and {len(ids)} tags; each word needs one")
        tags = [known[i] if isinstance(i, int) and 0 <= i < len(known) else str(i) for i in ids]
        sentences.append([(row, word, tag) for word, tag in zip(words, tags, strict=True)])
    return _part(sentences, labels, files[0], "row")


def _sentences(path: Path, text: str) -> Iterable[list[Word]]:
    """The lines of each sentence. Words may hold other breaks and spaces of Unicode."""
    sentence: list[Word] = []
    for line, content in enumerate(re.split("\r\n|\n", text), start=1):
        if not content.strip():
            if sentence:
                yield sentence
            sentence = []
            continue
        word, *tags = (cell.strip() for cell in content.split("\t"))
        if len(tags) > 1:
            raise DataError(f"{path}: line {line} has {len(tags) + 1} cells, where a word and its tag are expected")
        sentence.append((line, word, tags[0] if tags else ""))
    if sentence:
        yield sentence


def _part(sentences: list[list[Word]], labels: Sequence[str], path: Path, unit: str) -> Part:
    ids = {label: float(i) for i, label in enumerate(labels)}
    default = "O" if "O" in labels else "X"
    without_word: list[int] = []
    without_tag: list[int] = []
    texts, targets = [], []
    for sentence in sentences:
        words, tags = [], []
        for line, word, tag in sentence:
            if not word:
                without_word.append(line)
                continue
            if tag in ("", "_"):
                without_tag.append(line)
            if (found := ids.get(default if tag in ("", "_") else tag)) is None:
                raise DataError(
                    f"{path}: {unit} {line}: the tag {tag!r} is unknown; it must be one of {', '.join(labels)}"
                )
            words.append(word)
            tags.append(found)
        if words:
            texts.append(tuple(words))
            targets.append(tuple(tags))
    notices = (
        *told(
            without_tag, "words have no tag", path.name, unit, f"they are read as {default}, as in the official code"
        ),
        *told(without_word, "tags have no word", path.name, unit, "they are left out"),
    )
    return Part(Split(tuple(texts), tuple(targets)), len(sentences), notices)
