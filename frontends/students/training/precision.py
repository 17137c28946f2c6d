"""The arithmetic of a training, and what of it this machine has kernels for."""

from __future__ import annotations

from typing import Literal

import torch

from irtools.errors import UnsupportedError

__all__ = ["check_precision", "precision_here", "precision_notes"]

Precision = Literal["fp32", "bf16", "fp16"]


def check_precision(precision: Precision) -> None:
    """Refuse arithmetic that this machine does not have.

    Raises:
        UnsupportedError: fp16 without a GPU.
    """
    if precision == "fp16" and not torch.cuda.is_available():
        raise UnsupportedError(
            "training in fp16 needs a GPU; on a CPU use --precision bf16 or fp32"
        )


def precision_here(asked: Precision) -> Precision:
    """Return the arithmetic that a training asked for in `asked` has on this machine.

    bf16 is asked for because it is faster. Where oneDNN has no kernels for it (a CPU without
    AVX-512), torch multiplies number by number, and is far slower than in float32.
    """
    return "fp32" if asked == "bf16" and not _bf16_is_fast() else asked


def precision_notes(asked: Precision) -> tuple[str, ...]:
    """Return what a reader should know where the arithmetic is not the one asked for."""
    if precision_here(asked) == asked:
        return ()
    return (f"trained in fp32: this CPU has no kernels for {asked}, which would be far slower",)


def _bf16_is_fast() -> bool:
    if torch.accelerator.is_available():
        return True
    # torch has no public question for it; without oneDNN there are no such kernels either.
    asks = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return torch.backends.mkldnn.is_available() and asks is not None and bool(asks())
