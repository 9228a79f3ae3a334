"""Where a score is found, and what it becomes."""

import json

import numpy as np
import pytest

from noisytune.errors import ConfigError, DataError, TrialError
from noisytune.lab.trials.scores import (
    Scoring,
    arrays_of,
    as_number,
    from_files,
    outcome,
    pattern_of,
    read_items,
)


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("eval_accuracy: 0.83", 0.83),
        ("  eval_accuracy           =     0.8345", 0.8345),  # as transformers' log_metrics prints
        ("{'eval_loss': 0.5, 'eval_accuracy': 0.75, 'epoch': 3.0}", 0.75),
        ("{'eval_loss': '0.5', 'eval_accuracy': '7.5e-1'}", 0.75),
        ('{"eval_accuracy": 1}', 1.0),
        ("eval_accuracy: 0.1\neval_accuracy: 0.2", 0.2),
        ("step 3 | eval_accuracy=.5 | lr 1", 0.5),
    ],
)
def test_the_last_line_that_names_a_score(line, value):
    *_, last = pattern_of("eval_accuracy", None).finditer(line.encode())
    assert as_number(last[1].decode(), "it") == value


@pytest.mark.parametrize("line", ["my_eval_accuracy: 1", "eval_accuracy2: 1", "eval_accuracy: high", "accuracy: 1"])
def test_other_names_are_other_scores(line):
    assert not list(pattern_of("eval_accuracy", None).finditer(line.encode()))


def test_nan_is_read_from_output():
    (found,) = pattern_of("loss", None).finditer(b"loss: nan")
    assert np.isnan(as_number(found[1].decode(), "it"))


@pytest.mark.parametrize(("regex", "said"), [("(", "no regular expression"), ("acc=1", "needs a group")])
def test_a_pattern_must_find_a_number(regex, said):
    with pytest.raises(ConfigError, match=said):
        pattern_of("acc", regex)


def test_the_first_file_that_has_it(tmp_path):
    first, second = tmp_path / "metrics.json", tmp_path / "eval_results.json"
    second.write_text(json.dumps({"eval": {"f1": 0.5, "loss": 2}}))
    assert from_files([first, second], "eval.f1") == (0.5, {"f1": 0.5, "loss": 2}, second)
    first.write_text(json.dumps({"eval.f1": 0.75}))
    assert from_files([first, second], "eval.f1")[0] == 0.75
    assert from_files([first, second], "eval.recall") is None
    assert from_files([first, second], "eval.f1.more") is None


@pytest.mark.parametrize("content", ['{"f1": 0.', "[0.5]", '{"f1": "high"}', '{"f1": true}', '{"f1": null}', ""])
def test_a_file_that_holds_no_score(tmp_path, content):
    (tmp_path / "metrics.json").write_text(content)
    with pytest.raises(DataError, match=r"metrics.json"):
        from_files([tmp_path / "metrics.json"], "f1")


def test_a_score_is_kept_so_that_higher_is_better_and_a_point_is_a_hundredth():
    assert Scoring(score="acc").kept(0.83) == 0.83
    assert Scoring(score="acc", score_unit="points").kept(83.0) == 0.83
    assert Scoring(score="loss", lower_is_better=True).kept(2.5) == 0.025
    assert Scoring(score="error", lower_is_better=True, score_unit="fraction").kept(0.25) == 0.25
    with pytest.raises(TrialError, match=r"acc is 83, which is no fraction: give score_unit=points"):
        Scoring(score="acc").kept(83.0)


def test_what_is_not_as_by_default_is_part_of_a_trial():
    assert Scoring(score="f1").told() == {"score": "f1"}
    assert Scoring(score="f1", lower_is_better=True, predictions_metric="r2").told() == {
        "score": "f1",
        "predictions": "r2",
    }


def test_items_are_in_the_order_of_their_ids_whatever_order_they_come_in():
    rows = [{"id": i, "prediction": i % 3, "reference": i % 2} for i in range(12)]
    one, other = (arrays_of(each, "classification") for each in (rows, rows[::-1]))
    assert all((one[name] == other[name]).all() for name in one)
    assert (one["predictions"] == one["references"]).mean() == np.mean([i % 3 == i % 2 for i in range(12)])


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_groups_go_with_their_items(kind):
    rows = [{"id": f"{i:02}", "prediction": i, "reference": i % 2, "group": f"g{i // 4}"} for i in range(12)]
    found = arrays_of(rows[::-1], kind)
    assert found["groups"].tolist() == [i // 4 for i in range(12)]
    assert "groups" not in arrays_of([{"prediction": 1, "reference": 1}], kind)


def test_a_class_is_the_same_whatever_library_its_number_comes_from():
    """Labels of a data frame are often floats, predictions of a model integers: all would be wrong in every arm."""
    given = [1, 1.0, True, np.int64(1), np.float32(1), np.array(1)]
    rows = [{"prediction": one, "reference": other} for one in given for other in given]
    rows += [{"prediction": 0, "reference": 1.0}, {"prediction": "1.5", "reference": 1.5}]
    found = arrays_of(rows, "classification")
    assert (found["predictions"] == found["references"]).tolist() == [True] * 36 + [False, True]


def test_classes_that_no_reference_has_are_classes_of_their_own():
    rows = [{"prediction": "a", "reference": "b"}, {"prediction": "b", "reference": "b"}]
    assert arrays_of(rows, "classification")["predictions"].tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("rows", "kind", "said"),
    [
        ([{"prediction": 1}], "classification", "prediction 1: expected an object with id, prediction and reference"),
        ([3], "classification", "got 3"),
        ([{"id": 1, "prediction": 1, "reference": 1}] * 2, "classification", "an id each, none twice"),
        ([{"prediction": "x", "reference": 1.0}], "regression", "predictions must be finite numbers"),
        (
            [{"prediction": 1, "reference": 1, "group": 1}, {"prediction": 1, "reference": 1}],
            "classification",
            "some predictions have a group and others have none",
        ),
    ],
)
def test_items_that_lack_something(rows, kind, said):
    with pytest.raises(TrialError, match=said):
        arrays_of(rows, kind)


def test_lines_that_are_no_json_are_named(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"a": 1}\n\n{"a"\n')
    with pytest.raises(DataError, match=r"p.jsonl, line 3: not JSON"):
        read_items(tmp_path / "p.jsonl")


def test_what_came_out():
    found = outcome(Scoring(), 0.5, {"loss": 1.5, "bad": float("nan"), "text": "x", "yes": True}, None)
    assert (found.status, found.score, found.numbers, found.outputs) == ("ok", 0.5, {"loss": 1.5}, {})
    assert outcome(Scoring(), float("nan"), {}, None).status == "diverged"
    same = [{"prediction": 1, "reference": i % 2} for i in range(4)]
    assert outcome(Scoring(), 0.5, {}, same).status == "collapsed"
