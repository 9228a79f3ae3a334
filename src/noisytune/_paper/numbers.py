"""What does the paper print? The numbers of its Tables 2 and 3, and what its text says of figures that have none."""

from __future__ import annotations

from dataclasses import dataclass

TASKS = ("mnli", "qnli", "qqp", "rte", "sst2", "mrpc", "cola", "stsb", "wnli")
"""The columns of Table 2, as GLUE's configurations are called."""

_MODELS = {
    "bert-base-uncased": "BERT",
    "bert-base-cased": "BERT",
    "xlnet-base-cased": "XLNET",
    "roberta-base": "RoBERTa",
    "electra-base-discriminator": "ELECTRA",
}
_ARMS = {"plain": "", "noisytune(0.15)": "+NoisyTune"}
_TABLE2 = {
    "BERT": (84.4, 91.5, 90.9, 67.7, 93.0, 87.1, 58.1, 89.4, 54.4, 79.6),
    "BERT+NoisyTune": (84.7, 91.8, 91.2, 68.8, 93.4, 88.0, 59.0, 90.1, 56.1, 80.3),
    "XLNET": (86.6, 91.6, 91.2, 72.9, 94.4, 88.1, 59.6, 89.6, 57.5, 81.3),
    "XLNET+NoisyTune": (86.9, 91.9, 91.4, 73.8, 94.7, 88.6, 60.1, 90.0, 58.6, 81.8),
    "RoBERTa": (87.5, 92.7, 91.7, 77.1, 94.5, 90.1, 62.9, 90.8, 59.2, 82.9),
    "RoBERTa+NoisyTune": (87.8, 93.1, 91.9, 78.8, 94.9, 90.6, 63.6, 91.1, 60.3, 83.6),
    "ELECTRA": (88.4, 92.9, 91.7, 75.2, 94.9, 88.2, 64.2, 90.1, 62.0, 83.1),
    "ELECTRA+NoisyTune": (88.7, 93.2, 92.1, 76.4, 95.2, 88.7, 64.9, 90.5, 63.4, 83.7),
}

XTREME_TASKS = ("xnli", "pawsx", "udpos", "panx", "bucc", "tatoeba", "xquad", "mlqa", "tydiqa")
"""The columns of Table 3, as XTREME's folders are called."""

_MULTILINGUAL = {"xlm-roberta-base": "XLM-R base", "xlm-roberta-large": "XLM-R large"}
_ARMS_OF_TABLE3 = {"plain": "", "noisytune(0.1, exclude=@token_embeddings)": "+NoisyTune"}
_TABLE3 = {
    "transfer": {
        "XLM-R base": ("74.8 84.8 75.5 61.6 77.6 73.8 71.9/56.6 65.2/47.0 55.5/38.4", 70.0),
        "XLM-R base+NoisyTune": ("75.2 85.1 76.0 62.1 78.2 74.5 72.3/57.1 65.5/47.4 56.0/39.2", 70.5),
        "XLM-R large": ("79.0 86.3 72.7 62.3 79.2 76.0 76.2/60.4 71.4/53.0 65.0/45.0", 72.4),
        "XLM-R large+NoisyTune": ("79.3 86.5 73.5 63.2 79.9 76.8 76.7/61.0 71.9/53.6 65.4/45.6", 73.0),
    },
    "translate-train-all": {
        "XLM-R base": ("78.5 88.2 76.2 62.6 79.6 79.4 75.0/61.5 67.8/50.1 63.8/47.6", 73.3),
        "XLM-R base+NoisyTune": ("78.9 88.6 76.8 63.1 80.0 79.8 75.4/61.8 68.0/50.4 64.1/48.1", 73.7),
        "XLM-R large": ("82.3 90.3 77.3 67.3 82.5 82.7 80.0/65.6 72.9/54.4 66.3/47.6", 76.4),
        "XLM-R large+NoisyTune": ("82.5 90.5 77.8 67.9 82.9 83.0 80.4/66.1 73.3/54.9 66.8/48.2", 76.8),
    },
}

ABOUT_TABLE2 = "its Table 2: base models, all training data, mean of five seeds, settings from its own search"
ABOUT_TABLE3 = (
    "its Table 3: all languages, all training data, mean of five seeds, settings from its own search, F1/EM in "
    "question answering, average of the four categories"
)
"""What is to be known of a table's rows beside one's own."""

NOISE_TYPES = (
    "The paper's Figure 2 (section 3.3, no numbers printed): global noise harms, uniform noise beats Gaussian, and "
    "matrix-wise uniform noise is best."
)
COMBINED = "The paper's Figure 3 (section 3.4, no numbers printed): noise improves RecAdam and Mixout further."
SHARES = "The paper's Figure 4 (section 3.5, no numbers printed): a gain at every share, larger with less data."
NORMS = "The paper's Figure 5 (section 3.5, no numbers printed): the L1 norms change relatively less with noise."
STRENGTHS = (
    "The paper's Figure 6 (section 3.6, no numbers printed): on GLUE, λ from 0.1 to 0.15 suits better than less or "
    "more."
)


@dataclass(frozen=True)
class Printed:
    """A row of one of the paper's tables."""

    about: str
    """Which table it is of, and what is to be known of its rows."""
    name: str
    scores: dict[str, tuple[float, ...]]
    """By task (``glue/rte`` ...): one number; in question answering two, F1 and EM."""
    average: float


def printed(model: str, arm: str, setting: str = "") -> Printed | None:
    """The row of Table 2 or, with a setting of multilingual training, of Table 3; None where the paper has none.

    Args:
        model: as a study names it; the owner on the Hub does not count.
        arm: an arm's name.
        setting: "transfer" or "translate-train-all" for Table 3.

    >>> row = printed("google-bert/bert-base-uncased", "noisytune(0.15)")
    >>> row.name, row.scores["glue/rte"], row.average
    ('BERT+NoisyTune', (68.8,), 80.3)
    >>> printed("FacebookAI/xlm-roberta-base", "plain", "transfer").scores["xtreme/xquad"]
    (71.9, 56.6)
    """
    known = model.rsplit("/")[-1]
    if setting:
        if known not in _MULTILINGUAL or arm not in _ARMS_OF_TABLE3 or setting not in _TABLE3:
            return None
        name = _MULTILINGUAL[known] + _ARMS_OF_TABLE3[arm]
        text, average = _TABLE3[setting][name]
        pairs = (tuple(map(float, cell.split("/"))) for cell in text.split())
        cells = {f"xtreme/{task}": cell for task, cell in zip(XTREME_TASKS, pairs, strict=True)}
        return Printed(ABOUT_TABLE3, f"{name}, {setting}", cells, average)
    if known not in _MODELS or arm not in _ARMS:
        return None
    name = _MODELS[known] + _ARMS[arm]
    *scores, average = _TABLE2[name]
    return Printed(ABOUT_TABLE2, name, {f"glue/{t}": (score,) for t, score in zip(TASKS, scores, strict=True)}, average)
