"""Kits: a zip that times models where irtools is not installed, and the times it writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irtools.lazy import lazy_names
from irtools.measure.kit.base import KIT, RESULT, KitTimes, OtherMachine, TimedModel

if TYPE_CHECKING:
    from irtools.measure.kit.pack import pack_kit
    from irtools.measure.kit.remote import Host, run_on
    from irtools.measure.kit.result import parse_result, read_result

__all__ = [
    "Host",
    "KIT",
    "OtherMachine",
    "RESULT",
    "KitTimes",
    "TimedModel",
    "pack_kit",
    "parse_result",
    "read_result",
    "run_on",
]

# Every report may hold times of a kit, and few kits are packed: that takes onnx.
__getattr__ = lazy_names(
    __name__,
    {
        "Host": "irtools.measure.kit.remote",
        "pack_kit": "irtools.measure.kit.pack",
        "parse_result": "irtools.measure.kit.result",
        "read_result": "irtools.measure.kit.result",
        "run_on": "irtools.measure.kit.remote",
    },
)
