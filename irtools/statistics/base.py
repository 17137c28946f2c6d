"""What can be asked of a tensor, and what is answered. Only reductions are kept.

`n` counts positions that are not padding, `C` is the size of the channel axis.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import numpy as np

from irtools.data import Batch

__all__ = [
    "ChannelMean",
    "ChannelRange",
    "ChannelSquare",
    "CollectionFigures",
    "Count",
    "Gram",
    "GramResult",
    "HeadGram",
    "Histogram",
    "HistogramResult",
    "MinMax",
    "MinMaxResult",
    "MovingRange",
    "Reduction",
    "StatisticsService",
    "TurnedPeak",
    "Want",
]


@dataclass(frozen=True)
class MinMax:
    """Smallest and largest finite value. Answer: `MinMaxResult`."""


@dataclass(frozen=True)
class MovingRange:
    """Moving averages of the smallest and largest finite value of each sample: m <- m + c (x - m).

    It begins with the first sample. Samples run one by one, the longest first; a model with a fixed
    batch size counts each batch as one. Answer: `MinMaxResult`.

    Attributes:
        constant: c, how far an end follows one sample.
    """

    constant: float = 0.01


@dataclass(frozen=True)
class Histogram:
    """Counts of values. Order of the samples does not matter. Answer: `HistogramResult`."""


@dataclass(frozen=True)
class ChannelMean:
    """Mean per channel. Answer: float64 array [C]."""

    axis: int = -1


@dataclass(frozen=True)
class ChannelRange:
    """Smallest and largest value per channel. Answer: float32 array [2, C]."""

    axis: int = -1


@dataclass(frozen=True)
class ChannelSquare:
    """Mean of x^2 per channel. Answer: float64 array [C]."""

    axis: int = -1


@dataclass(frozen=True)
class TurnedPeak:
    """Largest magnitude of each channel while pairs of channels are turned.

    A pair (x, y) becomes r (cos(a + t), sin(a + t)) with r and a those of (x, y), t from 0 to an
    angle of its own, as rotary embedding does along positions. Answer: float32 array [C].

    Attributes:
        pairs: The two channels of each; others are not turned.
        angles: Radians by which each is turned at most.
    """

    pairs: tuple[tuple[int, int], ...] = ()
    angles: tuple[float, ...] = ()
    axis: int = -1


@dataclass(frozen=True)
class Count:
    """How many positions there were, each with a value of every channel. Answer: int."""

    axis: int = -1


@dataclass(frozen=True)
class Gram:
    """X^T X over the positions, X with a constant-1 column appended. Answer: `GramResult`.

    Attributes:
        axis: Channel axis of `value`.
        against: Name of a second tensor Y with the same positions; then also X^T Y, for
            least-squares refits towards the dense model's outputs.
    """

    axis: int = -1
    against: str | None = None


@dataclass(frozen=True)
class HeadGram:
    """X^T X of each head alone, X with a constant-1 column appended.

    Answer: float64 array [C / size, size + 1, size + 1], whose last number is that of positions.

    Attributes:
        size: Channels of a head.
        axis: Channel axis of `value`.
    """

    size: int
    axis: int = -1


Reduction: TypeAlias = (
    MinMax
    | MovingRange
    | Histogram
    | ChannelMean
    | ChannelRange
    | ChannelSquare
    | TurnedPeak
    | Count
    | Gram
    | HeadGram
)


@dataclass(frozen=True)
class Want:
    """A reduction of one tensor of the model, by its value name."""

    value: str
    reduction: Reduction


@dataclass(frozen=True)
class MinMaxResult:
    """Range of the finite values, and how many values were NaN or infinite."""

    low: float
    high: float
    num_nonfinite: int = 0


@dataclass(frozen=True)
class HistogramResult:
    """A histogram over the finite values.

    Attributes:
        centers: float32 [B], ascending.
        counts: int64 [B].
        low: Exact minimum.
        high: Exact maximum.
        widths: float32 [B], how wide the bin around each center is; None where unknown.
        num_nonfinite: How many values were NaN or infinite.
    """

    centers: np.ndarray
    counts: np.ndarray
    low: float
    high: float
    widths: np.ndarray | None = None
    num_nonfinite: int = 0


@dataclass(frozen=True)
class GramResult:
    """Second moments.

    Attributes:
        xx: float64 [C+1, C+1], the last row and column belong to the constant 1.
        xy: float64 [C+1, D] or None.
        yy: float64 [D], sum of squares of Y per channel, or None.
        count: Number of positions n.
    """

    xx: np.ndarray
    xy: np.ndarray | None
    yy: np.ndarray | None
    count: int


class StatisticsService(Protocol):
    """Runs the calibration data through a model in as few sweeps as memory allows."""

    @property
    def num_samples(self) -> int: ...

    @property
    def synthetic(self) -> bool:
        """Whether the data was drawn from the model's signature, where there is no real data."""

    def batches(self, size: int = 1) -> Iterator[Batch]:
        """Iterate over the data itself, for tools that calibrate by themselves.

        Samples of one length run together; columns that are padding in all of them are cut off
        where the model lets them.

        Raises:
            DataError: The data does not fit the model.
        """

    def collect(self, wants: Iterable[Want]) -> Mapping[Want, object]:
        """Answer all wants. A want that is asked again is answered from what was kept.

        Raises:
            DataError: The data does not fit the model.
            UnsupportedError: A wanted tensor does not exist or cannot be observed.
        """


@dataclass(frozen=True)
class CollectionFigures:
    """What a collection cost, for the report.

    Attributes:
        sweeps: Times the data went through the model.
        seconds: Wall time.
        peak_bytes: Largest sum of tensors and reductions held at once.
    """

    sweeps: int
    seconds: float
    peak_bytes: int
    notes: tuple[str, ...] = field(default=())
