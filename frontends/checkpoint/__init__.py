"""From a Transformers checkpoint folder to a model."""

from irtools.frontends.checkpoint.frontend import TransformersFrontend

__all__ = ["TransformersFrontend"]
