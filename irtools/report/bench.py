"""What `irc bench` found out, as one JSON document."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from irtools.errors import DataError
from irtools.measure.base import LatencyResult
from irtools.measure.contest import ContestResult, Standing
from irtools.measure.kit import OtherMachine
from irtools.measure.machine import Machine, machine, versions
from irtools.report.plain import plain_data

__all__ = ["FORMAT", "Bench", "BenchContender", "BenchScore", "bench_document", "parse_bench"]
__all__ += ["read_bench"]

FORMAT = "irtools-bench"
_VERSION = 4


@dataclass(frozen=True)
class BenchScore:
    """A metric of a contender, or how it differs from the first one's."""

    name: str = ""
    value: float = 0.0
    low: float = 0.0
    high: float = 0.0


@dataclass(frozen=True)
class BenchContender:
    """A contender, as `bench_document` writes it."""

    name: str
    target: str
    precision: str | None = None
    file_bytes: int = 0
    fidelity: Mapping[str, Any] | None = None
    evaluation: BenchScore | None = None
    difference: BenchScore | None = None


@dataclass(frozen=True)
class Bench:
    """The document, without what no page shows."""

    machine: Machine
    contenders: tuple[BenchContender, ...]
    results: tuple[LatencyResult, ...]
    versions: Mapping[str, str] = field(default_factory=dict)
    data: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()


def bench_document(found: ContestResult, elsewhere: OtherMachine | None = None) -> dict[str, Any]:
    """Return the document of a comparison, measured in blocks or live.

    Args:
        found: What was found out.
        elsewhere: The machine that the times are of; None: this one.
    """
    return {
        "format": FORMAT,
        "version": _VERSION,
        "machine": plain_data(machine()),
        "versions": dict(versions()),
        "data": {"source": found.source, "samples": found.samples} if found.samples else None,
        "contenders": [_plain(standing) for standing in found.standings],
        "results": [plain_data(result) for result in found.latency],
        "notes": list(found.notes),
        "timed_on": plain_data(elsewhere),
    }


def read_bench(text: str, name: str) -> dict[str, Any]:
    """Return the document of a file.

    Args:
        text: What it holds.
        name: What to call it.

    Raises:
        DataError: It is not JSON, or another document.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name} is not JSON: {error}") from error
    parse_bench(document, name)
    return dict(document)


def parse_bench(document: Any, name: str) -> Bench:
    """Return what a document says.

    Raises:
        DataError: It is another one, or does not follow the format.
    """
    import msgspec

    if not isinstance(document, Mapping) or document.get("format") != FORMAT:
        raise DataError(f"{name} is not a benchmark: expected the format {FORMAT!r}")
    try:
        return msgspec.convert(document, Bench, strict=False)
    except msgspec.ValidationError as error:
        raise DataError(f"the benchmark {name} does not follow its format: {error}") from error


def _plain(standing: Standing) -> dict[str, Any]:
    figures: dict[str, Any] = plain_data(standing)
    del figures["latency"]
    if standing.difference is not None:
        figures["difference"]["is_significant"] = standing.difference.is_significant
    return figures
