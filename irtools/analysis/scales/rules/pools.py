"""Pools: windows over positions, channels on axis 1."""

from __future__ import annotations

from irtools.analysis.scales.rules.elementwise import same
from irtools.analysis.scales.trace import Port, Trace

__all__ = ["pool"]


def pool(port: Port, trace: Trace) -> None:
    """Means, norms and maxima of windows are divided as what they are of.

    Where the maxima lie, a second output, no scale changes.
    """
    shape = port.layout.shape
    if any(n > 1 for n in shape[2:]) or (not port.is_input and port.position > 0):
        raise port.refuse("operator")
    same(port, trace)
