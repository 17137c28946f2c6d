"""The live front end: runs, live measurements, trials and jobs, in a browser on this machine."""

from __future__ import annotations

from irtools.ui.serve import serve

__all__ = ["serve"]
