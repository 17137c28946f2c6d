"""Clean-up: passes that simplify a model without changing what it computes."""

from __future__ import annotations

from irtools.passes.cleanup.cleanup import Cleanup

__all__ = ["Cleanup"]
