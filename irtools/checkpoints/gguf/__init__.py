"""GGUF files of llama.cpp: their head, their tensors in float32, and the network they hold."""

from __future__ import annotations

from irtools.checkpoints.gguf.file import Gguf
from irtools.checkpoints.gguf.unpack import unpack

__all__ = ["Gguf", "unpack"]
