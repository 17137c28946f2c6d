"""What NNCF's accuracy control asks again and again: the task metric of a model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir

from irtools.data import Dataset
from irtools.errors import DataError
from irtools.metrics import Metric, check_labels, evaluate_outputs, load_metric, run_dataset
from irtools.passmanager import PassContext
from irtools.targets import RunnerOptions

__all__ = ["Validation"]


@dataclass(frozen=True)
class Validation:
    """The metric of models on labelled data, on the target's runtime.

    Attributes:
        ctx: For runners.
        data: Labelled.
        metric: Its sign is turned where less is better, as NNCF wants it.
    """

    ctx: PassContext
    data: Dataset
    metric: Metric

    @classmethod
    def of(cls, ctx: PassContext, metric: str) -> Validation:
        """Check that there is what the metric needs.

        Raises:
            DataError: No evaluation data, or none with labels.
            UnknownNameError: No metric of that name.
        """
        found = load_metric(metric)
        if ctx.evaluation is None:
            raise DataError(
                "max-drop of nncf measures the metric of many models: give labelled evaluation "
                "data (--evaluate)"
            )
        check_labels(found, ctx.evaluation)
        return cls(ctx, ctx.evaluation, found)

    def __call__(
        self, model: onnx.ModelProto, numbers: Iterable[int]
    ) -> tuple[float, list[float] | None]:
        """Return the metric on some samples, and None: there are no figures of single ones."""
        chosen = self.data.select(np.fromiter(numbers, np.int64))
        with self.ctx.runner(ir.from_proto(model), RunnerOptions()) as runner:
            outputs = run_dataset(runner, chosen)
        value = evaluate_outputs(outputs, chosen, self.metric, self.ctx.seed).value
        return (value if self.metric.larger_is_better else -value), None
