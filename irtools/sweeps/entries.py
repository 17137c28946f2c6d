"""What a sweep writes down of each model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from irtools.report.document import Report
from irtools.report.plain import plain_data

__all__ = ["FORMAT", "Entry", "SweepDocument", "figures_of"]

FORMAT = "irtools-sweep"
VERSION = 1


@dataclass(frozen=True)
class Entry:
    """One model of a sweep.

    Attributes:
        name: Of its folder.
        source: As it was given.
        outcome: `unchanged`: it was there already, from the same request.
        key: Hash of all that decides it.
        error: Why it failed.
        code: Exit code that `irc optimize` would have had.
        pipeline: The passes that made the result.
        files: Of the folder, with their SHA-256.
        figures: As `figures_of` returns them.
        worker: The machine that made it.
    """

    name: str
    source: str
    outcome: Literal["done", "unchanged", "failed"]
    key: str
    error: str = ""
    code: int = 0
    pipeline: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    figures: Mapping[str, float | str | None] = field(default_factory=dict)
    worker: str = ""


@dataclass(frozen=True)
class SweepDocument:
    """A sweep: what was asked of all models, and what came of each."""

    target: str
    passes: str
    goals: tuple[str, ...]
    models: tuple[Entry, ...]

    @property
    def failed(self) -> tuple[Entry, ...]:
        """Models of which nothing came."""
        return tuple(one for one in self.models if one.outcome == "failed")

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document."""
        return {"format": FORMAT, "version": VERSION, **plain_data(self)}


def figures_of(report: Report) -> dict[str, float | str | None]:
    """Return the figures of a run: those of the original and of the result, next to each other.

    Returns:
        `original_bytes`, `bytes`, and where they were measured `original_ms` and `ms` (medians at
        the first shape, which `shape` names), `speedup` with `speedup_low` and `speedup_high`,
        `metric` (its name), `original_value` and `value`, `agreement` and `sqnr_db`.
    """
    first, last = report.rows[0], report.rows[-1]
    found: dict[str, float | str | None] = {
        "original_bytes": first.size.file_bytes,
        "bytes": report.artifact.bytes if report.artifact else last.size.file_bytes,
    }
    base, times = (row.latency.results if row.latency else () for row in (first, last))
    if base and times:
        found |= {"shape": times[0].shape, "original_ms": base[0].median_ms}
        found["ms"] = times[0].median_ms
        if (ratio := times[0].speedup) is not None:
            found |= {"speedup": ratio.value, "speedup_low": ratio.low}
            found["speedup_high"] = ratio.high
    if last.metric is not None and first.metric is not None:
        found |= {"metric": last.metric.name, "value": float(last.metric.value)}
        found["original_value"] = float(first.metric.value)
    if last.fidelity is not None:
        sqnr = float(last.fidelity.sqnr_db)
        found["agreement"] = last.fidelity.agreement
        found["sqnr_db"] = sqnr if abs(sqnr) < float("inf") else str(sqnr)
    return found
