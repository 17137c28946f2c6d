"""A quantized decoder with LoRA next to its weights: what a token costs, switching, and the error.

    python -m benchmarks run adapters [--rank N] [--past N] [--rounds N] [--write [NAME]]

SmolLM2 in 4 bits (`cleanup,fuse,int4`) on ONNX Runtime, alone and with an adapter as inputs: on
query and value (what peft chooses for a Llama) and on all linear layers. Decoding is one token
after so many in the cache, CPU time on one thread, each block in a process of its own, alternating.
Loading is the first use of an adapter file, switching the use of one that the runner has read.
Errors are relative L2 of the logits of a drawn text against the float model with the adapter
merged; next to them that of the merged model in 4 bits. Adapters have random factors, as large as
5 % of the weight.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx_ir as ir

from benchmarks.commands import export_with_past
from benchmarks.deployed import deployed, ratio_cell
from benchmarks.recording import DEFAULT_CACHE, about, add_write_option, prepare, store
from irtools.files import scratch_folder
from irtools.frontends.checkpoint import LowRank, attach_inputs, packed
from irtools.measure.base import BenchSettings
from irtools.measure.interval import speedup
from irtools.measure.sandbox import run_isolated
from irtools.measure.shapes import bench_feeds
from irtools.measure.steps import step_of
from irtools.model import Model
from irtools.targets import Feeds, RunnerOptions, SwitchesAdapters, find_target, lowered

SOURCE, PASSES, TARGET = "smollm2", "cleanup,fuse,int4", "ort-cpu"
LAYERS: Mapping[str, tuple[str, ...]] = {
    "query and value": ("q_proj", "v_proj"),
    "all linear layers": (
        *("q_proj", "k_proj", "v_proj", "o_proj"),
        *("gate_proj", "up_proj", "down_proj"),
    ),
}
_WARM_UP, _RUNS, _SWITCHES = 5, 30, 20
_SHARE = 0.05
"""Size of what an adapter adds, of the weight's."""


def main(argv: Sequence[str]) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE, help="default: %(default)s")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--past", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    add_write_option(parser, "adapters")
    given = parser.parse_args(argv)
    cache = given.cache.resolve()
    prepare(SOURCE, cache)
    export_with_past(SOURCE, cache)
    source = Model.load(cache / SOURCE / f"{SOURCE}-past.onnx")
    decode = BenchSettings(sequence=(32,), past=(given.past,))
    feeds = {name.partition(" ")[0]: one for name, one in bench_feeds(source, decode).items()}
    with scratch_folder("adapters") as folder:
        plain = _written(source, folder / "base.onnx")
        forms: dict[str, tuple[Path, tuple[Path, ...]]] = {"none": (plain, ())}
        own = _error(source, plain, None, feeds["prefill"])
        errors = {"none": (own, own)}
        for name, layers in LAYERS.items():
            path, files, merged = _adapted(source, layers, given.rank, folder / layers[-1])
            forms[name] = (path, files)
            quantized = _written(merged, path.with_name("merged.onnx"))
            errors[name] = (
                _error(merged, path, files[0], feeds["prefill"]),
                _error(merged, quantized, None, feeds["prefill"]),
            )
            forms[f"{name}, none used"], errors[f"{name}, none used"] = (path, ()), errors["none"]
        rows = list(_rows(forms, errors, feeds["decode"], given.rounds))
    document = {**about("adapters"), "rank": given.rank, "past": given.past, "rows": rows}
    print("\n".join(table(document)), flush=True)
    store(given.write, document)


def _written(model: Model, path: Path) -> Path:
    made = deployed(model, PASSES, TARGET, None)
    lowered(made, find_target(TARGET)).save(path)
    return path


def _adapted(
    source: Model, layers: tuple[str, ...], rank: int, folder: Path
) -> tuple[Path, tuple[Path, ...], Model]:
    """Write a model with inputs and two adapters; returns it, them, and the first one merged."""
    folder.mkdir()
    target, rng = find_target(TARGET), np.random.default_rng(0)
    model, merged = source.clone(), source.clone()
    modules = [
        node.name.removesuffix("/MatMul")
        for node in model.ir.graph
        if node.op_type == "MatMul" and node.name.removesuffix("/MatMul").endswith(layers)
    ]
    branches = attach_inputs(model.ir, modules, SOURCE)
    files = []
    for number in range(2):
        factors = {name: _drawn(source, name, rank, rng) for name in modules}
        files.append(folder / f"{number}.onnx_adapter")
        target.write_adapter(files[-1], packed(branches, factors))  # type: ignore[attr-defined]
        if not number:
            _merge(merged, factors)
    return _written(model, folder / "model.onnx"), tuple(files), merged


def _drawn(source: Model, module: str, rank: int, rng: np.random.Generator) -> LowRank:
    weight = _weight(source, module)
    down = rng.normal(size=(weight.shape[0], rank)).astype(np.float32)
    up = rng.normal(size=(rank, weight.shape[1])).astype(np.float32)
    size = _SHARE * np.linalg.norm(weight) / np.linalg.norm(down @ up)
    return LowRank(down, (size * up).astype(np.float32))


def _merge(model: Model, factors: Mapping[str, LowRank]) -> None:
    for name, one in factors.items():
        value = model.ir.graph.initializers[f"{name}.weight"]
        value.const_value = ir.tensor(_weight(model, name) + one.down @ one.up, name=value.name)


def _weight(model: Model, module: str) -> np.ndarray:
    tensor = model.ir.graph.initializers[f"{module}.weight"].const_value
    assert tensor is not None
    return tensor.numpy()


def _error(wanted: Model, path: Path, adapter: Path | None, feeds: Feeds) -> float:
    """Return the relative L2 of the logits against a float model."""
    target = find_target(TARGET)
    with target.runner(wanted) as runner:
        reference = runner.run(feeds, ["logits"])["logits"]
    with target.runner(path) as runner:
        assert isinstance(runner, SwitchesAdapters)
        runner.use_adapter(adapter)
        found = runner.run(feeds, ["logits"])["logits"]
    return float(np.linalg.norm(found - reference) / np.linalg.norm(reference))


def block(path: Path, files: tuple[Path, ...], feeds: Feeds) -> dict[str, float]:
    """Return CPU `seconds` of a token, and wall seconds to `load` and to `switch` an adapter."""
    with find_target(TARGET).runner(path, RunnerOptions(threads=1)) as runner:
        assert isinstance(runner, SwitchesAdapters)
        uses = []
        for number in range(_SWITCHES if files else 0):
            start = time.perf_counter()
            runner.use_adapter(files[number % len(files)])
            uses.append(time.perf_counter() - start)
        step, times = step_of(runner, feeds), []
        for _ in range(_WARM_UP + _RUNS):
            step.prepare()
            start = time.process_time()
            step.run()
            times.append(time.process_time() - start)
        loads, switches = uses[: len(files)], uses[len(files) :]
        return {
            "seconds": median(times[_WARM_UP:]),
            "load": median(loads or [0.0]),
            "switch": median(switches or [0.0]),
        }


def _rows(
    forms: Mapping[str, tuple[Path, tuple[Path, ...]]],
    errors: Mapping[str, tuple[float, float]],
    feeds: Feeds,
    rounds: int,
) -> Iterator[dict[str, Any]]:
    found: dict[str, list[dict[str, float]]] = {name: [] for name in forms}
    for _ in range(rounds):
        for name, (path, files) in forms.items():
            found[name].append(run_isolated(block, path, files, dict(feeds), label=name))
    base = [one["seconds"] for one in found["none"]]
    for name, blocks in found.items():
        seconds = [one["seconds"] for one in blocks]
        yield {
            "adapter": name,
            "cpu_ms": 1e3 * median(seconds),
            "blocks_cpu_ms": [1e3 * one for one in seconds],
            "time": None if name == "none" else asdict(speedup(seconds, base, 0.95)),
            "load_ms": 1e3 * median(one["load"] for one in blocks),
            "switch_ms": 1e3 * median(one["switch"] for one in blocks),
            "adapter_bytes": sum(path.stat().st_size for path in forms[name][1][:1]),
            "error": errors[name][0],
            "merged_error": errors[name][1],
        }


def table(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield a Markdown table."""
    titles = (
        "adapter",
        "CPU ms a token",
        "time against none",
        "MB",
        "loading, ms",
        "switching, ms",
    )
    yield "| " + " | ".join((*titles, "error", "error of merged 4 bits")) + " |"
    yield "| --- " * 8 + "|"
    for row in document["rows"]:
        has = row["time"] is not None
        cells = [row["adapter"], f"{row['cpu_ms']:.1f}", ratio_cell(row["time"]) if has else "1"]
        cells += [f"{row['adapter_bytes'] / 1e6:.1f}" if has else ""]
        cells += [f"{row[name]:.2f}" if has else "" for name in ("load_ms", "switch_ms")]
        cells += [f"{row[name]:.3f}" for name in ("error", "merged_error")]
        yield "| " + " | ".join(cells) + " |"


VIEWS = {"table": table}
