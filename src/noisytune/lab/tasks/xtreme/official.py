"""What the benchmark XTREME says of its nine tasks: languages, files, rows, scores and training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from noisytune.lab.kinds import KINDS

Rows = Mapping[str, Mapping[str, int | None]]
"""Part -> language -> rows. None: not known; a language that is not there has no such part."""

TRAIN, DEV, TEST, TRANSLATED = "train", "dev", "test", "translated"
"""The parts of a task: English training, dev, test, and training examples in the other languages."""
TRAINED_ON = (TRAIN, TRANSLATED)
"""Those that are trained on."""


@dataclass(frozen=True)
class HubSplit:
    """Where a part lies on the Hub: a data set's id, a folder in it, and the split that file names begin with.

    In the folder ``{code}`` stands for a language's ISO 639-1 code, ``{name}`` for its English name, ``{code3}`` for
    Tatoeba's code of three letters.
    """

    id: str
    folder: str
    split: str


@dataclass(frozen=True)
class Official:
    """What the benchmark says of a task."""

    category: str
    """One of the four whose scores the paper averages."""
    kind: str
    """A key of `noisytune.lab.kinds.KINDS`."""
    metric: str
    rows: Rows
    """Of each part that the task has. Its languages are those of the part that is scored."""
    files: Mapping[str, str]
    """Part -> a file in ``download/``; ``{code}`` stands for a language."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `noisytune.lab.trials.settings.TrainingSettings`; empty where another task's model is scored."""
    labels: tuple[str, ...] = ()
    """Class names or tags in id order."""
    hub: Mapping[str, HubSplit] = field(default_factory=dict)
    """Part -> where it lies on the Hub."""
    hub_lacks: str = ""
    """Why the Hub's copy cannot be scored; empty where it can."""
    trained_on: str = ""
    """The task whose trained model is scored; empty: its own."""
    by_language: bool = False
    """Whether answers are read by rules of their language."""

    @property
    def is_trained(self) -> bool:
        """Whether a model is trained on such examples; if not, another task's model is scored."""
        return KINDS[self.kind].is_trained

    @property
    def languages(self) -> tuple[str, ...]:
        """The codes, in alphabetical order."""
        return tuple(sorted(self.rows[TEST]))


def _even(codes: str, rows: int) -> dict[str, int | None]:
    """The same number of rows in each language."""
    return dict.fromkeys(codes.split(), rows)


def _table(lines: str) -> dict[str, dict[str, int | None]]:
    """Parts from lines of a language and its rows in train, dev and test; ``-``: has none, ``?``: not known.

    >>> _table("kk 31 - 1047")
    {'translated': {'kk': 31}, 'dev': {}, 'test': {'kk': 1047}}
    """
    parts: dict[str, dict[str, int | None]] = {TRANSLATED: {}, DEV: {}, TEST: {}}
    for line in lines.split("\n"):
        code, *counts = line.split() or [""]
        for part, count in zip(parts, counts, strict=False):
            if count != "-":
                parts[part][code] = None if count == "?" else int(count)
    return parts


def _tagged(lines: str) -> dict[str, dict[str, int | None]]:
    """The same with English train by itself: what other languages have serves translate-train-all alone."""
    parts = _table(lines)
    return {TRAIN: {"en": parts[TRANSLATED].pop("en")}, **parts}


def _without_english(codes: str, rows: int | None) -> dict[str, int | None]:
    return {code: rows for code in codes.split() if code != "en"}


_XNLI = "ar bg de el en es fr hi ru sw th tr ur vi zh"
_PAWSX = "de en es fr ja ko zh"
_XQUAD = "ar de el en es hi ru th tr vi zh"
_MLQA = {"ar": 5335, "de": 4517, "en": 11590, "es": 5253, "hi": 4918, "vi": 5495, "zh": 5137}
_MLQA_DEV = {"ar": 517, "de": 512, "en": 1148, "es": 500, "hi": 507, "vi": 511, "zh": 504}
_TYDIQA = {"ar": 921, "bn": 113, "en": 440, "fi": 782, "id": 565, "ko": 276, "ru": 812, "sw": 499, "te": 669}
_SHORT_TATOEBA = {"jv": 205, "ka": 746, "kk": 575, "ml": 687, "sw": 390, "ta": 307, "te": 234, "th": 548}
_TATOEBA = "af ar bg bn de el es et eu fa fi fr he hi hu id it ja jv ka kk ko ml mr nl pt ru sw ta te th tl tr ur vi zh"

# Sentences. Universal Dependencies 2.5 as XTREME's script makes them of it: by the language in a treebank's file name,
# so that Greek is without Ancient Greek, and without treebanks whose words are left out. How much of French's is left
# is not known.
_UDPOS = _tagged("""
af 1315 194 425
ar 6075 909 1680
bg 8907 1115 1116
de 166849 19233 22358
el 1662 403 456
en 21253 3974 5440
es 28492 3054 3147
et 25749 3125 3760
eu 5396 1798 1799
fa 4798 599 600
fi 27198 3239 4422
fr ? ? ?
he 5241 484 491
hi 13304 1659 2684
hu 910 441 449
id 4477 559 1557
it 29685 2278 3518
ja 7125 511 2372
kk 31 - 1047
ko 27410 3016 4276
mr 373 46 47
nl 18051 1394 1471
pt 17992 1770 2681
ru 54099 8108 8973
ta 400 80 120
te 1051 131 146
th - - 1000
tl - - 55
tr 3664 988 4785
ur 4043 552 535
vi 1400 800 800
yo - - 100
zh 7994 1000 3455
""")
_PANX = _tagged("""
af 5000 1000 1000
ar 20000 10000 10000
bg 20000 10000 10000
bn 10000 1000 1000
de 20000 10000 10000
el 20000 10000 10000
en 20000 10000 10000
es 20000 10000 10000
et 15000 10000 10000
eu 10000 10000 10000
fa 20000 10000 10000
fi 20000 10000 10000
fr 20000 10000 10000
he 20000 10000 10000
hi 5000 1000 1000
hu 20000 10000 10000
id 20000 10000 10000
it 20000 10000 10000
ja 20000 10000 10000
jv 100 100 100
ka 10000 10000 10000
kk 1000 1000 1000
ko 20000 10000 10000
ml 10000 1000 1000
mr 5000 1000 1000
ms 20000 1000 1000
my 100 100 100
nl 20000 10000 10000
pt 20000 10000 10000
ru 20000 10000 10000
sw 1000 1000 1000
ta 15000 1000 1000
te 1000 1000 1000
th 20000 10000 10000
tl 10000 1000 1000
tr 20000 10000 10000
ur 20000 1000 1000
vi 20000 10000 10000
yo 100 100 100
zh 20000 10000 10000
""")

CODES_OF_THREE = {
    **{"af": "afr", "ar": "ara", "bg": "bul", "bn": "ben", "de": "deu", "el": "ell", "es": "spa", "et": "est"},
    **{"eu": "eus", "fa": "pes", "fi": "fin", "fr": "fra", "he": "heb", "hi": "hin", "hu": "hun", "id": "ind"},
    **{"it": "ita", "ja": "jpn", "jv": "jav", "ka": "kat", "kk": "kaz", "ko": "kor", "ml": "mal", "mr": "mar"},
    **{"nl": "nld", "pt": "por", "ru": "rus", "sw": "swh", "ta": "tam", "te": "tel", "th": "tha", "tl": "tgl"},
    **{"tr": "tur", "ur": "urd", "vi": "vie", "zh": "cmn"},
}
"""ISO 639-1 -> what Tatoeba calls the language."""

PAIRS, STRUCTURE, RETRIEVAL, QUESTIONS = (
    "sentence pair",
    "structured prediction",
    "retrieval",
    "question answering",
)
"""The categories."""

_TRANSLATIONS = "xtreme_translations"
_PAIR_TRAINING = {"epochs": 5, "batch_size": 32, "learning_rate": 2e-5, "max_length": 128}
_TAG_TRAINING = {"epochs": 10, "batch_size": 32, "learning_rate": 2e-5, "max_length": 128}
# 500 steps of warm-up are 6 % of three epochs of SQuAD.
_QUESTION_TRAINING = {"epochs": 3, "batch_size": 32, "learning_rate": 3e-5, "max_length": 384, "warmup": 0.06}


def _split_files(folder: str, translated: str) -> dict[str, str]:
    names = {part: f"{folder}/{part}-{{code}}.tsv" for part in (TRAIN, DEV, TEST)}
    return {**names, TRANSLATED: translated}


def _hub(id: str, folder: str) -> dict[str, HubSplit]:
    splits = {TRAIN: "train", DEV: "validation", TEST: "test", TRANSLATED: "train"}
    return {part: HubSplit(id, folder, split) for part, split in splits.items()}


OFFICIAL: dict[str, Official] = {
    "xnli": Official(
        PAIRS,
        "classification",
        "accuracy",
        {
            TRAIN: {"en": 392_702},
            DEV: _even(_XNLI, 2_490),
            TEST: _even(_XNLI, 5_010),
            TRANSLATED: _without_english(_XNLI, 392_702),
        },
        _split_files("xnli", f"{_TRANSLATIONS}/XNLI/translate-train/en-{{code}}-translated.tsv"),
        _PAIR_TRAINING,
        ("entailment", "neutral", "contradiction"),
        _hub("facebook/xnli", "{code}"),
    ),
    "pawsx": Official(
        PAIRS,
        "classification",
        "accuracy",
        {
            TRAIN: {"en": 49_401},
            DEV: _even(_PAWSX, 2_000),
            TEST: _even(_PAWSX, 2_000),
            TRANSLATED: _without_english(_PAWSX, 49_401),
        },
        _split_files("pawsx", f"{_TRANSLATIONS}/PAWSX/translate-train/en-{{code}}-translated.tsv"),
        _PAIR_TRAINING,
        ("different", "paraphrase"),
        _hub("google-research-datasets/paws-x", "{code}"),
    ),
    "udpos": Official(
        STRUCTURE,
        "tagging",
        "tag_f1",
        _UDPOS,
        _split_files("udpos", "udpos/train-{code}.tsv"),
        _TAG_TRAINING,
        (
            *("ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN"),
            *("NUM", "PART", "PRON", "PROPN", "PUNCT", "SCONJ", "SYM", "VERB", "X"),
        ),
        _hub("google/xtreme", "udpos.{name}"),
    ),
    "panx": Official(
        STRUCTURE,
        "tagging",
        "entity_f1",
        _PANX,
        _split_files("panx", "panx/train-{code}.tsv"),
        _TAG_TRAINING,
        ("O", "B-LOC", "B-ORG", "B-PER", "I-LOC", "I-ORG", "I-PER"),
        _hub("google/xtreme", "PAN-X.{code}"),
    ),
    "bucc": Official(
        RETRIEVAL,
        "retrieval",
        "mining_f1",
        {
            DEV: {"de": 1_038, "fr": 929, "ru": 2_374, "zh": 257},
            TEST: {"de": 9_580, "fr": 9_086, "ru": 14_435, "zh": 1_899},
        },
        {part: f"bucc2018/{{code}}-en.{part}.{{code}}" for part in (DEV, TEST)},
        hub_lacks="google/xtreme has the gold pairs of bucc18 alone, without the sentences to tell them from",
        trained_on="xnli",
    ),
    "tatoeba": Official(
        RETRIEVAL,
        "retrieval",
        "retrieval_accuracy",
        {TEST: {**_even(_TATOEBA, 1_000), **_SHORT_TATOEBA}},
        {TEST: "tatoeba/{code}-en.{code}"},
        hub={TEST: HubSplit("google/xtreme", "tatoeba.{code3}", "validation")},
        trained_on="xnli",
    ),
    "xquad": Official(
        QUESTIONS,
        "spans",
        "answer_mean",
        {TEST: _even(_XQUAD, 1_190)},
        {TEST: "xquad/xquad.{code}.json"},
        hub={TEST: HubSplit("google/xquad", "xquad.{code}", "validation")},
        trained_on="squad",
    ),
    "mlqa": Official(
        QUESTIONS,
        "spans",
        "answer_mean",
        {DEV: dict(_MLQA_DEV), TEST: dict(_MLQA)},
        {part: f"mlqa/MLQA_V1/{part}/{part}-context-{{code}}-question-{{code}}.json" for part in (DEV, TEST)},
        hub={
            DEV: HubSplit("facebook/mlqa", "mlqa.{code}.{code}", "validation"),
            TEST: HubSplit("facebook/mlqa", "mlqa.{code}.{code}", "test"),
        },
        trained_on="squad",
        by_language=True,
    ),
    "tydiqa": Official(
        QUESTIONS,
        "spans",
        "answer_mean",
        {
            TRAIN: {"en": 3_696},
            TEST: dict(_TYDIQA),
            TRANSLATED: _without_english(" ".join(_TYDIQA), None),
        },
        {
            TRAIN: "tydiqa/tydiqa-goldp-v1.1-train/tydiqa.goldp.en.train.json",
            TEST: "tydiqa/tydiqa-goldp-v1.1-dev/tydiqa.goldp.{code}.dev.json",
            TRANSLATED: f"{_TRANSLATIONS}/TyDiQA-GoldP/translate-train/tydiqa.translate.train.en-{{code}}.json",
        },
        _QUESTION_TRAINING,
        hub={
            TRAIN: HubSplit("google-research-datasets/tydiqa", "secondary_task", "train"),
            TEST: HubSplit("google-research-datasets/tydiqa", "secondary_task", "validation"),
        },
    ),
}
"""By the name after ``xtreme/``."""

TRAINED: dict[str, Official] = {
    "xnli": OFFICIAL["xnli"],
    "squad": Official(
        QUESTIONS,
        "spans",
        "answer_mean",
        {TRAIN: {"en": 87_599}, DEV: {"en": 10_570}, TRANSLATED: _without_english(_XQUAD, None)},
        {
            TRAIN: "squad/train-v1.1.json",
            DEV: "squad/dev-v1.1.json",
            TRANSLATED: f"{_TRANSLATIONS}/SQuAD/translate-train/squad.translate.train.en-{{code}}.json",
        },
        _QUESTION_TRAINING,
        hub={
            TRAIN: HubSplit("rajpurkar/squad", "plain_text", "train"),
            DEV: HubSplit("rajpurkar/squad", "plain_text", "validation"),
        },
    ),
}
"""The tasks whose trained models others are scored with."""
