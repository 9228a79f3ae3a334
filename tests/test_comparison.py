"""The lab's Python API: one call from rows to evidence, the same study as the command line's."""

import importlib

import pytest

import noisytune.lab
from noisytune.errors import ConfigError
from noisytune.lab import InlineEngine, compare, load_task
from noisytune.lab.studies.events import StudyStarted
from noisytune.lab.studies.study import Study
from noisytune.lab.tasks import TaskOptions
from noisytune.lab.trials.events import TrialStarted
from noisytune.records import digest

ROWS = [(f"{word} {i}", word) for word in ("good", "bad") for i in range(20)]
SHORT = {"max_steps": 2, "max_length": 32, "batch_size": 4}
QUICK = {"epochs": 1, "max_length": 16, "batch_size": 8, "learning_rate": 1e-3}


@pytest.fixture(scope="module")
def result(tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "rows"
    with InlineEngine() as engine:
        return compare(tiny.path, ROWS, arms=["noisytune"], seeds=2, training=QUICK, out=out, engine=engine)


def test_rows_become_evidence(result):
    frame = result.to_frame()
    assert list(frame["arm"]) == ["plain", "noisytune(0.15)"] * 2
    assert list(frame["seed"]) == [0, 0, 1, 1]
    (row,) = result.summary
    means = 100 * frame.groupby("arm")["accuracy"].mean()
    assert row.difference == pytest.approx(means["noisytune(0.15)"] - means["plain"])
    assert row.n == 2
    assert result.verdict in str(result)
    assert str(result.folder) in str(result)
    page = result.report()
    assert page.parent == result.folder
    assert "noisytune(0.15)" in page.read_text(encoding="utf-8")


def test_groups_of_rows_reach_the_page(tiny, tmp_path):
    """Each row ten times over, said to be one: the page redraws what there is once."""
    rows = [{"text": text, "label": label, "of": text} for text, label in ROWS for _ in range(10)]
    with InlineEngine() as engine:
        found = compare(
            tiny.path,
            rows,
            seeds=2,
            training={**SHORT, "batch_size": 16},
            options={"group_column": "of"},
            out=tmp_path / "run",
            engine=engine,
        )
    groups = found.records[0].outputs["dev/groups"]
    assert len(groups) == 80
    assert len(set(groups.tolist())) == 8
    assert "8 groups" in found.report().read_text(encoding="utf-8")


def test_the_same_call_goes_on(result, tiny):
    """More seeds are added; finished trials stay as they are."""
    with InlineEngine() as engine:
        longer = compare(tiny.path, ROWS, seeds=3, training=QUICK, out=result.folder, engine=engine)
    assert [record.key for record in longer.records][:4] == [record.key for record in result.records]
    assert longer.records[0].timing == result.records[0].timing
    assert len(longer.records) == 6


def test_settings_are_checked_by_name(tiny):
    for settings, said in (
        ({"training": {"epoch": 3}}, "no setting 'epoch': did you mean 'epochs'"),
        ({"training": {"epochs": 0}}, "epochs must be"),
        ({"options": {"train_siz": 3}}, "no setting 'train_siz': did you mean 'train_size'"),
        ({"seeds": 0}, "seeds must be"),
        ({"arms": ["noisetune"]}, "no method 'noisetune'"),
    ):
        with pytest.raises(ConfigError, match=said):
            compare(tiny.path, ROWS, engine=InlineEngine(), **settings)


def test_a_dev_set_goes_with_rows(tiny):
    with pytest.raises(ConfigError, match="dev goes with rows"):
        compare(tiny.path, "topics", dev=ROWS, engine=InlineEngine())


def test_tasks_that_are_loaded_are_taken_as_they_are(tiny, tmp_path, monkeypatch):
    """What is planned is what the command line plans for the same task."""
    planned = []
    monkeypatch.setattr(
        "noisytune._comparison.run_study", lambda study, *_, **__: planned.append(study) or study.record
    )
    task = load_task("topics", TaskOptions(train_size=20))
    compare(tiny.path, task, out=tmp_path / "one", engine=InlineEngine())
    compare(tiny.path, [task], out=tmp_path / "list", engine=InlineEngine())
    compare(tiny.path, "topics", options={"train_size": 20}, out=tmp_path / "name", engine=InlineEngine())
    assert all(isinstance(study, Study) for study in planned)
    assert len({digest([trial.key for trial in study.plan]) for study in planned}) == 1


def test_every_name_of_the_api_is_there():
    for name in noisytune.lab.__all__:
        assert getattr(noisytune.lab, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'compair'"):
        importlib.import_module("noisytune.lab").compair  # noqa: B018


@pytest.mark.usefixtures("one_thread")
def test_a_comparison_is_run_and_extended(tiny, topics, tmp_path):
    told = []
    asked = {"training": SHORT, "out": tmp_path / "run", "on_event": told.append}
    with InlineEngine() as engine:
        first = compare(str(tiny.path), (topics,), arms=("noisytune(0.3)",), seeds=1, engine=engine, **asked)
        assert [record.arm for record in first.records] == ["plain", "noisytune(0.3)"]
        assert first.folder == tmp_path / "run"
        assert first.study.training["learning_rate"] == 2e-5
        more = compare(str(tiny.path), (topics,), arms=("noisytune(0.3)",), seeds=2, engine=engine, **asked)
    assert len(more.records) == 4
    assert {record.key for record in first.records} < {record.key for record in more.records}
    assert sum(isinstance(event, TrialStarted) for event in told) == 4
    assert [len(event.finished) for event in told if isinstance(event, StudyStarted)] == [0, 2]


def test_what_it_is_called_with_is_checked_before_anything_is_kept(tiny, tmp_path):
    for wrong in ({"arms": ()}, {"arms": ("recadm",)}, {"seeds": 0}, {"options": TaskOptions(metric="f")}):
        with pytest.raises(ConfigError), InlineEngine() as engine:
            compare(str(tiny.path), engine=engine, out=tmp_path / "run", **wrong)
    assert not list(tmp_path.iterdir())
