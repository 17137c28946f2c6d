"""Metrics by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from irtools.data import import_function
from irtools.errors import DataError, UnknownNameError, UsageError
from irtools.metrics.base import Metric
from irtools.plugins import TaskName, is_task, registry, suggest

__all__ = ["data_of_metrics", "list_metrics", "load_metric"]

_GROUP = "irtools.metrics"


def list_metrics() -> tuple[str, ...]:
    """Return the names of all metrics, those of plug-ins included."""
    return registry.names(_GROUP)


def load_metric(text: str) -> Metric:
    """Return the metric of a name, of a task (`lm-eval:TASK`), or one made of `module:function`.

    The function takes (outputs, labels) and returns a number, larger being better unless it has
    an attribute `larger_is_better = False`.

    Raises:
        UnknownNameError: No metric of that name; suggests the nearest.
        UsageError: No such module or function.
        IrtoolsError: As `HarnessMetric`.
    """
    if is_task(text):
        from irtools.metrics.harness import HarnessMetric

        return HarnessMetric(text)
    if ":" in text:
        function = import_function(text)
        return _FunctionMetric(text, bool(getattr(function, "larger_is_better", True)), function)
    known = list_metrics()
    if text not in known:
        raise UnknownNameError(
            f"there is no metric {text!r}{suggest(text, known)} (there are {', '.join(known)}, "
            "lm-eval:TASK, or module:function)"
        )
    found: Metric = registry.load(_GROUP, text)()
    return found


def data_of_metrics(metrics: Iterable[str | Metric], given: object) -> str | None:
    """Return the evaluation data that metrics have themselves: the documents of a task.

    Args:
        metrics: Names, or metrics.
        given: The evaluation data that the caller gives; None: nothing.

    Returns:
        Its name; None where no metric has data.

    Raises:
        UsageError: Two metrics are not measured on the same data.
    """
    metrics = tuple(metrics)
    own = {_name_of(one): _own_data(one) for one in metrics}
    found = next(filter(None, own.values()), None)
    if found is None:
        return None
    others = [name for name, data in own.items() if data != found]
    given = getattr(given, "source", given)
    if others or given not in (None, found):
        other = f"metric {others[0]}" if others else "the evaluation data"
        raise UsageError(
            f"{found} is measured on the documents of its task, and {other} is not of that task: "
            "one task at a time, without other evaluation data"
        )
    return found


def _name_of(metric: str | Metric) -> str:
    """Return the name of a metric, or the name that it is given by."""
    return metric if isinstance(metric, str) else metric.name


def _own_data(metric: str | Metric) -> str | None:
    if isinstance(metric, str):
        return str(TaskName.parse(metric)) if is_task(metric) else None
    found: str | None = getattr(metric, "data", None)
    return found


@dataclass(frozen=True)
class _FunctionMetric:
    name: str
    larger_is_better: bool
    function: Callable[..., object]

    def __call__(self, outputs: Mapping[str, np.ndarray], labels: np.ndarray) -> float:
        try:
            figure = self.function(outputs, labels)
        except Exception as error:  # Code of the caller's may raise anything.
            raise DataError(
                f"metric {self.name} failed: {type(error).__name__}: {error}; it got the outputs "
                f"{', '.join(outputs)} and labels of shape {list(labels.shape)}"
            ) from error
        if not isinstance(figure, int | float | np.number):
            raise DataError(f"metric {self.name} returned {type(figure).__name__}, not a number")
        return float(figure)
