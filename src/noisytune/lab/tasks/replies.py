"""Task ``replies``: does this reply answer this message?"""

from __future__ import annotations

from collections import defaultdict

from noisytune.errors import ConfigError
from noisytune.lab.kinds import Split
from noisytune.lab.tasks._corpus import Conversations, normalise, read_corpus
from noisytune.lab.tasks._data import TaskData, TaskOptions, order_key

LABELS = ("other message", "answers")

DEV_SHARE = 0.4
"""Share of a topic's messages in dev."""


def load_replies(options: TaskOptions) -> TaskData:
    """Message and reply; class 1: the corpus's own reply, class 0: the reply to another message of the same topic.

    Every message and every reply occurs exactly once in each class, so that neither alone gives the label away. Replies
    that the corpus gives to several messages ("Yes.") are not used: as negatives they might be right. No message and no
    reply is on both sides of the split; case and punctuation do not count.

    Args:
        options: ``split_seed`` is read here.

    Raises:
        ConfigError: another language than English.
        MissingExtraError: the corpus is not installed.

    Source: chatterbot-corpus (BSD licence), English, the first two turns of each conversation.
    """
    if options.language != "english":
        raise ConfigError(f"task replies is English only, not {options.language!r}: task topics has other languages")
    sides: tuple[list[Example], list[Example]] = ([], [])
    pairs = own_replies(read_corpus("english"))
    for topic in sorted(pairs):
        shuffled = sorted(pairs[topic], key=lambda pair: order_key(options.split_seed, *pair))
        cut = round(DEV_SHARE * len(shuffled))
        for side, part in zip(sides, (shuffled[cut:], shuffled[:cut]), strict=True):
            side += positives_and_negatives(part)
    train, dev = (sorted(side, key=lambda row: order_key(options.split_seed, *row[0], str(row[1]))) for side in sides)
    return TaskData("replies", "classification", "accuracy", LABELS, _split_of(train), {"dev": _split_of(dev)}, ())


Example = tuple[tuple[str, str], float]


def own_replies(topics: dict[str, Conversations]) -> dict[str, list[tuple[str, str]]]:
    """For each topic its messages, each once, with the first reply that the corpus gives to no other message."""
    answered: dict[str, set[str]] = defaultdict(set)
    openings = [(topic, c) for topic, conversations in topics.items() for c in conversations if len(c) > 1]
    for _, (message, *later) in openings:
        # Some conversations list alternative replies as later turns.
        for reply in later:
            answered[normalise(reply)].add(normalise(message))
    pairs: dict[str, list[tuple[str, str]]] = defaultdict(list)
    seen: set[str] = set()
    for topic, (message, reply, *_) in openings:
        key = normalise(message)
        own = len(answered[normalise(reply)]) == 1 and normalise(reply) not in ("", key)
        if key and own and key not in seen:
            seen.add(key)
            pairs[topic].append((message, reply))
    return pairs


def positives_and_negatives(pairs: list[tuple[str, str]]) -> list[Example]:
    """Each message with its own reply and with the next message's; nothing for a single pair.

    >>> positives_and_negatives([("a", "A"), ("b", "B")])
    [(('a', 'A'), 1.0), (('a', 'B'), 0.0), (('b', 'B'), 1.0), (('b', 'A'), 0.0)]
    """
    if len(pairs) < 2:
        return []
    nexts = [*pairs[1:], pairs[0]]
    return [
        example
        for (message, own), (_, other) in zip(pairs, nexts, strict=True)
        for example in (((message, own), 1.0), ((message, other), 0.0))
    ]


def _split_of(examples: list[Example]) -> Split:
    """Texts and targets side by side."""
    return Split(tuple(texts for texts, _ in examples), tuple(target for _, target in examples))
