"""What two models are compared on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from irtools.data import Dataset
from irtools.measure.base import BenchSettings
from irtools.plugins import NullProgress, Progress

__all__ = ["CollectSettings", "ComparedOn"]


@dataclass(frozen=True)
class CollectSettings:
    """How much is measured.

    Attributes:
        bench: How both are timed; None: they are not, and not profiled either.
        runs: Runs of the profiler.
        samples: Most samples on which tensors inside the models are compared.
        seed: Of drawn inputs.
        sizes: Sizes of drawn inputs, as `--size` names them.
        progress: Where to report how far it is.
    """

    bench: BenchSettings | None = field(default_factory=BenchSettings)
    runs: int = 10
    samples: int = 16
    seed: int = 0
    sizes: Mapping[str, int] = field(default_factory=dict)
    progress: Progress = field(default_factory=NullProgress)


@dataclass(frozen=True, eq=False)
class ComparedOn:
    """The data of a comparison.

    Attributes:
        evaluation: What outputs, answers and ranges are compared on; None: drawn inputs.
        calibration: What the second model was calibrated on; None where it is not known.
        name: What the caller called the evaluation data.
    """

    evaluation: Dataset | None = None
    calibration: Dataset | None = None
    name: str | None = None
