"""What a kit measures on another machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from irtools.measure.base import LatencyResult

__all__ = ["KIT", "RESULT", "OtherMachine", "KitTimes", "TimedModel"]

KIT, RESULT = "irtools-kit", "irtools-kit-result"
"""Formats of `kit.json` and of what the kit writes."""


@dataclass(frozen=True)
class OtherMachine:
    """A machine that a kit ran on, as it describes itself.

    Attributes:
        name: Its host name.
        cpu: Model name of its CPU.
        cores: CPUs that the kit could use.
        system: Operating system, release and architecture.
        threads: Threads of every model.
    """

    name: str
    cpu: str
    cores: int
    system: str
    threads: int


@dataclass(frozen=True)
class TimedModel:
    """A model in a kit.

    Attributes:
        name: As it was entered.
        target: What it was packed for, as target text.
        sha256: Fingerprint of graph and weights, wherever they are stored.
        files: SHA-256 of the file that it was read from; empty where it was exported.
    """

    name: str
    target: str
    sha256: str
    files: tuple[str, ...]


@dataclass(frozen=True)
class KitTimes:
    """What a kit measured.

    Attributes:
        kit: Identifies the kit: models, inputs and settings.
        models: In the order in which they were entered; the first is the baseline.
        versions: Of Python, numpy and onnxruntime there.
        results: By shape and model.
    """

    kit: str
    machine: OtherMachine
    versions: Mapping[str, str]
    models: tuple[TimedModel, ...]
    results: tuple[LatencyResult, ...]
