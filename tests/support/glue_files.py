"""Writes all nine GLUE tasks, a few rows each, in the layout of the official download."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from noisytune.lab.tasks.glue import OFFICIAL

PAIRS = [
    ('She said "no', "He heard no."),
    ("Caf\u00e9s open at 9:00.", '"Open"'),
    ("The cat sat, and sat.", "It's a cat"),
    ("Nobody came; why?", 'a " b'),
]
"""The texts of the four rows; the first of each alone where a task has one text."""

HEADERS = {
    name: names.split(",")
    for name, names in {
        "cola": "source,label,star,sentence",
        "sst2": "sentence,label",
        "mrpc": "Quality,#1 ID,#2 ID,#1 String,#2 String",
        "qqp": "id,qid1,qid2,question1,question2,is_duplicate",
        "stsb": "index,genre,filename,year,old_index,source1,source2,sentence1,sentence2,score",
        "mnli": "index,promptID,pairID,genre,sentence1_binary_parse,sentence2_binary_parse,sentence1_parse,"
        "sentence2_parse,sentence1,sentence2",
        "qnli": "index,question,sentence,label",
        "rte": "index,sentence1,sentence2,label",
        "wnli": "index,sentence1,sentence2,label",
    }.items()
}
"""Of the official files. CoLA's is not written; MNLI's goes on with the annotators' labels and the gold one."""

LABELS = {
    "cola": ["1", "0", "1", "0"],
    "sst2": ["0", "1", "1", "0"],
    "mrpc": ["1", "0", "0", "1"],
    "qqp": ["0", "1", "0", "0"],
    "stsb": ["0.000", "2.500", "5", "3.800"],
    "mnli": ["neutral", "entailment", "contradiction", "neutral"],
    "qnli": ["entailment", "not_entailment", "entailment", "entailment"],
    "rte": ["not_entailment", "entailment", "entailment", "not_entailment"],
    "wnli": ["0", "1", "1", "0"],
}
"""Of the four rows, as the official files spell them."""


def write_glue(
    folder: Path, *, spell: dict[str, str] | None = None, header: Callable[[list[str]], list[str]] = list
) -> Path:
    """Eight training rows and four dev rows a task; MRPC, QNLI and SST-2 begin with a byte order mark.

    Args:
        folder: written into, made if it is not there.
        spell: labels to write in another way.
        header: changes the names of the columns.
    """
    for name, task in OFFICIAL.items():
        place = folder / task.folder
        place.mkdir(parents=True, exist_ok=True)
        for file in ("train.tsv", "dev.tsv") if name != "mnli" else ("train.tsv", *MNLI_DEV):
            votes = [f"label{i}" for i in range(1, 2 if file == "train.tsv" else 6)] if name == "mnli" else []
            names = [*HEADERS[name], *votes, *(["gold_label"] if name == "mnli" else [])]
            lines = ["\t".join(header(names))] if task.header else []
            for (one, two), label in zip(PAIRS, LABELS[name], strict=True):
                cells = ["x"] * len(names)
                texts = ("mismatched" if "mismatched" in file else one, two)
                for (_, column), text in zip(task.texts, texts, strict=False):
                    cells[column] = text
                cells[task.label[1]] = (spell or {}).get(label, label)
                lines.append("\t".join(cells))
            rows = lines[task.header :] * (2 if file == "train.tsv" else 1)
            text = "".join(line + "\n" for line in [*lines[: task.header], *rows])
            bom = "\ufeff" if name in ("mrpc", "qnli", "sst2") else ""
            (place / file).write_bytes((bom + text).encode())
    return folder


MNLI_DEV = ("dev_matched.tsv", "dev_mismatched.tsv")
