"""An activation that a config names and the library does not have."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from irtools.errors import ModelError

__all__ = ["check_activation"]


def check_activation(
    folder: Path, config: Any, error: BaseException, known: Collection[str]
) -> None:
    """Report an activation that the library does not have, if that is what failed.

    Args:
        folder: The checkpoint.
        config: Its config, as Transformers reads it.
        error: What loading the network raised.
        known: Names of the activations that the library has.

    Raises:
        ModelError: The config names another one.
    """
    name = error.args[0] if isinstance(error, KeyError) and error.args else None
    entry = next((key for key, value in _entries(config.to_dict()) if value == name), None)
    if isinstance(name, str) and entry is not None and name not in known:
        raise ModelError(
            f"{folder}/config.json: {entry} is {name!r}, which is not an activation of "
            f"transformers; known are {', '.join(sorted(known))}"
        ) from error


def _entries(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the entries of a config and of those inside it."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}.{inner}", found) for inner, found in _entries(value))
        else:
            yield key, value
