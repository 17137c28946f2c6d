"""How numbers and foreign names are written in messages."""

from __future__ import annotations

from irtools.words.counting import counted, size_text, tallied
from irtools.words.escape import printable

__all__ = ["counted", "printable", "size_text", "tallied"]
