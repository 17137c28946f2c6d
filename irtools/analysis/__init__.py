"""Facts about a model that passes ask for."""

from __future__ import annotations
