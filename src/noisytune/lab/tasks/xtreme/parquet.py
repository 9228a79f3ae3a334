"""Parquet files as the Hub has them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from noisytune.errors import DataError
from noisytune.lab.tasks._tables import read_table


def columns_of(files: Sequence[Path], needed: Iterable[str]) -> dict[str, list[Any]]:
    """The columns of the files of one split, one after the other.

    Raises:
        DataError: a column is missing, or a file cannot be read.
    """
    tables = [read_table(file).columns for file in files]
    for file, columns in zip(files, tables, strict=True):
        for name in needed:
            if name not in columns:
                raise DataError(f"{file}: no column {name!r}; the columns are {', '.join(columns)}")
    return {name: [cell for columns in tables for cell in columns[name]] for name in tables[0]}


def class_names(file: Path, column: str) -> list[str]:
    """The names that a file gives to the numbers of a column of classes, or of lists of them; empty: it gives none."""
    import pyarrow.parquet

    about = json.loads((pyarrow.parquet.read_schema(file).metadata or {}).get(b"huggingface", b"{}"))
    feature = about.get("info", {}).get("features", {}).get(column, {})
    if isinstance(feature, list):
        feature = feature[0] if feature else {}
    found = feature.get("names") or feature.get("feature", {}).get("names") or []
    return [str(name) for name in found]
