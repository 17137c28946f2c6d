"""The command irc."""

from __future__ import annotations
