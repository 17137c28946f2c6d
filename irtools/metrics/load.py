"""Metrics by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from irtools.data import import_function
from irtools.errors import DataError, UnknownNameError
from irtools.metrics.base import Metric
from irtools.plugins import registry, suggest

__all__ = ["list_metrics", "load_metric"]

_GROUP = "irtools.metrics"


def list_metrics() -> tuple[str, ...]:
    """Return the names of all metrics, those of plug-ins included."""
    return registry.names(_GROUP)


def load_metric(text: str) -> Metric:
    """Return the metric of a name, or one made of `module:function`.

    The function takes (outputs, labels) and returns a number, larger being better unless it has
    an attribute `larger_is_better = False`.

    Raises:
        UnknownNameError: No metric of that name; suggests the nearest.
        UsageError: No such module or function.
    """
    if ":" in text:
        function = import_function(text)
        return _FunctionMetric(text, bool(getattr(function, "larger_is_better", True)), function)
    known = list_metrics()
    if text not in known:
        raise UnknownNameError(
            f"there is no metric {text!r}{suggest(text, known)} (there are {', '.join(known)}, or "
            "module:function)"
        )
    found: Metric = registry.load(_GROUP, text)()
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
