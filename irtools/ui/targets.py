"""The targets that this machine has."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

from irtools.plugins import registry

__all__ = ["target_names"]

_RUNTIMES = {"ort": "onnxruntime", "openvino": "openvino"}


@cache
def target_names() -> tuple[str, ...]:
    """Return the targets for CPUs whose runtime is installed; it is not imported here."""
    found = (
        name
        for name in registry.names("irtools.targets")
        if name.endswith("-cpu") and find_spec(_RUNTIMES.get(name.split("-")[0], "irtools"))
    )
    return tuple(sorted(found, key=lambda name: (name != "ort-cpu", name)))
