"""Weights and optimizer states that are spread over processes, on machines without GPUs."""

from __future__ import annotations

import os
from typing import Any

import torch
from accelerate import DistributedType
from accelerate.utils import parse_flag_from_env

from irtools.errors import UsageError

__all__ = ["shard_on_cpus"]


_SHARED_MEMORY = "deepspeed_shm_comm"


def shard_on_cpus(state: Any) -> None:
    """Have weights spread over processes on CPUs by gloo, as the config of accelerate asks.

    accelerate knows FSDP on devices alone, and on CPUs it would train data parallel without a
    word, every process with all weights; torch's FSDP 2 runs on gloo. To be removed when accelerate
    takes it. DeepSpeed's own shared memory is left out: it compiles it at first use, with a C++
    compiler, and what a training that was killed leaves of it can stop the next one for ever.

    Args:
        state: The `PartialState` of the processes, before an `Accelerator` is made.

    Raises:
        UsageError: The config asks for FSDP 1, which needs GPUs.
    """
    if torch.accelerator.is_available():
        return
    if parse_flag_from_env("ACCELERATE_USE_DEEPSPEED"):
        import deepspeed

        deepspeed.ops.__compatible_ops__[_SHARED_MEMORY] = False
    if not parse_flag_from_env("ACCELERATE_USE_FSDP"):
        return
    if state.distributed_type is not DistributedType.MULTI_CPU:
        return
    if os.environ.get("FSDP_VERSION", "1") != "2":
        raise UsageError(
            "FSDP of version 1 needs GPUs: on CPUs set fsdp_version: 2 in the fsdp_config of the "
            "accelerate config"
        )
    # The type under which accelerate looks for FSDP; it replaces it by that of FSDP.
    state.distributed_type = DistributedType.MULTI_GPU
