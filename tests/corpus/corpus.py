"""All models of the corpus."""

from __future__ import annotations

from . import (
    audio,
    control_flow,
    detection,
    graphs,
    makers,
    opsets,
    recurrent,
    states,
    storage,
    text,
    vision,
)
from .models import CorpusModel

__all__ = ["CORPUS", "KINDS"]

_MODULES = (
    recurrent, control_flow, states, graphs, detection, audio, vision, text, storage, opsets, makers
)  # fmt: skip

KINDS = tuple(module.MODELS.kind for module in _MODULES)
CORPUS: tuple[CorpusModel, ...] = tuple(m for module in _MODULES for m in module.MODELS.models)
