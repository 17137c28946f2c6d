"""Live measuring: models under requests for as long as one likes, with what they use meanwhile."""

from __future__ import annotations

from irtools.measure.live.session import LiveSession
from irtools.measure.live.settings import LiveSettings

__all__ = ["LiveSession", "LiveSettings"]
