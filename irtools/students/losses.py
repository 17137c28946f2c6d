"""The terms of the loss that a student minimizes, and their weights as text."""

from __future__ import annotations

from collections.abc import Mapping

from irtools.errors import OptionError

__all__ = ["LOSSES", "check_weights", "parse_losses"]

LOSSES: Mapping[str, str] = {
    "soft": "the teacher's outputs at the temperature, times its square (Hinton 2015)",
    "hard": "the labels",
    "cosine": "cosine of the last hidden states (DistilBERT)",
    "embedding": "squared error of the embeddings (TinyBERT)",
    "hidden": "squared error of the hidden states, layer by layer (TinyBERT)",
    "attention": "squared error of the attention scores, layer by layer (TinyBERT)",
    "relation": "KL of the last layer's Q-Q, K-K and V-V relations (MiniLM v2)",
}
"""Terms of the loss that a student minimizes."""


def parse_losses(text: str) -> dict[str, float]:
    """Parse `soft=0.5,hard=0.5,cosine=1` into weights by name of the term.

    Raises:
        OptionError: An unknown term, a weight that is not a number, or no weight above 0.
    """
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = part.partition("=")
        if name not in LOSSES:
            raise OptionError(f"there is no loss {name!r}; known are {', '.join(LOSSES)}")
        if name in weights:
            raise OptionError(f"the loss {name!r} has two weights, expected one")
        try:
            weights[name] = float(number)
        except ValueError:
            raise OptionError(f"loss {part!r} has no weight; write {name}=0.5") from None
    check_weights(weights)
    return weights


def check_weights(weights: Mapping[str, float]) -> None:
    """Check the weights of the terms.

    Raises:
        OptionError: As `parse_losses`.
    """
    for name, weight in weights.items():
        if name not in LOSSES:
            raise OptionError(f"there is no loss {name!r}; known are {', '.join(LOSSES)}")
        if not 0 <= weight < float("inf"):
            raise OptionError(f"the weight of loss {name!r} is {weight:g}, expected 0 or more")
    if not any(weights.values()):
        raise OptionError("every loss has weight 0: there is nothing to learn from")
