"""A study runs what is missing, and only that: after Ctrl-C, after SIGKILL, and when it grows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from noisytune._pretrained import Model
from noisytune.errors import ConfigError, MissingExtraError, NoisyTuneError, RunFolderError
from noisytune.lab.store import Store
from noisytune.lab.studies.events import StudyStarted
from noisytune.lab.studies.study import MOST_TRIALS, Study
from noisytune.lab.trials.arm import PLAIN, Arm
from noisytune.lab.trials.events import Notice
from noisytune.records import StudyRecord, TrialRecord
from tests.support.engines import Ledger, files, run


def test_the_plan_goes_seed_by_seed_with_the_baseline_first(with_arms: Callable[..., Study]) -> None:
    study = with_arms(0.1, 0.2, seeds=(3, 1))
    other = replace(study.tasks[0], name="other")
    study = replace(study, tasks=(*study.tasks, other))
    order = [(trial.seed, trial.task, trial.arm) for trial in study.plan]
    arms = ["plain", "noisytune(0.1)", "noisytune(0.2)"]
    assert order == [(seed, task, arm) for seed in (3, 1) for task in ("topics", "other") for arm in arms]
    assert [entry["key"] for entry in study.record.trials] == [trial.key for trial in study.plan]
    assert StudyRecord.from_json(study.record.to_json(), "here") == study.record


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seeds": (0, 0)}, "seed 0 is given twice"),
        ({"seeds": ()}, "at least one seed"),
        ({"seeds": range(9_999_999_999)}, "19,999,999,998 trials are more than 200,000: give fewer seeds"),
        ({"seeds": range(MOST_TRIALS // 2 + 1)}, "200,002 trials"),
        ({"seeds": (-1,)}, "seed -1"),
        ({"seeds": (2**32,)}, "seed"),
        ({"arms": (PLAIN, PLAIN)}, "'plain' is given twice"),
        ({"tasks": ()}, "at least one task"),
        ({"margin": float("nan")}, "margin"),
        ({"margin": float("inf")}, "margin"),
        ({"margin": -1.0}, "margin"),
    ],
)
def test_a_study_that_makes_no_sense_is_refused(tiny_study: Study, change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        replace(tiny_study, **change)


def test_running_again_runs_nothing(tiny_study: Study, tmp_path: Path) -> None:
    ledger, record, events = run(tiny_study, tmp_path)
    assert len(ledger.ran) == len(tiny_study.plan) == ledger.started
    assert isinstance(events[0], StudyStarted)
    assert events[0].missing == tiny_study.plan
    assert Notice("a notice about tokens") in events
    again, same, events = run(tiny_study, tmp_path)
    assert (again.ran, again.started) == ([], None)
    assert same == record == Store(tmp_path).read_study() == tiny_study.record
    assert isinstance(events[0], StudyStarted)
    assert events[0].missing == ()
    assert [r.key for r in events[0].finished] == [t.key for t in tiny_study.plan]


def test_after_an_interruption_only_the_rest_is_run(tiny_study: Study, tmp_path: Path) -> None:
    for stop in range(len(tiny_study.plan)):
        folder = tmp_path / str(stop)
        interrupted = Ledger(stop_after=stop)
        with pytest.raises(KeyboardInterrupt):
            run(tiny_study, folder, engine=interrupted)
        assert Store(folder).read_study() == tiny_study.record
        rest, _, _ = run(tiny_study, folder)
        assert interrupted.ran + rest.ran == [(t.seed, t.task, t.arm) for t in tiny_study.plan]


def test_a_damaged_record_is_named_kept_and_run_again(tiny_study: Study, tmp_path: Path) -> None:
    run(tiny_study, tmp_path)
    first, second = tiny_study.plan[:2]
    file = tmp_path / "trials" / f"{first.key}.json"
    forged = file.read_text().replace('"accuracy"', '"accuracy" 0.9')
    file.write_text(forged)
    (tmp_path / "trials" / f"{second.key}.json").write_bytes(
        (tmp_path / "trials" / f"{tiny_study.plan[2].key}.json").read_bytes()
    )
    ledger, record, events = run(tiny_study, tmp_path)
    assert ledger.ran == [(trial.seed, trial.task, trial.arm) for trial in (first, second)]
    said = [event.text for event in events if isinstance(event, Notice) and "damaged" in event.text]
    assert len(said) == 2
    assert f"{first.key}.json.damaged" in said[0]
    assert file.with_name(f"{file.name}.damaged").read_text() == forged
    assert record == tiny_study.record
    assert len(Store(tmp_path).records()) == len(tiny_study.plan)


def test_a_run_folder_of_format_1_goes_on(tiny_study: Study, tmp_path: Path) -> None:
    run(tiny_study, tmp_path)
    for file in (tmp_path / "trials").glob("*.json"):
        raw = json.loads(file.read_text())
        for name in ("evaluations", "outputs_digest"):
            del raw[name]
        file.write_text(json.dumps(raw | {"format": 1, "predictions": [1.0, 0.0], "references": [1.0, 1.0]}))
    kept = files(tmp_path)
    ledger, _, _ = run(replace(tiny_study, seeds=(0, 1, 2)), tmp_path)
    assert {seed for seed, _, _ in ledger.ran} == {2}
    assert {key: files(tmp_path)[key] for key in kept} == kept
    old = Store(tmp_path).read(tiny_study.plan[0].key)
    assert (old.predictions, old.references) == ([1.0, 0.0], [1.0, 1.0])
    assert old.evaluations == {"dev": {"status": "ok", "scores": {"accuracy": 0.5}}}


def test_seeds_and_arms_extend_a_finished_study(with_arms: Callable[..., Study], tmp_path: Path) -> None:
    run(with_arms(0.1, seeds=(0, 1)), tmp_path)
    ledger, record, _ = run(with_arms(0.1, seeds=(0, 1, 2)), tmp_path)
    assert ledger.ran == [(2, "topics", "plain"), (2, "topics", "noisytune(0.1)")]
    ledger, record, _ = run(with_arms(0.2, seeds=(0, 1, 2)), tmp_path)
    assert ledger.ran == [(seed, "topics", "noisytune(0.2)") for seed in range(3)]
    assert record.arms == ["plain", "noisytune(0.1)", "noisytune(0.2)"]
    assert record.seeds == [0, 1, 2]
    assert len(record.trials) == len({entry["key"] for entry in record.trials}) == 9
    assert [entry["seed"] for entry in record.trials] == [0] * 3 + [1] * 3 + [2] * 3
    # Asking for less than there is forgets nothing.
    ledger, smaller, _ = run(with_arms(0.1, seeds=(1,)), tmp_path)
    assert ledger.ran == []
    assert {e["key"] for e in smaller.trials} == {e["key"] for e in record.trials}


def test_the_same_weights_and_examples_under_other_names_go_on(tiny_study: Study, tmp_path: Path) -> None:
    run(tiny_study, tmp_path)
    renamed = replace(
        tiny_study,
        model=replace(tiny_study.model, name="copy"),
        tasks=(replace(tiny_study.tasks[0], name="copy"),),
        name="new title",
        margin=1.0,
    )
    ledger, record, _ = run(renamed, tmp_path)
    assert ledger.ran == []
    assert record == replace(tiny_study.record, name="new title", margin=1.0)
    ledger, record, _ = run(replace(renamed, seeds=(0, 1, 2)), tmp_path)
    assert ledger.ran == [(2, "topics", "plain"), (2, "topics", "noisytune(0.15)")]
    assert [task["name"] for task in record.tasks] == ["topics"]


def test_a_folder_keeps_the_tasks_of_its_first_study(tiny_study: Study, tmp_path: Path) -> None:
    topics = tiny_study.tasks[0]
    fewer = replace(topics, name="fewer", train=topics.train.take(range(30)))
    fewest = replace(topics, name="fewest", train=topics.train.take(range(20)))
    run(replace(tiny_study, tasks=(topics, fewer)), tmp_path)
    ledger, record, _ = run(replace(tiny_study, tasks=(fewer,)), tmp_path)
    assert ledger.ran == []
    assert [task["name"] for task in record.tasks] == ["topics", "fewer"]
    with pytest.raises(RunFolderError, match="its tasks are topics, fewer, not fewest; choose another run folder"):
        run(replace(tiny_study, tasks=(fewest,)), tmp_path)


@pytest.mark.parametrize("until", [None, lambda *_: False])
def test_a_mistyped_arm_leaves_no_trace(tiny_study: Study, tmp_path: Path, until: Any) -> None:
    typo = Arm.parse("noisytune(exclude=*wrod_embeddings*)")
    wrong = replace(tiny_study, arms=(*tiny_study.arms, typo), seeds=(0, 1, 2))

    def refused() -> None:
        ledger = Ledger()
        with pytest.raises(ConfigError, match=r"exclude: '\*wrod_embeddings\*' matches none"):
            run(wrong, tmp_path, engine=ledger, until=until)
        assert ledger.ran == []

    refused()
    assert not list(tmp_path.rglob("*.json"))
    run(tiny_study, tmp_path)
    kept = (tmp_path / "study.json").read_bytes()
    refused()
    assert (tmp_path / "study.json").read_bytes() == kept


def test_weights_that_cannot_take_noise_are_refused_before_the_baseline_is_trained(
    tiny_study: Study, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    weights = Path(shutil.copytree(tiny_study.model.path, tmp_path / "m"))
    tensors = load_file(weights / "model.safetensors")
    tensors["encoder.layer.0.output.dense.weight"][3, 4] = float("inf")
    save_file(tensors, weights / "model.safetensors", {"format": "pt"})
    ledger, study = Ledger(), replace(tiny_study, model=Model.find(str(weights)))
    with pytest.raises(NoisyTuneError, match=r"encoder\.layer\.0\.output\.dense\.weight"):
        run(study, tmp_path / "run", engine=ledger)
    assert ledger.ran == []
    assert Store(tmp_path / "run").read_study() is None


def test_what_cannot_be_compared_is_refused_by_name(tiny_study: Study, tmp_path: Path) -> None:
    run(tiny_study, tmp_path)
    kept = sorted((file.name, file.read_bytes()) for file in tmp_path.rglob("*.json"))
    task = tiny_study.tasks[0]
    others = {
        "model is tiny-bert, not big": replace(tiny_study, model=replace(tiny_study.model, name="big", digest="0")),
        "same name, but other weights": replace(tiny_study, model=replace(tiny_study.model, digest="0")),
        "learning_rate is 0.001, not 0.002": replace(
            tiny_study, training=replace(tiny_study.training, learning_rate=2e-3)
        ),
        "max_steps is None, not 3": replace(tiny_study, training=replace(tiny_study.training, max_steps=3)),
        "task topics has other examples": replace(tiny_study, tasks=(replace(task, train=task.train.take(range(30))),)),
        "task is topics, not other": replace(
            tiny_study, tasks=(replace(task, name="other", train=task.train.take(range(30))),)
        ),
        "baseline is plain, not noisytune": replace(tiny_study, arms=tiny_study.arms[::-1]),
    }
    for said, study in others.items():
        ledger = Ledger()
        with pytest.raises(RunFolderError, match=said) as caught:
            run(study, tmp_path, engine=ledger)
        assert "choose another run folder" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert ledger.ran == []
    assert sorted((file.name, file.read_bytes()) for file in tmp_path.rglob("*.json")) == kept


def test_epochs_chosen_by_another_score_are_another_study(tiny_study: Study, tmp_path: Path) -> None:
    best = replace(tiny_study, training=replace(tiny_study.training, select="best"))
    other = replace(best, tasks=(replace(best.tasks[0], metric="macro_f1"),))
    run(best, tmp_path)
    with pytest.raises(RunFolderError, match="epochs of topics are chosen by accuracy, not by macro_f1"):
        run(other, tmp_path)


def test_until_stops_between_seeds(with_arms: Callable[..., Study], tmp_path: Path) -> None:
    asked: list[tuple[int, int]] = []

    def settled(study: StudyRecord, records: list[TrialRecord]) -> bool:
        asked.append((len(study.seeds), len(records)))
        return len(study.seeds) >= 3

    study = with_arms(0.1, seeds=tuple(range(10)))
    ledger, record, _ = run(study, tmp_path, until=settled)
    assert [seed for seed, _, _ in ledger.ran] == [0, 0, 1, 1, 2, 2]
    # Once more at the end, when nothing is running.
    assert asked == [(1, 2), (2, 4), (3, 6), (3, 6)]
    assert record.seeds == [0, 1, 2]
    assert Store(tmp_path).read_study() == record
    ledger, same, _ = run(study, tmp_path, until=settled)
    assert ledger.ran == []
    assert ledger.started is None, "no worker is needed to learn that"
    assert same == record
    ledger, more, _ = run(study, tmp_path, until=lambda study, _: len(study.seeds) >= 4)
    assert [seed for seed, _, _ in ledger.ran] == [3, 3]
    assert more.seeds == [0, 1, 2, 3]
    _, everything, _ = run(study, tmp_path, until=lambda *_: False)
    assert everything.seeds == list(range(10))


def test_until_finishes_a_pair_that_was_begun(with_arms: Callable[..., Study], tmp_path: Path) -> None:
    study = with_arms(0.1, 0.2, seeds=(0, 1, 2))
    with pytest.raises(KeyboardInterrupt):
        run(study, tmp_path, engine=Ledger(stop_after=4), until=lambda *_: False)
    assert [(r.seed, r.arm) for r in Store(tmp_path).records()].count((1, "plain")) == 1
    ledger, record, _ = run(study, tmp_path, until=lambda *_: True)
    assert ledger.ran == [(1, "topics", "noisytune(0.1)"), (1, "topics", "noisytune(0.2)")]
    assert record.seeds == [0, 1]
    more, record, _ = run(with_arms(0.3, seeds=(0, 1, 2)), tmp_path, until=lambda *_: True)
    assert more.ran == [(0, "topics", "noisytune(0.3)"), (1, "topics", "noisytune(0.3)")]
    assert record.seeds == [0, 1]


@pytest.mark.parametrize("behind", range(6))
def test_until_holds_for_all_that_was_run(with_arms: Callable[..., Study], tmp_path: Path, behind: int) -> None:
    """Whatever was still running when it said yes counts: here it says no again, until there is much more."""

    def settled(study: StudyRecord, records: list[TrialRecord]) -> bool:
        return len(records) == 4 or len(records) >= 14

    study = with_arms(0.1, seeds=tuple(range(10)))
    ledger, record, _ = run(study, tmp_path, engine=Ledger(behind=behind), until=settled)
    records = Store(tmp_path).records(entry["key"] for entry in record.trials)
    assert len(records) == len(record.trials) == 2 * len(record.seeds) == len(set(ledger.ran)) == len(ledger.ran)
    assert settled(record, records)
    assert record.seeds == list(range(len(record.seeds)))
    assert (len(records) == 4) == (behind == 0)


def test_until_finishes_earlier_seeds_that_are_not_the_first(with_arms: Callable[..., Study], tmp_path: Path) -> None:
    run(with_arms(0.1, seeds=(3,)), tmp_path)
    ledger, record, _ = run(with_arms(0.1, 0.2, seeds=(0, 1, 2, 3)), tmp_path, until=lambda *_: True)
    assert ledger.ran == [(3, "topics", "noisytune(0.2)")]
    assert record.seeds == [3]


def test_a_missing_tracker_is_told_before_anything_starts(
    tiny_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("noisytune.lab.trials.trackers.find_spec", lambda _: None)
    ledger = Ledger()
    with pytest.raises(MissingExtraError):
        run(tiny_study, tmp_path / "run", engine=ledger, report_to="wandb")
    assert ledger.started is None
    assert not (tmp_path / "run").exists()
