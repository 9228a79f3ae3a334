"""Labels that often mean that there is none, and classes that look alike."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict

NOT_GIVEN = {"nan", "na", "n/a", "null", "none"}
"""Words that stand for a missing number."""

WORDS = NOT_GIVEN | {
    *("-", "--", "---", "?", "??", "???", ".", "<na>", "#n/a", "nil", "missing", "undefined", "unspecified", "tbd"),
    *("unknown", "unlabeled", "unlabelled", "unlabel", "unannotated", "not labeled", "not labelled", "not available"),
    *("no label", "no_label", "nolabel", "no gold label", "no answer given"),
}
"""Words that stand for a missing label, in small letters."""

NUMBERS = {"-1", "-100", "-99", "-999", "-9999", "-1.0", "-100.0"}
"""Numbers that do: -1 of Hub data sets without labels, -100 of PyTorch's loss, the others of statistics packages."""


def no_labels(counts: Counter[str]) -> Counter[str]:
    """Those among these labels that often mean that there is none.

    Only beside two real ones. A number only where it is the sole negative one; -1 beside 0 and 1 alone may be a
    sentiment, and counts as a mark only where it is rare.

    Args:
        counts: each label and how often it occurs.

    >>> no_labels(Counter({"0": 40, "1": 50, "2": 40, "-1": 3}))
    Counter({'-1': 3})
    >>> no_labels(Counter({"-1": 40, "0": 50, "1": 40}))
    Counter()
    """
    words = [label for label in counts if " ".join(label.lower().split()) in WORDS]
    numbers = [label for label in counts if label in NUMBERS]
    others = [label for label in counts if label not in words and label not in numbers]
    if len(others) < 2:
        return Counter()
    if any(label.startswith("-") for label in others):
        numbers = []
    if {"0", "1"} == set(others):
        usual = sum(counts[label] for label in others) / len(others)
        numbers = [label for label in numbers if label != "-1" or counts[label] < usual / 2]
    return Counter({label: counts[label] for label in (*words, *numbers)})


def look_alikes(counts: Counter[str]) -> list[str]:
    """One line for each group of classes that a reader can hardly tell apart.

    Args:
        counts: each class and how often it occurs.

    >>> look_alikes(Counter({"Good": 3, "good": 40, "bad": 41}))
    ["classes 'Good' (3 rows) and 'good' (40 rows) differ in case alone; they stay different classes"]
    """
    groups = defaultdict(list)
    for name in sorted(counts):
        groups[_folded(name)].append(name)
    alike = [names for names in groups.values() if len(names) > 1]
    told = []
    for names in alike[:5]:
        shown = " and ".join(f"{ascii_if_hidden(name)} ({counts[name]:,} rows)" for name in names)
        told.append(f"classes {shown} differ in {_difference(names)} alone; they stay different classes")
    if len(alike) > 5:
        told.append(f"{len(alike) - 5} more groups of classes differ in case, spaces or spelling of a number alone")
    return told


def ascii_if_hidden(name: str) -> str:
    r"""The name in quotation marks; with escapes where it holds what a terminal does not show.

    >>> ascii_if_hidden("café"), ascii_if_hidden("caf\u200be")
    ("'café'", "'caf\\u200be'")
    """
    plain = name.isprintable() and unicodedata.normalize("NFC", name) == name
    return repr(name) if plain else ascii(name)


def _folded(name: str) -> str:
    """The same for names that look alike."""
    try:
        return repr(float(name)) if "_" not in name and len(name) < 16 else name
    except ValueError:
        return "".join(_visible(unicodedata.normalize("NFKC", name)).casefold().split())


def _visible(name: str) -> str:
    return "".join(c for c in name if unicodedata.category(c) not in ("Cf", "Cc") or c.isspace())


def _difference(names: list[str]) -> str:
    """In what the names of a group differ."""
    try:
        return "how a number is written" if [float(name) for name in names] else ""
    except ValueError:
        pass
    for what, fold in (
        ("case", str.casefold),
        ("spaces", lambda name: "".join(name.split())),
        ("invisible characters", _visible),
        ("Unicode form", lambda name: unicodedata.normalize("NFKC", name)),
    ):
        if len({fold(name) for name in names}) == 1:
            return what
    return "case, spaces, invisible characters or Unicode form"
