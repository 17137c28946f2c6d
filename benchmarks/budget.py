"""Whether a budget that was kept on the samples chosen by holds on the samples quoted.

    python -m benchmarks run budget [TASK...] [--write [NAME]]

Three small classifiers that are made and fitted here, each with a pass that loses more than the
budget, so that the accuracy guard has to choose where to stop. A run draws a model and its data by
a seed, optimizes with `max-drop` on one half and looks at the loss on the other. What counts is
the share of runs in which that keeps the budget, and how many models were evaluated for a pass.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

import irtools
from benchmarks.recording import about, add_names, add_write_option, store
from irtools.data import Dataset
from irtools.errors import BudgetError
from irtools.instruments import Rollback
from irtools.model import Model
from irtools.passmanager import Instrument, Step
from irtools.report.plain import plain_data
from irtools.testing import read_model

_CLASSES = 8
_METHODS: Mapping[str, tuple[str, ...]] = {
    "prune": tuple(f"prune:ratio={ratio}:round-to=4" for ratio in (0.05, 0.1, 0.2, 0.3)),
    "int8": tuple(
        f"int8:mode=static:min-size=64:least-sqnr=none:smooth=false:method=rtn:outliers=0:{more}"
        for more in ("reduce-range=false", "reduce-range=true", "calibrator=entropy")
    ),
    "int4": ("int4:min-size=64:block=32", "int4:min-size=64:block=128"),
}
"""Pass to forms of it, which take turns from seed to seed: what they lose is around the budget."""
_CALIBRATION = 64


@dataclass(frozen=True)
class Task:
    """A model and data for it.

    Attributes:
        metric: What the budget is about.
        model: Fitted to the data, but for noise.
        calibration: Samples for ranges and refits.
        evaluation: Samples to be split.
    """

    metric: str
    model: Model
    calibration: Dataset
    evaluation: Dataset


@dataclass(frozen=True)
class Run:
    """What one seed gave.

    Attributes:
        holds: The loss on the samples quoted keeps the budget.
        loss: That loss.
        chosen: The loss on the samples chosen by.
        evaluations: Models evaluated for the pass, itself among them.
        kept: Share of the decisions of the pass that were kept.
    """

    task: str
    method: str
    seed: int
    holds: bool
    loss: float | None
    chosen: float | None
    evaluations: int
    kept: float


def main(argv: Sequence[str]) -> None:
    """Run and print the table; with --write, store it for docs/goals.md."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_names(parser, TASKS)
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--samples", type=int, default=2000, help="evaluation samples, both halves")
    parser.add_argument("--budget", default="1%", help="max-drop of each run")
    add_write_option(parser, "budget")
    given = parser.parse_args(argv)
    runs = [
        run(task, method, seed, given)
        for task in given.names
        for method in _METHODS
        for seed in range(given.seeds)
    ]
    settings = {"budget": given.budget, "samples": given.samples, "seeds": given.seeds}
    document = plain_data({**about("budget"), **settings, "rows": [*summaries(runs)]})
    print("\n".join(table(document)))
    store(given.write, document)


def run(name: str, method: str, seed: int, given: argparse.Namespace) -> Run:
    """Optimize one model within the budget."""
    task = TASKS[name](np.random.default_rng(seed), given.samples)
    spy = _Spy()
    try:
        result = irtools.optimize(
            task.model,
            _METHODS[method][seed % len(_METHODS[method])],
            goals=f"max-drop={given.budget}",
            metric=task.metric,
            calibration=task.calibration,
            evaluation=task.evaluation,
            bench=None,
            check=False,
            seed=seed,
            effort="thorough",
            instruments=(spy,),
        )
    except BudgetError:
        return Run(name, method, seed, False, None, None, spy.evaluations, spy.kept)
    first, last = result.rows[0].metric, result.rows[-1].metric
    loss = first.value - last.value
    return Run(name, method, seed, True, loss, spy.chosen, spy.evaluations, spy.kept)


class _Spy(Instrument):
    """Looks at what the guard did."""

    name = "spy"

    def __init__(self) -> None:
        self.evaluations, self.kept, self.chosen = 1, 1.0, float("nan")

    def after(self, step: Step) -> None:
        rollback = step.figures.get(Rollback)
        if rollback is not None:
            self.evaluations, self.chosen = rollback.trials, rollback.drop
            self.kept = rollback.kept / max(rollback.planned, 1)


def summaries(runs: Sequence[Run]) -> Iterator[dict[str, Any]]:
    """Yield a row for each task and pass, then one for all."""
    for task, method in dict.fromkeys((one.task, one.method) for one in runs):
        chosen = [one for one in runs if (one.task, one.method) == (task, method)]
        yield {"task": task, "method": method, **_summary(chosen)}
    yield {"task": "all", "method": "", **_summary(runs)}


def _summary(runs: Sequence[Run]) -> dict[str, Any]:
    losses = [one.loss for one in runs if one.loss is not None]
    return {
        "runs": len(runs),
        "holds": sum(one.holds for one in runs),
        "mean_loss": float(np.mean(losses)) if losses else float("nan"),
        "largest_loss": max(losses, default=float("nan")),
        "kept": float(np.mean([one.kept for one in runs])),
        "evaluations": max(one.evaluations for one in runs),
    }


def table(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield a Markdown table."""
    yield (
        "| task | pass | budget holds | mean loss quoted | largest | decisions kept "
        "| evaluations, most |"
    )
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for row in document["rows"]:
        method = f"`{row['method']}`" if row["method"] else ""
        yield (
            f"| {row['task']} | {method} | {row['holds']} of {row['runs']} "
            f"| {100 * float(row['mean_loss']):.2f} % | {100 * float(row['largest_loss']):.2f} % "
            f"| {100 * row['kept']:.0f} % | {row['evaluations']} |"
        )


def _dense(rng: np.random.Generator, samples: int) -> Task:
    """A deep network of random layers on points around centres, with a fitted head."""
    centres = rng.standard_normal((_CLASSES, 32)) * 0.55
    widths = (32, 128, 128, 128, 128)
    layers = [
        (rng.standard_normal(pair) * np.sqrt(2 / pair[0])).astype(np.float32)
        for pair in pairwise(widths)
    ]

    def features(x: np.ndarray) -> np.ndarray:
        for layer in layers:
            x = np.maximum(x @ layer, 0)
        return x

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = rng.integers(0, _CLASSES, count)
        return (centres[labels] + rng.standard_normal((count, 32))).astype(np.float32), labels

    text = """
    <ir_version: 10, opset_import: ["" : 21]>
    net (float[n, 32] x, float[32, 128] w0, float[128, 128] w1, float[128, 128] w2,
         float[128, 128] w3, float[128, 8] head) => (float[n, 8] logits) {
      p0 = MatMul (x, w0)  a0 = Relu (p0)
      p1 = MatMul (a0, w1) a1 = Relu (p1)
      p2 = MatMul (a1, w2) a2 = Relu (p2)
      p3 = MatMul (a2, w3) a3 = Relu (p3)
      logits = MatMul (a3, head)
    }"""
    return _fitted("accuracy", text, layers, features, draw, "x", samples)


def _conv(rng: np.random.Generator, samples: int) -> Task:
    """Random filters on noisy pictures of 8 x 8, pooled, with a fitted head."""
    pictures = rng.standard_normal((_CLASSES, 1, 8, 8)) * 0.5
    filters = (rng.standard_normal((48, 1, 3, 3)) * 0.5).astype(np.float32)
    second = (rng.standard_normal((48 * 9, 96)) * np.sqrt(2 / (48 * 9))).astype(np.float32)

    def features(x: np.ndarray) -> np.ndarray:
        windows = np.lib.stride_tricks.sliding_window_view(x[:, 0], (3, 3), axis=(1, 2))
        maps = np.maximum(np.einsum("nhwij,cij->nchw", windows, filters[:, 0], optimize=True), 0)
        pooled = maps.reshape(len(x), 48, 3, 2, 3, 2).mean(axis=(3, 5))
        return np.maximum(pooled.reshape(len(x), -1) @ second, 0)

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = rng.integers(0, _CLASSES, count)
        x = pictures[labels] + rng.standard_normal((count, 1, 8, 8))
        return x.astype(np.float32), labels

    text = """
    <ir_version: 10, opset_import: ["" : 21]>
    net (float[n, 1, 8, 8] x, float[48, 1, 3, 3] w0, float[432, 96] w1, float[96, 8] head)
      => (float[n, 8] logits) {
      c = Conv (x, w0) a = Relu (c)
      p = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (a)
      f = Flatten (p)
      h = MatMul (f, w1) r = Relu (h)
      logits = MatMul (r, head)
    }"""
    return _fitted("accuracy", text, [filters, second], features, draw, "x", samples)


def _words(rng: np.random.Generator, samples: int) -> Task:
    """A bag of words through random layers, with a fitted head and F1 over uneven classes."""
    shares = np.linspace(1, 3, _CLASSES)
    likely = rng.dirichlet(np.full(200, 0.25), _CLASSES)
    table = rng.standard_normal((200, 64)).astype(np.float32)
    layers = [
        (rng.standard_normal((64, 128)) * 0.4).astype(np.float32),
        (rng.standard_normal((128, 128)) * np.sqrt(2 / 128)).astype(np.float32),
    ]

    def features(ids: np.ndarray) -> np.ndarray:
        x = table[ids].mean(axis=1)
        for layer in layers:
            x = np.maximum(x @ layer, 0)
        return x

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = rng.choice(_CLASSES, count, p=shares / shares.sum())
        ids = np.stack([rng.choice(200, 12, p=likely[label]) for label in labels])
        return ids.astype(np.int64), labels

    text = """
    <ir_version: 10, opset_import: ["" : 21]>
    net (int64[n, 12] ids, float[200, 64] table, float[64, 128] w0, float[128, 128] w1,
         float[128, 8] head) => (float[n, 8] logits) {
      e = Gather (table, ids)
      axis = Constant <value_ints = [1]> ()
      m = ReduceMean <keepdims = 0> (e, axis)
      p0 = MatMul (m, w0)  a0 = Relu (p0)
      p1 = MatMul (a0, w1) a1 = Relu (p1)
      logits = MatMul (a1, head)
    }"""
    return _fitted("f1-macro", text, layers, features, draw, "ids", samples, table=table)


def _fitted(
    metric: str,
    text: str,
    layers: Sequence[np.ndarray],
    features: Callable[[np.ndarray], np.ndarray],
    draw: Callable[[int], tuple[np.ndarray, np.ndarray]],
    name: str,
    samples: int,
    **weights: np.ndarray,
) -> Task:
    """Fit the head by ridge regression, and put model and data together."""
    x, labels = draw(2000)
    hidden, wanted = features(x), np.eye(_CLASSES)[labels] - 1 / _CLASSES
    gram = hidden.T @ hidden + 1e-2 * len(x) * np.eye(hidden.shape[1])
    head = np.linalg.solve(gram, hidden.T @ wanted).astype(np.float32)
    inner = {f"w{number}": layer for number, layer in enumerate(layers)}
    model = read_model(text, {**weights, **inner, "head": head})
    calibration, _ = draw(_CALIBRATION)
    feeds, truth = draw(samples)
    return Task(
        metric, model, Dataset({name: calibration}), Dataset({name: feeds}, truth.astype(np.int64))
    )


TASKS: Mapping[str, Callable[[np.random.Generator, int], Task]] = {
    "dense": _dense,
    "conv": _conv,
    "words": _words,
}
VIEWS = {"table": table}
