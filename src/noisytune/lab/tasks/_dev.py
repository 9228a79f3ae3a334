"""A dev set for a task that comes without one: a fifth of its texts, the same ones for ever."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Iterable, Sequence

from noisytune.errors import DataError, require
from noisytune.lab.kinds import KINDS, Split
from noisytune.lab.tasks._data import order_key

DEV_SHARE = 0.2
"""Share of the distinct texts that becomes dev."""
FIFTH = 5
"""One unit in so many becomes dev where units are drawn without regard to classes."""


def drawn_off(units: Iterable[str], seed: int) -> frozenset[str]:
    """The units that become dev: a fifth of the different ones, rounded down.

    Args:
        units: of each example what stays on one side: its text, its context, its group.
        seed: another one draws others.

    >>> len(drawn_off("aabcdefghij", 0))
    2
    """
    different = sorted(set(units), key=lambda unit: order_key(seed, unit))
    return frozenset(different[: len(different) // FIFTH])


def sides(units: Sequence[Hashable], held: Collection[Hashable]) -> tuple[list[int], list[int]]:
    """Places of the examples that are trained on, and of those that become dev.

    Args:
        units: of each example what stays on one side.
        held: those that become dev.

    >>> sides("abca", {"a"})
    ([1, 2], [0, 3])
    """
    train, dev = ([i for i, unit in enumerate(units) if (unit in held) == side] for side in (False, True))
    return train, dev


def split_off_dev(data: Split, kind: str, where: str, seed: int) -> tuple[Split, Split]:
    """Train and dev, stratified by class; rows with the same text stay on one side, a class with one text in train.

    Where rows belong to groups, those take the place of texts: each counts as of the class that most of its rows have.

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

    units: tuple[tuple[str, ...] | str, ...] = data.groups or data.texts
    what = "groups" if data.groups else "texts"
    members: dict[tuple[str, ...] | str, list[float]] = defaultdict(list)
    of_rows = KINDS[kind].strata(data.targets)
    for unit, stratum in zip(units, of_rows, strict=True):
        members[unit].append(stratum)
    first = {unit: Counter(mine).most_common(1)[0][0] if data.groups else mine[0] for unit, mine in members.items()}
    classes = Counter(first.values()) if len(set(first.values())) > 1 else Counter()
    movable = [unit for unit, target in first.items() if classes[target] != 1]
    strata = [first[unit] for unit in movable] if classes else None
    need = sum(count > 1 for count in classes.values()) or 1
    size = max(round(DEV_SHARE * len(movable)), need)
    if len(movable) - size < max(need, 2):
        raise DataError(
            f"{where}: {len(first)} different {what} are too few to split off a dev set; add rows or give dev_file"
        )
    held = set(train_test_split(movable, test_size=size, stratify=strata, random_state=seed)[1])
    places = sides(units, held)
    train, dev = map(data.take, places)
    if classes and {of_rows[i] for i in places[0]} < set(of_rows):
        if data.groups:
            raise DataError(
                f"{where}: a class is in groups alone that became dev; give dev_file, or another split_seed"
            )
        raise DataError(f"{where}: a class has only texts that other rows label otherwise; remove these rows")
    return train, dev
