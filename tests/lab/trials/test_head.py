"""A head that was fine-tuned before: a new one in its place, or its own with the classes mapped by name."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModel, AutoModelForSequenceClassification

from noisytune._pretrained import Model
from noisytune.errors import ConfigError
from noisytune.lab.studies.study import Study
from noisytune.lab.trials.arm import PLAIN
from noisytune.lab.trials.fine_tune import _load
from noisytune.lab.trials.head import about_head, is_fine_tuned
from noisytune.lab.trials.trial import Trial
from tests.support.tiny_models import save_model

KINDS_OF_HEADS = ("bert", "electra", "roberta", "xlnet")


def fine_tuned(folder: Path, architecture: str, labels: list[str]) -> Path:
    """A checkpoint with a head for these classes, and beside it the same body alone."""
    body = save_model(architecture, folder / "body", ["a few words to learn from", "and a few more"])
    named = dict(enumerate(labels))
    model = AutoModelForSequenceClassification.from_pretrained(
        body, id2label=named, label2id={label: i for i, label in named.items()}
    )
    shutil.copytree(body, folder / "whole")
    model.save_pretrained(folder / "whole")
    AutoModel.from_pretrained(folder / "whole").save_pretrained(body)
    return folder / "whole"


def trial_on(study: Study, folder: Path, seed: int = 0, **training: Any) -> Trial:
    model = Model(folder.name, folder, "0123456789abcdef")
    return Trial.resolve(model, study.tasks[0], PLAIN, seed, replace(study.training, **training))


@pytest.mark.parametrize("architecture", KINDS_OF_HEADS)
def test_a_new_head_is_the_one_that_the_body_alone_would_get(
    architecture: str, tmp_path: Path, tiny_study: Study
) -> None:
    from transformers import set_seed

    whole = fine_tuned(tmp_path, architecture, list(tiny_study.tasks[0].labels))
    heads = []
    for seed, folder in ((3, whole), (3, tmp_path / "body"), (4, whole)):
        set_seed(seed)
        heads.append(_load(trial_on(tiny_study, folder, seed), folder).state_dict())
    for name, tensor in heads[0].items():
        assert torch.equal(tensor, heads[1][name]), name
    assert any(not torch.equal(tensor, heads[2][name]) for name, tensor in heads[0].items())


@pytest.mark.parametrize("architecture", KINDS_OF_HEADS)
def test_a_kept_head_says_the_same_of_each_class(architecture: str, tmp_path: Path, tiny_study: Study) -> None:
    labels = list(tiny_study.tasks[0].labels)
    shuffled = [*labels[1:], labels[0]]
    whole = fine_tuned(tmp_path, architecture, shuffled)
    kept = _load(trial_on(tiny_study, whole, keep_head=True), whole)
    own = AutoModelForSequenceClassification.from_pretrained(whole).eval()
    ids = torch.arange(6, 14).reshape(2, 4)
    with torch.no_grad():
        ours, theirs = kept.eval()(input_ids=ids).logits, own(input_ids=ids).logits
    torch.testing.assert_close(ours, theirs[:, [shuffled.index(label) for label in labels]])
    assert [kept.config.id2label[i] for i in range(len(labels))] == labels


def test_only_what_changes_gets_another_key(tmp_path: Path, tiny: Model, tiny_study: Study) -> None:
    whole = fine_tuned(tmp_path, "bert", list(tiny_study.tasks[0].labels))
    assert is_fine_tuned(whole)
    assert not is_fine_tuned(tmp_path / "body")
    assert not is_fine_tuned(tiny.path)
    plain, new, kept = (
        trial_on(tiny_study, tmp_path / "body").settings,
        trial_on(tiny_study, whole).settings,
        trial_on(tiny_study, whole, keep_head=True).settings,
    )
    assert set(plain["model"]) == {"name", "digest"}
    assert "keep_head" not in plain["training"]
    assert new["model"]["head"] == "new"
    assert kept["training"]["keep_head"]
    assert "head" not in kept["model"]


def test_a_config_that_does_not_say_so_is_found_out_by_its_tensors(tmp_path: Path, tiny_study: Study) -> None:
    whole = fine_tuned(tmp_path, "roberta", list(tiny_study.tasks[0].labels))
    settings = json.loads((whole / "config.json").read_text())
    del settings["architectures"]
    (whole / "config.json").write_text(json.dumps(settings))
    is_fine_tuned.cache_clear()
    assert is_fine_tuned(whole)


def test_the_user_is_told(tmp_path: Path, tiny: Model, tiny_study: Study) -> None:
    whole = fine_tuned(tmp_path, "bert", list(tiny_study.tasks[0].labels))
    assert "left out" in about_head("m", whole, keep=False)[0]
    assert "mapped by name" in about_head("m", whole, keep=True)[0]
    assert about_head("m", tiny.path, keep=False) == ()


def test_a_head_of_other_classes_cannot_be_kept(tmp_path: Path, tiny: Model, tiny_study: Study) -> None:
    labels = tiny_study.tasks[0].labels
    whole = fine_tuned(tmp_path, "bert", [f"another {label}" for label in labels])
    with pytest.raises(ConfigError, match="another"):
        _load(trial_on(tiny_study, whole, keep_head=True), whole)
    with pytest.raises(ConfigError, match="keep_head"):
        _load(trial_on(tiny_study, tiny.path, keep_head=True), tiny.path)


def checkpoint(folder: Path, config: object, *tensors: str) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file({name: torch.zeros(2, 2) for name in tensors}, folder / "model.safetensors")
    return folder


def test_attention_is_no_head(tmp_path: Path) -> None:
    attention, bart = "decoder.layers.0.self_attn.out_proj.weight", {"model_type": "bart"}
    assert not is_fine_tuned(checkpoint(tmp_path / "body", bart, attention))
    assert is_fine_tuned(checkpoint(tmp_path / "whole", bart, attention, "classification_head.out_proj.weight"))


def test_a_config_that_is_no_mapping_says_nothing_of_a_head(tmp_path: Path) -> None:
    assert not is_fine_tuned(checkpoint(tmp_path / "list", [], "classifier.weight"))
