"""How long `irc report` takes to make a page, and how large the page is.

    python -m benchmarks run report-page [--write [NAME]]

The reports are the stored one of MiniLM, and the same with 60 trials of a tuner. Processes are
timed as a user starts them; rendering alone is timed in a process that has the modules loaded.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.processes import IRC, alternate
from benchmarks.recording import about, add_write_option, read_result, store
from irtools.goals import Interval
from irtools.report.document import Report
from irtools.report.entries import TriedEntry
from irtools.report.page import report_page

TRIALS = 60


def main(argv: Sequence[str]) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    add_write_option(parser, "report-page")
    given = parser.parse_args(argv)
    run = Report.from_dict(read_result("report-minilm"))
    trials = tuple(map(_trial, range(TRIALS)))
    tuned = dataclasses.replace(run, tried=trials[:8], trials=trials)
    rows = measured({"one run": run, f"{TRIALS} trials": tuned}, given.rounds)
    document = {**about("report-page"), "rounds": given.rounds, "rows": rows}
    print("\n".join(table(document)))
    store(given.write, document)


def measured(reports: Mapping[str, Report], rounds: int) -> list[dict[str, Any]]:
    """Return of each report the seconds of whole processes and of rendering, and the bytes."""
    with tempfile.TemporaryDirectory() as folder:
        commands = {}
        for name, report in reports.items():
            path = Path(folder, f"{name}.json")
            path.write_text(report.to_json(), encoding="utf-8")
            page = str(path.with_suffix(".html"))
            commands[name] = [IRC, "report", str(path), "-o", page, "--force"]
        times = alternate(commands, rounds)
    return [
        {
            "report": name,
            "process": list(times[name].seconds),
            "rendering": [_seconds(report) for _ in range(rounds)],
            "bytes": len(report_page(report).encode()),
        }
        for name, report in reports.items()
    ]


def _seconds(report: Report) -> float:
    started = time.perf_counter()
    report_page(report)
    return time.perf_counter() - started


def _trial(number: int) -> TriedEntry:
    speed = 1 + number / 20
    figures = {
        "speedup": Interval(speed, 0.96 * speed, 1.04 * speed),
        "loss:main": Interval(0.0002 * number, 0.0001 * number, 0.0003 * number),
        "size": Interval.exact(9e7 / speed),
    }
    return TriedEntry(
        f"trial {number}", f"cleanup,int8:exclude=layer.{number}", "left", "", figures
    )


def table(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield a Markdown table."""
    yield "| report | `irc report`, s | rendering alone, s | page |"
    yield "| --- " * 4 + "|"
    for row in document["rows"]:
        process, rendering = (f"{median(row[key]):.2f}" for key in ("process", "rendering"))
        yield f"| {row['report']} | {process} | {rendering} | {row['bytes'] / 1e3:.0f} kB |"


VIEWS = {"table": table}
