"""Every benchmark by name: the module that runs it, and with which arguments.

A module has `main(arguments)`, and `VIEWS`: by name, what makes lines of Markdown of a stored
result. It is imported when it is asked for, since some need the extra `torch`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["BENCHMARKS", "Benchmark", "view"]


@dataclass(frozen=True)
class Benchmark:
    """A benchmark.

    Attributes:
        module: In this package.
        summary: One line.
        arguments: What its module takes before the caller's own.
    """

    module: str
    summary: str
    arguments: tuple[str, ...] = ()


BENCHMARKS: Mapping[str, Benchmark] = {
    "minilm-r8": Benchmark(
        "tasks", "MiniLM-L6 on R8: int8 and pruned, next to every peer", ("minilm-r8",)
    ),
    "bert-base": Benchmark("tasks", "BERT-base's shape next to every peer", ("bert-base",)),
    "deberta-injection": Benchmark(
        "tasks", "DeBERTa-v3-xsmall on prompt injection", ("deberta-injection",)
    ),
    "efficientnet-fashion": Benchmark(
        "tasks", "EfficientNet-Lite0 on Fashion-MNIST", ("efficientnet-fashion",)
    ),
    "chain-r8": Benchmark("chain", "from a teacher to a small student on R8", ("r8",)),
    "chain-debian-tags": Benchmark("chain", "several labels per text", ("debian-tags",)),
    "exits-r8": Benchmark("exits", "early exits on R8, by sample"),
    "llama-1b": Benchmark("decoder", "a decoder of one billion parameters", ("llama-1b",)),
    "smollm2": Benchmark("decoder", "SmolLM2-135M: speed, memory and text", ("smollm2",)),
    "calibration": Benchmark("calibration", "what calibration costs in time and memory"),
    "pairs": Benchmark("pairs", "ranges of int8 weights on CPUs without VNNI"),
    "fusion": Benchmark("fusion", "attention blocks that become one operator"),
    "fusion-table": Benchmark("fusion_table", "what is fused of each family and exporter"),
    "sink": Benchmark("sink", "computing only the position that a classifier reads"),
    "builds": Benchmark("builds", "irc build: at first, unchanged, and from the cache"),
    "first-run": Benchmark("first_run", "first answer of a file, and of what compile writes"),
    "live-sampler": Benchmark("live_sampler", "what watching a model live costs its latency"),
    "contexts": Benchmark("contexts", "a decoder over the length of its context"),
    "adapters": Benchmark("adapters", "a decoder in 4 bits with adapters that switch"),
    "unpad": Benchmark("unpad", "computing only the tokens of padded texts"),
    "smoothing": Benchmark("smoothing", "int8 of encoders with and without smoothing"),
    "mixed-bits": Benchmark("mixed_bits", "bits of each weight by a knapsack, on a decoder"),
    "token-wise": Benchmark("token_wise", "8 bits without data: a range for each token"),
    "other-quantizers": Benchmark("other_quantizers", "quantizers of other tools as passes"),
    "rotation": Benchmark("rotation", "rotating the residual stream before 8 and 4 bits"),
    "projections": Benchmark("projections", "query, key and value as one product, in whole models"),
    "operators": Benchmark("operators", "fused operators against their parts"),
    "compile-time": Benchmark("compile_time", "seconds of cleanup,fuse, onnxsim and onnxslim"),
    "commands": Benchmark("commands", "seconds of whole commands: export, int8, int4, the demo"),
    "report-page": Benchmark("report_page", "seconds and bytes of the page of a report"),
    "budget": Benchmark("budget", "whether budgets chosen on one half hold on the other"),
    "tune": Benchmark("tune", "what a search finds next to the presets, MiniLM on R8"),
    "why": Benchmark("why", "whether irc why finds causes that are known"),
    "scheduler": Benchmark("scheduler", "a search on 1,000 machines, simulated, and its study"),
    "sharding": Benchmark("sharding", "memory of each process of a training: FSDP and ZeRO"),
    "whole-way": Benchmark("whole_way", "every kind of model through all passes"),
}


def view(module: str, name: str) -> Callable[[Any], Iterator[str]]:
    """Return what makes lines of Markdown of a stored result.

    Raises:
        KeyError: The module has no such view.
    """
    views: Mapping[str, Callable[[Any], Iterator[str]]]
    views = importlib.import_module(f"benchmarks.{module}").VIEWS
    return views[name]
