"""What can be said of a source of models without the framework that made it."""

from irtools.sources.activations import check_activation
from irtools.sources.companions import TOKENIZER_FILES, companions_in
from irtools.sources.elsewhere import how_to_convert, how_to_fetch
from irtools.sources.leftovers import check_layers, note_on_leftovers

__all__ = [
    "TOKENIZER_FILES",
    "check_activation",
    "check_layers",
    "companions_in",
    "how_to_convert",
    "how_to_fetch",
    "note_on_leftovers",
]
