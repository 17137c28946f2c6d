"""Datasets and where they come from."""

from __future__ import annotations

from irtools.data.base import Dataset

__all__ = ["Dataset"]
