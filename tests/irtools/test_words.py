"""Numbers with their nouns."""

from __future__ import annotations

import pytest

from irtools.words import counted, tallied


@pytest.mark.parametrize(
    ("number", "noun", "plural", "text"),
    [
        (1, "node", None, "1 node"),
        (0, "node", None, "0 nodes"),
        (2, "fused attention kernel", None, "2 fused attention kernels"),
        (3, "class", "classes", "3 classes"),
        (1, "class", "classes", "1 class"),
        (9999, "row", None, "9999 rows"),
        (22713216, "parameter", None, "22,713,216 parameters"),
    ],
)
def test_counted(number: int, noun: str, plural: str | None, text: str) -> None:
    assert counted(number, noun, plural) == text


def test_tallied() -> None:
    """No phrase has to know its number."""
    assert tallied(1, "weights left in float32") == "weights left in float32 (1)"
    assert tallied(12345, "nodes removed") == "nodes removed (12,345)"
