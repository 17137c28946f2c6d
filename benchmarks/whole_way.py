"""Every kind of model through the whole way: export, `cleanup`, `fuse`, `prune`, `int8`.

    python -m benchmarks run whole-way NAME... [--cache DIR] [--json FILE]
    python -m benchmarks run whole-way all

Exports each checkpoint with `irc export`. Then, for each target in a process of its own, the passes
go over it one after the other, and after each the model runs on the target in the form in which it
would be written: SQNR and agreement are against the export on ONNX Runtime with its optimizations
off. OpenVINO computes in float32 here, so that what a pass does is not mixed with rounding to bf16.
What an exporter, a pass or a runtime refuses is a row with the reason. What is found is in
`CACHE/whole-way/NAME` and is taken from there: delete a file to run it again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.prepared.whole_way import ENTRIES, PARTS, Entry, read_data
from benchmarks.recording import DEFAULT_CACHE, ROOT, about, prepare, write_result
from irtools.analysis.decoder import TextDecoder, find_text_decoder
from irtools.data import Dataset
from irtools.driver.make import make_rows
from irtools.errors import IrtoolsError
from irtools.instruments import Verification
from irtools.measure.contest import Contest, ContestSettings
from irtools.measure.generate import Writing, compare_writings, write_greedily
from irtools.measure.timing import Contender
from irtools.model import Model
from irtools.passmanager import PassContext, PassManager, Pipeline, Step, Workspace
from irtools.targets import RunnerOptions, find_target, lowered

TARGETS = ("ort-cpu", "openvino-cpu")
_EXACT = 999.0
"""Decibels that stand for equal outputs; JSON has no infinity."""
_BATCH = 8
_PROMPTS, _PROMPT_TOKENS, _NEW_TOKENS = 4, 16, 8


def main(argv: Sequence[str]) -> None:
    """Run the models that are named and print their table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="+", choices=["all", *ENTRIES], metavar="NAME")
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE, help="default: %(default)s")
    parser.add_argument("--json", type=Path, help="write what was found for all of them")
    arguments = parser.parse_args(argv)
    names = list(ENTRIES) if "all" in arguments.names else arguments.names
    found = [row for name in names for row in rows_of(name, arguments.cache.resolve())]
    print("\n".join(table(found)))
    print("\n".join(("", *remarks(found))))
    if arguments.json:
        write_result(arguments.json, {**about("whole-way"), "rows": found})


def rows_of(name: str, cache: Path) -> Iterator[dict[str, Any]]:
    """Yield what was found of a model: a row for each part of it, target and step."""
    entry, folder = ENTRIES[name], cache / "whole-way" / name
    folder.mkdir(parents=True, exist_ok=True)
    reason = _export(entry, folder / "export", cache)
    if reason is not None:
        yield {"name": name, "weights": entry.weights, "step": "export", "refused": reason}
        return
    for part in PARTS if entry.pair else ("model",):
        for target in TARGETS:
            found = folder / f"{part}-{target}.json"
            if not found.exists():
                print(f"{name}: {part} on {target}", file=sys.stderr, flush=True)
                _in_child(name, part, target, cache, found)
            title = f"{name}, {part}" if entry.pair else name
            for row in json.loads(found.read_text(encoding="utf-8")):
                yield {"name": title, "weights": entry.weights, "target": target, **row}


def _export(entry: Entry, place: Path, cache: Path) -> str | None:
    """Export a checkpoint unless it has been; returns why it cannot be."""
    if place.exists():
        return None
    for artefact in filter(None, dict.fromkeys((entry.artefact, entry.data))):
        prepare(artefact, cache)
    command = [sys.executable, "-m", "irtools.cli.main", "export", "-o", f"{place}/"]
    run = subprocess.run(
        [*command, *entry.export_arguments(cache)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    return run.stderr.strip().splitlines()[-1] if run.returncode else None


def _in_child(name: str, part: str, target: str, cache: Path, found: Path) -> None:
    """Go the whole way with one model on one target; a process that dies is a refusal, too."""
    place = found.with_suffix(".part")
    place.unlink(missing_ok=True)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            pool.submit(go, name, part, target, cache, place).result()
        except BrokenProcessPool:
            rows = json.loads(place.read_text(encoding="utf-8")) if place.exists() else []
            step = ("export", *ENTRIES[name].steps)[len(rows)]
            _write([*rows, {"step": step, "refused": "the process was killed"}], place)
    place.rename(found)


def go(name: str, part: str, target: str, cache: Path, place: Path) -> None:
    """Apply the passes one after the other; what is found after each is written to `place`."""
    entry = ENTRIES[name]
    export = cache / "whole-way" / name / "export"
    model = Model.load(export / (f"{part}_model.onnx" if entry.pair else "model.onnx"))
    calibration, test = read_data(entry, part, export, cache)
    reference = Contender(model, "ort-cpu", RunnerOptions(threads=1, exact=True))
    judge = Judge(reference, target, test)
    samples = {"calibration": len(calibration), "test": len(test)}
    rows = [{"step": "export", "size": model.weight_bytes, **samples, **judge.judged(model)}]
    _write(rows, place)
    with Workspace() as workspace:
        for step in entry.steps:
            row: dict[str, Any] = {"step": step}
            try:
                made = apply(step, model, target, calibration, workspace)
                row |= _figures(made)
                model = made.model
                written = lowered(model, find_target(target))
                row |= {"size": written.weight_bytes, **judge.judged(written)}
            except IrtoolsError as error:
                row["refused"] = str(error).partition("\n")[0]
            rows.append(row)
            _write(rows, place)


def apply(
    passes: str, model: Model, target: str, calibration: Dataset, workspace: Workspace
) -> Step:
    """Run a pass as `irtools.optimize` does, but compare nothing and time nothing."""
    context = PassContext.for_model(model, target, calibration=calibration, threads=1)
    return PassManager(Pipeline(passes), (Verification(),)).run(model, context, workspace)[-1]


def _figures(step: Step) -> dict[str, Any]:
    (row,) = make_rows([step])
    return {
        "changed": row.changed,
        "counters": {name: count for name, count in row.counters.items() if count},
        "notes": list(row.notes),
        "peak_bytes": row.peak_bytes.get("pass"),
        "seconds": row.seconds.get("pass"),
    }


@dataclass(frozen=True)
class Judge:
    """Compares what a target computes with what the export computes.

    Attributes:
        export: The model as it was exported, and how it runs: the reference.
        target: Where the other models run.
        test: Samples to run.
    """

    export: Contender
    target: str
    test: Dataset

    def judged(self, model: Model) -> dict[str, Any]:
        """Return figures of a model in the form in which it is written."""
        precision = "f32" if self.target.startswith("openvino") else None
        other = Contender(model, self.target, RunnerOptions(threads=1, precision=precision))
        entered = {"export": self.export, "result": other}
        settings = ContestSettings(bench=None, threads=1, isolation="none")
        _, score = Contest(entered, self.test, settings).scores()
        close = score.fidelity
        figures = {"sqnr_db": min(close.sqnr_db, _EXACT), "agreement": close.agreement}
        figures["worst"] = min(score.by_output.items(), key=lambda item: item[1].sqnr_db)[0]
        if self._decoder is not None:
            text = self._writing(self._decoder, other)
            figures["same_text"] = self._same_text(text)
        return figures

    def _same_text(self, text: Writing) -> float:
        return compare_writings(self._text, text, _PROMPT_TOKENS, self.test.source).share

    @cached_property
    def _decoder(self) -> TextDecoder | None:
        assert isinstance(self.export.model, Model)
        return find_text_decoder(self.export.model.ir)

    @cached_property
    def _text(self) -> Writing:
        assert self._decoder is not None
        return self._writing(self._decoder, self.export)

    def _writing(self, decoder: TextDecoder, contender: Contender) -> Writing:
        """Return what a decoder with a cache writes to the beginnings of some samples."""
        prompts = np.asarray(self.test.feeds["input_ids"])[:_PROMPTS, :_PROMPT_TOKENS]
        with find_target(contender.target).runner(contender.model, contender.options) as runner:
            return write_greedily(runner, decoder, prompts, _NEW_TOKENS)


def table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a Markdown table with a line for each model and target."""
    heads = ["model", "weights", "runtime", "export", "cleanup", "fuse", "fused", "prune"]
    heads += ["removed", "int8", "agreement", "same text", "size MB", "peak MB"]
    yield f"| {' | '.join(heads)} |"
    yield "| --- " * len(heads) + "|"
    for key in dict.fromkeys((row["name"], row.get("target")) for row in rows):
        steps = [row for row in rows if (row["name"], row.get("target")) == key]
        yield f"| {' | '.join(_cells(steps))} |"


def _cells(steps: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    first, last = steps[0], steps[-1]
    by_pass = {row["step"].partition(":")[0]: row for row in steps}
    yield from (first["name"], first["weights"], first.get("target", ""))
    for name in ("export", "cleanup", "fuse", "prune", "int8"):
        row = by_pass.get(name, {})
        yield "refused" if "refused" in row else _decibels(row.get("sqnr_db"))
        if name == "fuse":
            yield _fused(row.get("counters", {}))
        if name == "prune":
            yield _removed(row.get("counters", {}), by_pass["export"].get("size", 0))
    agreement, text = last.get("agreement"), last.get("same_text")
    yield "" if agreement is None else f"{agreement:.1%}"
    yield "" if text is None else f"{text:.0%}"
    yield f"{first['size'] / 1e6:.0f} to {last['size'] / 1e6:.0f}" if "size" in last else ""
    yield f"{max(row.get('peak_bytes') or 0 for row in steps) / 1e6:.0f}"


def _decibels(found: float | None) -> str:
    return "" if found is None else "exact" if found >= _EXACT else f"{found:.1f}"


def _fused(counts: Mapping[str, int]) -> str:
    made = {
        name.removeprefix("num-fused-"): count
        for name, count in counts.items()
        if name.startswith("num-fused-")
    }
    return ", ".join(f"{count} {name}" for name, count in made.items()) or "nothing"


def _removed(counts: Mapping[str, int], size: int) -> str:
    parameters = counts.get("num-parameters-removed", 0)
    return f"{4 * parameters / size:.1%}" if parameters and size else "nothing"


def remarks(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the passes that pruned with their models, and a line for whatever was refused."""
    settings: dict[str, list[str]] = {}
    for row in rows:
        if row["step"].startswith("prune") and row["name"] not in settings.get(row["step"], ()):
            settings.setdefault(row["step"], []).append(row["name"])
    for step, names in settings.items():
        yield f"- `{step}`: {'; '.join(names)}"
    for row in rows:
        if "refused" in row:
            place = ", ".join(row[key] for key in ("name", "target", "step") if key in row)
            yield f"- {place}: {row['refused']}"


def _write(rows: Sequence[Mapping[str, Any]], place: Path) -> None:
    place.write_text(json.dumps(list(rows), indent=1) + "\n", encoding="utf-8")


VIEWS = {
    "table": lambda found: table(found["rows"]),
    "remarks": lambda found: remarks(found["rows"]),
}
