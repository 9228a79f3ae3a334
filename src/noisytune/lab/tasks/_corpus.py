"""The small multilingual dialogue corpus that the embedded tasks are made from: package chatterbot-corpus."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from noisytune.errors import DataError, require

Conversations = list[tuple[str, ...]]


def corpus_folder() -> Path:
    """The corpus's folder, one folder a language in it.

    Raises:
        MissingExtraError: the package or the YAML parser is not installed.
    """
    for module in ("chatterbot_corpus", "yaml"):
        require(module, extra="demo", needed_for="an embedded task (topics, replies)")
    spec = find_spec("chatterbot_corpus")
    places = spec.submodule_search_locations if spec is not None else None
    if not places:
        raise DataError("chatterbot_corpus is broken: run  pip install --force-reinstall chatterbot-corpus")
    return Path(places[0]) / "data"


def languages() -> tuple[str, ...]:
    """Names of the corpus's languages, sorted."""
    return tuple(sorted(path.name for path in corpus_folder().iterdir() if path.is_dir() and any(path.glob("*.yml"))))


def read_corpus(language: str) -> dict[str, Conversations]:
    """Every topic's conversations, in the file's order; each conversation is its messages in turn.

    White space is collapsed. Everything is read as text, so that the answers ``1963`` and ``No`` stay what they are.

    Args:
        language: one of `languages`.

    Raises:
        DataError: no such language, or a file that is not YAML in UTF-8.
    """
    import yaml

    if language not in languages():
        raise DataError(f"no language {language!r} in the corpus: choose one of {', '.join(languages())}")
    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    topics: dict[str, Conversations] = {}
    for path in sorted((corpus_folder() / language).glob("*.yml")):
        try:
            content = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)
        except (yaml.YAMLError, UnicodeDecodeError) as e:
            reason = str(e).splitlines()[0]
            raise DataError(f"{path}: not YAML in UTF-8 ({reason}); reinstall chatterbot-corpus") from e
        items = content.get("conversations") if isinstance(content, dict) else None
        conversations = [tuple(messages(item)) for item in items] if isinstance(items, list) else []
        topics[path.stem] = [conversation for conversation in conversations if conversation]
    return topics


def messages(item: object) -> Iterator[str]:
    """The texts in a conversation, however deeply it is nested; what is no text is passed over.

    >>> list(messages(["Hello ", ["How are\\n you?", None], {}]))
    ['Hello', 'How are you?']
    """
    if isinstance(item, str):
        if text := " ".join(item.split()):
            yield text
    elif isinstance(item, list):
        for part in item:
            yield from messages(part)


def normalise(text: str) -> str:
    """What two texts share that differ in case, punctuation and spacing only.

    >>> normalise("Who  is HAL-9000?") == normalise("who is hal 9000")
    True
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    # Letters, marks and numbers stay: vowel signs of Indic scripts are marks.
    return " ".join("".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in folded).split())
