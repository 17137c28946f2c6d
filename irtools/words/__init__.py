"""How numbers and foreign names are written in messages."""

from __future__ import annotations

from irtools.words.counting import counted, size_text, sqnr_text, tallied
from irtools.words.escape import one_line, printable

__all__ = ["counted", "one_line", "printable", "size_text", "sqnr_text", "tallied"]
