"""Tools for agents, by the Model Context Protocol: what `irc` does, with long work as jobs."""

from __future__ import annotations

from irtools.mcp.server import make_server
from irtools.mcp.tools import Tools

__all__ = ["Tools", "make_server"]
