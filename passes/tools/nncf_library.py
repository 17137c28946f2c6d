"""NNCF, with its telemetry off."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any
from unittest.mock import MagicMock

from irtools.errors import MissingExtraError

__all__ = ["nncf_library"]

_TELEMETRY = "openvino_telemetry"


@contextlib.contextmanager
def nncf_library() -> Iterator[Any]:
    """Import NNCF and keep its telemetry off while it works.

    NNCF reports what it is called with to a web service unless its user opted out before. It does
    without where the package that sends is not found, and that is what it finds here. Where a
    caller imported it before, what it would send is dropped.

    Raises:
        MissingExtraError: It is not installed.
    """
    with _without_sender():
        try:
            import nncf
        except ImportError as error:
            raise MissingExtraError("NNCF", "nncf") from error
        from nncf.telemetry import decorator
    sender = decorator.telemetry
    decorator.telemetry = MagicMock()
    try:
        yield nncf
    finally:
        decorator.telemetry = sender


@contextlib.contextmanager
def _without_sender() -> Iterator[None]:
    before = sys.modules.get(_TELEMETRY)
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[_TELEMETRY]
        if before is not None:
            sys.modules[_TELEMETRY] = before
