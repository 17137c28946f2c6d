"""Models: reading, checking, printing and writing them."""

from __future__ import annotations

from irtools.model.model import Interface, Model, SavedModel, ValueInfo

__all__ = ["Interface", "Model", "SavedModel", "ValueInfo"]
