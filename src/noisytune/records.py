"""What the lab writes and the report reads: one record a study, one record a trial, as plain JSON.

The two rooms meet here only, so that a report can be rendered on a machine without torch.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, Self

from noisytune.errors import RunFolderError

FORMAT = 1
"""Version of the records' layout. A reader refuses another one."""

Status = Literal["ok", "collapsed", "diverged"]


def digest(value: Any) -> str:
    """SHA-256 of ``value`` as canonical JSON, first 16 hexadecimal digits.

    >>> digest({"b": 1, "a": [1, 2]}) == digest({"a": [1, 2], "b": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class _Record:
    """JSON in and out for the dataclasses below."""

    def to_json(self) -> str:
        """The record as JSON text; NaN is refused, so that any JSON reader can read it."""
        return json.dumps(asdict(self), ensure_ascii=False, allow_nan=False)  # type: ignore[call-overload]

    @classmethod
    def from_json(cls, text: str, where: str) -> Self:
        """Read a record back.

        Args:
            text: what `to_json` wrote.
            where: the file's path, for the error message.

        Raises:
            RunFolderError: not JSON, another format version, or a missing field that has no default.
        """
        try:
            raw = json.loads(text)
            found = raw["format"]
            if found != FORMAT:
                raise RunFolderError(f"{where}: written in format {found}, this version of noisytune reads {FORMAT}")
            return cls(**{f.name: raw[f.name] for f in fields(cls) if f.name in raw})  # type: ignore[arg-type]
        except (json.JSONDecodeError, KeyError, TypeError) as e:
            name = type(e).__name__
            raise RunFolderError(
                f"{where}: not a record that noisytune wrote ({name}: {e}); delete it to redo it"
            ) from e


@dataclass(frozen=True)
class StudyRecord(_Record):
    """A study as it was asked for: arms x tasks x seeds."""

    name: str
    """For the report's title."""
    model: dict[str, Any]
    """``name`` (as the user gave it) and ``digest`` of the weights."""
    tasks: list[dict[str, Any]]
    """Each: ``name``, ``kind`` ("classification" or "regression"), ``metric`` (the primary one, higher is better),
    ``metric_label`` (for people), ``labels`` (class names in id order, empty for regression), ``train_size``,
    ``dev_size``, ``majority`` (share of the largest class in dev, or None for regression), ``digest``, ``part_of`` (the
    whole task, where the study has several shares of its training examples; else empty), ``facts`` (what was noticed
    about the data, as `noisytune.lab.tasks` writes it; absent from records of earlier versions)."""
    arms: list[str]
    """Names in order. The first is the baseline."""
    seeds: list[int]
    training: dict[str, Any]
    """epochs, learning_rate, batch_size ...: what every trial shares. After a search, the baseline's."""
    margin: float
    """Differences within +- this many points count as equivalent."""
    trials: list[dict[str, Any]]
    """The plan, seed by seed: each ``key``, ``task``, ``arm``, ``seed``."""
    search: dict[str, Any] | None = None
    """How each arm's own settings were chosen, as `noisytune.lab.studies.tune` writes it; None where all arms share
    theirs.

    ``protocol`` ("paper": chosen on dev, "clean": on held-out training examples), ``sampler``, ``budget`` (trials of
    each arm), ``space`` {setting: values}, ``trained_on`` and ``chosen_on`` (numbers of examples), and ``arms``, the
    baseline first, each: ``asked`` (as the user wrote it), ``arm`` (its name in this study), ``winner`` (a trial's
    number) and ``trials`` with ``number``, ``seed``, ``key``, ``settings`` {setting: value} and ``value`` (the primary
    score as a fraction; None where it is undefined)."""
    format: int = FORMAT


@dataclass(frozen=True)
class TrialRecord(_Record):
    """One fine-tuning run: its resolved settings and everything that came out of it."""

    key: str
    """`digest` of ``settings``."""
    settings: dict[str, Any]
    """What decides the outcome: ``model`` {name, digest}, ``task`` {name, digest, ...}, ``arm`` {name,
    methods}, ``seed``, ``training``."""
    status: Status
    """"collapsed": every dev prediction is the same. "diverged": the loss or a prediction is not finite."""
    scores: dict[str, float]
    """On dev, as fractions or correlations (0.71, not 71). An undefined one is absent; a diverged trial has none.
    ``NAME/KEY``: the same on a further dev set, for example ``mismatched/accuracy``."""
    loss_curve: list[float]
    """Training loss of each optimizer step, up to the first not finite one. Regression: of standardised values."""
    predictions: list[float]
    """One a dev example, in the order of ``references``: class id, or the predicted value. Empty if diverged."""
    references: list[float]
    """Gold class ids or values."""
    timing: dict[str, float]
    """Seconds: ``load``, ``prepare``, ``train`` (with the evaluation after each epoch), ``evaluate``, ``total``."""
    applied: dict[str, dict[str, Any]]
    """What each method of the arm did to the model, by its name; for NoisyTune a summary of the manifest."""
    environment: dict[str, Any]
    """Library versions, machine, threads, code commit, start time (UTC)."""
    norms: dict[str, dict[str, float]] = field(default_factory=dict)
    """How far training moved each kind of parameter (query, feed-forward ...): ``elements``, and sums over them of
    ``before`` |W0|, ``after`` |W1| and ``moved`` |W1 - W0|, with W0 what training started from, noise included. Empty
    if diverged, and in records of earlier versions."""
    epoch_scores: list[float | None] = field(default_factory=list)
    """With ``select="best"``: the primary score after each epoch, on the examples that choose the epoch; None where it
    is undefined. Else empty."""
    format: int = FORMAT

    @property
    def task(self) -> str:
        """The task's name."""
        return str(self.settings["task"]["name"])

    @property
    def arm(self) -> str:
        """The arm's name."""
        return str(self.settings["arm"]["name"])

    @property
    def seed(self) -> int:
        """The seed of head initialisation, data order, dropout and noise."""
        return int(self.settings["seed"])
