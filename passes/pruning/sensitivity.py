"""How much the model's outputs suffer when one group alone is pruned.

The relative error of a layer says nothing of what follows it. Pruning each group alone and
comparing the outputs on a few calibration samples gives the factor between the two: one short
sweep per group, no gradients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from irtools.analysis.data_sizes import DataSizes
from irtools.data import Dataset
from irtools.model import infer_shapes
from irtools.passmanager import PassContext
from irtools.statistics import expose
from irtools.targets import RunnerOptions

__all__ = ["OutputProbe", "divergence"]

_BATCH = 8


@dataclass(frozen=True)
class OutputProbe:
    """Outputs of the dense model on a few samples, to compare others with.

    Attributes:
        data: The samples, of similar length one after the other.
        outputs: Dense outputs, batch by batch.
        names: Outputs that are compared, and inner tensors in place of outputs whose sizes
            depend on the data; None: all outputs.
    """

    data: Dataset
    outputs: tuple[Mapping[str, np.ndarray], ...]
    ctx: PassContext
    names: tuple[str, ...] | None = None

    @classmethod
    def of(cls, model: ir.Model, data: Dataset, ctx: PassContext, samples: int) -> OutputProbe:
        """Run the dense model."""
        few = _sorted_by_length(data.take(samples))
        names = _comparable(model)
        return cls(few, tuple(_outputs(model, few, ctx, names)), ctx, names)

    def distance(self, model: ir.Model) -> float:
        """Return how far a model's outputs are from the dense ones; 0 means equal."""
        found = _outputs(model, self.data, self.ctx, self.names)
        pairs = list(zip(self.outputs, found, strict=True))
        sizes = [len(next(iter(dense.values()))) for dense, _ in pairs]
        return float(np.average([divergence(*pair) for pair in pairs], weights=sizes))


def _sorted_by_length(data: Dataset) -> Dataset:
    mask = data.feeds.get("attention_mask")
    if mask is None or mask.ndim != 2:
        return data
    return data.select(np.argsort(mask.sum(axis=1), kind="stable"))


def _comparable(model: ir.Model) -> tuple[str, ...] | None:
    """Return what has the same size in any model made of this one; None: all outputs have."""
    sizes = DataSizes.of(model)
    if not sizes.shapes:
        return None
    outputs = (value.name or "" for value in model.graph.outputs)
    return tuple(dict.fromkeys([*(n for n in outputs if n not in sizes), *sizes.last_fixed]))


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


def levels_of(units: int, round_to: int, min_width: int) -> Sequence[int]:
    """List how many units may be removed: what stays is a multiple of `round_to`."""
    least = max(min_width, 1)
    kept = {units, *(k for k in range(units, least - 1, -1) if k % round_to == 0 and k >= least)}
    return [units - k for k in sorted(kept, reverse=True)]
