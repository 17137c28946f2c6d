"""All models of the corpus."""

from __future__ import annotations

from . import (
    audio,
    choices,
    control_flow,
    detection,
    graphs,
    makers,
    opsets,
    recurrent,
    several,
    states,
    storage,
    text,
    vision,
)
from .models import CorpusModel

__all__ = ["CORPUS", "KINDS"]

_MODULES = (
    recurrent, several, control_flow, states, graphs, detection, choices, audio, vision, text,
    storage, opsets, makers,
)  # fmt: skip

KINDS = tuple(module.MODELS.kind for module in _MODULES)
CORPUS: tuple[CorpusModel, ...] = tuple(m for module in _MODULES for m in module.MODELS.models)
