"""Whether `irc why` finds causes that are known, with real profiles.

    python -m benchmarks run why [--width N] [--case TEXT] [--record FILE] [--recorded FILE]
        [--write [NAME]]

Pairs of models that differ by one known cause are timed, profiled and compared on this machine; the
table says at which place the cause stands. `--record` keeps what was measured, for the tests;
`--recorded` looks for causes in it again, and measures nothing.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.recording import about, add_write_option, store
from benchmarks.why_cases import CASES, Pair
from irtools.causes import (
    CollectSettings,
    ComparedOn,
    Diagnosis,
    Facts,
    MeasuredFacts,
    Subject,
    diagnose,
    facts_from_plain,
    plain_facts,
)
from irtools.files import json_text, write_text
from irtools.measure.base import BenchSettings
from irtools.model import planned_size
from irtools.targets import find_target

WIDTH = 384


def main(argv: Sequence[str]) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--width", type=int, default=WIDTH, help="default: %(default)s")
    parser.add_argument("--case", default="", help="those whose name holds this")
    parser.add_argument("--record", type=Path, help="file to add what was measured to")
    parser.add_argument("--recorded", type=Path, help="file to read it from")
    add_write_option(parser, "why")
    given = parser.parse_args(argv)
    rows, recorded = [], {}
    known = json.loads(given.recorded.read_text()) if given.recorded is not None else {}
    for name, make in CASES.items():
        if given.case not in name:
            continue
        pair = make(given.width)
        facts = from_record(known[name], pair) if known else measured(pair)
        rows.append(_row(name, pair, diagnose(facts)))
        recorded[name] = plain_facts(facts)
        print(*list(table({"rows": rows[-1:]}))[2:], sep="\n", flush=True)
    if given.record is not None:
        kept = json.loads(given.record.read_text()) if given.record.is_file() else {}
        write_text(given.record, json_text(_short({**kept, **recorded}), any_number=True))
    store(given.write, {**about("why"), "width": given.width, "rows": rows})


def measured(pair: Pair) -> MeasuredFacts:
    """Return the facts of a pair, measured when they are read."""
    first, second = _subjects(pair)
    bench = BenchSettings(threads=pair.threads, rounds=3, max_seconds=20)
    return MeasuredFacts(
        first,
        second,
        find_target(pair.target),
        ComparedOn(pair.data, pair.calibration, None if pair.data is None else "DATA"),
        CollectSettings(bench),
    )


def from_record(plain: Mapping[str, Any], pair: Pair) -> Facts:
    """Return the facts of a pair as they were recorded, at the same width."""
    return facts_from_plain(plain, *_subjects(pair), find_target(pair.target))


def place_of(pair: Pair, found: Diagnosis) -> int | None:
    """Return the place of the true cause among the findings, counted from 1."""
    causes = [finding.cause for finding in found.findings]
    return next((n for n, cause in enumerate(causes, 1) if cause in pair.expected), None)


def table(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield a Markdown table."""
    yield "| what is wrong | place of the true cause | first line of `irc why` | share |"
    yield "| --- | --- | --- | --- |"
    for row in document["rows"]:
        share = "known" if row["share"] is None else f"{100 * row['share']:.0f} %"
        yield f"| {row['case']} | {row['place'] or 'not found'} | {row['text']} | {share} |"


def _subjects(pair: Pair) -> tuple[Subject, Subject]:
    first, second = (
        Subject(name, model, planned_size(model.ir))
        for name, model in (("a.onnx", pair.first), ("b.onnx", pair.second))
    )
    return first, second


def _short(value: Any) -> Any:
    """Return plain data with five digits of each number: a fixture is read by people, too."""
    match value:
        case dict():
            return {key: _short(item) for key, item in value.items()}
        case list():
            return [_short(item) for item in value]
        case float():
            return float(f"{value:.5g}")
        case _:
            return value


def _row(name: str, pair: Pair, found: Diagnosis) -> dict[str, Any]:
    first = next(iter(found.findings), None)
    return {
        "case": name,
        "target": pair.target.partition(":")[0],
        "expected": list(pair.expected),
        "place": place_of(pair, found),
        "causes": [finding.cause for finding in found.findings],
        "text": "" if first is None else f"{first.gap.value}: {first.text}",
        "share": None if first is None else first.share,
        "notes": list(found.notes),
    }


VIEWS = {"table": table}
