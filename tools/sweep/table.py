"""The results as one data file and as the table of docs/models.md: ``python -m sweep.table sweep-results``."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from sweep.pairings import EQUAL, UNBUILT

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
DATA = Path(__file__).with_name("results")
BEGIN, END = "<!-- written by tools/sweep/table.py -->", "<!-- end of what it writes -->"


def main() -> int:
    """Read the folder of results, write the data file of their release and the page."""
    found = [json.loads(file.read_text()) for file in sorted(Path(sys.argv[1]).glob("*.json"))]
    (release,) = {each["transformers"] for each in found}
    DATA.mkdir(exist_ok=True)
    rows = [{key: each[key] for key in ("type", "result", "reason")} for each in found]
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (DATA / f"{release}.json").write_text(f'{{"transformers": "{release}", "types": [\n{lines}\n]}}\n')
    text = PAGE.read_text()
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n{page(found, release)}{END}{after}")
    print(summary(found, release))
    return 0


def summary(found: list[dict[str, Any]], release: str) -> str:
    """How many types came out how."""
    counts = Counter(each["result"] for each in found)
    built = len(found) - counts[UNBUILT]
    rest = ", ".join(f"{n} {result}" for result, n in counts.most_common() if result not in (EQUAL, UNBUILT)) or "none"
    return (
        f"transformers {release}: of {len(found)} types {built} can be built here; {counts[EQUAL]} of them "
        f"({counts[EQUAL] / max(built, 1):.1%}) have the same noise in every pairing. The others: {rest}."
    )


def page(found: list[dict[str, Any]], release: str) -> str:
    """Markdown: the counts, what is not equal and why, then the names of the rest."""
    others = [each for each in found if each["result"] not in (EQUAL, UNBUILT)]
    rows = "".join(f"| `{each['type']}` | {each['result']} | {_cell(each['reason'])} |\n" for each in others)
    table = f"\n| type | result | reason |\n|---|---|---|\n{rows}" if rows else ""
    return (
        f"\n{summary(found, release)}\n{table}"
        f"\nThe same in every pairing: {_names(found, EQUAL)}.\n"
        f"\nCannot be built: from their defaults, or without a library that is missing: {_names(found, UNBUILT)}.\n\n"
    )


def _names(found: list[dict[str, Any]], result: str) -> str:
    return ", ".join(f"`{each['type']}`" for each in found if each["result"] == result) or "none"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")[:240]


if __name__ == "__main__":
    sys.exit(main())
