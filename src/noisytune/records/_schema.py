"""What must hold of a record's JSON before anybody believes it: its types, checked once, on reading.

The only file that knows msgspec.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, NotRequired, TypedDict, TypeVar

import msgspec
from msgspec import Meta

from noisytune.errors import DamagedRecordError, RunFolderError
from noisytune.records import Status

Record = TypeVar("Record")

Seed = Annotated[int, Meta(ge=0, lt=2**32)]
Size = Annotated[int, Meta(ge=0, lt=2**53)]
Key = Annotated[str, Meta(pattern="^[0-9a-f]{16}$", max_length=16)]
"""Names files: it must not lead out of their folder."""
Names = Annotated[list[str], Meta(min_length=1)]
Fields = dict[str, Any]


class Named(TypedDict):
    """A model or a task."""

    name: str
    digest: str


class Method(TypedDict):
    """One of an arm."""

    method: str
    noise_lambda: NotRequired[float]
    exclude: NotRequired[list[str]]


class Arm(TypedDict):
    """Of a trial."""

    name: str
    methods: list[Method]


class TrialTask(Named):
    """Of a trial."""

    kind: NotRequired[str]
    select: NotRequired[str]
    primary: NotRequired[list[str]]
    reading: NotRequired[Fields]
    trained_on: NotRequired[Named]


class Settings(TypedDict):
    """Of a trial."""

    model: NotRequired[Named]
    task: TrialTask
    arm: Arm
    seed: Seed
    training: NotRequired[Fields]


class Norms(TypedDict):
    """Of one role of parameter."""

    elements: float
    before: float
    after: float
    moved: float


class Evaluation(TypedDict):
    """Of one split."""

    status: str
    scores: dict[str, float]
    chosen: NotRequired[Fields]
    before: NotRequired[dict[str, float]]


class TrialParts(TypedDict):
    """The fields of a trial's record, and what is inside them."""

    key: Key
    settings: Settings
    status: Status
    scores: dict[str, float]
    loss_curve: list[float]
    timing: dict[str, float]
    applied: dict[str, Fields]
    environment: Fields
    evaluations: NotRequired[dict[str, Evaluation]]
    norms: NotRequired[dict[str, Norms]]
    epoch_scores: NotRequired[list[float | None]]
    outputs_digest: NotRequired[str]


class FailureParts(TypedDict):
    """The fields of a failure's record."""

    key: Key
    cause: str
    reason: str
    last_words: NotRequired[str]
    process: NotRequired[Fields]
    ended: NotRequired[str]


class Rerun(TypedDict):
    """What a second run of one seed showed."""

    found: str
    floor: NotRequired[float]


class Facts(TypedDict):
    """Of a task, those that decide what a report shows; all else is shown as it is."""

    category: NotRequired[str]
    setting: NotRequired[str]
    scored: NotRequired[str]
    languages: NotRequired[list[str]]
    missing_languages: NotRequired[list[str]]
    languages_of_benchmark: NotRequired[Size]
    training_rows: NotRequired[dict[str, Size]]
    rerun: NotRequired[Rerun]


class Items(TypedDict):
    """What a task's items are, where they are not its score's."""

    kind: str
    metric: str


class Task(TypedDict):
    """Of a study."""

    name: str
    kind: str
    metric: str
    metric_label: str
    labels: list[str]
    train_size: Size
    dev_size: Size
    majority: float | None
    digest: str
    part_of: NotRequired[str]
    training: NotRequired[Fields]
    items: NotRequired[Items]
    facts: NotRequired[Facts]


class Entry(TypedDict):
    """A trial in a study's plan."""

    key: Key
    task: str
    arm: str
    seed: Seed


class Searched(TypedDict):
    """A trial of a search."""

    number: Size
    seed: Seed
    key: Key
    settings: dict[str, float]
    value: float | None


class SearchedArm(TypedDict):
    """An arm of a search."""

    asked: str
    arm: str
    winner: Size
    trials: list[Searched]


class Search(TypedDict):
    """Of a study."""

    protocol: str
    sampler: str
    budget: Size
    space: dict[str, list[float]]
    trained_on: Size
    chosen_on: Size
    arms: list[SearchedArm]


class StudyParts(TypedDict):
    """The fields of a study's record, and what is inside them."""

    name: str
    model: Named
    training: Fields
    tasks: Annotated[list[Task], Meta(min_length=1)]
    arms: Names
    seeds: list[Seed]
    margin: Annotated[float, Meta(ge=0)]
    trials: list[Entry]
    search: NotRequired[Search | None]


def _names(parts: Any) -> frozenset[str]:
    """The fields of a record, ``format`` among them."""
    found: frozenset[str] = parts.__required_keys__ | parts.__optional_keys__
    return found | {"format"}


def checked(
    text: str | bytes,
    where: str,
    record: type[Record],
    parts: Any,
    newest: int,
    advice: str,
    upgrade: Callable[[Fields], None] = lambda raw: None,
) -> Record:
    """Read a record of a known format, every type as declared. Fields that nobody knows are left out.

    Args:
        text: JSON.
        where: the file's path, for the error message.
        record: the dataclass to make.
        parts: what its fields are: `TrialParts` or `StudyParts`.
        newest: the highest format that is known.
        advice: what to do about a damaged one, for the error message.
        upgrade: brings the fields of format 1 into the present one, in place.

    Raises:
        DamagedRecordError: not JSON, or not such a record.
        RunFolderError: of a later format.
    """
    try:
        raw = msgspec.json.decode(text)
        found = raw.get("format") if isinstance(raw, dict) else None
        if type(found) is not int or found < 1:
            raise TypeError("it has no format")
        if found > newest:
            raise RunFolderError(
                f"{where}: written in format {found}, this version of noisytune reads up to {newest}: update noisytune"
            )
        if found == 1:
            upgrade(raw)
        raw["format"] = newest
        msgspec.convert(raw, parts)
        return record(**{name: raw[name] for name in _names(parts) if name in raw})
    except RunFolderError:
        raise
    except KeyError as error:
        raise DamagedRecordError(f"{where}: not a record that noisytune wrote (it has no {error}); {advice}") from error
    # Nesting without end is a RecursionError, a number without end an OverflowError.
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DamagedRecordError(f"{where}: not a record that noisytune wrote ({reason}); {advice}") from error
