"""Facts about a model, computed from it and never changed."""

from __future__ import annotations
