"""An activation that a config names and the library does not have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from irtools.errors import ModelError

__all__ = ["check_activation"]


def check_activation(folder: Path, config: Any, error: BaseException) -> None:
    """Tell of an activation that the library does not have, if that is what failed.

    Raises:
        ModelError: It is.
    """
    from transformers.activations import ACT2FN

    name = error.args[0] if isinstance(error, KeyError) and error.args else None
    entry = next((key for key, value in _entries(config.to_dict()) if value == name), None)
    if isinstance(name, str) and entry is not None and name not in ACT2FN:
        raise ModelError(
            f"{folder}/config.json: {entry} is {name!r}, which is no activation of transformers; "
            f"known are {', '.join(sorted(ACT2FN))}"
        ) from error


def _entries(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the entries of a config and of those inside it."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}.{inner}", found) for inner, found in _entries(value))
        else:
            yield key, value
