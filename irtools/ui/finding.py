"""What there is below the folder: reports, benchmarks, models."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from irtools.errors import DataError, FileError, IrtoolsError
from irtools.files import RootFolder
from irtools.measure.base import LatencyResult, Ratio
from irtools.report.bench import FORMAT, Bench, parse_bench, read_bench
from irtools.report.document import Report
from irtools.words import size_text

__all__ = ["Run", "bench_of", "find_models", "find_runs", "is_bench", "report_of"]

_MODELS = (".onnx", ".xml", ".ort", ".gguf")
_MOST_BYTES = 32 << 20
_MOST_FILES = 20_000
_HEAD_BYTES = 400


@dataclass(frozen=True)
class Run:
    """A line of the list of runs.

    Attributes:
        name: Path of its file below the folder.
        kind: `report`, `bench`, or `broken`.
        created: When it ended, ISO 8601; empty where that is not known.
        model: Its source, or the models of a benchmark.
        pipeline: Its passes.
        target: What it is for.
        faster: Text of the speedup.
        size: Text of the size, and of its ratio.
        metric: Text of the metric.
        problem: Why it cannot be read.
    """

    name: str
    kind: str
    created: str = ""
    model: str = ""
    pipeline: str = ""
    target: str = ""
    faster: str = ""
    size: str = ""
    metric: str = ""
    problem: str = ""

    def matches(self, words: str) -> bool:
        """Whether every word of a filter is in one of the texts."""
        text = " ".join((self.name, self.kind, self.model, self.pipeline, self.target)).lower()
        return all(word in text for word in words.lower().split())


def find_runs(root: RootFolder) -> list[Run]:
    """Return all reports and benchmarks below a folder, the newest first."""
    found = []
    for path in _files(root, (".json",)):
        stat = path.stat()
        run = _run_of(path, root.name_of(path), stat.st_mtime_ns, stat.st_size)
        if run is not None:
            found.append(run)
    return sorted(found, key=lambda run: run.created, reverse=True)


def find_models(root: RootFolder) -> list[str]:
    """Return the files that a runtime can load, by their paths below a folder."""
    return sorted(root.name_of(path) for path in _files(root, _MODELS))


def report_of(path: Path) -> Report:
    """Read a report.

    Raises:
        DataError: It is none, or of another version.
        FileError: It cannot be read.
    """
    return Report.from_json(_text_of(path))


def is_bench(path: Path) -> bool:
    """Whether a file says at its beginning that it is a benchmark."""
    with path.open("rb") as stream:
        return f'"{FORMAT}"'.encode() in stream.read(_HEAD_BYTES)


def bench_of(path: Path) -> dict[str, Any]:
    """Read a benchmark.

    Raises:
        DataError: It is none, or does not follow its format.
        FileError: It cannot be read.
    """
    return read_bench(_text_of(path), path.name)


def _files(root: RootFolder, suffixes: tuple[str, ...]) -> Iterator[Path]:
    count = 0
    for folder, names, files in os.walk(root.path):
        names[:] = sorted(name for name in names if not name.startswith("."))
        for name in sorted(files):
            count += 1
            if count > _MOST_FILES:
                return
            path = Path(folder) / name
            if name.endswith(suffixes) and not path.is_symlink() and path.is_file():
                yield path


def _text_of(path: Path) -> str:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise DataError(f"{path.name} is larger than {size_text(_MOST_BYTES)}")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise FileError(f"cannot read {path.name}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path.name} is not a text file") from error


@lru_cache(maxsize=4096)
def _run_of(path: Path, name: str, changed: int, size: int) -> Run | None:
    """Return the line of a file; None where it is another JSON file. Cached until it changes."""
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
        if b'"irtools-report"' in head:
            return _of_report(name, report_of(path))
        if f'"{FORMAT}"'.encode() in head:
            return _of_bench(name, parse_bench(bench_of(path), name), changed)
    except (IrtoolsError, OSError) as error:
        return Run(name, "broken", problem=str(error))
    return None


def _of_report(name: str, report: Report) -> Run:
    first, last = report.rows[0], report.rows[-1]
    latency = None if last.latency is None else next(iter(last.latency), None)
    metric = last.metric
    size = ""
    if first.size is not None and last.size is not None:
        ratio = first.size.file_bytes / max(last.size.file_bytes, 1)
        size = f"{size_text(last.size.file_bytes)} ({ratio:.2f}x smaller)"
    return Run(
        name,
        "report",
        report.created,
        report.model.source,
        report.pipeline,
        report.target.name,
        _faster(latency),
        size,
        "" if metric is None else f"{metric.name} {metric.value:.4f}",
    )


def _faster(latency: LatencyResult | None) -> str:
    ratio: Ratio | None = None if latency is None else latency.speedup
    if ratio is None:
        return ""
    shown = f"{ratio.value:.2f}x [{ratio.low:.2f}, {ratio.high:.2f}]"
    return shown if ratio.is_significant else f"{shown} within noise"


def _of_bench(name: str, found: Bench, changed: int) -> Run:
    targets = dict.fromkeys(one.target for one in found.contenders)
    return Run(
        name,
        "bench",
        datetime.fromtimestamp(changed / 1e9, UTC).isoformat(timespec="seconds"),
        ", ".join(one.name for one in found.contenders),
        "",
        ", ".join(targets),
    )
