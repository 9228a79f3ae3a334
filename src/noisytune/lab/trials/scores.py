"""What did a training of the user's own score? Read from its files, from its output, or from what it returned."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from noisytune._files import parse_object
from noisytune._metrics import METRICS, Floats, kinds_with
from noisytune._settings import check, choice, switch, text
from noisytune._text import encodable
from noisytune.errors import ConfigError, DataError, TrialError
from noisytune.records import Status

METRICS_FILES = ("metrics.json", "all_results.json", "eval_results.json")
"""Where scores are looked for, in this order; the last two are Hugging Face's."""
PREDICTIONS = "predictions.jsonl"
"""Where predictions are looked for, unless another file is named."""
NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?(?:nan|NaN|inf|Infinity)"
_KINDS = ("classification", "regression")
"""What predictions may be."""


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """Which number of a training is compared, and how it is to be read.

    Raises:
        ConfigError: a value is not allowed.
    """

    score: str = text("score", "Compare this number of each run, such as eval_accuracy or eval.f1.", "a name")
    """Dots lead into objects, unless a key holds them itself."""
    lower_is_better: bool = switch("Lower scores are better, as for a loss.")
    score_unit: str | None = choice(
        None,
        "The score is a fraction (0.83) or in points (83, a loss). Default: points if lower is better.",
        "fraction",
        "points",
    )
    predictions_metric: str = choice(
        "accuracy",
        "Compute this from the predictions, for the bootstrap.",
        *(name for kind in _KINDS for name in METRICS[kind]),
    )

    def __post_init__(self) -> None:
        check(self)

    @property
    def predictions_kind(self) -> str:
        """What predictions are: classes or values."""
        return next(kind for kind in kinds_with(self.predictions_metric) if kind in _KINDS)

    def kept(self, value: float) -> float:
        """A finite score as records have it: 0.01 is a point.

        Raises:
            TrialError: it is no fraction.

        >>> Scoring(score="loss", lower_is_better=True).kept(2.5), Scoring().kept(0.75)
        (0.025, 0.75)
        """
        unit = self.score_unit or ("points" if self.lower_is_better else "fraction")
        if unit == "fraction" and not -1 <= value <= 1:
            raise TrialError(
                f"{self.score} is {value:g}, which is no fraction: give score_unit=points if it counts in points, and "
                "lower_is_better if it is a loss"
            )
        return value / (1 if unit == "fraction" else 100)

    def told(self) -> dict[str, Any]:
        """As part of a trial's settings: what is not as by default."""
        told: dict[str, Any] = {"score": self.score}
        told |= {"score_unit": self.score_unit} if self.score_unit else {}
        return told | ({"predictions": self.predictions_metric} if self.predictions_metric != "accuracy" else {})


@dataclass(frozen=True)
class Outcome:
    """What came out of one training."""

    status: Status
    score: float | None
    """As it was read; None where it is not finite."""
    numbers: dict[str, float]
    """All finite numbers beside it."""
    outputs: dict[str, Floats]
    """``predictions`` and ``references``, the examples in the order of their ids, and ``groups`` where those are said;
    nothing where there are no examples."""


def outcome(scoring: Scoring, value: float, numbers: Mapping[str, Any], items: Iterable[Any] | None) -> Outcome:
    """What a training gave, as a record tells it.

    Args:
        scoring: how it is read.
        value: the score.
        numbers: other numbers beside it, by name; what is no finite number is left out.
        items: of each example its ``prediction`` and ``reference``, its ``id`` where the order may differ, and its
            ``group`` where examples are not independent; None where nobody says.

    Raises:
        TrialError: an item lacks something.
    """
    finite = {encodable(name): float(one) for name, one in numbers.items() if is_number(one) and math.isfinite(one)}
    if not math.isfinite(value):
        return Outcome("diverged", None, finite, {})
    outputs = arrays_of(items, scoring.predictions_kind) if items is not None else {}
    same = len(outputs) and len(outputs["predictions"]) > 1 and np.ptp(outputs["predictions"]) == 0
    return Outcome("collapsed" if same else "ok", value, finite, outputs)


def is_number(value: Any) -> bool:
    """Whether something counts as a score; NaN does."""
    return isinstance(value, int | float | np.floating | np.integer) and not isinstance(value, bool)


def arrays_of(items: Iterable[Any], kind: str) -> dict[str, Floats]:
    """Predictions and references as numbers; classes are numbered in the order of their names, references first.

    Args:
        items: objects with ``prediction``, ``reference`` and perhaps ``id`` and ``group``.
        kind: ``classification`` or ``regression``.

    Raises:
        TrialError: an item is something else, an id occurs twice, or some have a group and others none.

    >>> rows = [{"id": 2, "prediction": "no", "reference": "yes"}, {"id": 1, "prediction": "no", "reference": "no"}]
    >>> {name: found.tolist() for name, found in arrays_of(rows, "classification").items()}
    {'predictions': [0.0, 0.0], 'references': [0.0, 1.0]}
    """
    rows = list(items)
    for place, row in enumerate(rows, 1):
        if not isinstance(row, Mapping) or not {"prediction", "reference"} <= row.keys():
            raise TrialError(
                f"prediction {place}: expected an object with id, prediction and reference, got {row!r:.80}"
            )
    with_ids = [row for row in rows if "id" in row]
    if with_ids:
        ids = [str(row.get("id")) for row in rows]
        if len(with_ids) < len(rows) or len(set(ids)) < len(ids):
            raise TrialError("the predictions need an id each, none twice")
        rows = [row for _, row in sorted(zip(ids, rows, strict=True), key=lambda pair: pair[0])]
    if not rows:
        return {}
    if 0 < sum("group" in row for row in rows) < len(rows):
        raise TrialError("some predictions have a group and others have none: give each its group, or none")
    groups = np.unique([str(row["group"]) for row in rows if "group" in row], return_inverse=True)[1]
    more = {"groups": groups.astype(np.float64)} if len(groups) else {}
    columns = {what: [row[what.removesuffix("s")] for row in rows] for what in ("predictions", "references")}
    if kind == "regression":
        for what, values in columns.items():
            if not all(is_number(value) and math.isfinite(value) for value in values):
                raise TrialError(f"the {what} must be finite numbers: predictions_metric says that they are values")
        return more | {what: np.array(values, np.float64) for what, values in columns.items()}
    classes = {what: [_class_name(value) for value in values] for what, values in columns.items()}
    names = sorted(set(classes["references"]))
    names += sorted(set(classes["predictions"]) - set(names))
    places = {name: float(place) for place, name in enumerate(names)}
    return more | {what: np.array([places[name] for name in values]) for what, values in classes.items()}


def pythons(value: Any) -> Any:
    """A number of NumPy, torch or JAX as Python's; other values as they are."""
    return value.item() if getattr(value, "ndim", None) == 0 else value


def _class_name(value: Any) -> str:
    """What a class is called, whatever library its number comes from.

    >>> [_class_name(one) for one in (1, 1.0, True, np.float32(1), np.array(1), "yes", 1.5)]
    ['1', '1', '1', '1', '1', 'yes', '1.5']
    """
    value = pythons(value)
    if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
        value = int(value)
    return str(value)


def pattern_of(name: str, regex: str | None) -> re.Pattern[bytes]:
    """What finds a score in output; its first group is the number.

    Args:
        name: of the score, as in ``name: 0.83``, ``name = 0.83`` and ``'name': 0.83``.
        regex: the user's own; None: by the name.

    Raises:
        ConfigError: it is no regular expression, or has no group.

    >>> [m[1] for m in pattern_of("f1", None).finditer(b"eval_f1: 9, f1: 0.5, {'f1': '.25'}")]
    [b'0.5', b'.25']
    """
    if regex is None:
        # The name comes first, so that long outputs are searched quickly; then that nothing stands before it.
        regex = rf"{re.escape(name)}(?<![\w.]{re.escape(name)})['\"]?\s*[:=]\s*['\"]?({NUMBER})(?![\w.])"
    try:
        found = re.compile(regex.encode(), re.MULTILINE)
    except re.error as error:
        raise ConfigError(f"score_pattern is no regular expression ({error}): {regex}") from error
    if not found.groups:
        raise ConfigError(f"score_pattern needs a group around the number, such as  acc=([0-9.]+): got {regex}")
    return found


def in_object(content: Mapping[str, Any], name: str) -> tuple[Any, Mapping[str, Any]] | None:
    """A value by its name, dots leading into objects, and the object that holds it; None where there is none.

    >>> in_object({"eval": {"f1": 0.5}}, "eval.f1"), in_object({"a.b": 1}, "a.b"), in_object({}, "a.b")
    ((0.5, {'f1': 0.5}), (1, {'a.b': 1}), None)
    """
    if name in content:
        return content[name], content
    for place, letter in enumerate(name):
        inner = content.get(name[:place]) if letter == "." else None
        if isinstance(inner, Mapping) and (found := in_object(inner, name[place + 1 :])):
            return found
    return None


def from_files(files: Iterable[Path], name: str) -> tuple[float, Mapping[str, Any], Path] | None:
    """A score from the first file of JSON that has it, the object around it, and the file; None where none has it.

    Raises:
        DataError: a file that is there is no JSON object, or the score is no number.
    """
    for file in files:
        if file.is_file():
            found = in_object(parse_object(file, file.read_bytes()), name)
            if found:
                return as_number(found[0], f"{file}: {name}"), found[1], file
    return None


def as_number(value: Any, what: str) -> float:
    """A score from JSON, or from text.

    Raises:
        DataError: it is none.
    """
    try:
        if not isinstance(value, bool):
            return float(value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise DataError(f"{what} is {value!r:.60}: expected a number")


def read_items(file: Path) -> list[Any]:
    """The lines of a file of predictions.

    Raises:
        DataError: one is no JSON.
    """
    found = []
    with file.open("rb") as stream:
        for place, line in enumerate(stream, 1):
            if line.strip():
                try:
                    found.append(json.loads(line))
                except (ValueError, RecursionError) as error:
                    raise DataError(f"{file}, line {place}: not JSON ({error})") from error
    return found
