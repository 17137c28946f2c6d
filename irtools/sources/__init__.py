"""Sources of models: what a frontend is, and which one reads a source."""

from __future__ import annotations

from irtools.sources.lookup import Frontend, LoadOptions, find_frontend, load_by, load_source

__all__ = ["Frontend", "LoadOptions", "find_frontend", "load_by", "load_source"]
