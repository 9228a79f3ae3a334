"""Run folders that were filled apart, on two clusters say, made into one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from noisytune.errors import ConfigError, DamagedRecordError, NotFoundError, RunFolderError
from noisytune.lab.store import Store
from noisytune.lab.studies.merge import extend, other_trials
from noisytune.lab.studies.ready import set_damaged_aside
from noisytune.records import StudyRecord


@dataclass
class Joined:
    """What came of it."""

    copied: int = 0
    """Trials that only the other folder had."""
    both: int = 0
    """Trials that both had: they stay as they are."""
    differing: int = 0
    """Of those, the ones with other scores there: other hardware or libraries round otherwise."""
    damaged: tuple[str, ...] = ()
    """Records of the other folder that were left out, one line each."""
    aside: tuple[str, ...] = ()
    """Records of this folder that were damaged and now have other names, one line each."""


def join(into: Path, other: Path) -> Joined:
    """Copy what another run folder has, and this one lacks: studies, trials and failures. The other is only read.

    Args:
        into: the run folder that is added to.
        other: one with the same studies, or with further ones.

    Raises:
        ConfigError: they are one folder.
        NotFoundError: there is no such folder.
        RunFolderError: a study of both cannot be one, the other holds none, or ``into`` is in use or cannot be written.
    """
    for folder in (into, other):
        if not folder.is_dir():
            raise NotFoundError(f"{folder}: there is no such folder")
    if into.resolve() == other.resolve():
        raise ConfigError(f"{into} and {other} are one folder: give another")
    source = Store(other)
    studies = source.studies()
    if not studies:
        raise RunFolderError(f"{other} holds no study: give a folder that noisytune compare, run or plan wrote")
    found = Joined()
    with Store(into).lock():
        targets = {file: Store(into, file) for file in studies}
        # All or none: what cannot be one is refused before anything is written.
        wholes = {file: _whole(targets[file].read_study(), study, into, other) for file, study in studies.items()}
        for file, whole in wholes.items():
            targets[file].write_study(whole)
        target, keys = Store(into), sorted(source.index())
        found.aside = tuple(set_damaged_aside(target, keys))
        for key in keys:
            _copy(source, target, key, found)
        for key, failure in source.failures().items():
            if not target.has(key) and not target.failure(key):
                target.write_failure(failure)
    return found


def _whole(mine: StudyRecord | None, other: StudyRecord, into: Path, source: Path) -> StudyRecord:
    """The study of both, under the name and with the margin that it has here."""
    if mine is None:
        return extend(mine, other, into)
    if mine.search != other.search:
        raise RunFolderError(f"{into} holds another search of settings, or none: merge folders of one search")
    whole = extend(mine, other, into)
    # What differs would take the place of the trials here, finished or not.
    if found := other_trials(other, mine):
        task, arm, seed = found[0]
        raise RunFolderError(
            f"{source}: {task}, {arm}, seed {seed} is another trial there than in {into} (another release, or "
            "another name of the model): keep the two apart, or run it again with the release and the name of one"
        )
    return replace(whole, name=mine.name, margin=mine.margin)


def _copy(source: Store, target: Store, key: str, found: Joined) -> None:
    try:
        record = source.read(key)
    except DamagedRecordError as error:
        found.damaged += (str(error),)
        return
    if not target.has(key):
        target.write(record)
        found.copied += 1
        return
    found.both += 1
    found.differing += target.read(key).scores != record.scores
