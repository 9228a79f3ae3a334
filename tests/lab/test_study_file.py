"""Studies as YAML: what is read, and one clear line for what cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from noisytune.errors import ConfigError, DataError
from noisytune.lab.model import Model
from noisytune.lab.study_file import read_study
from noisytune.lab.trial import PLAIN, Arm
from tests.lab.tasks.glue_files import write_glue

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


def write(folder: Path, text: str) -> Path:
    file = folder / "study.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_everything_is_read(tiny: Model, tmp_path: Path) -> None:
    rows = "first,second,stars\n" + "".join(f"a {i},b {i},{'good' if i % 2 else 'bad'}\n" for i in range(12))
    for name in ("reviews.csv", "held-out.csv"):
        (tmp_path / name).write_text(rows)
    study = read_study(write(tmp_path, WHOLE.format(model=tiny.path)))
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
    study = read_study(write(tmp_path, "arms: [noisytune]"))
    assert study.name == "study"
    assert [task.name for task in study.tasks] == ["topics"]
    assert study.seeds == (0, 1, 2, 3, 4)
    assert study.model.name == "all-MiniLM-L6-v2"
    assert study.training.learning_rate == 2e-4


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
    study = read_study(write(tmp_path, text.format(model=tiny.path)))
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
        ("{arms: [noisytune], seeds: 0}", "seeds must be a number of seeds >= 1"),
        ("{arms: [noisytune], seeds: [a]}", "seeds must be"),
        ("{arms: [noisytune], margin: much}", "margin must be a number of points"),
        ("{arms: [noisytune], training: {epoch: 3}}", "training: there is no key 'epoch': did you mean 'epochs'"),
        ("{arms: [noisytune], training: {epochs: 0}}", "epochs must be a whole number >= 1"),
        ("{arms: [noisytune], training: 3}", "training must hold lines"),
        ("{arms: [noisytune], tasks: [{label_column: x}]}", "a task lacks its name"),
        ("{arms: [noisytune], tasks: [{task: topics, colour: x}]}", "there is no key 'colour'"),
        ("{arms: [noisytune], tasks: [topisc]}", "did you mean 'topics'"),
        ("{arms: [noisytune, noisytune]}", "is given twice"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises((ConfigError, DataError)) as caught:
        read_study(write(tmp_path, text))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read the study"):
        read_study(tmp_path / "none.yaml")
