"""Studies as YAML: what is read, and one clear line for what cannot be."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer.main

from noisytune._pretrained import Model
from noisytune._settings import settings_of
from noisytune.cli import app
from noisytune.errors import ConfigError, DataError
from noisytune.lab.studies import USUAL_SEEDS
from noisytune.lab.studies.compare import arms_of
from noisytune.lab.studies.file import Changes, paper_studies, paper_study, read_studies
from noisytune.lab.studies.plan import Plan, plans
from noisytune.lab.studies.study import Study
from noisytune.lab.tasks import load_tasks
from noisytune.lab.trials.arm import PLAIN, Arm
from noisytune.lab.trials.settings import TrainingSettings
from tests.support.glue_files import write_glue
from tests.support.xtreme_files import write_xtreme

NINE = ("mnli", "qnli", "qqp", "rte", "sst2", "mrpc", "cola", "stsb", "wnli")
WHOLE = """
name: everything
model: {model}
tasks:
  - topics
  - task: reviews.csv
    text_columns: [first, second]
    label_column: stars
    train_size: 8
    dev_file: held-out.csv
arms: [plain, noisytune(0.1), "noisytune+mixout(p=0.8)"]
seeds: [3, 5]
margin: 0.5
training: {{epochs: 2, learning_rate: 1.0e-3}}
"""


BOMB = "".join(
    f"\n{name}: &{name} [{', '.join(['*' + last] * 9)}]" for last, name in zip("bcdefg", "cdefgh", strict=True)
)


def write(folder: Path, text: str) -> Path:
    file = folder / "study.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_as_much_compute_for_the_baseline(tiny: Model, tmp_path: Path) -> None:
    """The longer training is of the tasks' own epochs; the plan of a model that is not here has it too."""
    text = "tasks: [{task: topics, training: {epochs: 2}}]\narms: [sam]\nequal_compute: true\nmodel: "
    (study,) = read_studies(write(tmp_path, text + str(tiny.path)))
    assert [(arm.name, arm.training) for arm in study.arms] == [
        ("plain", {}),
        ("sam", {}),
        ("plain(epochs=4)", {"epochs": 4}),
    ]
    (plan,) = plans(write(tmp_path, text + "nobody/nothing"))
    assert isinstance(plan, Plan)
    assert plan.tasks[0].arms == study.arms
    with pytest.raises(ConfigError, match="equal_compute must be true or false, got 'perhaps'"):
        read_studies(write(tmp_path, "arms: [sam]\nequal_compute: perhaps"))


def test_everything_is_read(tiny: Model, tmp_path: Path) -> None:
    rows = "first,second,stars\n" + "".join(f"a {i},b {i},{'good' if i % 2 else 'bad'}\n" for i in range(12))
    for name in ("reviews.csv", "held-out.csv"):
        (tmp_path / name).write_text(rows)
    (study,) = read_studies(write(tmp_path, WHOLE.format(model=tiny.path)))
    assert study.name == "everything"
    assert study.model.digest == tiny.digest
    topics, reviews = study.tasks
    assert topics.name == "topics"
    assert (len(reviews.train), len(reviews.dev), len(reviews.train.texts[0])) == (8, 12, 2)
    assert study.arms == (PLAIN, Arm.parse("noisytune(0.1)"), Arm.parse("noisytune(0.15)+mixout(p=0.8)"))
    assert study.seeds == (3, 5)
    assert study.margin == 0.5
    assert (study.training.epochs, study.training.learning_rate, study.training.warmup) == (2, 1e-3, 0.1)


def test_little_is_needed(tmp_path: Path) -> None:
    (study,) = read_studies(write(tmp_path, "arms: [noisytune]"))
    assert study.name == "study"
    assert [task.name for task in study.tasks] == ["topics"]
    assert study.seeds == tuple(range(USUAL_SEEDS))
    assert study.model.name == "all-MiniLM-L6-v2"
    assert study.training.learning_rate == 2e-4


def test_a_task_is_trained_in_its_own_way(save_tiny: Callable[..., Path], tmp_path: Path) -> None:
    """Beside a task counts before the study's, the benchmark's after it, and what is asked now before both."""
    write_xtreme(tmp_path / "download", ("de",))
    text = f"""
        model: {save_tiny(tmp_path / "model", max_position_embeddings=512)}
        arms: [noisytune]
        seeds: 1
        training: {{batch_size: 4, epochs: 7}}
        tasks:
          - {{task: topics, train_size: 40, training: {{epochs: 2, max_length: 24}}}}
          - {{task: xtreme/xnli, data_dir: download, training: {{epochs: 4}}}}
          - {{task: xtreme/tydiqa, data_dir: download}}
          - {{task: replies, train_size: 40}}
    """
    file = write(tmp_path, text)

    def trained(changes: Changes) -> dict[str, list[Any]]:
        (study,) = read_studies(file, changes)
        names = ("epochs", "max_length", "batch_size", "learning_rate")
        return {trial.task: [trial.settings["training"][name] for name in names] for trial in study.plan}

    assert trained(Changes()) == {
        "topics": [2, 24, 4, 2e-5],
        "xtreme/xnli": [4, 128, 4, 2e-5],
        "xtreme/tydiqa": [7, 384, 4, 3e-5],
        "replies": [7, 128, 4, 2e-5],
    }
    assert {settings[0] for settings in trained(Changes(training={"epochs": 1})).values()} == {1}
    with pytest.raises(ConfigError, match=r"line 7: there is no key 'epoch': did you mean 'epochs'"):
        read_studies(write(tmp_path, text.replace("{epochs: 2", "{epoch: 2")))


def test_values_are_what_the_file_says(tiny: Model, tmp_path: Path) -> None:
    """No text becomes a number, a truth or a date before its setting reads it."""
    (tmp_path / "rows.csv").write_text("text,007\n" + "".join(f"row {i},{'ab'[i % 2]}\n" for i in range(20)))
    text = f"""
        name: 2026-01-01
        model: {tiny.path}
        arms: &arms [noisytune]
        tasks: [{{task: rows.csv, label_column: 007, text_columns: text}}]
        seeds: 010
        training: {{<<: {{epochs: 2, warmup: 0.2}}, learning_rate: 1e-3, warmup: 0, max_steps: null}}
    """
    (study,) = read_studies(write(tmp_path, text))
    assert (study.name, len(study.seeds)) == ("2026-01-01", 10)
    assert study.tasks[0].labels == ("a", "b")
    assert study.training == TrainingSettings(epochs=2, learning_rate=1e-3, warmup=0.0)


def test_a_file_python_and_the_command_line_ask_for_the_same_trials(tmp_path: Path) -> None:
    (study,) = read_studies(write(tmp_path, "{name: topics, arms: [noisytune], seeds: 1}"))
    asked = Study(
        name="topics",
        model=Model.find(),
        tasks=load_tasks("topics"),
        arms=arms_of("noisytune"),
        seeds=(0,),
        training=TrainingSettings(),
        margin=1.0,
    )
    assert [trial.key for trial in asked.plan] == [trial.key for trial in study.plan]
    assert study.training.learning_rate == 2e-4
    shown = {
        option.name: option.show_default
        for option in typer.main.get_command(app).commands["compare"].params
        if option.name in settings_of(TrainingSettings) and isinstance(option.show_default, str)
    }
    assert {"epochs", "batch_size", "max_length", "select"} <= set(shown)
    assert TrainingSettings(**shown) == TrainingSettings()


def test_glue_is_found_beside_the_file(tiny: Model, tmp_path: Path) -> None:
    """Also where the data's folder is called as the task is."""
    write_glue(tmp_path / "glue")
    text = """
        arms: [noisytune]
        model: {model}
        tasks:
          - {{task: glue, data_dir: glue, train_size: 6}}
          - topics
        training: {{select: best, protocol: clean}}
    """
    (study,) = read_studies(write(tmp_path, text.format(model=tiny.path)))
    assert len(study.tasks) == 10
    assert {len(task.train) for task in study.tasks[:9]} == {6}
    assert (study.training.select, study.training.protocol) == ("best", "clean")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("arms: [noisytune", "not YAML"),
        ("- noisytune", "expected lines such as"),
        ("arm: [noisytune]", "there is no key 'arm': did you mean 'arms'"),
        ("tasks: [topics]", "arms must be a list"),
        ("arms: noisytune", "arms must be a list"),
        ("arms: [recadm]", "there is no method 'recadm': did you mean 'recadam'"),
        ("{arms: [noisytune], seeds: 0}", "study.yaml, line 1: seeds must be a number of seeds, 1 to 100,000"),
        ("{arms: [noisytune], seeds: [a]}", "seeds must be"),
        ("{arms: [noisytune], margin: much}", "line 1: margin must be a number, got 'much'"),
        ("{arms: [noisytune], training: {epoch: 3}}", "line 1: there is no key 'epoch': did you mean 'epochs'"),
        ("{arms: [noisytune], training: {epochs: 0}}", "epochs must be a whole number >= 1"),
        ("{arms: [noisytune], training: 3}", "training must hold lines"),
        ("{arms: [noisytune], tasks: [{label_column: x}]}", "a task lacks its name"),
        ("{arms: [noisytune], tasks: [{task: topics, colour: x}]}", "there is no key 'colour'"),
        ("{arms: [noisytune], tasks: [topisc]}", "did you mean 'topics'"),
        ("{arms: [noisytune, noisytune]}", "is given twice"),
        ("{arms: [noisytune], model: a, models: [b]}", "give model or models, not both"),
        ("{arms: [noisytune], models: []}", "models must be a list"),
        ("{arms: [noisytune], train_shares: [10]}", "shares of the training data, 0 < share <= 1, got 10"),
        ("{arms: [noisytune], train_shares: 0.5}", "train_shares must be a list"),
        ("{arms: [noisytune], seeds: 9999999999}", "line 1: seeds must be a number of seeds, 1 to 100,000"),
        (f"{{arms: [noisytune], seeds: {'9' * 5000}}}", "line 1: seeds must be whole numbers, got"),
        ("arms: [noisytune]\nseeds: 3\nseeds: 4", "line 3: the key 'seeds' is given twice"),
        ("arms: [noisytune]\ntraining:\n  learning_rate: .nan", "line 3: learning_rate must be a finite number > 0"),
        ("arms: [noisytune]\nmargin: nan", "line 2: margin must be a number, got 'nan'"),
        ("arms: [noisytune]\nmargin: .inf", "line 2: margin must be a number, got '.inf'"),
        ("arms: [noisytune]\ntraining: {epochs: 2026-01-01}", "epochs must be a whole number >= 1, got '2026-01-01'"),
        ("arms: [noisytune]\ntraining: {epochs: yes}", "epochs must be a whole number >= 1, got 'yes'"),
        ("arms: [noisytune]\ntraining: {epochs: [1]}", "epochs must be a whole number >= 1, got ['1']"),
        ("arms: [noisytune(0.1, scale=global)]", "an arm with a comma needs quotes"),
        ("arms: [[noisytune]]", "line 1: arms must be a name, got ['noisytune']"),
        ("{models: [all-MiniLM-L6-v2, all-MiniLM-L6-v2], arms: [noisytune]}", "are one model: give it once"),
        ("? [a]\n: b", "line 1: a key must be a word"),
        ("arms: !!python/object/apply:os.system [ls]", "line 1: tags such as"),
        ("arms: " + "[" * 100_000, "line 1: more than 20 lists or mappings in each other"),
        ("&a\narms: *a", "more than 20 lists or mappings in each other"),
        ("a: &a [x, x, x]\nb: &b [*a, *a, *a]" + BOMB, "values, aliases counted"),
        ("arms: [noisytune]\n" + "#" * 200_000, "larger than 200,000 bytes"),
        ("arms: [" + "plain, " * 1_001 + "]", "arms holds 1,001, more than 1,000"),
        ("{arms: [noisytune, mixout], seeds: 100000}", "300,000 trials are more than 200,000"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises((ConfigError, DataError)) as caught:
        read_studies(write(tmp_path, text))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).count("study.yaml") <= 1


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.yaml: there is no such file"):
        read_studies(tmp_path / "none.yaml")


def test_several_models_are_several_studies_of_the_same_data(tiny: Model, tmp_path: Path) -> None:
    text = f"{{name: both, models: [{tiny.path}, all-MiniLM-L6-v2], arms: [noisytune], training: {{epochs: 2}}}}"
    one, other = read_studies(write(tmp_path, text))
    assert [study.model.name for study in (one, other)] == [tiny.path.name, "all-MiniLM-L6-v2"]
    assert one.tasks == other.tasks
    assert [study.training.learning_rate for study in (one, other)] == [2e-5, 2e-4]
    assert [study.file_name for study in (one, other)] == [f"both-{tiny.path.name}", "both-all-MiniLM-L6-v2"]


def test_models_of_one_name_do_not_share_a_study(save_tiny: Callable[..., Path], tmp_path: Path) -> None:
    """Their files would be the same one's: said before anything runs, whether the weights are here or not."""
    one, other = (
        save_tiny(tmp_path / folder / "bert", intermediate_size=size) for folder, size in (("a", 32), ("b", 64))
    )
    file = write(tmp_path, f"{{models: [{one}, {other}], arms: [noisytune]}}")
    for reading in (read_studies, plans):
        with pytest.raises(ConfigError, match=r"models: two are called bert, and so would be their files: rename"):
            reading(file)  # type: ignore[operator]
    with pytest.raises(ConfigError, match=r"two are called bert"):
        plans(file, Changes(models=("nobody/bert", "nothing/bert")))
    copy = shutil.copytree(one, tmp_path / "copy")
    with pytest.raises(ConfigError, match=r"models: bert and copy are one model"):
        read_studies(file, Changes(models=(str(one), str(copy))))


def test_shares_contain_each_other_and_the_whole_is_the_task_itself(tmp_path: Path) -> None:
    (study,) = read_studies(write(tmp_path, "{arms: [noisytune], train_shares: [0.1, 0.5, 1.0]}"))
    (plain,) = read_studies(write(tmp_path, "arms: [noisytune]"))
    tenth, half, whole = study.tasks
    assert [task.name for task in study.tasks] == ["topics 10 %", "topics 50 %", "topics"]
    assert {task.part_of for task in study.tasks} == {"topics"}
    assert [len(task.train) for task in study.tasks] == [round(share * len(whole.train)) for share in (0.1, 0.5, 1.0)]
    assert set(tenth.train.texts) < set(half.train.texts) < set(whole.train.texts)
    assert {task.dev for task in study.tasks} == {whole.dev}
    # So a trial on all of the data is the one that any other study runs.
    assert {trial.key for trial in plain.plan} < {trial.key for trial in study.plan}


def test_what_is_asked_for_takes_the_place_of_what_is_written(tiny: Model, tmp_path: Path) -> None:
    text = "{arms: [noisytune], tasks: [replies, {task: topics, dev_size: 50}], model: nowhere, seeds: 3}"
    changes = Changes(
        models=(str(tiny.path),), tasks=("topics",), options={"train_size": 40}, seeds=2, training={"epochs": 7}
    )
    (study,) = read_studies(write(tmp_path, text), changes)
    assert study.model.digest == tiny.digest
    ((topics,), epochs) = study.tasks, study.training.epochs
    assert (topics.name, len(topics.train), len(topics.dev), study.seeds, epochs) == ("topics", 40, 50, (0, 1), 7)


def test_a_share_that_is_too_small_is_one_line(tmp_path: Path) -> None:
    file = write(tmp_path, "{arms: [noisytune], train_shares: [0.1]}")
    with pytest.raises(DataError, match=r"topics, a share of 0.1: training size 2 is too small: give at least 5"):
        read_studies(file, Changes(options={"train_size": 20}))


def changed(name: str, model: Model) -> Study:
    """A study of the paper on what is at hand."""
    changes = Changes(
        models=(str(model.path),), tasks=("topics",), options={"train_size": 60}, seeds=1, training={"epochs": 1}
    )
    (study,) = read_studies(paper_study(name), changes)
    return study


def test_the_studies_of_the_paper_are_the_papers(tiny: Model) -> None:
    import yaml

    assert paper_studies() == ["figure2", "figure3", "figure4", "figure5", "figure6", "table2", "table3"]
    written = {name: yaml.safe_load(paper_study(name).read_text(encoding="utf-8")) for name in paper_studies()}
    for name in ("table2", "figure2", "figure3", "figure6"):
        assert written[name]["tasks"] == [f"glue/{task}" for task in NINE]
    for name in ("figure4", "figure5"):
        assert written[name]["tasks"] == ["glue/mrpc"]
    assert len(written["table2"]["models"]) == 4
    assert (written["table3"]["tasks"], len(written["table3"]["models"])) == (["xtreme"], 2)
    studies = {name: changed(name, tiny) for name in paper_studies()}
    assert {written[name]["name"] for name in studies} == set(studies)
    assert {written[name]["seeds"] for name in studies} == {5}
    lambdas = [arm.methods[0]["noise_lambda"] for arm in studies["figure6"].arms[1:]]
    assert [0.0, *lambdas] == [0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3]
    kinds = [(arm.methods[0]["scale"], arm.methods[0]["distribution"]) for arm in studies["figure2"].arms[1:]]
    assert kinds == [(scale, kind) for scale in ("global", "matrix") for kind in ("gaussian", "uniform")]
    baselines = {trial.key for study in studies.values() for trial in study.plan if trial.arm == "plain"}
    # Figure 4 has its smaller shares besides.
    assert len(baselines) == len(studies["figure4"].tasks)
    assert len({task.name for task in studies["figure4"].tasks}) == 6


def test_a_study_of_the_paper_takes_the_folders_that_are_there(tiny: Model, tmp_path: Path) -> None:
    data = write_glue(tmp_path / "glue")
    for name in ("CoLA", "SST-2", "MRPC", "QQP", "STS-B", "MNLI"):
        shutil.rmtree(data / name)
    (study,) = read_studies(paper_study("figure3"), Changes(models=(str(tiny.path),), options={"data_dir": data}))
    assert {task.name for task in study.tasks} == {"glue/qnli", "glue/rte", "glue/wnli"}
    told = [notice for task in study.tasks for notice in task.notices if "left out" in notice]
    assert len(told) == 1
    assert told[0].count("glue/") == 6
    assert told[0].endswith(f"no folder in {data}, left out")
    asked = Changes(models=(str(tiny.path),), options={"data_dir": data}, tasks=("glue/rte", "glue/cola"))
    with pytest.raises(DataError, match="no folder CoLA"):
        read_studies(paper_study("figure3"), asked)


def test_a_study_with_a_typing_error_in_its_name() -> None:
    with pytest.raises(ConfigError, match="did you mean 'figure2'"):
        paper_study("figur2")
    with pytest.raises(ConfigError, match="choose one of figure2, figure3"):
        paper_study("xtreme")
