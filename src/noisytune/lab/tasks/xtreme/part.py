"""What a file of the benchmark gave."""

from __future__ import annotations

from dataclasses import dataclass

from noisytune.lab.kinds import Split


@dataclass(frozen=True)
class Part:
    """The examples of one language in one part of a task."""

    split: Split | None
    """None: the file has no labels, as the test files of XTREME's own release."""
    rows: int
    """Of the file, whether or not they became examples."""
    notices: tuple[str, ...] = ()
    """What the user should know, one line each, without the task's name."""


def told(places: list[int], what: str, name: str, unit: str, then: str) -> tuple[str, ...]:
    """A notice on places of a file; none where there are none.

    Args:
        places: numbers of lines or rows.
        what: ``"rows have a blank sentence"``.
        name: the file's.
        unit: what the places are: ``"line"``.
        then: what is done about it.

    >>> told([7, 9], "rows have a blank sentence", "dev-de.tsv", "line", "they stay")
    ('dev-de.tsv: 2 rows have a blank sentence (the first: line 7); they stay',)
    """
    return (f"{name}: {len(places):,} {what} (the first: {unit} {places[0]:,}); {then}",) if places else ()
