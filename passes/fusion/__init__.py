"""Fusion: many small operators become one that runtimes know."""

from __future__ import annotations

from irtools.passes.fusion.fuse import Fuse

__all__ = ["Fuse"]
