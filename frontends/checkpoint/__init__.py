"""From a Transformers checkpoint folder, or a GGUF file, to a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irtools.lazy import lazy_names

if TYPE_CHECKING:
    from irtools.frontends.checkpoint.frontend import TransformersFrontend
    from irtools.frontends.checkpoint.gguf import GgufFrontend

__all__ = ["GgufFrontend", "TransformersFrontend"]

__getattr__ = lazy_names(
    __name__,
    {
        "GgufFrontend": "irtools.frontends.checkpoint.gguf",
        "TransformersFrontend": "irtools.frontends.checkpoint.frontend",
    },
)
