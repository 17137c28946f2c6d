"""The openvino package, imported without its telemetry.

`import openvino` reports itself to a web service: it starts a thread that forks a process that
opens a socket. The package carries a stub for machines without `openvino_telemetry`; hiding
that module during the import makes it take the stub. Can go once the import stays silent.
"""

from __future__ import annotations

import importlib
import re
import sys
from types import ModuleType

from irtools.errors import MissingExtraError
from irtools.words import one_line

__all__ = ["clean_message", "import_openvino", "release"]

_TELEMETRY = "openvino_telemetry"
_SOURCE_PLACES = re.compile(r"Exception from \S+:\d+:|Check '.*?' failed at \S+:\d+:|^\s*\n", re.M)


def import_openvino() -> ModuleType:
    """Return the module `openvino`.

    Raises:
        MissingExtraError: It is not installed.
    """
    hides = "openvino" not in sys.modules and _TELEMETRY not in sys.modules
    if hides:
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        return importlib.import_module("openvino")
    except ModuleNotFoundError as error:
        if error.name != "openvino":
            raise
        raise MissingExtraError("the OpenVINO target", "openvino") from error
    finally:
        if hides:
            del sys.modules[_TELEMETRY]


def release() -> str:
    """Return the version without its build number (`2026.4.1`)."""
    return str(import_openvino().__version__).split("-")[0]


def clean_message(error: Exception) -> str:
    """Return a message as one line, without the places in OpenVINO's sources."""
    return one_line(_SOURCE_PLACES.sub("", str(error)))
