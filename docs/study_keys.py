"""The reference of the keys of a study's file, as a page, from the tables of settings."""

from typing import Any

from noisytune._settings import setting_of, settings_of
from noisytune.lab.studies import USUAL_SEEDS
from noisytune.lab.tasks import TaskOptions
from noisytune.lab.trials.settings import TrainingSettings

OF_A_STUDY = {
    "name": ("the file's name", "stands in the title of the report"),
    "model": (
        "`all-MiniLM-L6-v2`",
        "fine-tune these weights: a directory, from the file's folder on, or an id on the Hub",
    ),
    "models": ("", "the same for several, as a list: each is a study of its own"),
    "tasks": ("`[topics]`", "a list of names, of files, or of mappings with the keys [of a task](#of-a-task)"),
    "train_shares": ("`[1.0]`", "take these shares of each task's training examples, 0 < share <= 1"),
    "arms": ("", "a list of arms as `--arm` takes them; the baseline, `plain`, is always the first"),
    "seeds": (f"`{USUAL_SEEDS}`", "run so many pairs, seeds 0, 1, 2 ...; or a list of seeds"),
    "equal_compute": ("`false`", "add the baseline that reads as many tokens as the arms that cost more"),
    "margin": ("`1.0`", "count differences within so many points as equivalent"),
    "training": ("", "a mapping with the settings [of the training](#of-the-training), for all tasks"),
}
"""Key: default, and what it does."""
OF_A_TASK = {
    "task": ("", "a name (`topics`, `glue/rte` ...) or a file, from the study's folder on"),
    "training": ("", "settings [of the training](#of-the-training) for this task alone"),
}


Row = tuple[str, str, str, str]
"""Key, default, what is allowed, what it does."""


def keys() -> str:
    """A table for each place in the file."""
    study = [(f"`{name}`", default, "", about) for name, (default, about) in OF_A_STUDY.items()]
    task = [(f"`{name}`", default, "", about) for name, (default, about) in OF_A_TASK.items()]
    return "\n".join(
        [
            _table("Of a study", "At the left margin of the file.", study),
            _table(
                "Of a task", "In a mapping of the list `tasks`; the options of a task, too.", task + _rows(TaskOptions)
            ),
            _table("Of the training", "In the mapping `training`, of the study or of a task.", _rows(TrainingSettings)),
        ]
    )


def _rows(owner: type) -> list[Row]:
    found = []
    for name, field in settings_of(owner).items():
        setting = setting_of(field)
        found.append((f"`{name}`", _default(field.default), setting.allowed, setting.about))
    return found


def _default(value: Any) -> str:
    return "" if value in (None, (), "", False) else f"`{value}`"


def _table(title: str, where: str, rows: list[Row]) -> str:
    """A section; the column of what is allowed is left out where no row says it."""
    says = any(allowed for _, _, allowed, _ in rows)
    heads = ("key", "default", "allowed", "what it does")
    lines = []
    for name, default, allowed, about in [heads, ("---",) * 4, *rows]:
        cells = [name, default, *([allowed] if says else []), about]
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join([f"## {title}\n\n{where}\n", *lines, ""])
