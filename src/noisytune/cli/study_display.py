"""What the terminal shows of a study: progress while it runs, a table when it is done."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from noisytune._console import Console
from noisytune._metrics import direction
from noisytune._text import terminal
from noisytune.cli._errors import spelled
from noisytune.cli._rows import print_rows
from noisytune.lab.studies.events import Event, SearchStarted, SearchTold, StudyStarted
from noisytune.lab.trials.events import Notice, TrialDone, TrialFailed, TrialProgress, TrialStarted
from noisytune.records import FailureRecord, StudyRecord, TrialRecord

if TYPE_CHECKING:
    from noisytune.lab.trials.trial import Trial
    from noisytune.report import SummaryRow


class StudyDisplay:
    """Shows a running study: bars and the running difference on a terminal, a line a trial elsewhere."""

    def __init__(self, out: Console) -> None:
        self._out = out
        self._study: StudyRecord | None = None
        self._records: list[TrialRecord] = []
        self._search: SearchStarted | None = None
        self._best: dict[str, float] = {}
        self._done = 0
        self._total = 0
        self._overall = Progress(
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(None),
            TextColumn("{task.fields[done]} of {task.fields[trials]} trials"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            expand=True,
        )
        self._bar: TaskID | None = None
        self._running = Progress(
            TextColumn("  {task.description}", markup=False),
            BarColumn(20),
            TextColumn("step {task.completed:.0f}/{task.total:.0f}  loss {task.fields[loss]}"),
        )
        self._trials: dict[str, TaskID] = {}
        self._live = Live(self, console=out, refresh_per_second=4, transient=True) if out.is_terminal else None

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def __rich__(self) -> Group:
        return Group(self._overall, self._running, self._differences())

    def on_event(self, event: Event) -> None:
        """Take in what the study tells."""
        match event:
            case SearchStarted():
                self._begin_search(event)
            case SearchTold():
                self._done += 1
                if event.best is not None:
                    self._best[event.arm] = event.best
                if not self._live:
                    self._say(self._told(event))
            case StudyStarted():
                self._begin(event)
            case Notice(text):
                self._say(f"Note: {spelled(text)}")
            case TrialStarted(trial):
                self._trials[trial.key] = self._running.add_task(
                    terminal(self._named(trial)), total=None, loss="-", visible=False
                )
            case TrialProgress():
                loss = "not finite" if event.loss is None else f"{event.loss:.3f}"
                self._running.update(
                    self._trials[event.key], completed=event.step, total=event.total_steps, loss=loss, visible=True
                )
            case TrialDone(record):
                self._running.remove_task(self._trials.pop(record.key))
                if self._search:
                    return
                self._records.append(record)
                self._done += 1
                if not self._live:
                    self._say(self._line(record))
            case TrialFailed(trial, message, again):
                if trial.key in self._trials:
                    self._running.remove_task(self._trials.pop(trial.key))
                self._say(f"{spelled(message)}{'; it is tried again' if again else ''}")
        if self._bar is not None:
            partial = sum(task.percentage / 100 for task in self._running.tasks if task.total)
            self._overall.update(self._bar, completed=self._done + partial, done=self._done)

    def _say(self, line: str) -> None:
        """A line of a log is whole, whatever the width."""
        self._out.print(terminal(line), soft_wrap=not self._live)

    def _begin_search(self, event: SearchStarted) -> None:
        self._search, self._study, self._done = event, event.study, event.done
        self._total = event.budget * len(event.study.arms)
        (task,) = event.study.tasks
        self._say(
            f"Search: {event.study.model['name']} on {task['name']} ({task['kind']}, {task['train_size']} train, "
            f"chosen on {task['dev_size']}): {event.budget} trials of each arm"
        )
        self._out.print(f"Run folder: {terminal(event.folder)}", soft_wrap=True)
        if event.done:
            self._out.print(f"{event.done} of {self._total} trials are done already")
        self._show_bar("search")

    def _begin(self, event: StudyStarted) -> None:
        self._search, self._study, self._records = None, event.study, list(event.finished)
        self._done = len(event.finished)
        self._total = len(event.finished) + len(event.missing)
        study = event.study
        tasks = ", ".join(map(_described, study.tasks))
        self._say(f"{study.model['name']} on {tasks}: {self._total} trials")
        self._out.print(f"Run folder: {terminal(event.folder)}", soft_wrap=True)
        if event.finished:
            self._out.print(f"{len(event.finished)} of {self._total} trials are done already")
        self._show_bar(study.name)

    def _show_bar(self, name: str) -> None:
        if self._bar is not None:
            self._overall.remove_task(self._bar)
        self._bar = self._overall.add_task(
            terminal(name), total=self._total, completed=self._done, done=self._done, trials=self._total
        )

    def _named(self, run: Trial | TrialRecord) -> str:
        """Seed, arm, and the task where the study has several."""
        several = self._study is not None and len(self._study.tasks) > 1
        return f"seed {run.seed:<3} {run.arm:24}" + (f" {run.task}" if several else "")

    def _told(self, event: SearchTold) -> str:
        """One trial of a search, for logs."""
        from noisytune.report import settings_text

        place = f"{self._done}/{self._total}"
        best = "" if event.best is None else f"  best {100 * event.best:.2f}"
        score = "no score" if event.value is None else f"{100 * event.value:.2f}"
        return f"{place:>7}  {event.arm} {event.number + 1}: {settings_text(event.settings)}  {score}{best}"

    def _line(self, record: TrialRecord) -> str:
        """One finished trial, for logs."""
        task = next(task for task in self._study.tasks if task["name"] == record.task) if self._study else {}
        score = record.scores.get(task.get("metric", ""), math.nan)
        place = f"{len(self._records)}/{self._total}"
        asked = "ok" if record.settings["training"].get("max_steps") != 0 else "untrained"
        return (
            f"{place:>7}  {self._named(record)} {task.get('metric_label', '')} {100 * score:6.2f}  "
            f"{record.timing['total']:.0f} s{'' if record.status == asked else '  ' + record.status}"
        )

    def _differences(self) -> Text:
        """The running paired difference of each arm; during a search the best score of each so far."""
        if self._search:
            lines = [f"  {arm}: best so far {100 * best:.2f}" for arm, best in self._best.items()]
            return Text("\n".join(map(terminal, lines)))
        lines = []
        for arm in self._study.arms[1:] if self._study else ():
            differences = _paired(self._study, self._records, arm) if self._study else []
            if differences:
                mean = sum(differences) / len(differences)
                pairs = "1 pair" if len(differences) == 1 else f"{len(differences)} pairs"
                lines.append(f"  {arm}: {mean:+.2f} points on average over {pairs} so far")
        if not self._trials and self._study and len(self._records) < self._total:
            lines.append("  getting workers and tokens ready ...")
        return Text("\n".join(map(terminal, lines)))


def _described(task: dict[str, Any]) -> str:
    """A task of a study, and how large it is where that is known."""
    if not task["dev_size"]:
        return f"{task['name']} (compared by {task['metric_label']})"
    return f"{task['name']} ({task['kind']}, {task['train_size']} train, {task['dev_size']} dev)"


def _paired(study: StudyRecord, records: Iterable[TrialRecord], arm: str) -> list[float]:
    """Gains over the baseline, in points, of the pairs in which both runs have a score."""
    better = {task["name"]: direction(task["kind"], task["metric"]) for task in study.tasks}
    metric = {task["name"]: task["metric"] for task in study.tasks}
    scores = {(r.task, r.seed, r.arm): r.scores[metric[r.task]] for r in records if metric[r.task] in r.scores}
    return [
        100 * better[task] * (score - scores[task, seed, study.arms[0]])
        for (task, seed, name), score in scores.items()
        if name == arm and (task, seed, study.arms[0]) in scores
    ]


def print_summary(
    out: Console,
    study: StudyRecord,
    records: list[TrialRecord],
    page: Path | None,
    failures: Iterable[FailureRecord] = (),
) -> None:
    """The comparisons, the verdict in one sentence, what to be careful about, and where the report is."""
    from noisytune.report import findings

    several = len(study.tasks) > 1
    headings = ["task", "arm", "pairs", study.arms[0], "this arm", "difference", "95 % anytime", "W/T/L"]
    found = findings(study, records, failures)
    rows = [_cells(row) for row in found.rows]
    out.print()
    said = {"task"} if not several else set()
    if several and len(study.arms) == 2:  # one arm needs no column, and its name may be long
        said.add("arm")
        out.print(terminal(f"{study.arms[1]} beside {study.arms[0]}:"))
    places = [i for i, heading in enumerate(headings) if heading not in said]
    headings, rows = [headings[i] for i in places], [[row[i] for i in places] for row in rows]
    print_rows(out, headings, rows, names=sum(heading in ("task", "arm") for heading in headings))
    if any(row.failed for row in found.rows):
        out.print(f"{FAILED} a run of these collapsed, diverged or stayed untrained; it counts")
    if found.beside_paper:
        out.print()
        print_rows(out, found.beside_paper[0], found.beside_paper[1:])
    out.print()
    out.print(terminal(found.verdict))
    out.print(terminal(found.scored_on))
    for note in found.notes:
        out.print(terminal(f"Note: {note}"))
    out.print()
    if page:
        out.print(f"Report: {terminal(page)}", soft_wrap=True)


FAILED = "*"
"""Beside a number of pairs."""


def _cells(row: SummaryRow) -> list[str]:
    if row.n == 0:
        return [row.task, row.arm, "0", "-", "-", "-", "-", "-"]
    return [
        row.task,
        row.arm,
        f"{row.n}{FAILED if row.failed else ''}",
        f"{row.baseline_mean:.2f}",
        f"{row.arm_mean:.2f}",
        f"{row.difference:+.2f}",
        f"{row.low:+.2f}..{row.high:+.2f}" if math.isfinite(row.low) else "unbounded",
        f"{row.wins}/{row.ties}/{row.losses}",
    ]
