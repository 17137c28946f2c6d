"""How much the model's outputs suffer when one layer alone is changed.

The relative error of a layer says nothing of what follows it. Changing each layer alone and
comparing the outputs on a few calibration samples gives the factor between the two: one short
sweep per layer, no gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from irtools.analysis.data_sizes import steady_values
from irtools.data import Dataset
from irtools.model import infer_shapes
from irtools.passmanager import PassContext
from irtools.statistics import expose
from irtools.targets import RunnerOptions

__all__ = ["OutputProbe", "Trial", "divergence", "sensitivities"]

PROBE_SAMPLES = 64
_BATCH = 8


@dataclass(frozen=True)
class OutputProbe:
    """Outputs of the dense model on a few samples, to compare others with.

    Attributes:
        data: The samples, of similar length one after the other.
        outputs: Dense outputs, batch by batch.
        names: What is compared, as `steady_values` names it; None: all outputs.
    """

    data: Dataset
    outputs: tuple[Mapping[str, np.ndarray], ...]
    ctx: PassContext
    names: tuple[str, ...] | None = None

    @classmethod
    def of(cls, model: ir.Model, data: Dataset, ctx: PassContext, samples: int) -> OutputProbe:
        """Run the dense model."""
        few = _sorted_by_length(data.take(samples))
        names = steady_values(model)
        return cls(few, tuple(_outputs(model, few, ctx, names)), ctx, names)

    def distance(self, model: ir.Model) -> float:
        """Return how far a model's outputs are from the dense ones; 0 means equal."""
        found = _outputs(model, self.data, self.ctx, self.names)
        pairs = list(zip(self.outputs, found, strict=True))
        sizes = [len(np.atleast_1d(next(iter(dense.values())))) for dense, _ in pairs]
        return float(np.average([divergence(*pair) for pair in pairs], weights=sizes))


@dataclass(frozen=True)
class Trial:
    """A change of one layer.

    Attributes:
        change: Makes it, in place.
        error: Relative squared error of the layer's output that it is expected to cause.
    """

    change: Callable[[ir.Model], object]
    error: float


def sensitivities(
    model: ir.Model, trials: Iterable[Trial], count: int, ctx: PassContext
) -> np.ndarray:
    """Return output divergence per relative layer error: float64 [count].

    Args:
        model: Stays as it is; a copy of it is changed for each trial.
        trials: The changes, taken one after the other.
        count: How many there are.
        ctx: Has calibration data.
    """
    assert ctx.calibration is not None
    probe = OutputProbe.of(model, ctx.calibration, ctx, PROBE_SAMPLES)
    factors = np.zeros(count)
    for number, trial in enumerate(trials):
        ctx.progress.step("weighing layers", number, count)
        copy = model.clone()
        trial.change(copy)
        factors[number] = probe.distance(copy) / max(trial.error, 1e-9)
    positive = factors[factors > 0]
    # A layer without any measured effect is cheap, not free.
    floor = float(positive.min()) if positive.size else 1.0
    return np.maximum(factors, floor)


def _sorted_by_length(data: Dataset) -> Dataset:
    mask = data.feeds.get("attention_mask")
    if mask is None or mask.ndim != 2:
        return data
    return data.select(np.argsort(mask.sum(axis=1), kind="stable"))


def _outputs(
    model: ir.Model, data: Dataset, ctx: PassContext, names: tuple[str, ...] | None
) -> list[dict[str, np.ndarray]]:
    if names is not None:
        typed = model.clone()
        infer_shapes(typed)
        model = expose(typed, names).model
    with ctx.runner(model, RunnerOptions(precision="f32")) as runner:
        return [runner.run(batch, names) for batch in data.batches(_batch_size(model))]


def _batch_size(model: ir.Model) -> int:
    """Return the batch size of the first input where it is fixed."""
    shape = model.graph.inputs[0].shape if model.graph.inputs else None
    first = shape[0] if shape is not None and len(shape) else None
    return first if isinstance(first, int) else _BATCH


def divergence(dense: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> float:
    """Mean over the outputs of KL(softmax y || softmax y') in nats for rows of logits.

    Rows of logits are float outputs of rank 2 with at least two columns; for any other float
    output it is the relative squared error.
    """
    figures: list[float] = []
    for name, y in dense.items():
        if y.dtype.kind != "f" or y.size == 0 or y.shape != other[name].shape:
            continue
        a, b = y.astype(np.float64), other[name].astype(np.float64)
        figures.append(_kl(a, b) if y.ndim == 2 and y.shape[1] > 1 else _relative(a, b))
    return float(np.mean(figures)) if figures else 0.0


def _kl(a: np.ndarray, b: np.ndarray) -> float:
    p, q = _log_softmax(a), _log_softmax(b)
    return float(np.mean(np.sum(np.exp(p) * (p - q), axis=1)))


def _log_softmax(x: np.ndarray) -> np.ndarray:
    shifted = x - x.max(axis=1, keepdims=True)
    logs: np.ndarray = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return logs


def _relative(a: np.ndarray, b: np.ndarray) -> float:
    energy = float(np.sum(np.square(a)))
    return float(np.sum(np.square(a - b))) / energy if energy > 0 else 0.0
