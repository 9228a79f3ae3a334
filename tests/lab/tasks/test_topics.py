"""The task of topics, on the real corpus."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest

from noisytune.errors import DataError, MissingExtraError
from noisytune.lab.tasks import TaskOptions, load_task
from noisytune.lab.tasks._corpus import languages, messages, normalise, read_corpus
from noisytune.lab.tasks.topics import MIN_MESSAGES

pytest.importorskip("chatterbot_corpus", reason="the demo extra is not installed")

LANGUAGES = ["english", "chinese", "persian", "italian", "hebrew"]


def sides(task):
    return [
        {normalise(text): target for (text,), target in zip(s.texts, s.targets, strict=True)}
        for s in (task.train, task.dev)
    ]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("seed", [0, 1])
def test_balanced_and_without_repetition(language, seed):
    task = load_task("topics", TaskOptions(language=language, split_seed=seed))
    for split in (task.train, task.dev):
        counts = Counter(split.targets)
        assert set(counts) == set(map(float, range(len(task.labels))))
        assert len(set(counts.values())) == 1
        assert min(counts.values()) >= MIN_MESSAGES
    train, dev = sides(task)
    assert len(train) + len(dev) == len(task.train) + len(task.dev)
    assert task.majority == pytest.approx(1 / len(task.labels))


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_message_belongs_to_its_topic_and_to_no_other(language):
    task = load_task("topics", TaskOptions(language=language))
    topics_of = defaultdict(set)
    for topic, conversations in read_corpus(language).items():
        for conversation in conversations:
            for message in conversation:
                topics_of[normalise(message)].add(topic)
    for side in sides(task):
        for message, target in side.items():
            assert topics_of[message] == {task.labels[int(target)]}


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_conversation_is_on_both_sides(language):
    train, dev = sides(load_task("topics", TaskOptions(language=language)))
    for conversations in read_corpus(language).values():
        for conversation in conversations:
            keys = {normalise(message) for message in conversation}
            assert not (keys & set(train) and keys & set(dev))


def test_the_default_task_is_as_announced():
    task = load_task("topics")
    assert task.name == "topics"
    assert task.labels == ("ai", "coding", "emotion", "psychology", "trivia")
    assert (len(task.train), len(task.dev)) == (265, 330)
    assert load_task("topics").digest == task.digest
    other = load_task("topics", TaskOptions(split_seed=1))
    assert other.digest != task.digest
    assert other.labels == task.labels


def test_a_language_with_too_little_names_those_that_work():
    with pytest.raises(DataError, match="'thai' has fewer than two topics") as caught:
        load_task("topics", TaskOptions(language="thai"))
    offered = str(caught.value).partition("languages that work: ")[2].split(", ")
    assert {"english", "german", "spanish"} <= set(offered) < set(languages())
    for language in offered:
        assert len(load_task("topics", TaskOptions(language=language)).labels) >= 2


def test_an_unknown_language_names_the_languages():
    with pytest.raises(DataError, match=r"no language 'klingon'.*english"):
        load_task("topics", TaskOptions(language="klingon"))


def test_a_missing_corpus_names_the_extra(monkeypatch):
    monkeypatch.setattr("noisytune.errors.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'noisytune\[demo\]'"):
        load_task("topics")


def test_odd_shapes_in_the_corpus_are_read_as_text():
    assert list(messages("lone")) == ["lone"]
    assert list(messages([["a", ["b "]], None, {"k": "v"}, "  ", "c\n d"])) == ["a", "b", "c d"]


def test_odd_files_in_the_corpus(tmp_path, monkeypatch):
    folder = tmp_path / "klingon"
    folder.mkdir()
    (folder / "no.yml").write_text("categories: [x]\n")
    (folder / "list.yml").write_text("- a\n- b\n")
    (folder / "facts.yml").write_text("conversations:\n- - When?\n  - 1963\n- - Is it?\n  - No\n- lone\n- []\n")
    monkeypatch.setattr("noisytune.lab.tasks._corpus.corpus_folder", lambda: tmp_path)
    assert read_corpus("klingon") == {
        "no": [],
        "list": [],
        "facts": [("When?", "1963"), ("Is it?", "No"), ("lone",)],
    }
    (folder / "broken.yml").write_text("conversations: [")
    with pytest.raises(DataError, match=r"broken\.yml: not YAML"):
        read_corpus("klingon")


def test_normalising_keeps_the_vowel_signs_that_tell_words_apart():
    assert normalise("की") != normalise("का")
    assert normalise("Who  is\tHAL?!") == "who is hal"
