"""Kits: a zip that times models where irtools is not installed, and the times it writes."""

from irtools.measure.kit.base import KIT, RESULT, KitTimes, OtherMachine, TimedModel
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
