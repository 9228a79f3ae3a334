"""Arms as people write them: round trips, the nearest names, and combinations that make no sense."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noisytune.errors import ConfigError
from noisytune.lab.trials.arm import Arm, methods_of
from noisytune.methods import METHODS, label, make, parse, setting_of

numbers = st.floats(0, 0.99).map(lambda x: round(x, 6))


@given(numbers, st.sampled_from(["column", "row", "element"]), st.sampled_from(["noised", "clean"]))
def test_a_label_is_read_back_as_the_same_arm(p: float, mask: str, anchor: str) -> None:
    arm = (make("noisytune", {"noise_lambda": p}), make("mixout", {"p": p, "mask": mask, "anchor": anchor}))
    assert parse(label(arm)) == arm
    assert methods_of(Arm.of(*arm).methods) == arm


def test_names_in_any_order_of_one_stage_are_one_arm() -> None:
    assert parse("llrd+mixout") == parse("mixout+llrd")
    assert label(parse(" mixout ( 0.8 ) + llrd")) == "mixout(p=0.8)+llrd"
    assert label(parse("plain")) == "plain"


def test_globs_may_hold_plus_and_several_words() -> None:
    method = parse("noisytune(0.1, include=*a+b*|*c*)")[0]
    assert method.settings["include"] == ["*a+b*", "*c*"]
    assert parse(label([method])) == (method,)


def test_a_role_stands_where_globs_do() -> None:
    method = parse("noisytune(0.1, exclude=@token_embeddings|*.bias)")[0]
    assert method.settings["exclude"] == ["@token_embeddings", "*.bias"]
    assert parse(label([method])) == (method,)
    with pytest.raises(ConfigError, match="globs or roles \\(@token_embeddings, "):
        parse("noisytune(0.1, exclude=@embeddings)")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("recadm", "there is no method 'recadm': did you mean 'recadam'"),
        ("zzz", "known: reinit, noisytune, ema, mixout"),
        ("mixout(q=0.9)", "mixout has no setting 'q': known: p, mask, anchor"),
        ("mixout(maks=row)", "mixout has no setting 'maks': did you mean 'mask'"),
        ("mixout(p=1)", "mixout: p must be 0 <= p < 1, got '1'"),
        ("mixout(p=nan)", "mixout: p must be 0 <= p < 1, got 'nan'"),
        ("reinit(layers=1.5)", "reinit: layers must be whole, >= 0, got '1.5'"),
        ("recadam(anneal=cosine)", "anneal must be sigmoid or linear or constant, got 'cosine'"),
        ("mixout(p=0.9, 0.8)", "'0.8' lacks a name"),
        ("mixout(p=0.9, p=0.8)", "p is given twice"),
        ("mixout(", "is no method"),
        ("mixout)+llrd", "is no method"),
        ("+", "is no method"),
        ("", "is no method"),
        ("mixout+mixout(p=0.8)", "mixout is given twice"),
        ("recadam+l2sp", "both pull towards the pretrained weights"),
        ("l2sp+recadam", "both pull towards the pretrained weights"),
        ("rdrop+r3f", "both replace the loss"),
        ("mixout+reinit", "reinit changes the weights that mixout starts from, so it comes first: write reinit+mixout"),
        ("recadam+noisytune", "write noisytune+recadam"),
        ("noisytune+reinit", "write reinit+noisytune"),
        ("plain+mixout", "there is no method 'plain'"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.text(alphabet="abcmixout+()=,.0 |*-", max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found: Any = parse(text)
    except ConfigError as error:
        lines = str(error).splitlines()
    else:
        lines = [""]
        assert parse(label(found)) == found
    assert len(lines) == 1


@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_is_described(name: str) -> None:
    method = METHODS[name]
    assert method.name == name
    for text in (method.summary, method.cost, method.source, method.__module__):
        assert text
        assert "\n" not in text
    for field in fields(method):
        setting = setting_of(field)
        assert setting.about
        assert setting.allowed
        assert field.default is None or setting.read(field.default) == field.default
    assert make(name, {}) == method()
    assert set(method.excludes) <= set(METHODS)
