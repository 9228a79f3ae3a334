"""Task ``topics``: which topic is this message from?"""

from __future__ import annotations

from collections import defaultdict
from functools import partial

from noisytune.errors import DataError
from noisytune.lab.kinds import Split
from noisytune.lab.tasks._corpus import Conversations, languages, normalise, read_corpus
from noisytune.lab.tasks._data import TaskData, TaskOptions, order_key

MAX_TOPICS = 5
"""The largest topics of the language are taken, this many at most."""

MAX_CHARACTERS = 120
"""Longer messages are left out: program listings and recipes show their topic by their looks."""

MIN_MESSAGES = 10
"""A topic needs this many messages in train and as many in dev."""

DEV_SHARE = 0.55
"""Share of a topic's messages in dev. Evaluating is cheap, and a larger dev set is a finer ruler."""


def load_topics(options: TaskOptions) -> TaskData:
    """One message, and the topic that it is from: a language's largest topics, as many messages of each.

    A message that occurs under two topics is left out, a repeated one is kept once (case and punctuation do not count).
    A conversation stays on one side of the split, and so do conversations that share a message.

    Args:
        options: ``language`` and ``split_seed`` are read here.

    Raises:
        DataError: no such language, or fewer than two usable topics in it.
        MissingExtraError: the corpus is not installed.

    Source: chatterbot-corpus (BSD licence).
    """
    sides = usable_topics(options.language, options.split_seed)
    if len(sides) < 2:
        enough = [name for name in languages() if len(usable_topics(name, options.split_seed)) >= 2]
        raise DataError(
            f"task topics: {options.language!r} has fewer than two topics with {2 * MIN_MESSAGES} messages; "
            f"languages that work: {', '.join(enough)}"
        )
    labels = tuple(sorted(sides))
    splits = []
    for side in (0, 1):
        size = min(len(sides[name][side]) for name in labels)
        # Round robin over the classes: any prefix is balanced.
        rows = [(sides[name][side][rank], float(label)) for rank in range(size) for label, name in enumerate(labels)]
        splits.append(Split(tuple((text,) for text, _ in rows), tuple(target for _, target in rows)))
    name = "topics" if options.language == "english" else f"topics-{options.language}"
    return TaskData(name, "classification", "accuracy", labels, splits[0], {"dev": splits[1]}, ())


def usable_topics(language: str, seed: int) -> dict[str, tuple[list[str], list[str]]]:
    """The train and dev messages of the largest topics that have enough on both sides."""
    topics = read_corpus(language)
    found_in: dict[str, set[str]] = defaultdict(set)
    for name, conversations in topics.items():
        for conversation in conversations:
            for message in conversation:
                found_in[normalise(message)].add(name)
    elsewhere = {key for key, names in found_in.items() if len(names) > 1 or not key}
    sides = {name: split_topic(conversations, elsewhere, seed) for name, conversations in topics.items()}
    enough = [name for name, (train, dev) in sides.items() if min(len(train), len(dev)) >= MIN_MESSAGES]
    largest = sorted(enough, key=lambda name: (-sum(map(len, sides[name])), name))[:MAX_TOPICS]
    return {name: sides[name] for name in largest}


def split_topic(conversations: Conversations, leave_out: set[str], seed: int) -> tuple[list[str], list[str]]:
    """A topic's distinct messages as train and dev, both shuffled, related conversations together.

    Args:
        conversations: the topic's.
        leave_out: normalised messages that are not wanted.
        seed: another seed splits otherwise.
    """
    spelling: dict[str, str] = {}
    groups: list[set[str]] = []
    for conversation in conversations:
        keys = {normalise(message) for message in conversation}
        for message in conversation:
            spelling.setdefault(normalise(message), message)
        related = [group for group in groups if group & keys]
        groups = [group for group in groups if not group & keys] + [keys.union(*related)]
    wanted = {key for key, text in spelling.items() if key not in leave_out and len(text) <= MAX_CHARACTERS}
    kept = sorted((sorted(group & wanted) for group in groups if group & wanted), key=lambda g: order_key(seed, *g))
    train: list[str] = []
    dev: list[str] = []
    for group in sorted(kept, key=len, reverse=True):
        # The largest groups first, each to the side that lacks more of its share: none can overshoot at the end.
        total = len(train) + len(dev) + len(group)
        side = dev if len(dev) + len(group) / 2 <= DEV_SHARE * total else train
        side += [spelling[key] for key in group]
    return sorted(train, key=partial(order_key, seed)), sorted(dev, key=partial(order_key, seed))
