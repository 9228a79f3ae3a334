"""A trial's settings and what they are called."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import pytest

from noisytune._settings import later, number, whole
from noisytune.errors import ConfigError
from noisytune.lab.studies.study import Study
from noisytune.lab.trials.arm import PLAIN, Arm, methods_of
from noisytune.lab.trials.settings import TrainingSettings
from noisytune.lab.trials.trial import Trial
from noisytune.methods import make
from noisytune.methods.rdrop import RDrop


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("epochs", 1.5),
        ("epochs", None),
        ("epochs", True),
        ("batch_size", 0),
        ("max_steps", -1),
        ("max_length", 3),
        ("learning_rate", 0),
        ("learning_rate", float("nan")),
        ("learning_rate", "fast"),
        ("weight_decay", -0.1),
        ("warmup", 1.0),
        ("warmup", -0.1),
        ("max_grad_norm", float("inf")),
        ("schedule", "cosines"),
        ("select", "first"),
        ("protocol", "dirty"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=name) as caught:
        TrainingSettings(**{name: value})
    assert repr(value) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_survive_a_round_trip() -> None:
    settings = TrainingSettings(epochs=2, learning_rate=1e-4, warmup=0.1, max_steps=7)
    assert TrainingSettings.from_dict(settings.to_dict()) == settings


def test_arms_that_differ_are_named_differently() -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"noise_lambda": 0.1},
        {"noise_lambda": 1.0},
        {"noise_lambda": 1e-05},
        {"noise_lambda": 0.12345678},
        {"noise_lambda": 0.1234568},
        {"distribution": "gaussian"},
        {"scale": "global"},
        {"distribution": "gaussian", "scale": "global"},
        {"scope": "all"},
        {"include": "*query*"},
        {"exclude": "*query*"},
        {"exclude": ("*query*", "*key*")},
    ]
    arms = [Arm.of(make("noisytune", change)) for change in changes]
    assert len({arm.name for arm in arms}) == len(changes)
    names = {arm.name for arm in arms}
    assert names > {
        "noisytune(0.15)",
        "noisytune(1)",
        "noisytune(1e-05)",
        "noisytune(0.15, distribution=gaussian, scale=global)",
    }
    for arm, change in zip(arms, changes, strict=True):
        assert Arm.parse(arm.name) == arm
        assert methods_of(arm.methods) == (make("noisytune", change),)


def test_every_setting_decides_the_key(tiny_study: Study) -> None:
    model, task, training = tiny_study.model, tiny_study.tasks[0], tiny_study.training
    trial = Trial.resolve(model, task, PLAIN, 0, training)
    noisy = Arm.parse("noisytune")
    others = [
        Trial.resolve(model, task, PLAIN, 1, training),
        Trial.resolve(model, task, noisy, 0, training),
        Trial.resolve(replace(model, digest="0" * 16), task, PLAIN, 0, training),
        Trial.resolve(model, replace(task, train=task.train.take(range(20))), PLAIN, 0, training),
    ]
    changed: dict[str, Any] = {
        "epochs": 2,
        "learning_rate": 2e-3,
        "batch_size": 4,
        "max_length": 16,
        "warmup": 0.2,
        "weight_decay": 0.02,
        "max_grad_norm": 2.0,
        "max_steps": 3,
        "select": "best",
        "protocol": "clean",
        "schedule": "cosine",
        "keep_head": True,
        "head_seed": 3,
        "optimizer": "SGD",
        "logging": 5,
        "precision": "bf16",
        "gradient_accumulation": 2,
        "gradient_checkpointing": True,
        "attention": "eager",
        "compile": True,
        "lora": "r=8",
        "quantize": "nf4",
    }
    needs = {"quantize": {"lora": "r=8"}}
    assert set(changed) == {field.name for field in fields(TrainingSettings)}
    for name, value in changed.items():
        settings = needs.get(name, {}) | {name: value}
        others.append(Trial.resolve(model, task, PLAIN, 0, replace(training, **settings)))
    keys = [trial.key, *(other.key for other in others)]
    assert len(set(keys)) == len(keys)


def test_equal_settings_give_equal_keys(tiny_study: Study) -> None:
    def key(training: TrainingSettings) -> str:
        return Trial.resolve(tiny_study.model, tiny_study.tasks[0], PLAIN, 0, training).key

    assert key(TrainingSettings(learning_rate=1, weight_decay=0)) == key(
        TrainingSettings(learning_rate=1.0, weight_decay=0.0)
    )


def test_the_primary_metric_decides_the_key_only_where_it_chooses_the_epoch(tiny_study: Study) -> None:
    other = replace(tiny_study, tasks=(replace(tiny_study.tasks[0], metric="macro_f1"),))
    assert [t.key for t in other.plan] == [t.key for t in tiny_study.plan]
    best = replace(tiny_study.training, select="best")
    one, two = (replace(study, training=best) for study in (tiny_study, other))
    assert not {t.key for t in one.plan} & {t.key for t in two.plan}


@dataclass(frozen=True, kw_only=True)
class LaterSettings(TrainingSettings):
    """As a later version might have them."""

    freeze: int = later(whole(0, "Keep this many layers.", ">= 0", lambda n: n >= 0))


def test_a_setting_that_is_added_later_changes_no_key_until_it_is_used(tiny_study: Study) -> None:
    task, model = tiny_study.tasks[0], tiny_study.model
    key = Trial.resolve(model, task, PLAIN, 0, TrainingSettings()).key
    assert Trial.resolve(model, task, PLAIN, 0, LaterSettings()).key == key
    changed = Trial.resolve(model, task, PLAIN, 0, LaterSettings(freeze=2))
    assert changed.key != key
    assert LaterSettings.from_dict(changed.settings["training"]).freeze == 2


def test_a_setting_that_a_method_gets_later_changes_no_key_until_it_is_used() -> None:
    @dataclass(frozen=True)
    class Method(RDrop):
        taper: float = later(number(1.0, "a setting of a later version", "> 0", lambda x: x > 0))

    assert Arm.of(Method()) == Arm.of(RDrop())
    assert Arm.of(Method(taper=0.5)).methods[0] == {**Arm.of(RDrop()).methods[0], "taper": 0.5}
