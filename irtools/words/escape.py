"""Names from models are untrusted: made harmless before anything shows them."""

from __future__ import annotations

import unicodedata

__all__ = ["one_line", "printable"]

_LIMIT = 200


def printable(text: object, limit: int = _LIMIT) -> str:
    """Return text without control codes, line breaks or direction marks, cut at `limit`.

    Terminals obey escape sequences and logs believe line breaks, so each such character is
    shown as its number instead (`\\x1b`).
    """
    shown = "".join(c if _is_harmless(c) else _as_number(c) for c in str(text))
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def one_line(error: object, limit: int = 400) -> str:
    """Return a runtime's message as one printable line, cut at `limit` letters."""
    text = " ".join(str(error).split())
    text = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _is_harmless(character: str) -> bool:
    # Cc, Cf: control and format codes; Cs: lone surrogates; Zl, Zp: line separators.
    return unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _as_number(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
