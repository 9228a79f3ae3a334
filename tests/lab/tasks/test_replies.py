"""The task of replies, on the real corpus."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest

from noisytune.errors import ConfigError
from noisytune.lab.tasks import TaskOptions, load_task
from noisytune.lab.tasks._corpus import normalise, read_corpus
from noisytune.lab.tasks.replies import own_replies

pytest.importorskip("chatterbot_corpus", reason="the demo extra is not installed")


@pytest.fixture(scope="module", params=[0, 1])
def task(request):
    return load_task("replies", TaskOptions(split_seed=request.param))


@pytest.fixture(scope="module")
def answers():
    """Message -> every text that the corpus gives after it, at any turn, in any topic."""
    found = defaultdict(set)
    for conversations in read_corpus("english").values():
        for message, *later in conversations:
            found[normalise(message)] |= set(map(normalise, later))
    return found


def rows(split):
    return [(*map(normalise, texts), target) for texts, target in zip(split.texts, split.targets, strict=True)]


def test_positives_are_the_corpus_s_own_replies_and_negatives_never_are(task, answers):
    for split in (task.train, task.dev):
        for message, reply, target in rows(split):
            assert (reply in answers[message]) == bool(target)


def test_negatives_are_replies_within_the_same_topic(task):
    topics_of = defaultdict(set)
    for topic, conversations in read_corpus("english").items():
        for conversation in conversations:
            for text in conversation:
                topics_of[normalise(text)].add(topic)
    for split in (task.train, task.dev):
        assert all(topics_of[message] & topics_of[reply] for message, reply, _ in rows(split))


def test_neither_the_message_nor_the_reply_alone_gives_the_label_away(task):
    for split in (task.train, task.dev):
        for column in (0, 1):
            counts = Counter((row[column], row[2]) for row in rows(split))
            assert all(counts[text, 0.0] == counts[text, 1.0] == 1 for text, _ in counts)


def test_no_message_and_no_reply_is_on_both_sides(task):
    train, dev = rows(task.train), rows(task.dev)
    for column in (0, 1):
        assert not {row[column] for row in train} & {row[column] for row in dev}


def test_size_and_determinism(task):
    assert len(task.train) >= 512
    assert len(task.dev) >= 400
    assert task.majority == 0.5
    assert load_task("replies").digest == load_task("replies").digest
    assert load_task("replies").digest != load_task("replies", TaskOptions(split_seed=1)).digest


def test_a_reply_to_two_messages_is_not_used_and_a_message_once():
    conversations = [
        ("Are you well?", "Yes."),
        ("Can you swim?", "yes"),
        ("Who wrote it?", "Yes", "Pynchon", "Unknown"),
        ("who wrote it", "Unknown"),
        ("who wrote it", "A poet"),
        ("What is tea?", "what is tea"),
        ("What is tea?", "A drink", "Unknown"),
    ]
    assert own_replies({"facts": conversations}) == {"facts": [("who wrote it", "A poet"), ("What is tea?", "A drink")]}


def test_other_languages_are_refused():
    with pytest.raises(ConfigError, match="English only"):
        load_task("replies", TaskOptions(language="german"))
