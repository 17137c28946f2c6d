"""Code of the caller's, named `module:name`; the current folder is looked into as well."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from irtools.errors import UsageError

__all__ = ["current_folder", "import_named"]


@contextmanager
def current_folder() -> Iterator[None]:
    """Let modules of the current folder be found, after all others."""
    here = str(Path.cwd())
    sys.path.append(here)
    try:
        yield
    finally:
        sys.path.remove(here)


def import_named(spec: str) -> Any:
    """Return what `module:name` names; modules of the current folder count.

    Raises:
        UsageError: No such module, or nothing of that name in it.
    """
    module, _, name = spec.partition(":")
    if not module or not name:
        raise UsageError(f"{spec}: expected module:name")
    try:
        with current_folder():
            return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{spec}: no module named '{error.name}' on the import path or in this folder"
        ) from error
    except AttributeError as error:
        raise UsageError(f"{spec}: module '{module}' has no '{name}'") from error
