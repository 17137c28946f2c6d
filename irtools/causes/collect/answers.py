"""The classes that models choose, and what padding does to their outputs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from irtools.causes.facts import ChosenClasses, PaddingUse
from irtools.data import Dataset, longest_text, padding_mask, plan_batches, required_inputs
from irtools.measure.contest import LazyRunner, Part, answers
from irtools.metrics import find_output
from irtools.model import Model
from irtools.targets import RunnerOptions, Target

__all__ = ["chosen_classes", "padding_use"]

_BATCH = 16
_PADDED = 8
_LOGITS = ("logits", "scores", "prob", "output")


def chosen_classes(
    first: Model, second: Model, data: Dataset, target: Target, options: RunnerOptions
) -> ChosenClasses | None:
    """Run both models over the data and return their classes.

    Returns:
        None where the output is not a row of scores per sample [N, C] with two classes or more.
    """
    found = [_classes(model, data, target, options) for model in (first, second)]
    if found[0] is None or found[1] is None or found[0][1] != found[1][1]:
        return None
    labels = data.labels
    if labels is not None and (labels.ndim != 1 or labels.dtype.kind not in "iu"):
        labels = None
    (first_ones, classes), (second_ones, _) = found[0], found[1]
    return ChosenClasses(
        tuple(map(int, first_ones)),
        tuple(map(int, second_ones)),
        classes,
        None if labels is None else tuple(map(int, labels)),
        data.source,
    )


def padding_use(
    first: Model, second: Model, data: Dataset, target: Target, options: RunnerOptions
) -> PaddingUse | None:
    """Add padding to some samples and return how much it changes the outputs of both models.

    Returns:
        None where samples have no mask, lengths are fixed, or the models hold no more positions.
    """
    plan = plan_batches(data, required_inputs(first))
    rows = data.spread(_PADDED)
    plain = [dict(batch.feeds) for batch in plan_batches(rows, required_inputs(first)).batches(1)]
    if not plan.columns or not plain or padding_mask(plain[0]) is None:
        return None
    columns = max(4, max(_length(feeds) for feeds in plain) // 2)
    pad_ids = _pad_ids(data)
    padded = [_padded(feeds, columns, plan.columns, pad_ids) for feeds in plain]
    longest = max(_length(feeds) for feeds in padded)
    for model in (first, second):
        limit = longest_text(model.ir, longest, 1)
        if limit is not None and limit < longest:
            return None
    levels = []
    for model in (first, second):
        with target.runner(model, options) as runner:
            pairs = [(runner.run(a), runner.run(b)) for a, b in zip(plain, padded, strict=True)]
        levels.append(_sqnr(pairs))
    return PaddingUse(columns, len(plain), *levels)


def _classes(
    model: Model, data: Dataset, target: Target, options: RunnerOptions
) -> tuple[np.ndarray, int] | None:
    plan = plan_batches(data, required_inputs(model), skip_empty=False)
    part = Part(plan, _BATCH, np.arange(len(data)))
    chosen = np.zeros(len(data), np.int64)
    classes = 0
    with LazyRunner(lambda: target.runner(model, options)) as opened:
        for batch, _, outputs in answers(part, opened.run):
            scores = find_output(outputs, _LOGITS)
            if scores.ndim != 2 or scores.shape[1] < 2 or len(scores) != batch.samples:
                return None
            chosen[batch.rows] = scores.argmax(axis=1)
            classes = scores.shape[1]
    return (chosen, classes) if classes else None


def _length(feeds: Mapping[str, np.ndarray]) -> int:
    mask = padding_mask(feeds)
    return 0 if mask is None else int(mask.shape[1])


def _pad_ids(data: Dataset) -> dict[str, np.generic]:
    """Return what stands at padding in the data; zero where there is no padding."""
    mask = padding_mask(data.feeds)
    found = {}
    for name, array in data.feeds.items():
        if mask is not None and array.shape == mask.shape and not mask.all():
            found[name] = array[mask == 0][0]
    return found


def _padded(
    feeds: Mapping[str, np.ndarray],
    columns: int,
    names: frozenset[str],
    pad_ids: Mapping[str, np.generic],
) -> dict[str, np.ndarray]:
    mask = padding_mask(feeds)
    found = dict(feeds)
    for name in names & feeds.keys():
        array = feeds[name]
        width = [(0, 0), (0, columns), *[(0, 0)] * (array.ndim - 2)]
        value = 0 if array is mask else pad_ids.get(name, 0)
        found[name] = np.pad(array, width, constant_values=value)
    return found


def _sqnr(pairs: list[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]) -> float:
    """Return the SQNR of padded outputs, positions of padding left out, of the worst output."""
    signal: dict[str, float] = {}
    noise: dict[str, float] = {}
    for plain, padded in pairs:
        for name, wanted in plain.items():
            found = padded[name]
            if wanted.dtype.kind != "f" or found.ndim != wanted.ndim:
                continue
            found = found[tuple(slice(size) for size in wanted.shape)]
            signal[name] = signal.get(name, 0.0) + float(np.square(wanted, dtype=np.float64).sum())
            noise[name] = noise.get(name, 0.0) + float(
                np.square(wanted - found, dtype=np.float64).sum()
            )
    ratios = [signal[n] / noise[n] if noise[n] else float("inf") for n in signal if signal[n]]
    return 10 * float(np.log10(min(ratios))) if ratios else float("inf")
