"""Reads what a kit wrote on another machine."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from irtools.errors import DataError, FileError
from irtools.files import fault_of_document
from irtools.measure.base import LatencyResult
from irtools.measure.interval import speedup
from irtools.measure.kit.base import RESULT, KitTimes, OtherMachine, TimedModel

__all__ = ["parse_result", "read_result"]

_VERSION = 1
_PHASES: tuple[Literal["prefill", "decode"], ...] = ("prefill", "decode")


class _Result(msgspec.Struct):
    """Seconds of one model at one shape."""

    name: str
    shape: str
    medians: list[float]
    p90: float
    p99: float
    mean: float
    runs: int
    peak_bytes: int
    load_seconds: float
    first_seconds: float


class _Document(msgspec.Struct):
    kit: str
    machine: OtherMachine
    versions: dict[str, str]
    models: list[TimedModel]
    results: list[_Result]


def read_result(path: Path) -> KitTimes:
    """Read the file that a kit wrote.

    Raises:
        FileError: It cannot be read.
        DataError: It is another document.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror}") from error
    return parse_result(content, str(path))


def parse_result(content: bytes, name: str) -> KitTimes:
    """Read what a kit wrote.

    Args:
        name: What to call it in a message.

    Raises:
        DataError: It is another document.
    """
    try:
        document = msgspec.json.decode(content)
    except msgspec.DecodeError as error:
        raise DataError(f"{name} is not JSON: {error}") from error
    if fault := fault_of_document(document, RESULT, _VERSION, "pack the kit again and run it"):
        raise DataError(f"{name} {fault}")
    try:
        found = msgspec.convert(document, _Document)
        return _timed(found)
    except (msgspec.ValidationError, ValueError, KeyError) as error:
        raise DataError(f"{name} does not follow its format: {error}") from error


def _timed(found: _Document) -> KitTimes:
    names = [one.name for one in found.models]
    if not names or not {one.name for one in found.results} == set(names):
        raise ValueError("models and results differ")
    first = {one.shape: one.medians for one in found.results if one.name == names[0]}
    results = tuple(_latency(one, first[one.shape], names[0]) for one in found.results)
    return KitTimes(found.kit, found.machine, found.versions, tuple(found.models), results)


def _latency(one: _Result, baseline: Sequence[float], first: str) -> LatencyResult:
    if len(one.medians) != len(baseline) or not min(one.medians, default=0.0) > 0:
        raise ValueError(f"{one.name} has not a time for every round")
    sizes = _sizes(one.shape)
    phase = next((phase for phase in _PHASES if one.shape.startswith(phase)), None)
    batch, per_second = sizes.get("batch", 1), 1 / one.mean
    tokens = batch * (sizes.get("sequence", 1) if phase == "prefill" else 1)
    return LatencyResult(
        name=one.name,
        shape=one.shape,
        median_ms=1e3 * float(np.median(one.medians)),
        p90_ms=1e3 * one.p90,
        p99_ms=1e3 * one.p99,
        throughput=batch * per_second,
        peak_bytes=one.peak_bytes,
        load_seconds=one.load_seconds,
        runs=one.runs,
        block_medians_ms=tuple(1e3 * median for median in one.medians),
        speedup=None if one.name == first else speedup(baseline, one.medians),
        mean_ms=1e3 * one.mean,
        phase=phase,
        tokens_per_second=None if phase is None else tokens * per_second,
        first_seconds=one.first_seconds,
    )


def _sizes(label: str) -> Mapping[str, int]:
    found: dict[str, Any] = dict(re.findall(r"(\w+)=(\d+)", label))
    return {name: int(size) for name, size in found.items()}
