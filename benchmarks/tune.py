"""What a search finds next to the presets, within the same budget: MiniLM on R8, on both runtimes.

    python -m benchmarks run tune [TARGET...] [--trials N] [--again] [--write [NAME]]

Half of the test split is chosen by, by `irc tune` and by the guard of every preset alike; the
accuracies of the table, and whether the budget holds, are those of the other half. In the end all
models take turns on texts of that half, one process alive at a time. A preset that breaks the
budget there is in the table, but the search is not compared with it.

Models and trials are kept in the cache, so that the same command goes on where it was stopped, and
once all is there only scores and times are taken; `--again` makes all once more.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import irtools
from benchmarks.recording import DEFAULT_CACHE, about, add_names, add_write_option, store
from benchmarks.tasks import encoded, prepared
from irtools.data import Dataset
from irtools.driver.result import OptimizeResult
from irtools.errors import BudgetError
from irtools.measure.base import BenchSettings
from irtools.measure.contest import Contest, ContestSettings, paired_difference
from irtools.measure.interval import speedup
from irtools.measure.timing import Contender, measure
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
        file: The model in the form that the target is given; None: the budget does not hold.
        seconds: What making it took.
    """

    name: str
    pipeline: str
    file: str | None
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
    parser.add_argument("--again", action="store_true", help="keep nothing of an earlier run")
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
        kept = given.cache.resolve() / "contenders" / "tune" / target
        if given.again:
            shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir(parents=True, exist_ok=True)
        presets = {**registry.PRESETS, **BY_HAND}
        made = [_preset(n, p, source, target, data, given, kept) for n, p in presets.items()]
        made.append(_tuned(source, target, data, given, kept))
        rows = measured(source, made, target, data.quoted, given.seconds)
        document["targets"].append({"target": target, "rows": rows})
        print("\n".join((*table(document), "", *gains(document))), flush=True)
    store(given.write, document)


def _preset(
    name: str,
    pipeline: str,
    source: Path,
    target: str,
    data: Data,
    given: argparse.Namespace,
    folder: Path,
) -> Made:
    """Make a preset within the budget, as `irc optimize --passes` does."""

    def make() -> OptimizeResult:
        bench = BenchSettings(sequence=(64,)) if "speedup" in pipeline else None
        return irtools.optimize(
            source,
            pipeline,
            target=target,
            goals=f"max-drop={given.budget}",
            bench=bench,
            seed=given.seed,
            cache=folder / "store",
            **data.given(),
        )

    return _kept(name, pipeline, folder, make)


def _tuned(source: Path, target: str, data: Data, given: argparse.Namespace, folder: Path) -> Made:
    """Search as `irc tune` does, at the length that texts of the task have."""
    started = time.monotonic()

    def tell(number: int, text: str, outcome: str) -> None:
        print(f"{time.monotonic() - started:.0f} s: trial {number}: {text}: {outcome}", flush=True)

    def make() -> OptimizeResult:
        return tune_model(
            source,
            target=target,
            goals=f"max-drop={given.budget}",
            trials=given.trials,
            bench=BenchSettings(sequence=(64,)),
            effort=given.effort,
            seed=given.seed,
            storage=folder / "trials.db",
            cache=folder / "store",
            on_trial=tell,
            **data.given(),
        )

    return _kept(TUNED, "", folder, make)


def _kept(name: str, pipeline: str, folder: Path, make: Callable[[], OptimizeResult]) -> Made:
    """Return a row that is kept in a folder, made where it is missing."""
    note = folder / f"{re.sub('[^a-z0-9]+', '-', name.lower())}.json"
    if note.exists():
        return Made(**json.loads(note.read_text(encoding="utf-8")))
    print(f"making {name}", flush=True)
    started = time.monotonic()
    file = None
    try:
        result = make()
    except BudgetError as error:
        print(f"{name}: {error}", flush=True)
    else:
        pipeline = pipeline or str(result.report.pipeline)
        file = str(result.deployed.save(note.with_suffix(".onnx")).files[0])
    made = Made(name, pipeline, file, time.monotonic() - started)
    note.write_text(json.dumps(asdict(made)), encoding="utf-8")
    return made


def measured(
    source: Path, made: Sequence[Made], target: str, quoted: Dataset, seconds: float
) -> list[dict[str, Any]]:
    """Return a row for the original and each model: accuracy and time on the quoted samples."""
    kept = {one.name: one for one in made if one.file is not None}
    turns = list(quoted.spread(_TURNS).batches(1))
    bench = BenchSettings(rounds=5, block_seconds=0.7, max_seconds=seconds)
    entrants = {ORIGINAL: Contender(source, target)}
    entrants |= {name: Contender(Path(one.file or ""), target) for name, one in kept.items()}
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
                "drop": 0.0 - gap.value,
            }
        )
    rows += [
        {"name": one.name, "pipeline": one.pipeline, "seconds": one.seconds, "drop": None}
        for one in made
        if one.file is None
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
