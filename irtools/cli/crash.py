"""What is written down when irc itself fails outside any pass."""

from __future__ import annotations

import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

from irtools.files import json_text
from irtools.measure.machine import versions

__all__ = ["write_crash"]


def write_crash(error: Exception, args: Sequence[str]) -> Path | None:
    """Write traceback, command line and versions to a new folder; None if that fails too."""
    try:
        folder = Path(tempfile.mkdtemp(prefix="irc-crash-"))
        (folder / "traceback.txt").write_text(
            "".join(traceback.format_exception(error)), encoding="utf-8", errors="replace"
        )
        document = {"arguments": list(args), "versions": dict(versions())}
        (folder / "crash.json").write_text(json_text(document), encoding="utf-8")
    except OSError:
        return None
    return folder
