"""What watching costs: latency of a model with and without the sampler of live measurements.

    python -m benchmarks run live-sampler [--rounds N] [--seconds S] [--write [NAME]]

MiniLM answers one request after the other in one process. Blocks with the sampler (CPU time,
memory and load of the cores, ten times a second, from another process) alternate with blocks
without it; the first of a round changes from round to round. Some blocks meet a busy machine, so
the change is the median of the rounds' ratios, with its interval by order statistics.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.deployed import deployed
from benchmarks.exported import exported
from benchmarks.recording import DEFAULT_CACHE, ROOT, about, add_write_option, prepare, store
from irtools.files import scratch_folder
from irtools.measure.base import BenchSettings
from irtools.measure.cpu import cpu_quota
from irtools.measure.live import Sampler, Track, answer_requests
from irtools.measure.shapes import bench_feeds
from irtools.measure.stream import Stream
from irtools.model import Model
from irtools.targets import RunnerOptions

TARGET = "ort-cpu"
PASSES = "cleanup,fuse,int8"
NAME = "model"


def main(argv: Sequence[str]) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=0.5, help="of a block")
    add_write_option(parser, "live-sampler")
    given = parser.parse_args(argv)
    cache = given.cache.resolve()
    prepare("minilm", cache)
    calibration = ROOT / "examples" / "sentences.jsonl"
    model = deployed(Model.load(exported("minilm", cache)), PASSES, TARGET, calibration)
    blocks = measured(model, given.rounds, given.seconds)
    document = {**about("live-sampler"), "seconds": given.seconds, "blocks": blocks}
    print("\n".join(table(document)), flush=True)
    store(given.write, document)


def measured(model: Model, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Return the median latency of every block in seconds, without and with the sampler."""
    feeds = next(iter(bench_feeds(model, BenchSettings(sequence=(64,))).values()))
    options = RunnerOptions(threads=cpu_quota())
    found: dict[str, list[float]] = {"without": [], "with": []}
    with scratch_folder("sampler") as folder:
        path = model.save(folder / "model.onnx").files[0]
        with Stream(answer_requests, path, TARGET, options, [dict(feeds)], label=NAME) as stream:
            messages = iter(stream)
            next(messages)  # Loaded.
            block(stream, messages, seconds)  # Warms up.
            for number in range(rounds):
                for kind in list(found)[:: -1 if number % 2 else 1]:
                    found[kind].append(one_block(stream, messages, seconds, kind == "with"))
    return found


def one_block(stream: Stream, messages: Iterator[Any], seconds: float, watched: bool) -> float:
    """Return the median latency of a block."""
    if not watched:
        return block(stream, messages, seconds)
    with Sampler({NAME: stream.pid}, {NAME: Track(1)}, lambda: NAME, lambda cores: None):
        return block(stream, messages, seconds)


def block(stream: Stream, messages: Iterator[Any], seconds: float) -> float:
    """Ask for a while and return the median latency."""
    stream.send({"clients": 1, "seconds": seconds})
    times: list[np.ndarray] = []
    while "times" in (message := next(messages)):
        times.append(message["times"][:, 1])
    return float(np.median(np.concatenate(times)))


def table(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield a Markdown table."""
    without, watched = document["blocks"]["without"], document["blocks"]["with"]
    change, low, high = (100 * (ratio - 1) for ratio in median_ratio(watched, without))
    medians = " | ".join(f"{1e3 * float(np.median(times)):.2f}" for times in (without, watched))
    yield "| rounds | p50 without the sampler, ms | with it, ms | change, % |"
    yield "| --- " * 4 + "|"
    yield f"| {len(without)} | {medians} | {change:+.2f} [{low:+.2f}, {high:+.2f}] |"


def median_ratio(above: Sequence[float], below: Sequence[float]) -> tuple[float, float, float]:
    """Return the median of paired ratios and its 95 % interval.

    The interval lies between two order statistics and assumes no distribution (Hollander, Wolfe and
    Chicken, Nonparametric Statistical Methods, 3.6; the normal approximation of the binomial).
    """
    ratios = np.sort(np.asarray(above) / np.asarray(below))
    left = max(0, math.floor(len(ratios) / 2 - 0.98 * math.sqrt(len(ratios))))
    return float(np.median(ratios)), float(ratios[left]), float(ratios[-1 - left])


VIEWS = {"table": table}
