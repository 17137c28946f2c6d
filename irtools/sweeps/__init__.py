"""Sweeps: the same request for many models, as an array of jobs with one table."""

from __future__ import annotations

from irtools.sweeps.entries import Entry, SweepDocument, figures_of
from irtools.sweeps.names import names_of
from irtools.sweeps.service import SweepService
from irtools.sweeps.sweep import Request, sweep
from irtools.sweeps.table import sweep_cells

__all__ = [
    "Entry",
    "Request",
    "SweepDocument",
    "SweepService",
    "figures_of",
    "names_of",
    "sweep",
    "sweep_cells",
]
