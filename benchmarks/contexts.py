"""A decoder over the length of its context: prefill and decode, and the memory that they take.

    python -m benchmarks run contexts [--lengths N,N] [--rounds N] [--no-prefill] [--write [NAME]]

SmolLM2 in 4 bits (`cleanup,fuse,int4`), its cache as arrays and kept by the runtime, on both
runtimes in float32, alternating, each block in a process of its own. Prefill reads a prompt of so
many tokens, decode one more with so many in the cache, as `begin_text` does: the step that a text
takes. What is counted is CPU time on one thread, which other work on the machine changes little.
Ratios are against the cache as arrays on the same runtime; memory is the peak of the process.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.commands import export_with_past
from benchmarks.deployed import deployed, ratio_cell
from benchmarks.recording import DEFAULT_CACHE, about, add_write_option, prepare, store
from irtools.files import scratch_folder
from irtools.measure.base import BenchSettings
from irtools.measure.interval import speedup
from irtools.measure.memory import peak_memory
from irtools.measure.sandbox import run_isolated
from irtools.measure.shapes import bench_feeds
from irtools.measure.steps import step_of
from irtools.measure.timing import Contender
from irtools.model import Model
from irtools.targets import Feeds, RunnerOptions, find_target, lowered

SOURCE, PASSES = "smollm2", "cleanup,fuse,int4"
LENGTHS = "128,1024,4096,8192"
_WARM_UP, _RUNS = 3, 12
_ENOUGH = 20.0
"""Seconds of CPU time after which a block ends."""
PAIRS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "ort-cpu": (("arrays", "ort-cpu:shared-cache=false"), ("shared buffers", "ort-cpu")),
    "openvino-cpu": (("arrays", "openvino-cpu:stateful=false"), ("variables", "openvino-cpu")),
}
"""Target to the forms that its cache has, with the target text of each; the first is the base."""


def main(argv: Sequence[str]) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE, help="default: %(default)s")
    parser.add_argument("--lengths", default=LENGTHS, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-prefill", action="store_true", help="time decode alone")
    add_write_option(parser, "contexts")
    given = parser.parse_args(argv)
    cache = given.cache.resolve()
    prepare(SOURCE, cache)
    export_with_past(SOURCE, cache)
    source = Model.load(cache / SOURCE / f"{SOURCE}-past.onnx")
    rows: list[dict[str, Any]] = []
    for target, forms in PAIRS.items():
        model = deployed(source, PASSES, forms[0][1], None)
        with scratch_folder("contexts") as folder:
            contenders = dict(_contenders(model, forms, folder))
            for length in map(int, given.lengths.split(",")):
                feeds = bench_feeds(source, BenchSettings(sequence=(length,), past=(length,)))
                if given.no_prefill:
                    feeds = {name: f for name, f in feeds.items() if name.startswith("decode")}
                for label, one in feeds.items():
                    phase = label.partition(" ")[0]
                    rows += _rows(contenders, one, given.rounds, target, length, phase)
                print("\n".join(table({"rows": rows})), flush=True)
    store(given.write, {**about("contexts"), "passes": PASSES, "rows": rows})


def _contenders(
    model: Model, forms: Sequence[tuple[str, str]], folder: Path
) -> Iterator[tuple[str, Contender]]:
    """Yield each form of the cache as a file, run on one thread in float32."""
    for number, (name, text) in enumerate(forms):
        target = find_target(text)
        path = folder / f"{number}.onnx"
        lowered(model, target).save(path)
        precision = "f32" if target.name.startswith("openvino") else None
        yield name, Contender(path, text, RunnerOptions(threads=1, precision=precision))


def cpu_block(
    path: Path, target: str, options: RunnerOptions, feeds: Feeds
) -> dict[str, float | int]:
    """Load a model and run it; returns CPU `seconds` of a run, their median, and `peak_bytes`."""
    with find_target(target).runner(path, options) as runner:
        step, times = step_of(runner, feeds), []
        for number in range(_WARM_UP + _RUNS):
            step.prepare()
            start = time.process_time()
            step.run()
            times.append(time.process_time() - start)
            if number and sum(times) > _ENOUGH:
                break
        return {"seconds": median(times[_WARM_UP:] or times[1:]), "peak_bytes": peak_memory()}


def _rows(
    contenders: Mapping[str, Contender],
    feeds: Feeds,
    rounds: int,
    target: str,
    length: int,
    phase: str,
) -> Iterator[dict[str, Any]]:
    """Run all forms alternately; yields a row for each."""
    found: dict[str, list[Any]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, one in contenders.items():
            arguments = (one.model, one.target, one.options, dict(feeds))
            label = f"{name} on {one.target}"
            found[name].append(run_isolated(cpu_block, *arguments, label=label))
    seconds = {name: [block["seconds"] for block in blocks] for name, blocks in found.items()}
    base = next(iter(seconds))
    for name, blocks in found.items():
        ratio = None if name == base else asdict(speedup(seconds[base], seconds[name], 0.95))
        yield {
            "target": target,
            "cache": name,
            "length": length,
            "phase": phase,
            "cpu_ms": 1e3 * median(seconds[name]),
            "blocks_cpu_ms": [1e3 * one for one in seconds[name]],
            "speedup": ratio,
            "peak_bytes": max(block["peak_bytes"] for block in blocks),
        }


def table(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield a Markdown table, decode below prefill."""
    yield "| runtime | cache | phase | context | CPU ms | against arrays | peak MB |"
    yield "| --- " * 7 + "|"
    for row in sorted(document["rows"], key=_place):
        ratio = "1" if row["speedup"] is None else ratio_cell(row["speedup"])
        cells = [row["target"], row["cache"], row["phase"], f"{row['length']:,}"]
        cells += [f"{row['cpu_ms']:.1f}", ratio]
        yield "| " + " | ".join([*cells, f"{row['peak_bytes'] / 1e6:.0f}"]) + " |"


def _place(row: Mapping[str, Any]) -> tuple[bool, str, int, bool]:
    is_base = row["speedup"] is None
    return row["phase"] == "decode", row["target"], row["length"], not is_base


VIEWS = {"table": table}
