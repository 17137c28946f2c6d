"""Times of single nodes, from OpenVINO's performance counters."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from irtools.backends.openvino.runner import open_runner
from irtools.errors import UnsupportedError
from irtools.model import Model
from irtools.targets import Feeds, NodeTimes, RunnerOptions

__all__ = ["profile"]

_WARM_UP_RUNS = 3
_MICROSECOND = timedelta(microseconds=1)


def profile(
    model: Model | Path,
    feeds: Feeds,
    runs: int,
    options: RunnerOptions,
    device: str,
    *,
    stateful: bool = False,
) -> NodeTimes:
    """Run a model with counters on.

    Raises:
        UnsupportedError: OpenVINO refuses the model, or counts nothing on this device.
        DataError: The feeds do not fit.
    """
    with open_runner(model, options, device, counters=True, stateful=stateful) as runner:
        for _ in range(_WARM_UP_RUNS):
            runner.run(feeds)
        found, totals = [], []
        for _ in range(runs):
            start = time.perf_counter()
            runner.run(feeds)
            totals.append(1e6 * (time.perf_counter() - start))
            found.append(runner.counters())
    times = np.array([[_microseconds(info) for info in infos] for infos in found])
    ran: np.ndarray = np.asarray(times.any(axis=0)) if times.size else np.zeros(0, bool)
    if not ran.any():
        raise UnsupportedError("OpenVINO reports no times of single nodes on this device")
    table = [info for info, has_run in zip(found[0], ran, strict=True) if has_run]
    return NodeTimes(
        names=tuple(str(info.node_name) for info in table),
        # A layer with its kernel: `FullyConnected brgemm_avx512_amx_i8`.
        ops=tuple(f"{info.node_type} {info.exec_type}".strip() for info in table),
        microseconds=times[:, ran],
        totals=np.array(totals),
    )


def _microseconds(info: Any) -> float:
    """Return the time in this run; what depends on shapes alone is skipped where they stay."""
    return info.real_time / _MICROSECOND if info.status == info.status.EXECUTED else 0.0
