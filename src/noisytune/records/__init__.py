"""What the lab writes and the report reads: one record a study, one record a trial, as plain JSON.

The two rooms meet here only, so that a report can be rendered on a machine without torch.
"""

from __future__ import annotations

import hashlib
import json
import marshal
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache, lru_cache
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from noisytune.errors import DamagedRecordError, require

FORMAT = 2
"""Version of the records' layout that is written. Format 1 is read for ever, a later one is refused."""

TRIAL_ADVICE = "the command that ran the study runs this trial again"
STUDY_ADVICE = "move it away and run the study again: finished trials are kept"

Status = Literal["ok", "collapsed", "diverged", "untrained"]
Outputs = Mapping[str, npt.NDArray[Any]]
"""Arrays of a trial by ``SPLIT/predictions``, ``SPLIT/references``, ``SPLIT/items`` and ``SPLIT/groups`` (the number of
what each example belongs to); the first axis is examples."""


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any) -> str:
    """SHA-256 of ``value`` as canonical JSON, first 16 hexadecimal digits.

    >>> digest({"b": 1, "a": [1, 2]}) == digest({"a": [1, 2], "b": 1})
    True
    """
    return hashlib.sha256(_CANONICAL.encode(value).encode()).hexdigest()[:16]


def settings_digest(settings: Mapping[str, Any]) -> str:
    """`digest` of a trial's settings. The trials of a study have most of them in common: those are encoded once.

    Args:
        settings: as in `TrialRecord.settings`.

    >>> settings = {"seed": 1, "arm": {"name": "plain"}}
    >>> settings_digest(settings) == digest(settings)
    True
    """
    parts = (f"{_CANONICAL.encode(name)}:{_encoded(marshal.dumps(settings[name], 2))}" for name in sorted(settings))
    return hashlib.sha256(f"{{{','.join(parts)}}}".encode()).hexdigest()[:16]


@lru_cache(maxsize=4096)
def _encoded(packed: bytes) -> str:
    """The canonical JSON of what `marshal` packed. Its second version packs equal values of equal types alike."""
    return _CANONICAL.encode(marshal.loads(packed))


@cache
def _schema_module() -> Any:
    """The schema of records, imported when one is read."""
    require("msgspec", extra="report", needed_for="reading a run folder")
    from noisytune.records import _schema

    return _schema


class _Record:
    """JSON in and out for the dataclasses below."""

    def to_json(self) -> str:
        """The record as JSON text; NaN is refused, so that any JSON reader can read it."""
        names = [one.name for one in fields(self) if one.name != "outputs"]  # type: ignore[arg-type]
        values = {name: getattr(self, name) for name in names}
        return json.dumps(values, ensure_ascii=False, allow_nan=False)


@dataclass(frozen=True)
class StudyRecord(_Record):
    """A study as it was asked for: arms x tasks x seeds.

    >>> about = {"kind": "own", "metric": "score", "metric_label": "score", "labels": [], "majority": None}
    >>> task = {"name": "mine", "digest": "0f", "train_size": 0, "dev_size": 0, **about}
    >>> plan = [{"key": "0123456789abcdef", "task": "mine", "arm": "plain", "seed": 0}]
    >>> study = StudyRecord("mine", {"name": "model", "digest": "a1"}, [task], ["plain"], [0], {}, 1.0, plan)
    >>> StudyRecord.from_json(study.to_json(), "study.json") == study
    True
    """

    name: str
    """For the report's title."""
    model: dict[str, Any]
    """``name`` (as the user gave it) and ``digest`` of the weights."""
    tasks: list[dict[str, Any]]
    """Each: ``name``, ``kind`` (of answers: "classification", "regression" ...), ``metric`` (the primary one),
    ``metric_label`` (for people), ``labels`` (class names in id order, empty for regression), ``train_size``,
    ``dev_size``, ``majority`` (share of the largest class in dev, or None for regression), ``digest``, ``part_of`` (the
    whole task, where the study has several shares of its training examples; else empty), ``facts`` (what was noticed
    about the data, as `noisytune.lab.tasks` writes it; absent from records of earlier versions). Of a training of the
    user's own the kind is "own" or "own, lower is better", and ``items`` has ``kind`` and ``metric`` of its
    predictions."""
    arms: list[str]
    """Names in order. The first is the baseline."""
    seeds: list[int]
    training: dict[str, Any]
    """What every trial shares, such as epochs and batch size. After a search, the baseline's."""
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

    @classmethod
    def from_json(cls, text: str | bytes, where: str) -> Self:
        """Read a study back, from any format up to this one.

        Args:
            text: what `to_json` wrote.
            where: the file's path, for the error message.

        Raises:
            DamagedRecordError: not JSON, not a study, or one that contradicts itself.
            RunFolderError: written by a later version of noisytune.
        """
        schema = _schema_module()
        study: Self = schema.checked(text, where, cls, schema.StudyParts, FORMAT, STUDY_ADVICE)
        known = {"task": {task["name"] for task in study.tasks}, "arm": set(study.arms), "seed": set(study.seeds)}
        for entry in study.trials:
            for what, values in known.items():
                if entry[what] not in values:
                    raise DamagedRecordError(
                        f"{where}: not a study that noisytune wrote (its trial {entry['key']} has the {what} "
                        f"{entry[what]!r}, which the study has not); {STUDY_ADVICE}"
                    )
        for arm in (study.search or {}).get("arms", []):
            if arm["winner"] >= len(arm["trials"]):
                raise DamagedRecordError(
                    f"{where}: not a study that noisytune wrote (the winner of {arm['arm']!r} is trial "
                    f"{arm['winner']} of {len(arm['trials'])}, counted from 0); {STUDY_ADVICE}"
                )
        return study


@dataclass(frozen=True)
class TrialRecord(_Record):
    """One fine-tuning run: its resolved settings and everything that came out of it.

    >>> task, arm = {"name": "mine", "digest": "0f"}, {"name": "plain", "methods": []}
    >>> settings = {"model": {"name": "model", "digest": "a1"}, "task": task, "arm": arm, "seed": 3}
    >>> outputs = {"dev/predictions": np.array([0, 1]), "dev/references": np.array([0, 0])}
    >>> key, scores = digest(settings), {"accuracy": 0.5}
    >>> record = TrialRecord(key, settings, "ok", scores, [0.7, 0.4], {}, {}, {}, outputs=outputs)
    >>> record.task, record.arm, record.seed, record.split, record.predictions, record.references
    ('mine', 'plain', 3, 'dev', [0, 1], [0, 0])
    >>> TrialRecord.from_json(record.to_json(), "trial.json") == record  # the outputs are a store's
    True
    """

    key: str
    """`digest` of ``settings``."""
    settings: dict[str, Any]
    """What decides the outcome: ``model`` {name, digest}, ``task`` {name, digest, ...}, ``arm`` {name,
    methods}, ``seed``, ``training``."""
    status: Status
    """"collapsed": every prediction is the same. "diverged": the loss or a prediction is not finite. "untrained": no
    weight moved."""
    scores: dict[str, float]
    """The primary score by metric, as fractions or correlations (0.71, not 71): of one split, or the mean of several.
    An undefined one is absent; a diverged trial has none."""
    loss_curve: list[float]
    """Training loss of each optimizer step, up to the first not finite one. Regression: of standardised values."""
    timing: dict[str, float]
    """Seconds: ``load``, ``prepare``, ``train`` (with the evaluation after each epoch), ``evaluate``, ``total``."""
    applied: dict[str, dict[str, Any]]
    """What each method of the arm did to the model, by its name; for NoisyTune a summary of the manifest."""
    environment: dict[str, Any]
    """Library versions, machine, threads, code commit, start time (UTC)."""
    evaluations: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Every split that was scored, the first one first: each its ``status`` and its ``scores``, and in ``chosen`` what
    was chosen to read its answers, where there is a choice: the ``layer`` of retrieval and ``layer_by`` what, say. Of a
    text that was not trained on, ``before`` has its scores before training, noise not yet added."""
    norms: dict[str, dict[str, float]] = field(default_factory=dict)
    """How far training moved each role of parameter (query, feed-forward ...): ``elements``, and sums over them:
    ``before`` of ``|W0|``, ``after`` of ``|W1|`` and ``moved`` of ``|W1 - W0|``, with W0 what training started from,
    noise included. Empty if diverged, and in records of earlier versions."""
    epoch_scores: list[float | None] = field(default_factory=list)
    """With ``select="best"``: the primary score after each epoch, on the examples that choose the epoch; None where it
    is undefined. Else empty."""
    outputs_digest: str = ""
    """Of the file beside this one that holds ``outputs``; empty where there is none."""
    format: int = FORMAT
    outputs: Outputs = field(default_factory=dict, compare=False, repr=False)
    """What the model answered to each example; not in the JSON. A store reads them when they are asked for: they may
    be large. References: class ids or values. Nothing if diverged."""

    @classmethod
    def from_json(cls, text: str | bytes, where: str) -> Self:
        """Read a trial back, from any format up to this one. Outputs are a store's business, but in format 1.

        Args:
            text: what `to_json` wrote.
            where: the file's path, for the error message.

        Raises:
            DamagedRecordError: not JSON, not a trial, or its key is not the digest of its settings.
            RunFolderError: written by a later version of noisytune.
        """
        schema, outputs = _schema_module(), dict[str, npt.NDArray[Any]]()
        record: Self = schema.checked(
            text, where, cls, schema.TrialParts, FORMAT, TRIAL_ADVICE, lambda raw: outputs.update(_from_format_1(raw))
        )
        found = settings_digest(record.settings)
        if found != record.key:
            raise DamagedRecordError(
                f"{where}: changed since it was written (its key is {record.key}, its settings have {found}); "
                f"{TRIAL_ADVICE}"
            )
        return replace(record, outputs=outputs) if outputs else record

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

    @property
    def primary(self) -> list[str]:
        """The splits that the primary score is the mean of; mostly one."""
        named: list[str] = self.settings["task"].get("primary") or [self._chosen]
        return named

    @property
    def split(self) -> str:
        """The split that the primary score rests on, for what is told of single examples.

        Of a mean over several splits it is the one that chooses, or the first of them.
        """
        chosen, primary = self._chosen, self.primary
        return chosen if chosen in primary else primary[0]

    @property
    def _chosen(self) -> str:
        """The split that chooses between epochs and settings."""
        chosen = str(self.settings["task"].get("select", ""))
        if chosen not in self.evaluations:
            names = self.evaluations or [name.rpartition("/")[0] for name in self.outputs]
            chosen = next(iter(names), "")
        return chosen

    @property
    def predictions(self) -> list[Any]:
        """One an example of ``split``: class id, or the predicted value. Empty if diverged."""
        return self._of_split("predictions")

    @property
    def references(self) -> list[Any]:
        """Gold class ids or values of ``split``."""
        return self._of_split("references")

    def _of_split(self, what: str) -> list[Any]:
        found = self.outputs.get(f"{self.split}/{what}")
        return [] if found is None else list(found.tolist())


@dataclass(frozen=True)
class FailureRecord(_Record):
    """A trial that was begun and has no record, until a later run finishes it.

    >>> failure = FailureRecord("0123456789abcdef", "memory", "CUDA out of memory")
    >>> FailureRecord.from_json(failure.to_json(), "failed.json") == failure
    True
    """

    key: str
    """The trial's; its study says which one that is."""
    cause: str
    """"error": an exception. "memory": want of memory, said or supposed. "died": its worker died. "time": its time was
    up. "lost": the machine that it ran on is gone."""
    reason: str
    """One line."""
    last_words: str = ""
    """The end of a traceback, or of what its worker wrote."""
    process: dict[str, Any] = field(default_factory=dict)
    """Whose worker it was: as `noisytune._processes.Process.told`."""
    ended: str = ""
    """When, UTC."""
    format: int = FORMAT

    @classmethod
    def from_json(cls, text: str | bytes, where: str) -> Self:
        """Read a failure back.

        Args:
            text: what `to_json` wrote.
            where: the file's path, for the error message.

        Raises:
            DamagedRecordError: not JSON, or not a failure.
            RunFolderError: written by a later version of noisytune.
        """
        schema = _schema_module()
        found: Self = schema.checked(text, where, cls, schema.FailureParts, FORMAT, TRIAL_ADVICE)
        return found


def _from_format_1(raw: dict[str, Any]) -> dict[str, npt.NDArray[np.float64]]:
    """Bring the JSON of format 1 into the present one, in place: predictions, and scores named ``SPLIT/METRIC``.

    Returns:
        the outputs that were in it.
    """
    outputs = {f"dev/{what}": np.array(raw.pop(what), np.float64) for what in ("predictions", "references")}
    scores: dict[str, dict[str, float]] = {"dev": {}}
    for name, value in raw["scores"].items():
        split, _, metric = name.rpartition("/")
        scores.setdefault(split or "dev", {})[metric] = value
    raw["scores"] = scores["dev"]
    raw["evaluations"] = {split: {"status": raw["status"], "scores": found} for split, found in scores.items()}
    return outputs
