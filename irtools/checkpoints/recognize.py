"""Which files are checkpoints: asked of every source, so that nothing else is loaded here."""

from __future__ import annotations

from pathlib import Path

__all__ = ["GGUF_MAGIC", "is_gguf"]

GGUF_MAGIC = b"GGUF"


def is_gguf(path: Path) -> bool:
    """Whether a file is meant to be read as GGUF: by its first bytes, or by its name."""
    if not path.is_file():
        return False
    if path.suffix.lower() == ".gguf":
        return True
    with path.open("rb") as stream:
        return stream.read(4) == GGUF_MAGIC and path.suffix.lower() != ".onnx"
