"""How soon a model answers for the first time: as it was written, and as `irc compile` writes it.

    python -m benchmarks run first-run [NAME...] [--rounds N] [--write [NAME]]

Load and first inference in a process that has the runtime loaded, alternating, and the peak memory
of that process; the files are in the system's cache. The portable file is the one that `irc
optimize` writes. ONNX Runtime's compiled form is its optimized graph with the weights in a file
that it maps; OpenVINO's is .blob of encoders, and .xml and .bin of decoders. Stored
rows of models that are not run stay.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.commands import export_with_past
from benchmarks.deployed import deployed
from benchmarks.exported import exported
from benchmarks.processes import ratio
from benchmarks.recording import (
    DEFAULT_CACHE,
    ROOT,
    about,
    add_names,
    add_write_option,
    prepare,
    store,
    with_stored,
)
from irtools.measure.base import BenchSettings
from irtools.measure.cpu import cpu_quota
from irtools.measure.jobs import run_first
from irtools.measure.sandbox import run_isolated
from irtools.measure.shapes import bench_feeds
from irtools.model import Model
from irtools.targets import RunnerOptions, find_target

DECODERS = ("smollm2", "llama-1b")
TARGETS = ("ort-cpu", "openvino-cpu")
ENTRIES = {
    "minilm": ("MiniLM, float32", "minilm", "cleanup,fuse"),
    "minilm-int8": ("MiniLM, int8", "minilm", "cleanup,fuse,int8"),
    "smollm2": ("SmolLM2 with its cache, int4", "smollm2", "cleanup,fuse,int4"),
    "llama-1b": ("Llama-3.2-1B's shape with its cache, int4", "llama-1b", "cleanup,fuse,int4"),
}
FEW = 3
"""Rounds of the largest model, whose starts take seconds."""


def main(argv: Sequence[str]) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_names(parser, ENTRIES)
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=7)
    add_write_option(parser, "first-run")
    given = parser.parse_args(argv)
    rows = []
    for title, source, passes in (ENTRIES[name] for name in given.names):
        rounds = min(given.rounds, FEW) if source == "llama-1b" else given.rounds
        for target in TARGETS:
            model = made(source, passes, target, given.cache.resolve())
            blob = target == "openvino-cpu" and source not in DECODERS
            found = measured(model, target, rounds, "blob" if blob else None)
            rows.append({"model": title, "target": target, **found})
            print("\n".join(table({"rows": rows})), flush=True)
    rows = with_stored(given.write, rows, "model", "target")
    store(given.write, {**about("first-run"), "rounds": given.rounds, "rows": rows})


def made(source: str, passes: str, target: str, cache: Path) -> Model:
    """Return a model as `irc optimize` writes it."""
    prepare(source, cache)
    if source in DECODERS:
        export_with_past(source, cache)
        model = Model.load(cache / source / f"{source}-past.onnx")
    else:
        model = Model.load(exported(source, cache))
    calibration = ROOT / "examples" / "sentences.jsonl" if "int8" in passes else None
    return deployed(model, passes, target, calibration)


def measured(
    model: Model, target: str, rounds: int, suffix: str | None
) -> dict[str, list[list[float]]]:
    """Return load and first inference in seconds, and peak bytes, of every round and form."""
    feeds = next(iter(bench_feeds(model, BenchSettings(sequence=(64,))).values()))
    options = RunnerOptions(threads=cpu_quota())
    with tempfile.TemporaryDirectory() as folder:
        portable = Path(folder, "portable.onnx")
        model.save(portable)
        place = Path(folder, "compiled")
        compiled = find_target(target).compile(model, place, "model", format=suffix).files[0]
        found: dict[str, list[list[float]]] = {"portable": [], "compiled": []}
        for _ in range(rounds):
            for form, path in (("portable", portable), ("compiled", compiled)):
                one = run_isolated(run_first, path, target, options, dict(feeds), label=form)
                found[form].append([one["load"], one["first"], one["peak_bytes"]])
    return found


def table(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield a Markdown table."""
    yield (
        "| model | runtime | portable file, s | compiled form, s | sooner "
        "| peak memory, MB, of both |"
    )
    yield "| --- " * 6 + "|"
    for row in document["rows"]:
        forms = [row[form] for form in ("portable", "compiled")]
        portable, compiled = ([sum(one[:2]) for one in form] for form in forms)
        peaks = ", ".join(f"{max(one[2] for one in f) / 1e6:.0f}" for f in forms if len(f[0]) > 2)
        times = " | ".join(f"{sorted(s)[len(s) // 2]:.3f}" for s in (portable, compiled))
        yield (
            f"| {row['model']} | {row['target']} | {times} | {ratio(portable, compiled)} "
            f"| {peaks} |"
        )


VIEWS = {"table": table}
