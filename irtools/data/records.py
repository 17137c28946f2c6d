"""Rows of text files: `.jsonl`, `.csv`, `.tsv`, `.parquet`."""

from __future__ import annotations

import csv
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from irtools.errors import DataError, FileError, UnsupportedError
from irtools.words import counted

__all__ = ["Record", "read_records"]

Record = tuple[str, dict[str, Any]]
"""Where a row is (`train.jsonl:7`), and its fields."""

# A field larger than this is not a text for a model; csv's own limit is 128 KiB.
_MAX_FIELD = 16 << 20


def read_records(path: Path) -> list[Record]:
    """Read all rows of a file.

    Raises:
        DataError: A line that cannot be parsed; names the line.
        FileError: The file cannot be read.
        UnsupportedError: `.parquet` without pyarrow.
    """
    try:
        match path.suffix:
            case ".jsonl":
                return list(_jsonl(path))
            case ".csv":
                return list(_separated(path, ","))
            case ".tsv":
                return list(_separated(path, "\t"))
            case _:
                return list(_parquet(path))
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start})") from error


def _jsonl(path: Path) -> Iterator[Record]:
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            where = f"{path.name}:{number}"
            try:
                fields = json.loads(line)
            except (json.JSONDecodeError, RecursionError) as error:
                raise DataError(f"{where} is not JSON: {error}") from error
            if not isinstance(fields, dict):
                raise DataError(f'{where} is not an object like {{"text": ..., "label": ...}}')
            yield where, fields


def _separated(path: Path, delimiter: str) -> Iterator[Record]:
    previous = csv.field_size_limit(_MAX_FIELD)
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            yield from _rows(path, csv.reader(lines, delimiter=delimiter, strict=True))
    finally:
        csv.field_size_limit(previous)


def _rows(path: Path, reader: Any) -> Iterator[Record]:
    try:
        header: list[str] = next(reader, [])
        for row in reader:
            where = f"{path.name}:{reader.line_num}"
            if not row:
                continue
            if len(row) != len(header):
                raise DataError(
                    f"{where} has {counted(len(row), 'field')}, the header has {len(header)} "
                    f"({', '.join(header)})"
                )
            yield where, dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise DataError(f"{path.name}:{reader.line_num}: {error}") from error


def _parquet(path: Path) -> Iterator[Record]:
    if importlib.util.find_spec("pyarrow") is None:
        raise UnsupportedError(
            f"reading {path.name} needs pyarrow: pip install pyarrow, or write the rows as .jsonl"
        )
    import pyarrow  # type: ignore[import-not-found, unused-ignore]
    import pyarrow.parquet as parquet  # type: ignore[import-not-found, unused-ignore]

    try:
        rows = parquet.read_table(path).to_pylist()
    except pyarrow.ArrowInvalid as error:
        raise DataError(f"{path} is not a parquet file: {error}") from error
    for number, fields in enumerate(rows, 1):
        yield f"{path.name}, row {number}", fields
