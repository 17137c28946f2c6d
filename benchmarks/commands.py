"""How long whole commands take: wall time of processes, as a user starts them.

    python -m benchmarks run commands [NAME...] [--rounds N] [--write [NAME]]

Nothing is taken from an earlier run (`--no-cache`). `export-NAME` takes turns with torch's exporter
alone (`benchmarks/exporter.py`) on the same checkpoint and dynamic axes.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.prepared.packages import cached
from benchmarks.processes import IRC, alternate, empty, ratio, run
from benchmarks.recording import (
    DEFAULT_CACHE,
    ROOT,
    about,
    add_names,
    add_write_option,
    prepare,
    store,
)

Line = tuple[str, ...]
RESULT = "FOLDER/result.onnx"
"""The file that a command writes; FOLDER and CACHE stand for folders."""


@dataclass(frozen=True)
class Entry:
    """What is timed.

    Attributes:
        ours: Command lines, one after the other.
        needs: What `benchmarks prepare` makes for it.
        peer: The command line that it is compared with.
        exported: Checkpoint of a decoder that is exported before, outside the time.
    """

    ours: tuple[Line, ...]
    needs: tuple[str, ...]
    peer: Line = ()
    exported: str = ""


def _export(name: str, *options: str) -> Entry:
    folder = f"CACHE/{name}/checkpoint"
    peer = (sys.executable, "-m", "benchmarks.exporter", folder, RESULT, *options)
    return Entry(((IRC, "export", folder, "-o", RESULT, *options),), (name,), peer)


def _optimize(source: str, passes: str, *options: str) -> Line:
    return (IRC, "optimize", source, "--passes", passes, "--no-cache", "-o", RESULT, *options)


ENTRIES: Mapping[str, Entry] = {
    "minilm-r8": Entry(
        (
            _optimize(
                "CACHE/r8/minilm-r8.onnx",
                "cleanup,fuse,int8",
                *("--seq", "64", "--metric", "accuracy"),
                *("--calibrate", "CACHE/r8/r8_calib.npz", "--evaluate", "CACHE/r8/r8_test.npz"),
            ),
        ),
        ("r8",),
    ),
    "demo": Entry(
        (
            (IRC, "export", "CACHE/minilm/checkpoint", "-o", "FOLDER/minilm.onnx"),
            _optimize(
                "FOLDER/minilm.onnx",
                "cleanup,fuse,int8",
                *("--calibrate", str(ROOT / "examples" / "sentences.jsonl"), "--seq", "64"),
            ),
        ),
        ("minilm",),
    ),
    "int4-smollm2": Entry(
        (_optimize("CACHE/smollm2/smollm2-past.onnx", "int4", "--no-bench", "--no-check"),),
        ("smollm2",),
        exported="smollm2",
    ),
    "export-minilm": _export("minilm"),
    "export-bert-base": _export("bert-base-uncased"),
    "export-dinov2-small": _export("dinov2-small"),
    "export-smollm2": _export("smollm2", "--with-past"),
}


@dataclass(frozen=True)
class Result:
    """Seconds of every round; those of the peer are empty where there is none."""

    name: str
    command: str
    seconds: tuple[float, ...]
    peer: tuple[float, ...] = ()
    failure: str = ""


def main(argv: Sequence[str]) -> None:
    """Time the commands that are named and print their table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_names(parser, ENTRIES)
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3)
    add_write_option(parser, "commands")
    given = parser.parse_args(argv)
    found = [measured(name, given.cache.resolve(), given.rounds) for name in given.names]
    document = {
        **about("commands"),
        "rounds": given.rounds,
        "results": [asdict(one) for one in found],
    }
    print("\n".join(table(document)))
    store(given.write, document)


def measured(name: str, cache: Path, rounds: int) -> Result:
    """Time one entry."""
    entry = ENTRIES[name]
    for needed in entry.needs:
        prepare(needed, cache)
    if entry.exported:
        export_with_past(entry.exported, cache)
    with tempfile.TemporaryDirectory(dir=cache) as made:
        folder = Path(made, "out")
        lines = {"ours": as_one(entry.ours, cache, folder)}
        if entry.peer:
            lines["peer"] = as_one([entry.peer], cache, folder)
        times = alternate(lines, rounds, lambda _: empty(folder))
    failure = "; ".join(f"{who}: {one.failure}" for who, one in times.items() if one.failure)
    peer = times["peer"].seconds if "peer" in times else ()
    return Result(name, shown(entry.ours), times["ours"].seconds, peer, failure)


def export_with_past(name: str, cache: Path) -> None:
    """Export a decoder with its cache, unless it has been."""
    command = (IRC, "export", str(cache / name / "checkpoint"), "--with-past", "-o")
    cached(cache / name / f"{name}-past.onnx", lambda made: run((*command, str(made))))


def as_one(lines: Sequence[Line], cache: Path, folder: Path) -> Line:
    """Return one command that runs all lines, one after the other."""
    places = {"CACHE": str(cache), "FOLDER": str(folder)}
    texts = [shlex.join(filled(line, places)) for line in lines]
    return ("bash", "-c", " && ".join(texts))


def filled(line: Line, places: Mapping[str, str]) -> Iterator[str]:
    """Yield the words of a line with the places that stand at their beginning."""
    for word in line:
        start, slash, rest = word.partition("/")
        yield f"{places[start]}/{rest}" if slash and start in places else word


def shown(lines: Sequence[Line]) -> str:
    """Return the lines as the table shows them: without folders."""
    words = [[Path(word).name if "/" in word else word for word in line] for line in lines]
    return "; ".join(" ".join(line) for line in words)


def table(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield a Markdown table."""
    yield "| name | command | seconds | of the exporter alone |"
    yield "| --- " * 4 + "|"
    for row in document["results"]:
        if row["failure"]:
            yield f"| {row['name']} | `{row['command']}` | fails: {row['failure']} | |"
            continue
        seconds = row["seconds"]
        spread = f"{median(seconds):.1f} ({min(seconds):.1f} to {max(seconds):.1f})"
        peer = ratio(seconds, row["peer"])
        yield f"| {row['name']} | `{row['command']}` | {spread} | {peer} |"


VIEWS = {"table": table}
