"""Writes the nine tasks of XTREME, a few examples each in several languages, in the layout of the official download."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

LANGUAGES = ("de", "en", "ru", "zh")
"""In all tasks, but English in no retrieval, Chinese not in TyDiQA, and Russian not in PAWS-X and MLQA."""
ROWS = 12
"""Of a training set; half as many in dev and test."""

WORDS = {
    "en": ("the", "old", "river", "walks", "slowly", "maria", "berlin", "green"),
    "de": ("der", "alte", "Fluß", "geht", "langsam", "maria", "berlin", "grün"),
    "ru": ("эта", "старая", "река", "идёт", "медленно", "мария", "берлин", "зелёная"),
    "zh": ("这", "条", "河流", "走", "慢慢", "玛丽亚", "柏林", "绿色"),
}
"""The same eight words of each language."""
NLI = ("entailment", "neutral", "contradiction")
POS = ("DET", "ADJ", "NOUN", "VERB", "ADV", "PROPN", "PROPN", "ADJ")
NER = ("O", "O", "O", "O", "O", "B-PER", "B-LOC", "O")


def sentence(code: str, number: int) -> str:
    """Some words of a language, another sentence for each number below some hundreds."""
    words = WORDS[code]
    return " ".join(words[(number * step + place) % 8] for place, step in enumerate((1, 3, 5, 7))) + f" {number}"


def write_xtreme(folder: Path, languages: Sequence[str] = LANGUAGES, *, labels: bool = True) -> Path:
    """Write everything, translations too.

    Args:
        folder: the ``download``, made if it is not there.
        languages: beside English, whose training sets are always there.
        labels: whether test files have them; XTREME's own release has none.
    """
    for code in dict.fromkeys(("en", *languages)):
        _pairs(folder, code, labels)
        _tags(folder, code, labels)
        _questions(folder, code, labels)
        if code != "en":
            _bitexts(folder, code, labels)
    return folder


def text(folder: Path, name: str, lines: Sequence[str]) -> None:
    """A file of lines."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="")


def pair_rows(code: str, task: str, rows: int, first: int = 0) -> list[list[str]]:
    """Two sentences and a label."""
    names = NLI if task == "xnli" else ("0", "1")
    return [[sentence(code, i), sentence(code, i + i % 2), names[i % len(names)]] for i in range(first, first + rows)]


def _pairs(folder: Path, code: str, labels: bool) -> None:
    for task, room in (("xnli", "XNLI"), ("pawsx", "PAWSX")):
        if (task, code) == ("pawsx", "ru"):
            continue
        half = ROWS // 2
        for part, rows in (("dev", pair_rows(code, task, half, 100)), ("test", pair_rows(code, task, half, 200))):
            kept = rows if labels or part == "dev" else [row[:2] for row in rows]
            text(folder, f"{task}/{part}-{code}.tsv", ["\t".join(row) for row in kept])
        train = pair_rows(code, task, ROWS)
        if code == "en":
            text(folder, f"{task}/train-en.tsv", ["\t".join(row) for row in train])
            continue
        english = pair_rows("en", task, ROWS)
        spelt = [[*mine[:2], mine[2].replace("contradiction", "contradictory")] for mine in train]
        both = ["\t".join([*ours[:2], *mine]) for ours, mine in zip(english, spelt, strict=True)]
        text(folder, f"xtreme_translations/{room}/translate-train/en-{code}-translated.tsv", both)


def _tags(folder: Path, code: str, labels: bool) -> None:
    for task, tags in (("udpos", POS), ("panx", NER)):
        for part, first in (("train", 0), ("dev", 100), ("test", 200)):
            lines = []
            for i in range(first, first + (ROWS if part == "train" else ROWS // 2)):
                for place in range(3 + i % 4):
                    word, tag = WORDS[code][(i + place) % 8], tags[(i + place) % 8]
                    lines.append(f"{word}\t{tag}" if labels or part != "test" else word)
                lines.append("")
            text(folder, f"{task}/{part}-{code}.tsv", lines)


def squad(code: str, rows: int, first: int = 0, labels: bool = True) -> dict[str, object]:
    """Two questions a paragraph, in SQuAD's format."""
    paragraphs = []
    for i in range(first, first + rows, 2):
        context = f"{sentence(code, i)}. {sentence(code, i + 1)}."
        asked = []
        for number in (i, i + 1):
            answer = {"text": str(number), "answer_start": context.index(str(number))}
            none = {"text": "", "answer_start": 0}
            question = f"{WORDS[code][2]} {WORDS[code][number % 8]}?"
            asked.append({"id": f"{code}-{number}", "question": question, "answers": [answer if labels else none]})
        paragraphs.append({"context": context, "qas": asked})
    return {"version": "1.1", "data": [{"title": "a", "paragraphs": paragraphs}]}


def _questions(folder: Path, code: str, labels: bool) -> None:
    half = ROWS // 2
    files = {f"xquad/xquad.{code}.json": squad(code, half, 200, labels)}
    if code != "ru":
        for part, first in (("dev", 100), ("test", 200)):
            name = f"mlqa/MLQA_V1/{part}/{part}-context-{code}-question-{code}.json"
            files[name] = squad(code, half, first, labels or part == "dev")
    if code in ("en", "ru"):
        files[f"tydiqa/tydiqa-goldp-v1.1-dev/tydiqa.goldp.{code}.dev.json"] = squad(code, half, 200, labels)
    translated = "xtreme_translations/{0}/translate-train/{1}.translate.train.en-{2}.json"
    if code == "en":
        files["squad/train-v1.1.json"] = squad(code, ROWS)
        files["squad/dev-v1.1.json"] = squad(code, half, 100)
        files["tydiqa/tydiqa-goldp-v1.1-train/tydiqa.goldp.en.train.json"] = squad(code, ROWS)
    else:
        files[translated.format("SQuAD", "squad", code)] = squad(code, ROWS)
        files[translated.format("TyDiQA-GoldP", "tydiqa", code)] = squad(code, ROWS)
    for name, content in files.items():
        text(folder, name, [json.dumps(content, ensure_ascii=False)])


def _bitexts(folder: Path, code: str, labels: bool) -> None:
    mine, english = ([sentence(one, i) for i in range(30)] for one in (code, "en"))
    text(folder, f"tatoeba/{code}-en.{code}", mine)
    # The release hides which lines belong together: it sorts the English ones.
    text(folder, f"tatoeba/{code}-en.en", english if labels else sorted(english))
    for part in ("dev", "test"):
        for one, side in ((code, mine), ("en", english[::-1])):
            text(
                folder, f"bucc2018/{code}-en.{part}.{one}", [f"{one}-{i:09}\t{s}" for i, s in enumerate(side, start=1)]
            )
        if labels or part == "dev":
            gold = [f"{code}-{i:09}\ten-{31 - i:09}" for i in range(1, 16)]
            text(folder, f"bucc2018/{code}-en.{part}.gold", gold)
