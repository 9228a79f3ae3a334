"""Language models: what is learnt, what a completion costs, what is generated, on tiny models of many architectures."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import AddedToken
from torchmetrics.functional.text import squad
from transformers import AutoModelForCausalLM

from noisytune._metrics import direction, score
from noisytune._metrics.language import CHOICE, COLUMNS, NLL, TOKENS
from noisytune._pretrained import Model, default_model
from noisytune.errors import ConfigError, DataError
from noisytune.lab.kinds import KINDS, Split
from noisytune.lab.kinds.language.generate import answers, stops_of
from noisytune.lab.kinds.language.rows import last_completion, rows_of
from noisytune.lab.tasks import TaskData, TaskOptions, task_from_rows
from noisytune.lab.trials.arm import PLAIN, Arm
from noisytune.lab.trials.evaluate import Evaluator
from noisytune.lab.trials.fine_tune import check_arms, run_trial
from noisytune.lab.trials.settings import TrainingSettings
from noisytune.lab.trials.tokens import Tokens, load_tokenizer, tokenise
from noisytune.lab.trials.trial import Trial
from noisytune.records import TrialRecord
from tests.support.language_models import MORE, save_language_model
from tests.support.trials import noisy

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    # Said by transformers of models that it computes without their own kernels.
    pytest.mark.filterwarnings("ignore:.*reference PyTorch implementation.*"),
]

TRAINING = TrainingSettings(max_steps=2, batch_size=8, learning_rate=1e-3, max_length=96)
NUMBERS = ("one", "two", "three", "four", "five", "six")
KIND = KINDS["language"]


def chats(n: int) -> list[dict[str, Any]]:
    said = [NUMBERS[i % 6] for i in range(n)]
    return [
        {
            "messages": [
                {"role": "user", "content": f"say {word} {i}"},
                {"role": "assistant", "content": word},
                {"role": "user", "content": "again"},
                {"role": "assistant", "content": f"{word} {word}"},
            ]
        }
        for i, word in enumerate(said)
    ]


@pytest.fixture(scope="module")
def task() -> TaskData:
    return task_from_rows(chats(24), TaskOptions(metric="exact_match", max_new_tokens=4))


@pytest.fixture(scope="module")
def tokens(language_models: dict[str, Model], task: TaskData) -> Tokens:
    return tokenise(language_models["llama"].path, task, TRAINING.max_length)


def parts(tokenizer: Any, ids: Any, labels: Any) -> list[tuple[bool, str]]:
    """What is learnt of a row, and what is not, in turn."""
    runs = groupby(zip(ids, labels, strict=True), lambda pair: pair[1] != -100)
    return [(learnt, tokenizer.decode([int(token) for token, _ in run])) for learnt, run in runs]


def assert_same(one: TrialRecord, other: TrialRecord) -> None:
    """Bit for bit; NaN is itself."""
    assert (one.loss_curve, one.scores, one.evaluations) == (other.loss_curve, other.scores, other.evaluations)
    for name, array in one.outputs.items():
        np.testing.assert_array_equal(array, other.outputs[name])


def loaded(model: Model) -> Any:
    return AutoModelForCausalLM.from_pretrained(model.path, dtype=torch.float32).eval()


def evaluator(model: Model, task: TaskData) -> Evaluator:
    tokenizer = load_tokenizer(model.path)
    about = {"kind": "language", "labels": [], "reading": task.reading}
    return Evaluator(KIND, (), None, KIND.collate(tokenizer), 5).of(about, tokenizer)


@pytest.mark.parametrize("architecture", MORE)
def test_every_architecture_trains_and_answers(
    architecture: str, language_models: dict[str, Model], task: TaskData
) -> None:
    model = language_models[architecture]
    tokens = tokenise(model.path, task, TRAINING.max_length)
    plain, zero = (
        run_trial(Trial.resolve(model, task, arm, 1, TRAINING), model.path, tokens) for arm in (PLAIN, noisy(0))
    )
    assert len(plain.loss_curve) == 2
    assert set(plain.scores) == {"nll", "perplexity", "exact_match", "answer_f1"}
    assert plain.scores["perplexity"] == pytest.approx(np.exp(plain.scores["nll"]))
    assert_same(plain, zero)
    assert set(plain.evaluations["elsewhere"]["scores"]) == {"nll", "perplexity"}
    before = plain.evaluations["elsewhere"]["before"]
    assert before["nll"] != plain.evaluations["elsewhere"]["scores"]["nll"]


@pytest.mark.parametrize("architecture", MORE)
def test_batched_answers_are_those_of_one_prompt_at_a_time(
    architecture: str, language_models: dict[str, Model]
) -> None:
    model, rng = loaded(language_models[architecture]), np.random.default_rng(0)
    prompts = [rng.integers(3, 320, n).tolist() for n in (3, 11, 1, 6)]
    alone = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        said = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=6, pad_token_id=0
        )
        alone.append([token for token in said[0, len(prompt) :].tolist() if token not in (*stops_of(model), 0)])
    assert answers(model, prompts, 6, 0) == alone


def test_the_likelihood_is_that_of_hand_and_of_transformers(
    language_models: dict[str, Model], task: TaskData, tokens: Tokens
) -> None:
    model, dev = loaded(language_models["llama"]), tokens.evaluate["dev"]
    found = evaluator(language_models["llama"], task)(model, {"dev": dev})["dev"]
    for i in range(len(dev)):
        row = dev.row(i)
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor([row["labels"]])
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0].double()
            own = model(input_ids=ids, labels=labels).loss
        by_hand = sum(
            float(torch.logsumexp(logits[t - 1], 0) - logits[t - 1, token])
            for t, token in enumerate(row["labels"])
            if token != -100
        )
        items = found.outputs["items"][i]
        assert items[TOKENS] == sum(token != -100 for token in row["labels"])
        assert items[NLL] == pytest.approx(by_hand, rel=1e-5)
        assert items[NLL] / items[TOKENS] == pytest.approx(float(own), rel=1e-5)
    pooled = found.outputs["items"][:, NLL].sum() / found.outputs["items"][:, TOKENS].sum()
    assert found.scores["nll"] == pytest.approx(pooled)
    assert direction("language", "nll") == -1


def test_generated_answers_are_scored_as_squad_does(
    language_models: dict[str, Model], task: TaskData, tokens: Tokens
) -> None:
    tokenizer, dev = load_tokenizer(language_models["llama"].path), tokens.evaluate["dev"]
    gold = [texts[-1] for texts in task.dev.texts]
    said = [(text, f"the {text}", text.split()[0], "none of it", "")[i % 5] for i, text in enumerate(gold)]
    outputs = [np.array([1.0, 2.0, *tokenizer(text, add_special_tokens=False)["input_ids"]]) for text in said]
    kind = evaluator(language_models["llama"], task).kind
    status, table = kind.judge(outputs, dev, None)
    found = score("language", kind.items(table, dev, ()))
    given = [{"id": f"{i}", "answers": {"text": [text], "answer_start": [0]}} for i, text in enumerate(gold)]
    told = squad([{"id": f"{i}", "prediction_text": text} for i, text in enumerate(said)], given)
    assert status == "ok"
    assert 0 < found["exact_match"] < found["answer_f1"] < 1
    assert {key: float(told[key]) / 100 for key in told} == pytest.approx(
        {"exact_match": found["exact_match"], "f1": found["answer_f1"]}
    )
    assert kind.judge([np.array([1.0, 2.0, 5.0])] * len(dev), dev, None)[0] == "collapsed"


def test_all_turns_of_the_assistant_are_learnt_and_nothing_else(language_models: dict[str, Model]) -> None:
    tokenizer = load_tokenizer(language_models["llama"].path)
    texts, roles = ("say one", "one", "again", "one one"), ("user", "assistant", "user", "assistant")
    data = KIND.encode(tokenizer, Split((texts,), (roles,)), 96, None, "here")
    (labels,) = KIND.labels(data, None)
    learnt = tokenizer.decode([token for token in labels if token != -100])
    assert learnt == "one<|end|>\none one<|end|>\n"
    given = KIND.encode(tokenizer, Split((texts,), (("user", "assistant, given", *roles[2:]),)), 96, None, "here")
    (labels,) = KIND.labels(given, None)
    assert tokenizer.decode([token for token in labels if token != -100]) == "one one<|end|>\n"


def test_a_system_prompt_of_the_templates_own_is_not_learnt(language_models: dict[str, Model]) -> None:
    """Of a chat that begins with the assistant, as sharegpt's often do."""
    tokenizer = load_tokenizer(language_models["llama"].path)
    tokenizer.chat_template = "<|start|>system\none two<|end|>\n" + tokenizer.chat_template
    texts, roles = ("say one", "again", "one one"), ("assistant", "user", "assistant")
    data = KIND.encode(tokenizer, Split((texts,), (roles,)), 96, None, "here")
    (labels,) = KIND.labels(data, None)
    assert tokenizer.decode([token for token in labels if token != -100]) == "say one<|end|>one one<|end|>\n"


def test_a_template_that_rewrites_earlier_turns(language_models: dict[str, Model]) -> None:
    """As those do that leave what a model thought out of all turns but the last."""
    tokenizer = load_tokenizer(language_models["llama"].path)
    tokenizer.chat_template = (
        "{% for m in messages %}<|start|>{{ m.role }}\n{% if m.role == 'assistant' and loop.last %}<think></think>"
        "{% endif %}{{ m.content }}<|end|>\n{% endfor %}{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
    )
    texts = ("say one two", "one", "again: one one or two", "one one")
    data = KIND.encode(tokenizer, Split((texts,), (("user", "assistant") * 2,)), 128, None, "here")
    row, (labels,) = data.row(0), KIND.labels(data, None)
    assert parts(tokenizer, row["input_ids"], labels) == [
        (False, "<|start|>user\nsay one two<|end|>\n<|start|>assistant\n"),
        (True, "one<|end|>"),
        (False, "\n<|start|>user\nagain: one one or two<|end|>\n<|start|>assistant\n<think></think>"),
        (True, "one one<|end|>\n"),
    ]


@pytest.mark.parametrize(
    "written",
    [
        "{% if m.role == 'user' or loop.last %}<|start|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endif %}",
        "<|start|>{{ m.role }}\n{{ m.content if loop.last else m.content.split('</think>')[-1] }}<|end|>\n",
    ],
)
def test_a_turn_of_the_assistant_that_a_template_leaves_out(written: str, language_models: dict[str, Model]) -> None:
    """All of it, or what it thought."""
    tokenizer = load_tokenizer(language_models["llama"].path)
    tokenizer.chat_template = (
        f"{{% for m in messages %}}{written}{{% endfor %}}"
        "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
    )
    texts = ("say one two", "<think>one</think>one", "again", "one one")
    with pytest.raises(DataError, match="no place for a turn of the assistant, or for what it thought; leave it out"):
        rows_of(tokenizer, texts, ("user", "assistant") * 2, 128, "here")


def test_an_empty_thought_of_the_templates_own_is_no_part_of_the_answer(language_models: dict[str, Model]) -> None:
    """As Qwen3's, which generates after another prompt than it learns: what is learnt is a perfect answer."""
    model = language_models["llama"]
    task = task_from_rows(chats(12), TaskOptions(metric="exact_match"))
    kind = evaluator(model, task).kind
    kind.tokenizer.chat_template = (
        "{% for m in messages %}<|start|>{{ m.role }}\n{% if m.role == 'assistant' and loop.last %}<think></think>"
        "{% endif %}{{ m.content }}<|end|>\n{% endfor %}{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
    )
    dev = kind.encode(kind.tokenizer, task.dev, 128, None, "here")
    learnt = [row[last_completion(row) :] for row in dev.inputs["labels"]]
    said = [np.array([1.0, 2.0, *tokens.tolist()]) for tokens in learnt]
    kind = kind.for_split(dev)
    _, table = kind.judge(said, dev, None)
    assert score("language", kind.items(table, dev, ()))["exact_match"] == 1.0


def test_tokens_do_not_depend_on_the_day(language_models: dict[str, Model]) -> None:
    """As Llama 3.2's template writes it."""
    tokenizer = load_tokenizer(language_models["llama"].path)
    tokenizer.chat_template = (
        "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
        "{{ date_string }}" + tokenizer.chat_template
    )
    (row,) = rows_of(tokenizer, ("say", "one"), ("user", "assistant"), 96, "here")
    assert tokenizer.decode(row.ids).startswith("26 Jul 2024<|start|>user")


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_an_answer_ends_where_those_of_the_task_end(
    architecture: str, language_models: dict[str, Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A base model with a chat template names another end than its turns have."""
    task = task_from_rows(chats(12), TaskOptions(metric="exact_match"))
    model, end = loaded(language_models[architecture]), 2
    model.generation_config.eos_token_id = 0
    dev = tokenise(language_models[architecture].path, task, 96).evaluate["dev"]
    answers_of = {
        tuple(row["input_ids"][:i]): row["input_ids"][i:]
        for row in map(dev.row, range(len(dev)))
        for i in [last_completion(np.array(row["labels"]))]
    }

    def generate(*, input_ids: Any, attention_mask: Any, eos_token_id: list[int], **_: Any) -> Any:
        assert set(eos_token_id) == {0, end}
        said = []
        for ids, mask in zip(input_ids, attention_mask, strict=True):
            answer = answers_of[tuple(ids[mask.bool()].tolist())]
            answer = answer[: answer.index(end) + 1]
            said.append(ids.tolist() + answer + [7] * (20 - len(answer)))
        return torch.tensor(said)

    monkeypatch.setattr(model, "generate", generate)
    found = evaluator(language_models[architecture], task)(model, {"dev": dev})["dev"]
    assert found.scores["exact_match"] == 1.0


def test_a_completion_without_a_prompt(language_models: dict[str, Model]) -> None:
    tokenizer = load_tokenizer(language_models["llama"].path)
    (row,) = rows_of(tokenizer, ("", "one two"), ("prompt", "completion"), 32, "here")
    assert parts(tokenizer, row.ids, row.labels) == [(False, "<|start|>"), (True, "one two<|end|>")]
    tokenizer.bos_token = None
    with pytest.raises(DataError, match=r"here: its prompt is empty, .*; give a prompt"):
        rows_of(tokenizer, ("", "one two"), ("prompt", "completion"), 32, "here")


def test_long_examples_lose_the_beginning_of_their_prompt(language_models: dict[str, Model]) -> None:
    tokenizer = load_tokenizer(language_models["llama"].path)
    long = Split((("one two three four five six " * 9, "seven eight"), ("one", "two")), (("prompt", "completion"),) * 2)
    data = KIND.encode(tokenizer, long, 24, None, "here")
    whole = KIND.encode(tokenizer, long, 256, None, "here")
    assert max(data.lengths) == 24
    assert data.row(0)["input_ids"] == whole.row(0)["input_ids"][-24:]
    assert data.row(0)["labels"] == whole.row(0)["labels"][-24:]
    assert data.row(1) == whole.row(1)
    assert "1 of 2 dev examples" in KIND.about_lengths(data, 24, "dev")
    assert KIND.about_lengths(whole, 256, "dev") == ""
    text = KIND.encode(tokenizer, Split(((long.texts[0][0],),), (("text",),)), 24, None, "here")
    assert text.row(0)["input_ids"] == whole.row(0)["input_ids"][:24]
    with pytest.raises(DataError, match=r"completion has \d+ tokens, too many for max_length 4; give max_length=\d+"):
        KIND.encode(tokenizer, long, 4, None, "here")


def test_choices_are_compared_by_their_likelihood(language_models: dict[str, Model]) -> None:
    rows = [
        {"question": f"what is {word}", "choices": ["one", "two", "three"], "answer": i % 3}
        for i, word in enumerate(NUMBERS)
    ]
    task = task_from_rows(rows, TaskOptions(kind="language"), dev=rows)
    assert task.metric == "choice_accuracy"
    assert all(roles == ("prompt", "completion") for roles in task.train.targets)
    model = language_models["llama"]
    tokens = tokenise(model.path, task, 64)
    dev = tokens.evaluate["dev"]
    assert (len(dev), dev.rows) == (6, 18)
    found = evaluator(model, task)(loaded(model), {"dev": dev})["dev"]
    lm, right = loaded(model), []
    for i, row in enumerate(rows):
        costs = []
        for k in range(3):
            one = dev.row(3 * i + k)
            n = sum(token != -100 for token in one["labels"])
            loss = lm(input_ids=torch.tensor([one["input_ids"]]), labels=torch.tensor([one["labels"]])).loss
            costs.append(n * float(loss.detach()))
        right.append(float(np.argmin(costs) == row["answer"]))
        assert found.outputs["items"][i, NLL] == pytest.approx(costs[i % 3], rel=1e-5)
    assert found.outputs["items"][:, CHOICE].tolist() == right
    assert found.scores["choice_accuracy"] == pytest.approx(np.mean(right))
    record = run_trial(Trial.resolve(model, task, PLAIN, 0, TRAINING), model.path, tokens)
    assert "choice_accuracy" in record.scores


def test_groups_are_kept_with_the_examples(language_models: dict[str, Model]) -> None:
    rows = [row | {"who": f"user {i // 3}"} for i, row in enumerate(chats(30))]
    task = task_from_rows(rows, TaskOptions(group_column="who"))
    assert not set(task.train.groups) & set(task.dev.groups)
    model = language_models["llama"]
    tokens = tokenise(model.path, task, 96)
    record = run_trial(Trial.resolve(model, task, PLAIN, 0, TRAINING), model.path, tokens)
    numbers = {group: i for i, group in enumerate(dict.fromkeys(task.dev.groups))}
    assert record.outputs["dev/groups"].tolist() == [numbers[group] for group in task.dev.groups]


def test_tokens_survive_the_file(language_models: dict[str, Model], tokens: Tokens, tmp_path: Path) -> None:
    task = task_from_rows([row | {"who": i // 2} for i, row in enumerate(chats(12))], TaskOptions(group_column="who"))
    made = tokenise(language_models["llama"].path, task, 96)
    made.write(tmp_path / "tokens")
    back = Tokens.read(tmp_path / "tokens")
    dev, again = made.evaluate["dev"], back.evaluate["dev"]
    assert [dev.row(i) for i in range(dev.rows)] == [again.row(i) for i in range(again.rows)]
    assert np.array_equal(dev.groups, again.groups)
    few = tokens.train.take([3, 1])
    assert few.row(0) == tokens.train.row(3)


@pytest.mark.parametrize("arm", ["rdrop", "r3f", "noisytune+mixout", "neftune", "sam", "symnoise"])
def test_methods_work(arm: str, language_models: dict[str, Model], task: TaskData, tokens: Tokens) -> None:
    chosen, model = Arm.parse(arm), language_models["gpt2"]  # it has dropout
    trial = Trial.resolve(model, task, chosen, 0, TRAINING)
    check_arms(trial, model.path, [chosen.methods])
    assert run_trial(trial, model.path, tokens).status != "diverged"


def test_the_best_epoch_is_that_with_the_least_nll(language_models: dict[str, Model]) -> None:
    task, model = task_from_rows(chats(24)), language_models["llama"]
    how = replace(TRAINING, epochs=4, max_steps=None, learning_rate=0.1, select="best")
    record = run_trial(Trial.resolve(model, task, PLAIN, 0, how), model.path, tokenise(model.path, task, 96))
    scores = [score for score in record.epoch_scores if score is not None]
    assert record.scores["nll"] == pytest.approx(min(scores))
    assert min(scores) < max(scores)


def test_divergences_count_the_completions_tokens_alone(language_models: dict[str, Model], tokens: Tokens) -> None:
    data, collate = tokens.train.first(3), KIND.collate(load_tokenizer(language_models["llama"].path))
    inputs = collate([data.row(i) for i in range(3)])
    torch.manual_seed(0)
    one, other = (torch.randn(*inputs["input_ids"].shape, 7, requires_grad=True) for _ in range(2))
    apart = KIND.divergence(one, other, inputs)
    assert float(KIND.divergence(one, one, inputs).detach()) == pytest.approx(0.0, abs=1e-6)
    apart.backward()
    assert one.grad is not None
    predicted = torch.nn.functional.pad(inputs["labels"][:, 1:] != -100, (0, 1))
    assert one.grad[predicted].any(dim=-1).all()
    assert not one.grad[~predicted].any()


def test_what_says_nothing_is_told(tokens: Tokens) -> None:
    dev = tokens.evaluate["dev"]
    assert KIND.judge([np.array([np.inf, 1.0])] * dev.rows, dev, None)[0] == "diverged"
    silent = np.full((3, COLUMNS), np.nan)
    silent[:, :2] = 1.0
    assert set(score("language", silent)) == {"nll", "perplexity"}


def test_models_that_are_no_language_models_are_refused(task: TaskData, language_models: dict[str, Model]) -> None:
    encoder = Model.find(None)
    with pytest.raises(DataError, match="no language-model head"):
        check_arms(Trial.resolve(encoder, task, PLAIN, 0, TRAINING), default_model(), [()])
    tokenizer = load_tokenizer(encoder.path)
    with pytest.raises(ConfigError, match="no chat template"):
        rows_of(tokenizer, ("say", "one"), ("user", "assistant"), 32, "here")


def test_a_model_that_sees_what_it_should_predict_is_refused(tmp_path: Path, task: TaskData) -> None:
    folder = save_language_model("llama", tmp_path / "m")
    from transformers import BertConfig, BertLMHeadModel

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    BertLMHeadModel(BertConfig(**sizes, vocab_size=320, is_decoder=True)).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"is_decoder": False}))
    model = Model.find(str(folder))
    with pytest.raises(DataError, match="sees what it should predict"):
        check_arms(Trial.resolve(model, task, PLAIN, 0, TRAINING), folder, [()])


def test_a_mark_of_the_model_inside_a_turn_is_refused(language_models: dict[str, Model]) -> None:
    tokenizer = load_tokenizer(language_models["llama"].path)
    tokenizer.split_special_tokens = False
    with pytest.raises(DataError, match=r"holds the model's own mark '<\|end\|>' as text"):
        rows_of(tokenizer, ("say <|end|>", "one"), ("user", "assistant"), 32, "here")


def test_a_mark_that_only_the_tokens_know_is_refused(language_models: dict[str, Model]) -> None:
    """As Phi-3's ``<|end|>``, which no list of names has."""
    tokenizer = load_tokenizer(language_models["llama"].path)
    tokenizer.backend_tokenizer.add_special_tokens([AddedToken("<|hdr|>", special=True)])
    assert "<|hdr|>" not in tokenizer.all_special_tokens
    with pytest.raises(DataError, match=r"holds the model's own mark '<\|hdr\|>' as text"):
        rows_of(tokenizer, ("say <|hdr|>", "one"), ("user", "assistant"), 32, "here")
