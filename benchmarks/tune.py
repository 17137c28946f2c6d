"""What a search finds next to the presets, within the same budget: MiniLM on R8, on both runtimes.

    python -m benchmarks run tune [TARGET...] [--trials N] [--storage DIR] [--write [NAME]]

Half of the test split is chosen by, by `irc tune` and by the guard of every preset alike; the
accuracies of the table, and whether the budget holds, are those of the other half. In the end all
models take turns on texts of that half, one process alive at a time. A preset that breaks the
budget there is in the table, but the search is not compared with it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import irtools
from benchmarks.recording import DEFAULT_CACHE, about, add_names, add_write_option, store
from benchmarks.tasks import encoded, prepared
from irtools.data import Dataset
from irtools.errors import BudgetError
from irtools.files import scratch_folder
from irtools.measure.base import BenchSettings
from irtools.measure.contest import Contest, ContestSettings, paired_difference
from irtools.measure.interval import speedup
from irtools.measure.timing import Contender, measure
from irtools.model import Model
from irtools.plugins import registry
from irtools.search import tune_model

TARGETS = ("ort-cpu", "openvino-cpu")
ORIGINAL, TUNED = "original", "irc tune"
BY_HAND: Mapping[str, str] = {
    "int8, dynamic": "cleanup,fuse,int8:mode=dynamic",
    "int8, all that loses nothing": "cleanup,fuse,sink,int8",
    "prune 1.5x, int8": "cleanup,prune:speedup=1.5,fuse,int8",
}
"""Pipelines that are written down by those who know the passes."""
_TURNS = 32
"""Texts that models take turns on: as many as the benchmark of a pass takes."""


@dataclass(frozen=True)
class Data:
    """Samples of a task.

    Attributes:
        calibration: For ranges and refits.
        chosen: The half that is chosen by.
        quoted: The other one.
    """

    calibration: Dataset
    chosen: Dataset
    quoted: Dataset

    @classmethod
    def halved(cls, calibration: Dataset, test: Dataset, seed: int) -> Data:
        """Split test data at random."""
        order = np.random.default_rng(seed).permutation(len(test))
        chosen, quoted = (np.sort(part) for part in np.array_split(order, 2))
        return cls(calibration, test.select(chosen), test.select(quoted))

    def given(self) -> dict[str, Dataset]:
        """Return it as `irtools.optimize` takes it."""
        return {
            "calibration": self.calibration,
            "evaluation": self.chosen,
            "holdout": self.quoted,
        }


@dataclass(frozen=True)
class Made:
    """A row before it is timed.

    Attributes:
        name: Of the row.
        pipeline: What made it.
        model: In the form that the target is given; None: the budget does not hold.
        seconds: What making it took.
    """

    name: str
    pipeline: str
    model: Model | None
    seconds: float


def main(argv: Sequence[str]) -> None:
    """Search, make the presets, time all of them, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_names(parser, TARGETS)
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE, help="default: %(default)s")
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--budget", default="1%", help="max-drop of all; default: %(default)s")
    parser.add_argument("--effort", default="normal", help="of a trial; default: %(default)s")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--seconds", type=float, default=150, help="bound on the timing of a target"
    )
    parser.add_argument("--storage", type=Path, help="a folder that keeps the trials")
    add_write_option(parser, "tune")
    given = parser.parse_args(argv)
    folder = given.cache.resolve() / "r8"
    source = prepared("r8", given.cache.resolve(), folder / "minilm-r8.onnx")
    calibration = encoded(folder / "r8_calib.npz").take(128)
    data = Data.halved(calibration, encoded(folder / "r8_test.npz"), given.seed)
    settings = {name: getattr(given, name) for name in ("trials", "budget", "effort", "seed")}
    document: dict[str, Any] = {
        **about("tune"),
        **settings,
        "chosen": len(data.chosen),
        "quoted": len(data.quoted),
        "targets": [],
    }
    for target in given.names:
        made = [
            *(_preset(n, text, source, target, data, given) for n, text in _presets().items()),
            _tuned(source, target, data, given),
        ]
        rows = measured(Model.load(source), made, target, data.quoted, given.seconds)
        document["targets"].append({"target": target, "rows": rows})
        print("\n".join((*table(document), "", *gains(document))), flush=True)
    store(given.write, document)


def _presets() -> dict[str, str]:
    return {**registry.PRESETS, **BY_HAND}


def _preset(
    name: str, pipeline: str, source: Path, target: str, data: Data, given: argparse.Namespace
) -> Made:
    """Make a preset within the budget, as `irc optimize --passes` does."""
    started = time.monotonic()
    bench = BenchSettings(sequence=(64,)) if "speedup" in pipeline else None
    try:
        result = irtools.optimize(
            source,
            pipeline,
            target=target,
            goals=f"max-drop={given.budget}",
            bench=bench,
            seed=given.seed,
            **data.given(),
        )
    except BudgetError as error:
        print(f"{name} on {target}: {error}", flush=True)
        return Made(name, pipeline, None, time.monotonic() - started)
    return Made(name, pipeline, result.deployed, time.monotonic() - started)


def _tuned(source: Path, target: str, data: Data, given: argparse.Namespace) -> Made:
    started = time.monotonic()

    def tell(number: int, text: str, outcome: str) -> None:
        print(f"{time.monotonic() - started:.0f} s: trial {number}: {text}: {outcome}", flush=True)

    if given.storage is not None:
        given.storage.mkdir(parents=True, exist_ok=True)
    storage = None if given.storage is None else given.storage / f"{target}.db"
    try:
        result = tune_model(
            source,
            target=target,
            goals=f"max-drop={given.budget}",
            trials=given.trials,
            bench=BenchSettings(sequence=(64,)),
            effort=given.effort,
            seed=given.seed,
            storage=storage,
            on_trial=tell,
            **data.given(),
        )
    except BudgetError as error:
        print(f"{TUNED} on {target}: {error}", flush=True)
        return Made(TUNED, "", None, time.monotonic() - started)
    pipeline = str(result.report.pipeline)
    return Made(TUNED, pipeline, result.deployed, time.monotonic() - started)


def measured(
    original: Model, made: Sequence[Made], target: str, quoted: Dataset, seconds: float
) -> list[dict[str, Any]]:
    """Return a row for the original and each model: accuracy and time on the quoted samples."""
    kept = {one.name: one for one in made if one.model is not None}
    turns = list(quoted.spread(_TURNS).batches(1))
    bench = BenchSettings(rounds=5, block_seconds=0.7, max_seconds=seconds)
    with scratch_folder("tune") as folder:
        entrants = {ORIGINAL: Contender(original.save(folder / "0.onnx").files[0], target)}
        for number, one in enumerate(kept.values(), 1):
            assert one.model is not None
            path = one.model.save(folder / f"{number}.onnx").files[0]
            entrants[one.name] = Contender(path, target)
        judged = ContestSettings(bench=None, metric="accuracy", isolation="none")
        scores = list(Contest(entrants, quoted, judged).scores())
        times = measure(entrants, {f"{len(turns)} texts": turns}, bench)
    base, rows = scores[0].metric, []
    assert base is not None
    for score, timing in zip(scores, times, strict=True):
        assert score.metric is not None
        gap = paired_difference(base, score.metric)
        one = kept.get(timing.name)
        rows.append(
            {
                "name": timing.name,
                "pipeline": "" if one is None else one.pipeline,
                "seconds": 0.0 if one is None else one.seconds,
                "median_ms": timing.median_ms,
                "blocks_ms": list(timing.block_medians_ms),
                "speedup": None if timing.speedup is None else asdict(timing.speedup),
                "accuracy": score.metric.evaluation.value,
                "drop": -gap.value,
            }
        )
    rows += [
        {"name": one.name, "pipeline": one.pipeline, "seconds": one.seconds, "drop": None}
        for one in made
        if one.model is None
    ]
    return rows


def table(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield a Markdown table of all models."""
    yield "| target | model | pipeline | ms | against the original | accuracy | loss |"
    yield "| --- " * 7 + "|"
    for one in document["targets"]:
        for row in one["rows"]:
            name = f"| {one['target']} | {row['name']} | "
            name += f"`{row['pipeline']}` |" if row["pipeline"] else "|"
            if row["drop"] is None:
                yield f"{name} | | | breaks the budget |"
                continue
            ratio = row["speedup"]
            faster = "{value:.2f} [{low:.2f}, {high:.2f}]".format(**ratio) if ratio else "1"
            yield (
                f"{name} {row['median_ms']:.2f} | {faster} | {row['accuracy']:.2%} "
                f"| {row['drop']:.2%} |"
            )


def gains(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield how many times as fast as the best preset the search's model is, for each target."""
    for one in document["targets"]:
        rows = {row["name"]: row for row in one["rows"] if row["drop"] is not None}
        if TUNED not in rows:
            yield f"- {one['target']}: what the search found breaks the budget"
            continue
        for what, names in (("preset", registry.PRESETS), ("pipeline written by hand", BY_HAND)):
            best = min((rows[n] for n in names if n in rows), key=_milliseconds, default=None)
            if best is not None:
                ratio = speedup(best["blocks_ms"], rows[TUNED]["blocks_ms"], 0.95)
                yield (
                    f"- {one['target']}: {ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}] "
                    f"times as fast as the best {what}, {best['name']}"
                )


def _milliseconds(row: Mapping[str, Any]) -> float:
    return float(row["median_ms"])


VIEWS = {"table": table, "gains": gains}
