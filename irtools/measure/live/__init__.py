"""Live measuring: models under requests for as long as one likes, with what they use meanwhile."""

from __future__ import annotations

from irtools.measure.live.gpus import Gpus
from irtools.measure.live.requests import answer_requests
from irtools.measure.live.sampler import Sampler
from irtools.measure.live.session import LiveSession
from irtools.measure.live.settings import LiveSettings
from irtools.measure.live.track import Track

__all__ = ["Gpus", "LiveSession", "LiveSettings", "Sampler", "Track", "answer_requests"]
