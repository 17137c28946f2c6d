"""What `early-exit` saves on real samples: exit histogram, mean and tail latency.

    python -m benchmarks run exits-r8 [--cache DIR] [--rounds N] [--json FILE]
    python -m benchmarks run exits-r8 --make-only

MiniLM-L6 fine-tuned for R8, in float32, in int8, and in int8 with exits, on both runtimes. The time
of the last depends on the sample: all models run the same 32 texts of the test split in turns, as
long as they are. Prints Markdown, as docs/benchmarks.md has it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import irtools
from benchmarks.chain import RUNTIMES, known_scores, say
from benchmarks.recording import DEFAULT_CACHE, about, write_result
from benchmarks.tasks import encoded
from irtools.driver.chain import Chain, ChainSource, ChainStage, ratios_on_target, time_models
from irtools.measure.base import BenchSettings, LatencyResult
from irtools.measure.cpu import cpu_quota
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

    def stages(self) -> Iterator[ChainStage]:
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
                yield ChainStage(name, find_target(target), source, precision=precision)

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


def main(argv: Sequence[str]) -> None:
    """Make, judge and time the models, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=240, help="bound on the timing")
    parser.add_argument("--threads", type=int, default=cpu_quota())
    parser.add_argument("--make-only", action="store_true", help="time nothing")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args(argv)
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
    scores = known_scores(workshop.made, chain, models)
    timed = ratios_on_target(chain, time_models(chain, models, NullProgress()))
    found = document(chain, scores, timed, list(workshop.histograms()))
    print("\n".join((*table(found), "", *found["histograms"])))
    if arguments.json:
        write_result(arguments.json, found)


def table(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield a Markdown table; ratios are against float32 on the same runtime."""
    yield "| model | runtime | batch | mean ms | p90 | p99 | faster | accuracy | agreement |"
    yield "| --- " * 9 + "|"
    for shape in range(len(found["rows"][0]["latency"])):
        for row in found["rows"]:
            time = row["latency"][shape]
            ratio = time["speedup"]
            cells = (
                row["name"],
                RUNTIMES[row["target"]],
                time["shape"].partition(" ")[0].removeprefix("batch="),
                *(f"{time[name]:.2f}" for name in ("mean_ms", "p90_ms", "p99_ms")),
                "{value:.2f} [{low:.2f}, {high:.2f}]".format(**ratio) if ratio else "1",
                f"{row['evaluation']['value']:.2%}",
                f"{row['agreement']:.2%}",
            )
            yield "| " + " | ".join(cells) + " |"


def document(
    chain: Chain,
    scores: Sequence[Mapping[str, Any]],
    timed: Sequence[Sequence[LatencyResult]],
    histograms: Sequence[str],
) -> dict[str, Any]:
    """Return everything that a reader needs to judge the table."""
    rows = [
        {
            "name": stage.name,
            "target": stage.target.name,
            "precision": stage.precision,
            **score,
            "latency": [plain_data(result) for result in results],
        }
        for stage, score, results in zip(chain.stages, scores, timed, strict=True)
    ]
    return {
        "task": "minilm-r8, early exits",
        **about("exits-r8"),
        "threads": chain.threads,
        "pipelines": {"int8": QUANTIZED, "int8, exits": f"{QUANTIZED},{EXITS}"},
        "histograms": list(histograms),
        "rows": rows,
    }


VIEWS = {"table": table, "histograms": lambda found: iter(found["histograms"])}
