"""A dev set for a task that comes without one: a fifth of its texts, the same ones for ever."""

from __future__ import annotations

from collections import Counter

from noisytune.errors import DataError, require
from noisytune.lab.kinds import KINDS, Split

DEV_SHARE = 0.2
"""Share of the distinct texts that becomes dev."""


def split_off_dev(data: Split, kind: str, where: str, seed: int) -> tuple[Split, Split]:
    """Train and dev, stratified by class; rows with the same text stay on one side, a class with one text in train.

    Args:
        data: what there is.
        kind: of the task: says which texts are alike.
        where: the source, for messages.
        seed: another one splits otherwise.

    Raises:
        DataError: too few texts.
        MissingExtraError: scikit-learn is not installed.
    """
    require("sklearn", extra="lab", needed_for="splitting a file into train and dev")
    from sklearn.model_selection import train_test_split

    first: dict[tuple[str, ...], float] = {}
    of_rows = KINDS[kind].strata(data.targets)
    for texts, stratum in zip(data.texts, of_rows, strict=True):
        first.setdefault(texts, stratum)
    classes = Counter(first.values()) if len(set(first.values())) > 1 else Counter()
    movable = [texts for texts, target in first.items() if classes[target] != 1]
    strata = [first[texts] for texts in movable] if classes else None
    need = sum(count > 1 for count in classes.values()) or 1
    size = max(round(DEV_SHARE * len(movable)), need)
    if len(movable) - size < max(need, 2):
        raise DataError(
            f"{where}: {len(first)} different texts are too few to split off a dev set; add rows or give dev_file"
        )
    held = set(train_test_split(movable, test_size=size, stratify=strata, random_state=seed)[1])
    sides = [[i for i, texts in enumerate(data.texts) if (texts in held) == dev] for dev in (False, True)]
    train, dev = (data.take(side) for side in sides)
    if classes and {of_rows[i] for i in sides[0]} < set(of_rows):
        raise DataError(f"{where}: a class has only texts that other rows label otherwise; remove these rows")
    return train, dev
