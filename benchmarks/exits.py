"""What `early-exit` saves on real samples: exit histogram, mean and tail latency.

    python benchmarks/exits.py [--cache DIR] [--rounds N] [--json FILE]
    python benchmarks/exits.py --make-only

MiniLM-L6 fine-tuned for R8, in float32, in int8, and in int8 with exits, on both runtimes. The time
of the last depends on the sample: all models run the same 32 texts of the test split in turns, as
long as they are. Prints Markdown, as docs/benchmarks.md has it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from chain import DEFAULT_CACHE, RUNTIMES, known_worths, say
from tasks import encoded

import irtools
from irtools.driver.chain import Chain, ChainSource, Stage, ratios_on_target, time_models
from irtools.measure import BenchSettings, LatencyResult, cpu_quota
from irtools.measure.machine import machine, versions
from irtools.model import Model
from irtools.plugins import NullProgress
from irtools.report.plain import plain_data
from irtools.targets import find_target

QUANTIZED = "cleanup,fuse,int8"
EXITS = "early-exit:agreement=99%"
SAMPLES = 1000


class Workshop:
    """Makes the models, or finds them in the cache."""

    def __init__(self, cache: Path, threads: int) -> None:
        self.data = cache / "r8"
        self.made = cache / "contenders" / "exits-r8"
        self.made.mkdir(parents=True, exist_ok=True)
        self.threads = threads
        self.original = self.data / "minilm-r8.onnx"

    def stages(self) -> Iterator[Stage]:
        """Yield what is compared."""
        for target in RUNTIMES:
            quantized, leaving = (self.made / f"{name}-{target}.onnx" for name in ("int8", "exits"))
            if not leaving.exists():
                say(f"making {QUANTIZED},{EXITS} for {target}")
                self._make(target, quantized, leaving)
            models = {"fp32": self.original, "int8": quantized, "int8, exits": leaving}
            for name, path in models.items():
                precision = "f32" if name == "fp32" and target == "openvino-cpu" else None
                source = ChainSource(str(path))
                yield Stage(name, find_target(target), source, precision=precision)

    def _make(self, target: str, quantized: Path, leaving: Path) -> None:
        given = {"target": target, "bench": None, "threads": self.threads}
        calibration = encoded(self.data / "r8_train.npz").spread(SAMPLES)
        first = irtools.optimize(self.original, QUANTIZED, calibration=calibration, **given)
        first.written.save(quantized)
        test = encoded(self.data / "r8_test.npz")
        last = irtools.optimize(
            first.model, EXITS, calibration=calibration, evaluation=test, **given
        )
        last.written.save(leaving)
        leaving.with_suffix(".txt").write_text("\n".join(last.rows[-1].notes))

    def histograms(self) -> Iterator[str]:
        """Yield where the samples leave, as the pass says it."""
        for target, runtime in RUNTIMES.items():
            notes = (self.made / f"exits-{target}.txt").read_text().splitlines()
            yield from (f"- {runtime}: {n}" for n in notes if "evaluation samples" in n)


def main() -> None:
    """Make, judge and time the models, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=240, help="bound on the timing")
    parser.add_argument("--threads", type=int, default=cpu_quota())
    parser.add_argument("--make-only", action="store_true", help="time nothing")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    workshop = Workshop(arguments.cache.resolve(), arguments.threads)
    bench = BenchSettings(
        batch=(1, 8),
        rounds=arguments.rounds,
        max_seconds=arguments.seconds,
        block_seconds=1.5,
    )
    chain = Chain(
        tuple(workshop.stages()),
        str(workshop.data / "r8_train.npz"),
        str(workshop.data / "r8_test.npz"),
        "accuracy",
        None if arguments.make_only else bench,
        threads=arguments.threads,
    )
    models = [Model.load(stage.source.source) for stage in chain.stages]
    worths = known_worths(workshop.made, chain, models)
    timed = ratios_on_target(chain, time_models(chain, models, NullProgress()))
    histograms = list(workshop.histograms())
    print("\n".join((*table(chain, worths, timed), "", *histograms)))
    if arguments.json:
        written = json.dumps(document(chain, worths, timed, histograms), indent=1)
        arguments.json.write_text(written + "\n")


def table(
    chain: Chain, worths: Sequence[Mapping[str, Any]], timed: Sequence[Sequence[LatencyResult]]
) -> Iterator[str]:
    """Yield a Markdown table; ratios are against float32 on the same runtime."""
    yield "| model | runtime | batch | mean ms | p90 | p99 | faster | accuracy | agreement |"
    yield "| --- " * 9 + "|"
    for shape in range(len(timed[0])):
        for stage, worth, results in zip(chain.stages, worths, timed, strict=True):
            time = results[shape]
            ratio = time.speedup
            cells = (
                stage.name,
                RUNTIMES[stage.target.name],
                time.shape.partition(" ")[0].removeprefix("batch="),
                *(f"{value:.2f}" for value in (time.mean_ms, time.p90_ms, time.p99_ms)),
                "1" if ratio is None else f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]",
                f"{worth['evaluation']['value']:.2%}",
                f"{worth['agreement']:.2%}",
            )
            yield "| " + " | ".join(cells) + " |"


def document(
    chain: Chain,
    worths: Sequence[Mapping[str, Any]],
    timed: Sequence[Sequence[LatencyResult]],
    histograms: Sequence[str],
) -> dict[str, Any]:
    """Return everything that a reader needs to judge the table."""
    rows = [
        {
            "name": stage.name,
            "target": stage.target.name,
            "precision": stage.precision,
            **worth,
            "latency": [plain_data(result) for result in results],
        }
        for stage, worth, results in zip(chain.stages, worths, timed, strict=True)
    ]
    return {
        "task": "minilm-r8, early exits",
        "command": "python benchmarks/exits.py",
        "machine": dataclasses.asdict(machine()),
        "versions": dict(versions()),
        "threads": chain.threads,
        "pipelines": {"int8": QUANTIZED, "int8, exits": f"{QUANTIZED},{EXITS}"},
        "histograms": list(histograms),
        "rows": rows,
    }


if __name__ == "__main__":
    main()
