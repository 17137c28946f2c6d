"""Labels: class numbers, class names, and several of them per sample."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from irtools.errors import DataError

__all__ = ["are_flags", "encode_labels", "find_class_names", "has_several_labels"]


def find_class_names(
    folders: Sequence[Path], used: Collection[str] = frozenset()
) -> dict[str, int]:
    """Return class name to number from `config.json` (id2label) or `classes.json` (a list).

    Args:
        folders: Where to look, in order. Empty where no folder has either file.
        used: Names that data calls its labels by: the first list that has all of them counts,
            so that a config which only says LABEL_0 does not hide one that says more.
    """
    lists = [found for folder in folders if (found := _class_names(folder))]
    known = (found for found in lists if found.keys() >= set(used))
    return next(known, lists[0] if lists else {})


def _class_names(folder: Path) -> dict[str, int]:
    config = _read_json(folder / "config.json")
    if isinstance(config, dict) and isinstance(config.get("id2label"), dict):
        return {str(name): int(number) for number, name in config["id2label"].items()}
    classes = _read_json(folder / "classes.json")
    return {str(name): n for n, name in enumerate(classes)} if isinstance(classes, list) else {}


def are_flags(labels: np.ndarray) -> bool:
    """Whether labels are rows of 0/1 [N, L]: a yes or no to each of several."""
    return bool(labels.ndim == 2 and np.isin(labels, (0, 1)).all())


def has_several_labels(metadata: Mapping[str, str], *labels: np.ndarray | None) -> bool:
    """Whether scores [N, L] say yes or no to each label, rather than which class it is.

    Args:
        metadata: Of the model; `problem_type` counts where there are no labels.
        labels: Of the data, the first that are there count.
    """
    for given in labels:
        if given is not None:
            return are_flags(given)
    return metadata.get("problem_type") == "multi_label_classification"


def encode_labels(
    raw: Sequence[tuple[str, Any]], names: Mapping[str, int]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the labels as numbers, and notes for the report.

    Whole numbers are classes; text is looked up in `names`, or numbered in alphabetical order
    where there are none; numbers with a point are regression targets; a list holds the labels of
    a sample (names or numbers), or 0/1 for every label.

    Args:
        raw: Where a label is, and the label.

    Returns:
        int64 [N], float32 [N] or int64 [N, L] of 0/1.

    Raises:
        DataError: A label that is missing, unknown or of another kind than the others.
    """
    values = [(where, _parse(where, value)) for where, value in raw]
    if all(isinstance(value, list) for _, value in values):
        return _several(values, names)
    for where, value in values:
        if isinstance(value, list):
            raise DataError(f"{where}: a list of labels, where other rows have one label")
    if all(isinstance(value, int) for _, value in values):
        return np.array([value for _, value in values], np.int64), ()
    if all(isinstance(value, int | float) for _, value in values):
        return np.array([value for _, value in values], np.float32), ()
    known, notes = _known(names, [str(value) for _, value in values])
    return np.array([_number(where, value, known) for where, value in values], np.int64), notes


def _parse(where: str, value: Any) -> Any:
    """Return an int, a float, a text or a list of them; text from a table may hold a number."""
    if isinstance(value, list):
        return [_parse(where, item) for item in value]
    if value is None or value == "":
        raise DataError(f"{where}: no label")
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int | float):
        return value
    if not isinstance(value, str):
        raise DataError(f"{where}: a label is a number, a name or a list, found {value!r:.60}")
    if value.lstrip("-").isdecimal():
        return int(value)
    return value


def _known(
    names: Mapping[str, int], found: Sequence[str]
) -> tuple[dict[str, int], tuple[str, ...]]:
    if names:
        return dict(names), ()
    made = {name: number for number, name in enumerate(sorted(set(found)))}
    listed = ", ".join(f"{number}={name}" for name, number in made.items())
    return made, (
        "no config.json or classes.json says which class is which; numbered by name: "
        f"{listed:.200}",
    )


def _number(where: str, value: int | float | str, names: Mapping[str, int]) -> int:
    if isinstance(value, int):
        return value
    number = names.get(str(value))
    if number is None:
        raise DataError(f"{where}: unknown label '{value}'; known are {', '.join(names):.200}")
    return number


def _several(
    values: Sequence[tuple[str, list[Any]]], names: Mapping[str, int]
) -> tuple[np.ndarray, tuple[str, ...]]:
    lists = [items for _, items in values]
    widths = {len(items) for items in lists}
    if _hold_flags(lists) and (not names or len(names) in widths):
        return np.array(lists, np.int64), ()
    texts = [str(item) for items in lists for item in items if isinstance(item, str)]
    known, notes = _known(names, texts) if texts else (dict(names), ())
    rows = [[_number(where, item, known) for item in items] for where, items in values]
    width = max([*(n + 1 for row in rows for n in row), *(n + 1 for n in known.values()), 1])
    return _multi_hot(rows, width), notes


def _hold_flags(lists: Sequence[Sequence[Any]]) -> bool:
    """Whether the lists are rows of 0/1 for every label, not the labels of each sample."""
    same_width = len({len(items) for items in lists}) == 1 and len(lists[0]) > 1
    return same_width and {item for items in lists for item in items} <= {0, 1}


def _multi_hot(rows: Sequence[Sequence[int]], width: int) -> np.ndarray:
    hot = np.zeros((len(rows), width), np.int64)
    for row, numbers in zip(hot, rows, strict=True):
        row[list(numbers)] = 1
    return hot


def _read_json(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
