"""Executors: workers that run jobs, here or on a cluster, and which job runs where."""

from __future__ import annotations

from irtools.executors.base import (
    Answered,
    Event,
    Executor,
    Failed,
    Hardware,
    Joined,
    Lost,
    Service,
    ServiceSpec,
    Worker,
    worker_here,
)
from irtools.executors.farm import Farm, Outcome
from irtools.executors.inline import InlineExecutor
from irtools.executors.lookup import open_executor
from irtools.executors.parcels import Parcel, model_files, packed, unpacked
from irtools.executors.scheduler import Assignment, Scheduler, Task

__all__ = [
    "Answered",
    "Assignment",
    "Event",
    "Executor",
    "Failed",
    "Farm",
    "Hardware",
    "InlineExecutor",
    "Joined",
    "Lost",
    "Outcome",
    "Parcel",
    "Scheduler",
    "Service",
    "ServiceSpec",
    "Task",
    "Worker",
    "model_files",
    "open_executor",
    "packed",
    "unpacked",
    "worker_here",
]
