"""From a Transformers checkpoint folder, or a GGUF file, to a model."""

from irtools.frontends.checkpoint.frontend import TransformersFrontend
from irtools.frontends.checkpoint.gguf import GgufFrontend

__all__ = ["GgufFrontend", "TransformersFrontend"]
