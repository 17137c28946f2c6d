"""Finding passes, targets, frontends and presets by name.

Implementations join through entry points, ours and third-party ones by the same door:
`irtools.passes`, `irtools.targets`, `irtools.frontends`, `irtools.metrics`, `irtools.figures`,
`irtools.forms`, `irtools.calibrators`, `irtools.roundings`, `irtools.quantizers`,
`irtools.operators`, `irtools.students`, `irtools.trackers`, `irtools.executors`.
Listing names loads no implementation.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from irtools.errors import MissingExtraError, UnknownNameError, UsageError
from irtools.plugins.nearest import suggest

__all__ = ["PRESETS", "load", "names", "plugins"]

PRESETS: Mapping[str, str] = {
    "O1": "cleanup",
    "O2": "cleanup,fuse,sink",
    "O3": "cleanup,fuse,sink,int8",
}
"""Names for pipeline texts."""

_KINDS = {
    "irtools.passes": "pass",
    "irtools.targets": "target",
    "irtools.forms": "quantized form",
    "irtools.calibrators": "calibrator",
    "irtools.roundings": "rounding",
    "irtools.quantizers": "quantizer",
    "irtools.frontends": "frontend",
    "irtools.metrics": "metric",
    "irtools.operators": "set of operators",
    "irtools.students": "trainer of students",
    "irtools.figures": "figure",
    "irtools.trackers": "tracker",
    "irtools.executors": "executor",
}


@functools.cache
def plugins(group: str) -> Mapping[str, EntryPoint]:
    """Return the entry points of a group by name.

    Raises:
        UsageError: Two installed packages claim one name.
    """
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=group):
        earlier = found.setdefault(point.name, point)
        if earlier.value != point.value:
            raise UsageError(
                f"two packages claim the name {point.name!r} in {group}: "
                f"{earlier.value} and {point.value}; uninstall one of them"
            )
    return found


def names(group: str) -> tuple[str, ...]:
    """Return the names registered in a group, sorted."""
    return tuple(sorted(plugins(group)))


def load(group: str, name: str) -> Any:
    """Load what is registered under a name.

    Raises:
        UnknownNameError: Nothing is registered under that name.
        MissingExtraError: Its module needs an extra that is not installed.
        UsageError: A plug-in cannot be imported.
    """
    point = plugins(group).get(name)
    kind = _KINDS.get(group, group)
    if point is None:
        raise UnknownNameError(f"there is no {kind} {name!r}{suggest(name, plugins(group))}")
    try:
        return point.load()
    except MissingExtraError:
        raise
    except ImportError as error:
        raise UsageError(f"{kind} {name!r} ({point.value}) cannot be imported: {error}") from error
