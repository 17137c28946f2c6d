"""irtools beside every peer on one encoder: latency, size, fidelity and accuracy in one run.

    python benchmarks/encoders.py minilm-r8 [--cache DIR] [--rounds N] [--json FILE]
    python benchmarks/encoders.py bert-base

All models are made from the same float model and the same calibration samples, then timed in
turns, one process alive at a time, with the same threads. Ratios are taken within a round against
ONNX Runtime in float32. Prints a Markdown table, as docs/benchmarks.md has it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from peers import OPENVINO_PEERS, ORT_PEERS, Feeds, Peer

import irtools
from irtools.data import Dataset
from irtools.measure import BenchSettings, Contender, LatencyResult, cpu_quota, measure
from irtools.measure.interval import speedup
from irtools.metrics import fidelity
from irtools.report.environment import machine, versions
from irtools.target import RunnerOptions, find_target

DEFAULT_CACHE = Path(__file__).resolve().parent.parent / "build" / "models"
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


@dataclass(frozen=True)
class Task:
    """A float model, its data and how it is timed.

    Attributes:
        model: The float ONNX file.
        calibration: Samples that every contender may calibrate on.
        test: Samples to compare outputs on, with labels where there are any.
        sequence: Tokens of the timed sample.
        pipelines: Rows of irtools: name, target, precision, pipeline text.
    """

    model: Path
    calibration: Dataset
    test: Dataset
    sequence: int
    pipelines: Sequence[tuple[str, str, str | None, str]]


@dataclass(frozen=True)
class Entry:
    """A contender with its files."""

    name: str
    target: str
    precision: str | None
    model: Path

    @property
    def size(self) -> int:
        """Bytes on disk, weights beside an OpenVINO IR counted in."""
        weights = self.model.with_suffix(".bin")
        beside = self.model.suffix == ".xml" and weights.exists()
        return self.model.stat().st_size + (weights.stat().st_size if beside else 0)


OURS = (
    ("irtools int8", "ort-cpu", None, "cleanup,fuse,int8"),
    ("irtools int8, dynamic", "ort-cpu", None, "cleanup,fuse,int8:mode=dynamic"),
    ("irtools int8, OpenVINO f32", "openvino-cpu", "f32", "cleanup,fuse,int8"),
    ("irtools int8, OpenVINO bf16", "openvino-cpu", "bf16", "cleanup,fuse,int8"),
)


def read_data(path: Path) -> Dataset:
    """Return the samples of an `.npz` of the model preparation."""
    with np.load(path) as archive:
        return Dataset({name: archive[name] for name in INPUTS}, archive["labels"], path.name)


def random_texts(count: int, length: int) -> Dataset:
    """Return seeded token ids without padding, for models with random weights."""
    rng = np.random.default_rng(0)
    ids = rng.integers(999, 30000, (count, length))
    ones, zeros = np.ones_like(ids), np.zeros_like(ids)
    feeds = {"input_ids": ids, "attention_mask": ones, "token_type_ids": zeros}
    return Dataset(feeds, source="random tokens")


def find_task(name: str, cache: Path) -> Task:
    """Return a task whose files `benchmarks/models.py` has prepared."""
    if name == "bert-base":
        data = random_texts(64, 128)
        calibration = data.select(np.arange(32))
        test = data.select(np.arange(32, 64))
        return Task(cache / "bert-base" / "bert-base.onnx", calibration, test, 128, OURS)
    folder = cache / "r8"
    calibration = read_data(folder / "r8_calib.npz").take(128)
    test = read_data(folder / "r8_test.npz")
    pruned = "cleanup,prune:speedup=1.5,fuse,int8"
    rows = (*OURS, ("irtools prune 1.5x, int8", "ort-cpu", None, pruned))
    return Task(folder / "minilm-r8.onnx", calibration, test, 64, rows)


def samples_of(data: Dataset) -> list[Feeds]:
    """Return the samples one by one, without padding: what every calibrator gets."""
    return list(data.batches(1))


def make_entries(task: Task, folder: Path) -> Iterator[Entry]:
    """Yield peers and our own models, each made once and kept in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for peer in (*ORT_PEERS, *OPENVINO_PEERS):
        yield Entry(peer.name, peer.target, peer.precision, make_peer(peer, task, folder))
    for name, target, precision, pipeline in task.pipelines:
        path = folder / f"{name.replace(' ', '-').replace(',', '')}.onnx"
        if not path.exists():
            print(f"making {name}", file=sys.stderr)
            # Pruning to a speed-up measures at the length that counts.
            bench = BenchSettings(sequence=(task.sequence,)) if "speedup" in pipeline else None
            result = irtools.optimize(
                task.model, pipeline, target=target, calibration=task.calibration, bench=bench
            )
            result.written.save(path)
        yield Entry(name, target, precision, path)


def make_peer(peer: Peer, task: Task, folder: Path) -> Path:
    """Return a peer's model, made unless it is there."""
    note = folder / f"{peer.make.__name__}.path"
    if not note.exists():
        print(f"making {peer.name}", file=sys.stderr)
        made = peer.make(task.model, samples_of(task.calibration), folder)
        note.write_text(str(made), encoding="utf-8")
    return Path(note.read_text(encoding="utf-8"))


def outputs_of(entry: Entry, data: Dataset, batch: int = 32) -> np.ndarray:
    """Return the first output over the data, in the order of the samples."""
    options = RunnerOptions(precision=entry.precision, threads=cpu_quota())
    with find_target(entry.target).runner(entry.model, options) as runner:
        parts = [
            next(iter(runner.run({n: f[n] for n in runner.input_names}).values()))
            for f in data.batches(batch)
        ]
    return np.concatenate(parts)


def main() -> None:
    """Run one comparison and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("task", choices=["minilm-r8", "bert-base"])
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="", help="parts of names to take part, by commas")
    parser.add_argument("--seconds", type=float, default=1500, help="bound on the timing")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    task = find_task(arguments.task, arguments.cache)
    entries = list(make_entries(task, arguments.cache / "contenders" / arguments.task))
    wanted = arguments.only.split(",")
    entries = [e for i, e in enumerate(entries) if i == 0 or any(w in e.name for w in wanted)]
    feeds = {name: array[:1, : task.sequence] for name, array in full_sample(task).items()}
    timings = measure(
        {
            e.name: Contender(e.model, e.target, RunnerOptions(precision=e.precision))
            for e in entries
        },
        {f"batch=1 sequence={task.sequence}": feeds},
        BenchSettings(rounds=arguments.rounds, max_seconds=arguments.seconds),
    )
    rows = [row(entry, timing, task) for entry, timing in zip(entries, timings, strict=True)]
    complete_fidelity(rows, entries, task)
    print("\n".join(table(rows, task)))
    print("\n".join(("", *margins(rows))))
    if arguments.json:
        arguments.json.write_text(json.dumps(document(arguments.task, rows), indent=1) + "\n")


def full_sample(task: Task) -> Feeds:
    """Return a sample that fills the timed sequence, without padding."""
    mask = task.test.feeds["attention_mask"][:, : task.sequence]
    longest = int(np.argmax(mask.sum(axis=1)))
    return {name: array[longest : longest + 1] for name, array in task.test.feeds.items()}


def row(entry: Entry, timing: LatencyResult, task: Task) -> dict[str, object]:
    """Return the figures of one contender, fidelity apart."""
    ratio = timing.speedup
    return {
        "name": entry.name,
        "target": entry.target,
        "precision": entry.precision,
        "median_ms": timing.median_ms,
        "p90_ms": timing.p90_ms,
        "speedup": None if ratio is None else [ratio.value, ratio.low, ratio.high],
        "blocks_ms": list(timing.block_medians_ms),
        "size": entry.size,
        "peak_bytes": timing.peak_bytes,
    }


def complete_fidelity(rows: list[dict[str, object]], entries: Sequence[Entry], task: Task) -> None:
    """Add SQNR, agreement and accuracy over the test samples, against ORT in float32."""
    reference = outputs_of(entries[0], task.test)
    for figures, entry in zip(rows, entries, strict=True):
        outputs = outputs_of(entry, task.test)
        close = fidelity({"logits": reference}, {"logits": outputs})
        figures["sqnr_db"] = min(close.sqnr_db, 999.0)
        figures["agreement"] = close.agreement
        if task.test.labels is not None:
            figures["accuracy"] = float(np.mean(outputs.argmax(-1) == task.test.labels))


def table(rows: Sequence[Mapping[str, object]], task: Task) -> Iterator[str]:
    """Yield a Markdown table."""
    has_labels = task.test.labels is not None
    yield "| model | ms | against ORT fp32 | size MB | SQNR dB | agreement |" + (
        " accuracy |" if has_labels else ""
    )
    yield "| --- " * (7 if has_labels else 6) + "|"
    for figures in rows:
        ratio = figures["speedup"]
        text = "1" if ratio is None else "{:.2f} [{:.2f}, {:.2f}]".format(*ratio)  # type: ignore[misc]
        cells = [
            str(figures["name"]),
            f"{figures['median_ms']:.2f}",
            text,
            f"{figures['size'] / 1e6:.1f}",  # type: ignore[operator]
            f"{figures['sqnr_db']:.1f}",
            f"{figures['agreement']:.2%}",
        ]
        if has_labels:
            cells.append(f"{figures['accuracy']:.2%}")
        yield "| " + " | ".join(cells) + " |"


def margins(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield our rows against the fastest peer on the same runtime, in either precision."""
    ours = [figures for figures in rows if figures["name"].startswith("irtools")]
    for figures in ours:
        target = figures["target"]
        peers = [p for p in rows if p["target"] == target and p not in ours]
        best = min(peers, key=lambda peer: float(peer["median_ms"]))
        ratio = speedup(best["blocks_ms"], figures["blocks_ms"], 0.95)
        text = f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"
        yield f"- {figures['name']}: {text} times as fast as {best['name']} on {target}"


def document(task: str, rows: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """Return everything that a reader needs to judge the table."""
    return {
        "task": task,
        "command": f"python benchmarks/encoders.py {task}",
        "machine": dataclasses.asdict(machine()),
        "versions": dict(versions()),
        "threads": cpu_quota(),
        "rows": list(rows),
    }


if __name__ == "__main__":
    main()
