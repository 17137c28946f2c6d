"""Reports: one JSON document, and views of it."""

from __future__ import annotations
