"""Token ids, against the tokenizer called on one example at a time."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import ByteLevelBPETokenizer, Regex, pre_tokenizers
from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaModel

from noisytune._pretrained import Model
from noisytune.errors import ConfigError, DataError, RunFolderError
from noisytune.lab.kinds import KINDS
from noisytune.lab.tasks import Split, TaskData, TaskOptions, load_task
from noisytune.lab.trials.arm import PLAIN
from noisytune.lab.trials.settings import TrainingSettings
from noisytune.lab.trials.tokens import Tokens, cache_name, load_tokenizer, tokenise
from noisytune.lab.trials.transformers_runner import TransformersRunner
from noisytune.lab.trials.trial import Trial


@pytest.fixture(scope="module")
def replies() -> TaskData:
    return load_task("replies", TaskOptions(train_size=30, dev_size=20))


def test_every_example_is_what_the_tokenizer_makes_of_it_alone(tiny: Model, replies: TaskData) -> None:
    tokens, tokenizer = tokenise(tiny.path, replies, 16), load_tokenizer(tiny.path)
    assert len(tokens.train) == len(replies.train)
    for split, raw in ((tokens.train, replies.train), (tokens.evaluate["dev"], replies.dev)):
        assert split.lengths == [len(split.row(i)["input_ids"]) for i in range(len(split))]
        for i, texts in enumerate(raw.texts):
            alone = tokenizer(*texts, truncation=True, max_length=16)
            assert split.row(i)["input_ids"] == alone["input_ids"]
            assert split.row(i)["token_type_ids"] == alone["token_type_ids"]
        assert tuple(split.targets) == raw.targets
    assert {1} <= set(tokens.train.inputs["token_type_ids"].values.tolist())
    assert any("reach max_length 16" in notice for notice in tokens.notices)


def test_tokens_survive_the_file(tmp_path: Path, tiny: Model, replies: TaskData) -> None:
    for task in (replies, as_regression(replies)):
        made = tokenise(tiny.path, task, 32)
        file = tmp_path / cache_name(tiny.digest, task.digest, 32)
        made.write(file)
        back = Tokens.read(file)
        assert back.notices == made.notices
        for one, other in ((made.train, back.train), (made.evaluate["dev"], back.evaluate["dev"])):
            assert [one.row(i) for i in range(one.rows)] == [other.row(i) for i in range(other.rows)]
            assert one.targets.tolist() == other.targets.tolist()
    assert len(list(tmp_path.iterdir())) == 2


def test_the_cache_knows_what_the_tokens_depend_on(tiny: Model, replies: TaskData) -> None:
    fewer = replace(replies, train=replies.train.take(range(10)))
    names = [
        cache_name(tiny.digest, replies.digest, 32),
        cache_name("other", replies.digest, 32),
        cache_name(tiny.digest, fewer.digest, 32),
        cache_name(tiny.digest, replies.digest, 33),
    ]
    assert len(set(names)) == len(names)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_bytes(b"\x08\0\0\0\0\0\0\0{}")
    with pytest.raises(RunFolderError, match="tokens"):
        Tokens.read(tmp_path / "tokens")


def test_a_file_that_was_given_another_name_is_not_believed(tmp_path: Path, tiny_tokens: Tokens) -> None:
    tiny_tokens.write(tmp_path / "tokens-of-one-task")
    (tmp_path / "tokens-of-one-task").rename(tmp_path / "tokens-of-another")
    with pytest.raises(RunFolderError, match="written as tokens-of-one-task"):
        Tokens.read(tmp_path / "tokens-of-another")


def test_more_tokens_than_positions_are_refused(tiny: Model, topics: TaskData) -> None:
    with pytest.raises(ConfigError, match="only 64 positions"):
        tokenise(tiny.path, topics, 65)


@pytest.mark.parametrize("pad", [0, 1, 5])
def test_the_limit_is_what_a_model_like_roberta_can_take(
    tmp_path: Path, tiny: Model, topics: TaskData, pad: int
) -> None:
    """Its tokenizer says nothing; the reference is the model itself, called on texts without padding."""
    config = RobertaConfig(
        vocab_size=30522,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        max_position_embeddings=66,
        pad_token_id=pad,
    )
    model = RobertaModel(config)
    model.save_pretrained(tmp_path)
    for name in ("tokenizer.json", "vocab.txt", "special_tokens_map.json"):
        shutil.copy(tiny.path / name, tmp_path)
    settings = json.loads((tiny.path / "tokenizer_config.json").read_text())
    del settings["model_max_length"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    limit = 66 - pad - 1
    with torch.no_grad():
        model(torch.full((1, limit), 9))
        with pytest.raises((IndexError, RuntimeError), match="index"):
            model(torch.full((1, limit + 1), 9))
    tokenise(tmp_path, topics, limit)
    with pytest.raises(ConfigError, match=f"only {limit} positions; give max_length={limit}"):
        tokenise(tmp_path, topics, limit + 1)


def test_an_empty_split_of_columns_is_refused(tiny: Model, topics: TaskData) -> None:
    three = Split((("a", "b", "c"),), (0.0,))
    with pytest.raises(DataError, match="one or two"):
        tokenise(tiny.path, replace(topics, train=three), 16)


def test_a_tokenizer_without_padding_pads_with_the_end_token(tmp_path: Path, tiny: Model, topics: TaskData) -> None:
    folder = Path(shutil.copytree(tiny.path, tmp_path / "m"))
    (folder / "special_tokens_map.json").unlink()
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings |= {"pad_token": None, "eos_token": "[SEP]", "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    assert load_tokenizer(folder).pad_token == "[SEP]"
    assert any("[SEP]" in notice for notice in tokenise(folder, topics, 16).notices)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"eos_token": None}))
    with pytest.raises(DataError, match="no padding token"):
        load_tokenizer(folder)


@pytest.mark.parametrize("in_sequence", [False, True])
def test_words_of_tagged_sentences_are_those_of_the_running_text(in_sequence: bool) -> None:
    """Byte-level tokenizers write the space before a word into it, also where they split numbers off first."""
    bpe = ByteLevelBPETokenizer()
    words = ("Anna", "lives", "in", "Oslo")
    bpe.train_from_iterator([" ".join(words)] * 9, 320, special_tokens=["<pad>"], show_progress=False)
    if in_sequence:
        numbers = pre_tokenizers.Split(Regex(r"\d"), "isolated")
        bytewise = pre_tokenizers.ByteLevel(add_prefix_space=False)
        bpe._tokenizer.pre_tokenizer = pre_tokenizers.Sequence([numbers, pre_tokenizers.Sequence([bytewise])])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, pad_token="<pad>", eos_token="<pad>")
    running = tokenizer(" " + " ".join(words), add_special_tokens=False)["input_ids"]
    data = KINDS["tagging"].encode(tokenizer, Split((words,), ((0.0,) * 4,)), 32, None, "here")
    assert data.inputs["input_ids"][0].tolist() == running


def test_tokens_of_chats_are_made_anew_for_another_template(
    tmp_path: Path, language_models: dict[str, Model], topics: TaskData
) -> None:
    """The template and the end of answers have files of their own, which go with the model to other machines."""
    folder = Path(shutil.copytree(language_models["llama"].path, tmp_path / "m"))
    model, training = Model.find(str(folder)), TrainingSettings(max_length=32).for_model(Model.find(str(folder)))
    trial = Trial.resolve(model, topics, PLAIN, 0, training)
    runner = TransformersRunner.of(model, 32, tmp_path / "cache")
    names = {file.name for file in runner.needs([trial])["model"]}
    assert {"chat_template.jinja", "generation_config.json", "model.safetensors", "tokenizer.json"} <= names
    before = runner._tokens_of(trial)
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    assert runner._tokens_of(trial) != before


def test_a_model_without_tokenizer_is_not_trained_on_unknown_words(
    tmp_path: Path, tiny: Model, topics: TaskData
) -> None:
    for name in ("config.json", "model.safetensors"):
        shutil.copy(tiny.path / name, tmp_path)
    with pytest.raises(DataError, match="tokenizer") as caught:
        tokenise(tmp_path, topics, 16)
    assert "\n" not in str(caught.value)


def as_regression(task: TaskData) -> TaskData:
    """The same texts with values to predict."""
    return replace(task, kind="regression", metric="pearson", labels=())


def with_texts(task: TaskData, *texts: str) -> TaskData:
    return replace(task, train=Split(tuple((text,) for text in texts), (0.0, 1.0) * (len(texts) // 2)))


def test_marks_of_the_model_in_a_text_are_text(tiny: Model, topics: TaskData) -> None:
    tokens = tokenise(tiny.path, with_texts(topics, "a [SEP] film", "[CLS] [MASK] [PAD]"), 16)
    marks = set(load_tokenizer(tiny.path).all_special_ids)
    for row in tokens.train.inputs["input_ids"]:
        assert [int(i) in marks for i in row] == [True, *[False] * (len(row) - 2), True]


def test_a_tokenizer_larger_than_the_embedding_is_refused(tmp_path: Path, tiny: Model, topics: TaskData) -> None:
    folder = Path(shutil.copytree(tiny.path, tmp_path / "m"))
    settings = json.loads((folder / "config.json").read_text()) | {"vocab_size": 20_000}
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(DataError, match="embedding has 20000 rows"):
        tokenise(folder, with_texts(topics, "antidisestablishmentarianism zhou", "zhou zhou"), 16)


def test_a_library_that_a_tokenizer_needs_is_named(monkeypatch: pytest.MonkeyPatch, tiny: Model) -> None:
    from transformers import AutoTokenizer

    def fail(*_: object, **__: object) -> None:
        raise ImportError("\nXLNetTokenizer requires the SentencePiece library but it was not found")

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", fail)
    monkeypatch.setattr("noisytune.lab.trials.tokens.find_spec", lambda _: None)
    with pytest.raises(DataError, match="pip install sentencepiece") as caught:
        load_tokenizer(tiny.path)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_that_is_not_the_one_of_its_file_is_told(tmp_path: Path, tiny: Model, topics: TaskData) -> None:
    """transformers builds some classes anew from their settings, and releases of it have done so wrongly."""
    assert not any("makes other tokens" in notice for notice in tokenise(tiny.path, topics, 16).notices)
    folder = Path(shutil.copytree(tiny.path, tmp_path / "m"))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"do_lower_case": False}))
    (told,) = (notice for notice in tokenise(folder, topics, 16).notices if "makes other tokens" in notice)
    assert "tokenizer.json says (BertTokenizer)" in told
