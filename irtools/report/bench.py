"""What `irc bench` found out, as one JSON document."""

from __future__ import annotations

from typing import Any

from irtools.measure.contest import ContestResult, Standing
from irtools.measure.kit import OtherMachine
from irtools.measure.machine import machine, versions
from irtools.report.plain import plain_data

__all__ = ["FORMAT", "bench_document"]

FORMAT = "irtools-bench"
_VERSION = 4


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


def _plain(standing: Standing) -> dict[str, Any]:
    figures: dict[str, Any] = plain_data(standing)
    del figures["latency"]
    if standing.difference is not None:
        figures["difference"]["is_significant"] = standing.difference.is_significant
    return figures
