"""What calibration costs: time against the plain forward passes, and peak memory.

    python -m benchmarks run calibration --model bert-base.onnx

Every contender runs in a process of its own, one alive at a time, in turns. Seconds are wall time
of the collection alone, opening the session included, and of the bare forward passes over the
same samples; the smallest of the rounds counts. ONNX Runtime's histogram calibrators hold every
activation of every sample, so they run on fewer samples, and time per sample is compared.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from irtools.backends.onnxruntime.target import OrtCpu
from irtools.data import Dataset, SyntheticSettings, load_dataset, synthesize
from irtools.model import Model
from irtools.statistics import (
    ChannelMean,
    ChannelSquare,
    CollectionSettings,
    Histogram,
    HistogramResult,
    MinMax,
    Reduction,
    StreamingStatistics,
    Want,
    mse_range,
)
from irtools.targets import Runner, RunnerOptions

QUANTIZED = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True)
class Job:
    """One contender's task.

    Attributes:
        data: A dataset as `load_dataset` reads it; None draws from the signature.
    """

    contender: str
    model: str
    data: str | None
    samples: int
    sequence: int
    threads: int
    batch: int


@dataclass(frozen=True)
class Outcome:
    """What a contender's process measured of itself."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    samples: int


def main(argv: Sequence[str]) -> None:
    """Run the contenders in turns and print a table."""
    arguments = _parser().parse_args(argv)
    if arguments.child is not None:
        print(json.dumps(asdict(_run(Job(**json.loads(arguments.child))))))
        return
    outcomes: dict[str, list[Outcome]] = {name: [] for name in CONTENDERS}
    for number in range(arguments.rounds):
        for name in CONTENDERS:
            peer = name.startswith("onnxruntime")
            if peer and number > 0:
                continue
            samples = arguments.peer_samples if peer else arguments.samples
            outcomes[name].append(_child(_job(arguments, name, samples)))
            print(f"round {number + 1}: {name}: {outcomes[name][-1]}", file=sys.stderr)
    rows = _rows(outcomes)
    print("\n".join(table(rows)))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="bert-base.onnx", help="ONNX file")
    parser.add_argument("--data", help="calibration data; default: drawn from the signature")
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--peer-samples", type=int, default=32)
    parser.add_argument("--sequence", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the rows here too")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser


def _job(arguments: argparse.Namespace, contender: str, samples: int) -> Job:
    return Job(
        contender,
        arguments.model,
        arguments.data,
        samples,
        arguments.sequence,
        arguments.threads,
        arguments.batch,
    )


def _child(job: Job) -> Outcome:
    command = [
        sys.executable,
        "-m",
        "benchmarks",
        "run",
        "calibration",
        "--child",
        json.dumps(asdict(job)),
    ]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return Outcome(**json.loads(done.stdout.splitlines()[-1]))


def _run(job: Job) -> Outcome:
    model = Model.load(job.model)
    data = _data(job, model)
    cpu = time.process_time()
    seconds = CONTENDERS[job.contender](job, model, data)
    cpu = time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Outcome(seconds, cpu, peak, len(data))


def _data(job: Job, model: Model) -> Dataset:
    if job.data is not None:
        return load_dataset(job.data, model).take(job.samples)
    settings = SyntheticSettings(job.samples, job.sequence, vary_lengths=False)
    return synthesize(model, settings)


def _forward(job: Job, model: Model, data: Dataset) -> float:
    """Run each sample once, as a deployment would, the session opened before."""
    with OrtCpu().runner(model, RunnerOptions(threads=job.threads)) as runner:
        runner.run(next(data.batches(1)))
        started = time.perf_counter()
        for feeds in data.batches(1):
            runner.run(feeds)
        return time.perf_counter() - started


def _irtools(
    *reductions: Reduction, ranges: bool = False
) -> Callable[[Job, Model, Dataset], float]:
    def collect(job: Job, model: Model, data: Dataset) -> float:
        def make_runner(copy: ir.Model, options: RunnerOptions) -> Runner:
            return OrtCpu().runner(Model(copy), options)

        started = time.perf_counter()
        options = RunnerOptions(threads=job.threads)
        settings = CollectionSettings(batch=job.batch, runner=options)
        service = StreamingStatistics(model.ir, data, make_runner, settings)
        wants = [Want(name, kind) for name in _activations(model.ir) for kind in reductions]
        answers = service.collect(wants)
        if ranges:
            for answer in answers.values():
                if isinstance(answer, HistogramResult):
                    mse_range(answer)
        return time.perf_counter() - started

    return collect


def _activations(model: ir.Model) -> list[str]:
    """Return what static quantization needs a range of: inputs of layers with weights."""
    found = {
        node.inputs[0].name: None
        for node in model.graph
        if node.op_type in QUANTIZED
        and node.inputs[0] is not None
        and node.inputs[1] is not None
        and node.inputs[1].name in model.graph.initializers
    }
    return [name for name in found if name is not None]


def _onnxruntime(method: str) -> Callable[[Job, Model, Dataset], float]:
    def collect(job: Job, model: Model, data: Dataset) -> float:
        from onnxruntime.quantization import CalibrationMethod, create_calibrator

        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            calibrator = create_calibrator(
                job.model,
                list(QUANTIZED),
                str(Path(folder) / "augmented.onnx"),
                CalibrationMethod[method],
            )
            calibrator.collect_data(_Reader(data))
            calibrator.compute_data()
        return time.perf_counter() - started

    return collect


class _Reader:
    """Samples as ONNX Runtime's calibrators want them."""

    def __init__(self, data: Dataset) -> None:
        self._batches = data.batches(1)

    def get_next(self) -> Mapping[str, np.ndarray] | None:
        """Return the next sample, or None at the end."""
        return next(self._batches, None)


CONTENDERS: Mapping[str, Callable[[Job, Model, Dataset], float]] = {
    "forward passes": _forward,
    "irtools min-max": _irtools(MinMax()),
    "irtools histogram": _irtools(Histogram()),
    "irtools histogram, moments, MSE ranges": _irtools(
        Histogram(), ChannelMean(), ChannelSquare(), ranges=True
    ),
    "onnxruntime min-max": _onnxruntime("MinMax"),
    "onnxruntime percentile": _onnxruntime("Percentile"),
    "onnxruntime entropy": _onnxruntime("Entropy"),
}


def _rows(outcomes: Mapping[str, list[Outcome]]) -> list[dict[str, float | int | str]]:
    best = {name: min(o.seconds / o.samples for o in each) for name, each in outcomes.items()}
    cpu = {name: min(o.cpu_seconds / o.samples for o in each) for name, each in outcomes.items()}
    plain = best["forward passes"]
    return [
        {
            "contender": name,
            "samples": each[0].samples,
            "ms_per_sample": 1e3 * best[name],
            "times_forward": best[name] / plain,
            "cpu_ms_per_sample": 1e3 * cpu[name],
            "peak_mb": max(o.peak_bytes for o in each) / 1e6,
        }
        for name, each in outcomes.items()
    ]


def table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a Markdown table."""
    yield "| contender | samples | ms per sample | x forward | CPU ms per sample | peak MB |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for row in rows:
        yield (
            f"| {row['contender']} | {row['samples']} | {row['ms_per_sample']:.1f} "
            f"| {row['times_forward']:.2f} | {row['cpu_ms_per_sample']:.1f} "
            f"| {row['peak_mb']:.0f} |"
        )


VIEWS = {"table": table}
