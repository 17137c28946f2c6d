"""irtools against every peer on one task: latency, size, fidelity and accuracy in one run.

All models are made from the same float model and the same calibration samples, then timed
alternately, one process alive at a time, with the same threads. Ratios are taken within a round
against ONNX Runtime in float32.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import irtools
from benchmarks.peers import Feeds, Peer
from benchmarks.recording import DEFAULT_CACHE, about
from irtools.data import Dataset, required_inputs
from irtools.measure.base import BenchSettings, LatencyResult
from irtools.measure.contest import Contest, ContestSettings, EntrantScore, paired_difference
from irtools.measure.interval import speedup
from irtools.measure.timing import Contender
from irtools.metrics import Resampled
from irtools.model import Model, with_sizes
from irtools.targets import RunnerOptions

__all__ = [
    "Ours",
    "ContestTask",
    "TaskContest",
    "add_contest_options",
    "chosen_contest",
    "margins",
    "table",
    "timed_as",
]

_EXACT = 999.0
"""Decibels that stand for equal outputs; JSON has no infinity."""


@dataclass(frozen=True)
class Ours:
    """A row of irtools.

    Attributes:
        name: Row in the table.
        pipeline: Passes that make it.
        target: What it is made for, and runs on.
        precision: Inference precision asked of the runtime; None is its default.
        fixed: Made for the sizes that are timed, and no others.
    """

    name: str
    pipeline: str
    target: str = "ort-cpu"
    precision: str | None = None
    fixed: bool = False


@dataclass(frozen=True)
class ContestTask:
    """A float model, its data and how it is timed.

    Attributes:
        name: Also that of the folder where contenders are kept.
        model: The float ONNX file.
        calibration: Samples that every contender may calibrate on.
        test: Samples to compare outputs on, with labels where there are any.
        timed: What it is timed on, and what that is called.
        ours: Rows of irtools.
        peers: Rows of other tools; the first is ONNX Runtime in float32.
        bench: For passes that measure while they decide.
    """

    name: str
    model: Path
    calibration: Dataset
    test: Dataset
    timed: tuple[str, Feeds]
    ours: Sequence[Ours]
    peers: Sequence[Peer]
    bench: BenchSettings


@dataclass(frozen=True)
class Entry:
    """A contender with its files."""

    name: str
    target: str
    precision: str | None
    model: Path
    fixed: bool = False

    @property
    def size(self) -> int:
        """Bytes on disk, with the weights file of an OpenVINO IR."""
        weights = self.model.with_suffix(".bin")
        separate = self.model.suffix == ".xml" and weights.exists()
        return self.model.stat().st_size + (weights.stat().st_size if separate else 0)


class TaskContest:
    """Makes the contenders of a task, measures them and shows what was found.

    Args:
        folder: Contenders are kept there, with what was found over the test data: delete a file
            to make it again.
        only: Parts of names to take part; none: all. ORT in float32 always does.
    """

    def __init__(self, task: ContestTask, folder: Path, only: Sequence[str] = ()) -> None:
        self.task = task
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.entries = list(self._entries(only))

    def _entries(self, only: Sequence[str]) -> Iterator[Entry]:
        for number, peer in enumerate(self.task.peers):
            if not number or _is_wanted(peer.name, only):
                made = self._made_by(peer)
                path = self._of_fixed_sizes(made) if peer.fixed else made
                yield Entry(peer.name, peer.target, peer.precision, path, peer.fixed)
        for row in self.task.ours:
            if _is_wanted(row.name, only):
                yield Entry(row.name, row.target, row.precision, self._own(row), row.fixed)

    def _own(self, row: Ours) -> Path:
        path = self._folder / f"{_slug(row.name)}.onnx"
        if not path.exists():
            print(f"making {row.name}: {row.pipeline}", file=sys.stderr)
            result = irtools.optimize(
                self._source(row),
                row.pipeline,
                target=row.target,
                calibration=self.task.calibration,
                # Pruning to a speed-up measures at the length that counts.
                bench=self.task.bench if "speedup" in row.pipeline else None,
            )
            result.deployed.save(path)
        return path

    def _source(self, row: Ours) -> Model:
        model = Model.load(self.task.model)
        if not row.fixed:
            return model
        feeds = self.task.timed[1]
        return with_sizes(
            model,
            {
                f"{spec.name}.{axis}": feeds[spec.name].shape[axis]
                for spec in required_inputs(model)
                for axis, size in enumerate(spec.shape or ())
                if not isinstance(size, int)
            },
        )

    def _of_fixed_sizes(self, model: Path) -> Path:
        """Return a model for OpenVINO reshaped to what is timed, as its documentation advises."""
        target = self._folder / f"{model.stem}-fixed.xml"
        if not target.exists():
            import openvino

            read = openvino.Core().read_model(model)
            feeds = self.task.timed[1]
            read.reshape({port: feeds[port.any_name].shape for port in read.inputs})
            openvino.save_model(read, target, compress_to_fp16=False)
        return target

    def _made_by(self, peer: Peer) -> Path:
        note = self._folder / f"{peer.make.__name__}.path"
        if not note.exists():
            print(f"making {peer.name}", file=sys.stderr)
            # One by one, without padding: what every calibrator gets.
            samples = list(self.task.calibration.batches(1))
            made = peer.make(self.task.model, samples, self._folder)
            note.write_text(str(made), encoding="utf-8")
        return Path(note.read_text(encoding="utf-8"))

    def rows(self, settings: BenchSettings | None) -> list[dict[str, Any]]:
        """Measure all contenders.

        Args:
            settings: How they are timed; None: not at all.
        """
        found = [
            {
                "name": entry.name,
                "target": entry.target,
                "precision": entry.precision,
                "size": entry.size,
            }
            for entry in self.entries
        ]
        self._add_fidelity(found)
        if settings is not None:
            self._add_latency(found, settings)
        return found

    def _add_latency(self, rows: Sequence[dict[str, Any]], settings: BenchSettings) -> None:
        asked = ContestSettings(settings)
        feeds = dict([self.task.timed])
        timings = Contest(_contenders(self.entries), settings=asked, timed_on=feeds).time()
        for figures, timing in zip(rows, timings, strict=True):
            figures |= _latency(timing)

    def _add_fidelity(self, rows: Sequence[dict[str, Any]]) -> None:
        """Add SQNR, agreement and accuracy over the test samples, against ORT in float32."""
        first, *others = self.entries
        for fixed in (False, True):
            # Those of fixed sizes run sample by sample, and would slow all others down.
            some = [
                entry for entry in others if entry.fixed is fixed and not self._is_judged(entry)
            ]
            if some or not (fixed or self._is_judged(first)):
                self._judge([first, *some])
        for figures, entry in zip(rows, self.entries, strict=True):
            figures |= json.loads(self._place(entry).read_text())

    def _judge(self, entries: Sequence[Entry]) -> None:
        test = self.task.test
        metric = None if test.labels is None else "accuracy"
        settings = ContestSettings(bench=None, metric=metric, isolation="none")
        scores = Contest(_contenders(entries), test, settings).scores()
        base: Resampled | None = None
        for entry, score in zip(entries, scores, strict=True):
            self._place(entry).write_text(json.dumps(_judged(score, base)))
            base = base or score.metric

    def _place(self, entry: Entry) -> Path:
        return self._folder / f"{_slug(entry.name)}.judged.json"

    def _is_judged(self, entry: Entry) -> bool:
        place = self._place(entry)
        return place.exists() and place.stat().st_mtime >= entry.model.stat().st_mtime

    def document(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, object]:
        """Return everything that a reader needs to judge the table."""
        return {
            "task": self.task.name,
            **about(self.task.name),
            "timed": self.task.timed[0],
            "calibration": len(self.task.calibration),
            "test": len(self.task.test),
            "pipelines": {row.name: row.pipeline for row in self.task.ours},
            "rows": list(rows),
        }


def _contenders(entries: Sequence[Entry]) -> dict[str, Contender]:
    return {
        entry.name: Contender(entry.model, entry.target, RunnerOptions(precision=entry.precision))
        for entry in entries
    }


def _judged(score: EntrantScore, base: Resampled | None) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "sqnr_db": min(score.fidelity.sqnr_db, _EXACT),
        "agreement": score.fidelity.agreement,
    }
    if score.metric is not None:
        figures["accuracy"] = score.metric.evaluation.value
        if base is not None:
            gap = paired_difference(base, score.metric)
            figures["difference"] = [gap.value, gap.low, gap.high]
    return figures


def _slug(name: str) -> str:
    return name.replace(" ", "-").replace(",", "")


def _is_wanted(name: str, only: Sequence[str]) -> bool:
    return not only or any(part in name for part in only)


def _latency(timing: LatencyResult) -> dict[str, Any]:
    ratio = timing.speedup
    return {
        "median_ms": timing.median_ms,
        "p90_ms": timing.p90_ms,
        "speedup": None if ratio is None else [ratio.value, ratio.low, ratio.high],
        "blocks_ms": list(timing.block_medians_ms),
        "peak_bytes": timing.peak_bytes,
    }


def add_contest_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where contenders are, which take part, and how they are timed."""
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE)
    parser.add_argument("--only", default="", help="parts of names to take part, by commas")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--no-timing", action="store_true", help="make and compare them only")


def chosen_contest(task: ContestTask, given: argparse.Namespace) -> TaskContest:
    """Return the contest of a task, of the contenders that were asked for."""
    only = tuple(part for part in given.only.split(",") if part)
    return TaskContest(task, given.cache.resolve() / "contenders" / task.name, only)


def timed_as(bench: BenchSettings, given: argparse.Namespace) -> BenchSettings | None:
    """Return how contenders are timed; None: not at all."""
    return None if given.no_timing else replace(bench, rounds=given.rounds)


def table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a Markdown table."""
    known = {"agreement": rows[0]["agreement"] is not None, "accuracy": "accuracy" in rows[0]}
    shares = [name for name, is_known in known.items() if is_known]
    headings = ["model", "ms", "against ORT fp32", "size MB", "SQNR dB", *shares]
    yield f"| {' | '.join(headings)} |"
    yield "| --- " * len(headings) + "|"
    for figures in rows:
        ratio = figures.get("speedup")
        cells = [
            str(figures["name"]),
            f"{figures['median_ms']:.2f}" if "median_ms" in figures else "",
            "{:.2f} [{:.2f}, {:.2f}]".format(*ratio) if ratio else "1" * ("speedup" in figures),
            f"{figures['size'] / 1e6:.1f}",
            "exact" if figures["sqnr_db"] >= _EXACT else f"{figures['sqnr_db']:.1f}",
            *(f"{figures[name]:.2%}" for name in shares),
        ]
        yield f"| {' | '.join(cells)} |"


def margins(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield our rows against the fastest peer on the same runtime, in either precision."""
    timed = [figures for figures in rows if "blocks_ms" in figures]
    ours = [figures for figures in timed if figures["name"].startswith("irtools")]
    for figures in ours:
        target = figures["target"]
        peers = [p for p in timed if p["target"] == target and p not in ours]
        best = min(peers, key=lambda peer: float(peer["median_ms"]), default=None)
        if best is None:
            continue
        ratio = speedup(best["blocks_ms"], figures["blocks_ms"], 0.95)
        text = f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"
        yield f"- {figures['name']}: {text} times as fast as {best['name']} on {target}"
