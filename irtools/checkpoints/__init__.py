"""Checkpoints as other tools store them: GGUF files and quantized weights, read as float32."""

from __future__ import annotations

from irtools.checkpoints.gguf import Gguf, is_gguf
from irtools.checkpoints.plain import PlainCheckpoint, is_unpacked, plain_checkpoint

__all__ = ["Gguf", "PlainCheckpoint", "is_gguf", "is_unpacked", "plain_checkpoint"]
