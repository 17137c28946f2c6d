"""The onnxruntime package, imported without its telemetry.

From 1.31 the Linux wheels hold a client that reports to a web service: on import it starts a
thread and writes `.ses` to the temporary folder. Only its environment variable, read during the
import, keeps it from starting; `disable_telemetry_events` quietens one that runs already. Can go
once the import stays silent.
"""

from __future__ import annotations

import importlib
import os
from types import ModuleType

__all__ = ["import_onnxruntime"]

_SWITCH = "ORT_DISABLE_TELEMETRY"


def import_onnxruntime() -> ModuleType:
    """Return the module `onnxruntime`."""
    stated = os.environ.get(_SWITCH)
    os.environ[_SWITCH] = "1"
    try:
        found = importlib.import_module("onnxruntime")
    finally:
        if stated is None:
            del os.environ[_SWITCH]
        else:
            os.environ[_SWITCH] = stated
    found.disable_telemetry_events()
    return found
