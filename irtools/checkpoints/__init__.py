"""Checkpoints as other tools store them: GGUF files and quantized weights, read as float32."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irtools.checkpoints.recognize import is_gguf
from irtools.lazy import lazy_names

if TYPE_CHECKING:
    from irtools.checkpoints.gguf import Gguf
    from irtools.checkpoints.plain import PlainCheckpoint, is_unpacked, plain_checkpoint

__all__ = ["Gguf", "PlainCheckpoint", "is_gguf", "is_unpacked", "plain_checkpoint"]

# Every source is asked whether it is a GGUF file; few are.
__getattr__ = lazy_names(
    __name__,
    {
        "Gguf": "irtools.checkpoints.gguf",
        "PlainCheckpoint": "irtools.checkpoints.plain",
        "is_unpacked": "irtools.checkpoints.plain",
        "plain_checkpoint": "irtools.checkpoints.plain",
    },
)
