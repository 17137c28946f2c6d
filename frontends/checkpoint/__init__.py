"""From a Transformers checkpoint folder, or a GGUF file, to a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irtools.lazy import lazy_names

if TYPE_CHECKING:
    from irtools.frontends.checkpoint.frontend import TransformersFrontend
    from irtools.frontends.checkpoint.gguf import GgufFrontend
    from irtools.frontends.checkpoint.low_rank import LowRank, attach_inputs, packed

__all__ = ["GgufFrontend", "LowRank", "TransformersFrontend", "attach_inputs", "packed"]

__getattr__ = lazy_names(
    __name__,
    {
        "GgufFrontend": "irtools.frontends.checkpoint.gguf",
        "LowRank": "irtools.frontends.checkpoint.low_rank",
        "TransformersFrontend": "irtools.frontends.checkpoint.frontend",
        "attach_inputs": "irtools.frontends.checkpoint.low_rank",
        "packed": "irtools.frontends.checkpoint.low_rank",
    },
)
