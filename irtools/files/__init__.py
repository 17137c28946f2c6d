"""How files and folders come to be: temporary ones, and those that are published whole."""

from __future__ import annotations

from irtools.files.scratch import remove_abandoned, scratch_folder
from irtools.files.staging import publish, staging_folder

__all__ = [
    "publish",
    "remove_abandoned",
    "scratch_folder",
    "staging_folder",
]
