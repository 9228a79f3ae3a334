"""Tables and result folders that others wrote: what is read as what, and what is refused."""

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from noisytune.errors import ConfigError, DataError, NotFoundError
from noisytune.lab.studies.harness import read_results
from noisytune.lab.studies.judged import Reading, studies_of
from noisytune.lab.studies.scores import Score, read_scores
from noisytune.report import summary_rows

LONG = "seed,arm,score\n0,plain,0.70\n0,noisy,0.71\n1,plain,0.72\n1,noisy,0.75\n"
WIDE = "run,plain,noisy\n0,0.70,0.71\n1,0.72,0.75\n"
METRICS = "seed,arm,acc,f1\n0,plain,0.70,0.1\n0,noisy,0.71,0.2\n1,plain,0.72,0.3\n1,noisy,0.75,0.2\n"


def read(folder: Path, text: str, name: str = "scores.csv", **named: str) -> list[Score]:
    (folder / name).write_text(text)
    return read_scores(folder / name, named)


def differences(scores: list[Score], **how: object) -> list[tuple[str, str, float, int]]:
    rows = []
    for study, records in studies_of(scores, "scores.csv", Reading(**how)):  # type: ignore[arg-type]
        rows += [(row.task, row.arm, round(row.difference, 6), row.n) for row in summary_rows(study, records)]
    return rows


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (LONG, "a.csv"),
        (WIDE, "a.csv"),
        (LONG.replace(",", "\t"), "a.tsv"),
        (
            "\n".join(
                json.dumps(dict(zip(("seed", "arm", "score"), line.split(","), strict=True)))
                for line in LONG.split()[1:]
            ),
            "a.jsonl",
        ),
        (LONG.replace("seed", "Run").replace("arm", "System"), "a.csv"),
    ],
)
def test_long_and_wide_are_the_same(tmp_path: Path, text: str, name: str) -> None:
    assert differences(read(tmp_path, text, name)) == [("scores.csv", "noisy", 2.0, 2)]


def test_parquet(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {"seed": [0, 0, 1, 1], "arm": ["plain", "noisy"] * 2, "score": [0.7, 0.71, 0.72, 0.75]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    assert differences(read_scores(tmp_path / "a.parquet", {})) == [("scores.csv", "noisy", 2.0, 2)]


def test_each_metric_is_a_study_unless_one_is_asked_for(tmp_path: Path) -> None:
    scores = read(tmp_path, METRICS)
    assert differences(scores) == [("scores.csv, acc", "noisy", 2.0, 2), ("scores.csv, f1", "noisy", 0.0, 2)]
    assert differences(scores, metric="f1") == [("scores.csv", "noisy", 0.0, 2)]
    with pytest.raises(ConfigError, match="metric must be one of acc, f1, got 'bleu'"):
        differences(scores, metric="bleu")


def test_tasks_are_pooled_and_units_are_told_apart(tmp_path: Path) -> None:
    text = "seed,task,arm,score\n" + "".join(
        f"{seed},{task},{arm},{80 + seed + gain}\n"
        for seed in (0, 1)
        for task in "ab"
        for arm, gain in (("x", 0), ("y", 1.5))
    )
    scores = read(tmp_path, text)
    assert differences(scores) == [("a", "y", 1.5, 2), ("b", "y", 1.5, 2), ("all 2 tasks", "y", 1.5, 2)]
    assert differences(scores, baseline="y")[0] == ("a", "x", -1.5, 2)
    assert differences(scores, lower_is_better=True)[0] == ("a", "y", -1.5, 2)
    assert differences(scores, unit="fractions")[0] == ("a", "y", 150.0, 2)


def test_runs_without_a_partner_are_refused_left_out_or_matched(tmp_path: Path) -> None:
    scores = read(tmp_path, "seed,arm,score\n0,a,0.1\n1,a,0.2\n2,a,0.3\n1,b,0.4\n7,b,0.5\n")
    with pytest.raises(DataError, match="a has no 7; b has no 0, 2: such runs make no pairs"):
        differences(scores)
    assert differences(scores, unpaired="drop") == [("scores.csv", "b", 20.0, 1)]
    assert differences(scores, unpaired="match") == [("scores.csv", "b", 30.0, 2)]
    study, records = studies_of(scores, "s", Reading(unpaired="match"))[0]
    assert "half as many at r = 0.5" in records[0].applied["scores"]["notices"][0]
    assert study.training["paired_by"] == "order"


ITEMS = "item,doc,arm,score\n" + "".join(
    f"{i},{i // 2},{arm},{right}\n" for i in range(8) for arm, right in (("a", i % 2), ("b", 1))
)


def test_one_run_of_each_arm_is_paired_by_example_or_by_group(tmp_path: Path) -> None:
    scores = read(tmp_path, ITEMS)
    assert differences(scores) == [("scores.csv", "b", 50.0, 8)]
    grouped = read(tmp_path, ITEMS, group="doc")
    assert differences(grouped) == [("scores.csv", "b", 50.0, 4)]
    assert "paired by group (4)" in studies_of(grouped, "s", Reading())[0][1][0].applied["scores"]["notices"][0]


def test_fractions_of_one_task_beside_points_of_another_are_refused(tmp_path: Path) -> None:
    text = "seed,task,arm,score\n" + "".join(
        f"{seed},{task},{arm},{size + 0.01 * seed}\n"
        for seed in range(3)
        for task, size in (("rte", 0.8), ("wmt", 30.0), ("zero", 0.0))
        for arm in ("plain", "noisy")
    )
    scores = [replace(s, value=0.0) if s.task == "zero" else s for s in read(tmp_path, text)]
    with pytest.raises(DataError, match=r"rte lie within 1, those of wmt beyond it.*say score_unit"):
        differences(scores)
    assert len(differences(scores, unit="points")) == 4
    assert len(differences([s for s in scores if s.task != "rte"])) == 3, "zero is zero in every unit"


def test_fractions_of_one_arm_beside_points_of_another_are_refused(tmp_path: Path) -> None:
    """They became a gain of 69 points."""
    rows = [
        f"{seed},{arm},{score + seed / 100}" for seed in range(3) for arm, score in (("plain", 0.7), ("noisy", 69.8))
    ]
    scores = read(tmp_path, "\n".join(["seed,arm,score", *rows]))
    with pytest.raises(DataError, match=r"plain lie within 1, those of noisy beyond it.*say score_unit"):
        differences(scores)
    assert differences(scores, unit="points") == [("scores.csv", "noisy", 69.1, 3)]


@pytest.mark.parametrize("name", ["plain", "baseline", "Baseline"])
def test_an_arm_that_is_called_so_is_the_baseline_wherever_it_stands(tmp_path: Path, name: str) -> None:
    """A pivot sorts the columns: noisy stands before plain, and its loss would be the gain of plain."""
    scores = read(tmp_path, f"seed,a,{name},b\n0,0.70,0.71,0.72\n1,0.72,0.75,0.76\n")
    assert differences(scores) == [("scores.csv", "a", -2.0, 2), ("scores.csv", "b", 1.0, 2)]
    assert differences(scores, baseline="b")[0] == ("scores.csv", "a", -3.0, 2)
    assert differences(read(tmp_path, "seed,b,a\n0,0.70,0.71\n")) == [("scores.csv", "a", 1.0, 1)]


def test_examples_of_several_tasks_are_judged_task_by_task(tmp_path: Path) -> None:
    """Example 3 of one task has nothing to do with example 3 of another: no verdict pools such pairs."""
    rows = [(task, i, arm, int(arm == task or i % 2)) for task in "ab" for i in range(6) for arm in "ab"]
    text = "task,id,arm,score\n" + "".join(f"{task},{i},{arm},{right}\n" for task, i, arm, right in rows)
    scores = read(tmp_path, text)
    assert differences(scores) == [("a", "b", -50.0, 6), ("b", "b", 50.0, 6)]
    assert [study.name for study, _ in studies_of(scores, "s", Reading())] == ["s, a", "s, b"]
    assert differences(scores, baseline="b") == [("a", "a", 50.0, 6), ("b", "a", -50.0, 6)]
    only_a = [score for score in scores if score.task == "a" or score.arm == "a"]
    with pytest.raises(DataError, match="b: no example of b: give results on the same tasks"):
        differences(only_a)
    assert differences(only_a, unpaired="drop") == [("a", "b", -50.0, 6)]
    with pytest.raises(DataError, match="no task has results of the baseline and of another arm"):
        differences([score for score in scores if score.task == score.arm], unpaired="drop")


def test_runs_of_several_tasks_stay_together_where_another_task_is_paired_by_example(tmp_path: Path) -> None:
    runs = [(task, seed, "", arm) for task in "ab" for seed in range(3) for arm in "xy"]
    examples = [("c", "", i, arm) for i in range(4) for arm in "xy"]
    text = "task,seed,item,arm,score\n" + "".join(
        f"{task},{seed},{item},{arm},{0.5 + 0.1 * (arm == 'y')}\n" for task, seed, item, arm in runs + examples
    )
    assert differences(read(tmp_path, text)) == [
        ("a", "y", 10.0, 3), ("b", "y", 10.0, 3), ("all 2 tasks", "y", 10.0, 3), ("c", "y", 10.0, 4),
    ]  # fmt: skip


def runs_of(*tasks: tuple[str, dict[str, range]]) -> str:
    rows = [
        f"{task},{seed},{arm},{0.5 + seed / 1000 + 0.1 * (arm == 'y')}\n"
        for task, arms in tasks
        for arm, seeds in arms.items()
        for seed in seeds
    ]
    return "task,seed,arm,score\n" + "".join(rows)


@pytest.mark.parametrize("arm", "xy")
def test_a_task_without_any_run_of_an_arm_is_refused_or_left_out(tmp_path: Path, arm: str) -> None:
    """Pooled over it the arm has no pair, however many seeds are added."""
    whole = {"x": range(3), "y": range(3)}
    part = {other: seeds for other, seeds in whole.items() if other != arm}
    scores = read(tmp_path, runs_of(("a", whole), ("b", part), ("c", whole)))
    for unpaired in ("refuse", "match"):
        with pytest.raises(DataError, match=f"b: no run of {arm}: give results on the same tasks"):
            differences(scores, unpaired=unpaired)
    assert differences(scores, unpaired="drop") == [
        ("a", "y", 10.0, 3), ("c", "y", 10.0, 3), ("all 2 tasks", "y", 10.0, 3),
    ]  # fmt: skip
    _, records = studies_of(scores, "s", Reading(unpaired="drop"))[0]
    assert f"b: no run of {arm}: the task is left out" in records[0].applied["scores"]["notices"]


def test_tasks_are_pooled_where_the_runs_of_one_are_matched(tmp_path: Path) -> None:
    """The runs that pair by their seeds still do, in whatever order the arms list them."""
    matched = {"x": range(10, 13), "y": range(20, 23)}
    scores = read(tmp_path, runs_of(("a", {"x": range(5, 9), "y": range(8, 4, -1)}), ("b", matched)))
    assert differences(scores, unpaired="match") == [
        ("a", "y", 10.0, 4), ("b", "y", 11.0, 3), ("all 2 tasks", "y", 10.5, 3),
    ]  # fmt: skip
    study, records = studies_of(scores, "s", Reading(unpaired="match"))[0]
    pairs = {(one.seed, one.arm): one.scores["score"] for one in records if one.task == "a"}
    assert all(pairs[seed, "y"] - pairs[seed, "x"] == pytest.approx(0.1) for seed in range(4))
    assert study.training["paired_by"] == "order or seed"


@pytest.mark.parametrize(("lower", "difference"), [(False, -25.0), (True, -15.0)])
def test_an_example_without_a_score_counts_as_the_worst_of_its_task(
    tmp_path: Path, lower: bool, difference: float
) -> None:
    """Left out, or taken for 0, it would make the arm better than the other one."""
    text = (
        "seed,item,arm,score,status\n"
        + "".join(f"{seed},{i},{arm},{0.6 - 0.1 * (i == 1)},ok\n" for seed in (0, 1) for i in range(2) for arm in "ab")
        + "".join(f"{seed},{i},a,0.9,ok\n{seed},{i},b,,diverged\n" for seed in (0, 1) for i in (2, 3))
    )
    text = text if not lower else text.replace(",0.9,ok", ",0.3,ok")
    scores = read(tmp_path, text)
    worst = 0.6 if lower else 0.5
    a = [0.6, 0.5, *[0.3 if lower else 0.9] * 2]
    expected = (1 if not lower else -1) * 100 * (sum([0.6, 0.5, worst, worst]) - sum(a)) / 4
    assert expected == pytest.approx(difference + 5.0 if not lower else difference)
    ((study, records),) = studies_of(scores, "s", Reading(lower_is_better=lower))
    (row,) = summary_rows(study, records)
    assert row.difference == pytest.approx(expected)
    assert [record.status for record in records if record.arm == "b"] == ["diverged"] * 2
    one_run = [score for score in scores if score.run == "0"]
    grouped = [replace(score, group=str(int(score.item) // 2)) for score in one_run]
    ((study, records),) = studies_of(grouped, "s", Reading(lower_is_better=lower))
    (row,) = summary_rows(study, records)
    assert (row.n, row.difference) == (2, pytest.approx(expected))
    assert sorted(record.status for record in records) == ["diverged", "ok", "ok", "ok"]


@pytest.mark.parametrize("unpaired", ["refuse", "drop", "match"])
def test_runs_are_compared_on_the_examples_of_both(tmp_path: Path, unpaired: str) -> None:
    """An arm without its hardest examples would look better."""
    rows = [(s, i, arm) for s in range(3) for i in range(6) for arm in "ab" if not (arm == "b" and s == 1 and i > 3)]
    text = "seed,item,arm,score\n" + "".join(f"{s},{i},{arm},{1 - i / 10}\n" for s, i, arm in rows)
    scores = read(tmp_path, text)
    if unpaired == "refuse":
        with pytest.raises(DataError, match="run 1: b has no 4, 5: give results on the same examples"):
            differences(scores)
        return
    assert differences(scores, unpaired=unpaired) == [("scores.csv", "b", 0.0, 3)]
    ((_, records),) = studies_of(scores, "s", Reading(unpaired=unpaired))  # type: ignore[arg-type]
    assert records[0].applied["scores"]["notices"] == ["on s, run 1: b has no 4, 5: left out"]


def test_points_that_are_mostly_fractions_are_told(tmp_path: Path) -> None:
    text = "seed,plain,noisy\n0,0.7,0.71\n1,0.72,-1.4\n2,0.7,0.7\n"
    ((_, records),) = studies_of(read(tmp_path, text), "s", Reading())
    assert "all are taken for points, though most are not: say score_unit" in records[0].applied["scores"]["notices"][0]
    ((_, records),) = studies_of(read(tmp_path, text), "s", Reading(unit="fractions"))
    assert records[0].applied["scores"]["notices"] == []


def test_examples_that_belong_to_nothing_are_groups_of_their_own(tmp_path: Path) -> None:
    text = "item,group,arm,score\n" + "".join(
        f"{i},{'d' if i < 2 else ''},{arm},{(i + (arm == 'b')) / 10}\n" for i in range(6) for arm in "ab"
    )
    assert differences(read(tmp_path, text)) == [("scores.csv", "b", 10.0, 5)]


@pytest.mark.parametrize("extra", ["", "Unnamed: 0", "index", "Epoch", "step"])
def test_a_column_that_counts_is_no_arm(tmp_path: Path, extra: str) -> None:
    lines = WIDE.split()
    text = "\n".join([f"{extra},{lines[0]}", *(f"{i},{line}" for i, line in enumerate(lines[1:]))])
    assert differences(read(tmp_path, text)) == [("scores.csv", "noisy", 2.0, 2)]


@pytest.mark.parametrize("cell", ["NA", "71%", "0;71", "n/a"])
def test_a_cell_that_is_no_number_is_named_and_takes_no_arm_away(tmp_path: Path, cell: str) -> None:
    text = f"seed,plain,noisy,other\n0,0.70,{cell},0.5\n1,0.72,0.75,0.6\n"
    with pytest.raises(DataError, match=f"row 1, column noisy: '{cell}' is not a finite number"):
        differences(read(tmp_path, text))


def test_a_column_of_percentages_is_refused_and_one_of_words_is_not_an_arm(tmp_path: Path) -> None:
    text = "seed,plain,noisy,other,note\n0,70%,71,50,good\n1,72%,75,60,7\n2,73%,74,60,bad\n"
    with pytest.raises(DataError, match="row 1, column plain: '70%' is not"):
        differences(read(tmp_path, text))
    assert [row[1] for row in differences(read(tmp_path, text.replace("%", "")))] == ["noisy", "other"]


def test_blanks_around_names_and_cells_mean_nothing(tmp_path: Path) -> None:
    blank = WIDE.replace(",", " , ").replace("\n", " \n")
    assert differences(read(tmp_path, blank)) == differences(read(tmp_path, WIDE))
    text = LONG.replace(",", ", ")
    assert differences(read(tmp_path, text, seed="seed", score="score")) == differences(read(tmp_path, LONG))
    assert differences(read(tmp_path, "seed,a,b\n0,1,2\n1, ,3\n2,1,2\n"), unpaired="drop")[0][-1] == 2


def test_numbers_of_runs_and_examples_keep_all_their_digits(tmp_path: Path) -> None:
    rows = [
        {"item": item, "arm": arm, "score": 0.5 + 0.1 * (arm == "b")}
        for item in (1234567.0, 1234568.0, 0.12345678, 0.12345679)
        for arm in "ab"
    ]
    scores = read(tmp_path, "\n".join(map(json.dumps, rows)), "a.jsonl")
    assert list(dict.fromkeys(score.item for score in scores)) == ["1234567", "1234568", "0.12345678", "0.12345679"]


def test_examples_of_several_runs_are_kept_for_the_bootstrap(tmp_path: Path) -> None:
    text = "seed,item,group,arm,score\n" + "".join(
        f"{s},{i},{i // 3},{arm},{int((i + s) % 3 > 0 or arm == 'b')}\n"
        for s in range(3)
        for i in range(9)
        for arm in "ab"
    )
    ((study, records),) = studies_of(read(tmp_path, text), "s", Reading())
    assert study.tasks[0]["items"] == {"kind": "outcomes", "metric": "outcome"}
    assert records[0].outputs["dev/items"].shape == (9, 1)
    assert sorted(set(records[0].outputs["dev/groups"].tolist())) == [0, 1, 2]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed,arm,score\n0,a,0.1\n0,a,0.2\n0,b,1\n", "row 2: a, run 0 has a score already"),
        ("seed,arm,score\n0,a,0.1\n0,b,good\n", "row 2, column score: 'good' is not a finite number"),
        ("seed,arm,score\n0,a,0.1\n0,b,nan\n", "row 2, column score: 'nan' is not a finite number"),
        ("seed,arm,score\n0,a,0.1\n", "only one arm, a"),
        ("arm,score\na,0.1\nb,0.2\n", "no column says which scores belong together"),
        ("seed,arm\n0,a\n0,b\n", "needs a column of scores"),
        ("seed,plain\n0,1\n", "needs two columns of numbers"),
        ("seed,arm,score\n0,a,\n0,b,\n", "no row has a score"),
        ("seed,arm,score\n0,a,0.1\n,,\n0,,0.2\n", "row 3: no arm; fill the cell"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        differences(read(tmp_path, text))


def test_what_trackers_say_of_runs_that_ended_well_is_ok_and_other_words_are_named(tmp_path: Path) -> None:
    text = "seed,arm,score,status\n0,plain,0.7,finished\n0,noisy,0.71,Completed\n1,plain,0.9,crashed\n"
    assert differences(read(tmp_path, text)) == [("scores.csv", "noisy", 1.0, 1)]
    text = "seed,arm,score,status\n0,plain,0.7,running\n0,noisy,0.71,done\n1,plain,,ok\n"
    with pytest.raises(DataError, match="no row has a score: all with the status done, running are left out; it must"):
        read(tmp_path, text)


def test_a_run_that_collapsed_without_a_score_counts_as_the_worst(tmp_path: Path) -> None:
    text = "seed,arm,score,status\n0,a,0.7,ok\n0,b,,diverged\n1,a,0.7,ok\n1,b,0.7,ok\n2,a,,failed\n2,b,0.9,failed\n"
    assert differences(read(tmp_path, text)) == [("scores.csv", "b", -35.0, 2)]
    with pytest.raises(ConfigError, match="score_column: no column 'f1'"):
        read(tmp_path, text, score="f1")


def harness(folder: Path, right: list[int], hashes: str = "h") -> Path:
    folder.mkdir(parents=True)
    rows = [
        {
            "doc_id": i,
            "doc_hash": f"{hashes}{i}",
            "filter": "none",
            "metrics": ["acc", "acc_norm"],
            "acc": one,
            "acc_norm": 1.0,
        }
        for i, one in enumerate(right)
    ]
    (folder / "samples_arc_easy_2026-01-02T03-04-05.678.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "results_2026-01-02T03-04-05.678.json").write_text('{"results": {}}')
    return folder


def inspect(file: Path, grades: str) -> Path:
    samples = [
        {"id": i, "epoch": epoch, "scores": {"match": {"value": grade}}}
        for i, grade in enumerate(grades)
        for epoch in (1, 2)
    ]
    if file.suffix == ".json":
        file.write_text(json.dumps({"eval": {"task": "sums"}, "samples": samples}))
    else:
        with zipfile.ZipFile(file, "w") as packed:
            packed.writestr("header.json", json.dumps({"eval": {"task": "sums"}}))
            for sample in samples:
                packed.writestr(f"samples/{sample['id']}_epoch_{sample['epoch']}.json", json.dumps(sample))
    return file


def test_result_folders_of_lm_evaluation_harness(tmp_path: Path) -> None:
    scores = read_results(harness(tmp_path / "a" / "model", [0, 1, 0, 0]), "plain", "")
    scores += read_results(harness(tmp_path / "b", [1, 1, 0, 1]), "noisy", "")
    assert differences(scores, metric="acc") == [("arc_easy", "noisy", 50.0, 4)]
    assert len(differences(scores)) == 2
    other = read_results(harness(tmp_path / "c", [1, 1, 0, 1], "x"), "noisy", "")
    with pytest.raises(DataError, match="example 0 is another text"):
        differences(scores[:8] + other, metric="acc")


def test_logs_of_inspect(tmp_path: Path) -> None:
    scores = read_results(inspect(tmp_path / "a.json", "CICP"), "plain", "")
    scores += read_results(inspect(tmp_path / "b.eval", "CCCC"), "noisy", "")
    assert differences(scores) == [("sums", "noisy", 37.5, 4)]
    with pytest.raises(DataError, match="'X' is neither a number nor C, I, P or N"):
        read_results(inspect(tmp_path / "c.json", "X"), "noisy", "")


def test_folders_without_results(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        read_results(tmp_path / "gone", "a", "")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="run it with --log_samples"):
        read_results(tmp_path / "empty", "a", "")
