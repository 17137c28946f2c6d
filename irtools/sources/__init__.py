"""Sources of models: what a frontend is, which one reads a source, and what is known without one.

Nothing here knows a framework: what is said of a checkpoint is said of its names and files.
"""

from __future__ import annotations

from irtools.sources.activations import check_activation
from irtools.sources.companions import (
    ADAPTER_SUFFIX,
    PAST_SUFFIX,
    TOKENIZER_FILES,
    companions_in,
)
from irtools.sources.elsewhere import how_to_convert, how_to_fetch
from irtools.sources.head_size import with_head_size
from irtools.sources.leftovers import check_layers, note_on_leftovers
from irtools.sources.lookup import Claim, Frontend, LoadOptions, find_frontend, load_by, load_source
from irtools.sources.quantizers import (
    QUANTIZER_GROUP,
    QuantizerRequest,
    TorchQuantizer,
    find_quantizer,
)

__all__ = [
    "ADAPTER_SUFFIX",
    "PAST_SUFFIX",
    "Claim",
    "Frontend",
    "LoadOptions",
    "QUANTIZER_GROUP",
    "QuantizerRequest",
    "TOKENIZER_FILES",
    "TorchQuantizer",
    "check_activation",
    "check_layers",
    "companions_in",
    "find_frontend",
    "find_quantizer",
    "how_to_convert",
    "how_to_fetch",
    "load_by",
    "load_source",
    "note_on_leftovers",
    "with_head_size",
]
