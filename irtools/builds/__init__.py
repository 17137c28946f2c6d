"""Builds: a file that says what a release is made of, the release, and what guards it."""

from __future__ import annotations
