"""What is known of two models. Detectors read it; it is measured once, when it is first read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np

from irtools.analysis.pairing import Pairing, pair_models
from irtools.measure.base import Ratio
from irtools.measure.profile import Profile
from irtools.targets import KernelReport, Target

if TYPE_CHECKING:
    from irtools.measure.divergence import Comparison
    from irtools.model import Model

__all__ = [
    "ChosenClasses",
    "ExitUse",
    "Facts",
    "GridUse",
    "PaddingUse",
    "RecordedFacts",
    "Subject",
    "Threads",
    "Times",
]


@dataclass(frozen=True, eq=False)
class Subject:
    """One of the two models.

    Attributes:
        name: As the caller named it; commands are made of it.
        model: The model.
        file_bytes: Size on disk, external weights included.
    """

    name: str
    model: Model
    file_bytes: int


@dataclass(frozen=True)
class Times:
    """Latency of both, alternating.

    Attributes:
        shape: Sizes that they ran at.
        first_ms: Median of the first model.
        second_ms: Median of the second.
        ratio: How many times faster the second is, with its interval.
    """

    shape: str
    first_ms: float
    second_ms: float
    ratio: Ratio


@dataclass(frozen=True)
class Threads:
    """Threads and the CPUs for them.

    Attributes:
        used: Threads that both models ran with.
        quota: CPUs that the process may use: the smaller of affinity and cgroup quota.
        at_quota_ms: Median of the second model with as many threads as CPUs; None: not measured.
    """

    used: int
    quota: int
    at_quota_ms: float | None = None


@dataclass(frozen=True)
class ChosenClasses:
    """The classes that both models choose.

    Attributes:
        first: Class of each sample.
        second: The same of the second model.
        classes: How many there are.
        labels: The true classes; None where the data has none.
        source: Where the samples come from.
    """

    first: tuple[int, ...]
    second: tuple[int, ...]
    classes: int
    labels: tuple[int, ...] | None = None
    source: str = ""

    @property
    def agreement(self) -> float:
        """Share of samples with the same class; 1 where there are none."""
        return float((self.chosen[0] == self.chosen[1]).mean()) if self.first else 1.0

    @property
    def chosen(self) -> tuple[np.ndarray, np.ndarray]:
        """Both as int64 [N]."""
        return np.array(self.first, np.int64), np.array(self.second, np.int64)

    @property
    def truth(self) -> np.ndarray | None:
        """The labels as int64 [N]."""
        return None if self.labels is None else np.array(self.labels, np.int64)


@dataclass(frozen=True)
class GridUse:
    """A tensor that the second model quantizes to a fixed grid, and what data puts there.

    Noise is relative to the power of the tensor, 10^(-SQNR / 10).

    Attributes:
        tensor: Its name.
        module: Where it is read.
        low: Least value of the grid.
        high: Largest value of the grid.
        data_low: Least value that was seen.
        data_high: Largest value that was seen.
        clipped: Share of the values outside the grid.
        clip_noise: Noise of clipping.
        round_noise: Noise of rounding, step^2 / 12, in what the next product makes of it.
        channel_peak: Largest magnitude of the widest channel over that of the median channel.
        channel: Number of that channel.
        channel_noise: The part of `round_noise` that a grid for the other channels would not have.
        calibrated: Least and largest value over the calibration data; None where none was given.
    """

    tensor: str
    module: str
    low: float
    high: float
    data_low: float
    data_high: float
    clipped: float
    clip_noise: float
    round_noise: float
    channel_peak: float = 1.0
    channel: int = 0
    channel_noise: float = 0.0
    calibrated: tuple[float, float] | None = None


@dataclass(frozen=True)
class PaddingUse:
    """What padding changes: outputs of padded samples against the same samples without it.

    Attributes:
        columns: Columns of padding that were added.
        samples: ComparedOn that were run both ways.
        first_db: SQNR of the first model; infinite where padding changes nothing.
        second_db: The same of the second.
    """

    columns: int
    samples: int
    first_db: float
    second_db: float


@dataclass(frozen=True)
class ExitUse:
    """A branch of the second model that a sample may skip.

    Attributes:
        node: The If.
        left: ComparedOn for which the shorter branch ran.
        samples: ComparedOn that were run.
        nodes: Ids of the nodes of the longer branch.
    """

    node: str
    left: int
    samples: int
    nodes: tuple[str, ...] = ()


class Facts(Protocol):
    """All that detectors may ask. What could not be measured is None, or empty."""

    @property
    def first(self) -> Subject: ...
    @property
    def second(self) -> Subject: ...
    @property
    def target(self) -> Target: ...
    @property
    def pairing(self) -> Pairing: ...
    @property
    def times(self) -> Times | None: ...
    @property
    def profiles(self) -> tuple[Profile, Profile] | None: ...
    @property
    def kernels(self) -> tuple[KernelReport, KernelReport] | None: ...
    @property
    def threads(self) -> Threads | None: ...
    @property
    def comparison(self) -> Comparison | None: ...
    @property
    def decisions(self) -> ChosenClasses | None: ...
    @property
    def grids(self) -> tuple[GridUse, ...]: ...
    @property
    def padding(self) -> PaddingUse | None: ...
    @property
    def exits(self) -> tuple[ExitUse, ...]: ...
    @property
    def data(self) -> str | None: ...


@dataclass(frozen=True, eq=False)
class RecordedFacts:
    """Facts that were measured before, or written down for a test."""

    first: Subject
    second: Subject
    target: Target
    times: Times | None = None
    profiles: tuple[Profile, Profile] | None = None
    kernels: tuple[KernelReport, KernelReport] | None = None
    threads: Threads | None = None
    comparison: Comparison | None = None
    decisions: ChosenClasses | None = None
    grids: tuple[GridUse, ...] = ()
    padding: PaddingUse | None = None
    exits: tuple[ExitUse, ...] = ()
    data: str | None = None

    @cached_property
    def pairing(self) -> Pairing:
        """The nodes of both models, paired."""
        return pair_models(self.first.model.ir, self.second.model.ir)
