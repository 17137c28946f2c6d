"""Code of the caller's in the current folder, named `module:function`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["current_folder"]


@contextmanager
def current_folder() -> Iterator[None]:
    """Let modules of the current folder be found, after all others."""
    here = str(Path.cwd())
    sys.path.append(here)
    try:
        yield
    finally:
        sys.path.remove(here)
