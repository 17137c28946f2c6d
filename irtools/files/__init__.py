"""How files and folders come to be: temporary ones, and those that are published whole."""

from __future__ import annotations

from irtools.files.scratch import remove_abandoned, scratch_folder
from irtools.files.staging import publish, publish_folder, staging_folder
from irtools.files.text import json_text, write_text

__all__ = [
    "json_text",
    "publish",
    "publish_folder",
    "remove_abandoned",
    "scratch_folder",
    "staging_folder",
    "write_text",
]
