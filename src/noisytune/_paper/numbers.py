"""What does the paper print? The numbers of its Table 2, and what its text says of figures that have none."""

from __future__ import annotations

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


def table2(model: str, arm: str) -> tuple[str, dict[str, float], float] | None:
    """A row of Table 2: its name there, its scores by task (``glue/rte`` ...), and its average; None if it has none.

    Args:
        model: as a study names it; the owner on the Hub does not count.
        arm: an arm's name.

    >>> name, scores, average = table2("google-bert/bert-base-uncased", "noisytune(0.15)")
    >>> name, scores["glue/rte"], average
    ('BERT+NoisyTune', 68.8, 80.3)
    """
    known = _MODELS.get(model.rsplit("/")[-1])
    if known is None or arm not in _ARMS:
        return None
    name = known + _ARMS[arm]
    *scores, average = _TABLE2[name]
    return name, {f"glue/{task}": score for task, score in zip(TASKS, scores, strict=True)}, average
