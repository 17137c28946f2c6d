"""The kinds of figures that reports have."""

from __future__ import annotations

import functools

from irtools.errors import UsageError
from irtools.measure.figures import Figure
from irtools.plugins import registry

__all__ = ["figure_kinds"]


@functools.cache
def figure_kinds() -> tuple[type[Figure], ...]:
    """Return the registered kinds of figures, in the order in which a table shows them.

    Raises:
        UsageError: A plug-in registers something else, or under another name than its key.
    """
    found = []
    for name in registry.names("irtools.figures"):
        kind = registry.load("irtools.figures", name)
        if not (isinstance(kind, type) and issubclass(kind, Figure)) or kind.key != name:
            raise UsageError(
                f"the plug-in {name!r} of irtools.figures is {kind!r}, expected a Figure with "
                f"key = {name!r}"
            )
        found.append(kind)
    return tuple(sorted(found, key=lambda kind: (kind.rank, kind.key)))
