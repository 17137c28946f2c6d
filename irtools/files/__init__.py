"""How files and folders come to be: temporary ones, and those that are published whole."""

from __future__ import annotations

from irtools.files.entry import Entry
from irtools.files.hashes import file_hash, file_hashes, files_below
from irtools.files.locks import folder_locked, locked
from irtools.files.root import RootFolder
from irtools.files.scratch import remove_abandoned, scratch_folder, scratch_place
from irtools.files.staging import publish, publish_folder, remove_staging, staging_folder
from irtools.files.store import STORE_LIMIT, Store, StoredSize
from irtools.files.swap import replace_folder, restore_folder
from irtools.files.text import (
    context_length,
    fault_of_document,
    json_text,
    read_settings,
    write_text,
)

__all__ = [
    "Entry",
    "RootFolder",
    "STORE_LIMIT",
    "Store",
    "StoredSize",
    "context_length",
    "fault_of_document",
    "file_hash",
    "file_hashes",
    "files_below",
    "folder_locked",
    "json_text",
    "locked",
    "publish",
    "publish_folder",
    "read_settings",
    "remove_abandoned",
    "remove_staging",
    "replace_folder",
    "restore_folder",
    "scratch_folder",
    "scratch_place",
    "staging_folder",
    "write_text",
]
