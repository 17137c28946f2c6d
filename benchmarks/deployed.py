"""What benchmarks of single passes share: models as they are written, and cells of their tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import irtools
from irtools.model import Model

__all__ = ["deployed", "ratio_cell"]


def deployed(source: Model, passes: str, target: str, calibration: Path | None) -> Model:
    """Return what a pipeline makes of a model, in the form that the target is given.

    Nothing is timed or compared.
    """
    data = None if calibration is None else str(calibration)
    return irtools.optimize(
        source, passes, target=target, calibration=data, bench=None, check=False
    ).deployed


def ratio_cell(ratio: Mapping[str, float]) -> str:
    """Return a stored ratio with its interval."""
    return f"{ratio['value']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]"
