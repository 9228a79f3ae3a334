"""The results as one data file and as the table of docs/models.md: ``python -m sweep.table sweep-results``."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path
from textwrap import shorten
from typing import Any

from sweep.pairings import EQUAL, UNBUILT

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
DATA = Path(__file__).with_name("results")
KEPT = ("type", "result", "reason", "is_brief")
BEGIN, END = "<!-- written by tools/sweep/table.py -->", "<!-- end of what it writes -->"


def main() -> int:
    """Read the folder of results, write the data file of their release, and the page from all data files."""
    found = [json.loads(file.read_text()) for file in sorted(Path(sys.argv[1]).glob("*.json"))]
    for each in found:  # where the files lay says nothing
        each["reason"] = re.sub(r"/tmp/tmp\w+/", "", each["reason"])
    (release,) = {each["transformers"] for each in found}
    DATA.mkdir(exist_ok=True)
    lines = ",\n".join(json.dumps({key: each[key] for key in KEPT}, ensure_ascii=False) for each in found)
    (DATA / f"{release}.json").write_text(f'{{"transformers": "{release}", "types": [\n{lines}\n]}}\n')
    releases = [json.loads(file.read_text()) for file in DATA.glob("*.json")]
    releases.sort(key=lambda each: [int(part) for part in each["transformers"].split(".")], reverse=True)
    text = PAGE.read_text()
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    PAGE.write_text(
        f"{before}{BEGIN}\n{''.join(page(each['types'], each['transformers']) for each in releases)}{END}{after}"
    )
    print(summary(found))
    return 0


def summary(found: list[dict[str, Any]]) -> str:
    """How many types came out how."""
    counts = Counter(each["result"] for each in found)
    built = len(found) - counts[UNBUILT]
    rest = ", ".join(f"{n} {result}" for result, n in counts.most_common() if result not in (EQUAL, UNBUILT)) or "none"
    brief = sum(each["is_brief"] for each in found)
    return (
        f"Of {len(found)} types ({len(found) - brief} in every pairing, {brief} by the base model and one class with a "
        f"head) {built} can be built here; {counts[EQUAL]} of them ({counts[EQUAL] / max(built, 1):.1%}) have the same "
        f"noise in memory and on disk. The others: {rest}."
    )


def page(found: list[dict[str, Any]], release: str) -> str:
    """Markdown: the counts, what is not equal and why, then the names of the rest."""
    others = [each for each in found if each["result"] not in (EQUAL, UNBUILT)]
    rows = "".join(f"| `{each['type']}` | {each['result']} | {_cell(each['reason'])} |\n" for each in others)
    table = f"\n| type | result | reason |\n|---|---|---|\n{rows}" if rows else ""
    return (
        f"\n### transformers {release}\n\n{summary(found)}\n{table}"
        f"\nThe same noise: {_names(found, EQUAL)}.\n"
        f"\nCannot be built from their defaults, or without a library that is missing: {_names(found, UNBUILT)}.\n\n"
    )


def _names(found: list[dict[str, Any]], result: str) -> str:
    return ", ".join(f"`{each['type']}`" for each in found if each["result"] == result) or "none"


def _cell(text: str) -> str:
    """What was seen; what follows from it is the same in every row and stands above the table."""
    seen = shorten(text.partition("; ")[0], 240, placeholder=" ...")
    return seen.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    sys.exit(main())
