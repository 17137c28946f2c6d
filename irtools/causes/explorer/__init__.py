"""Files for Google's Model Explorer: two graphs, what pairs their nodes, and figures over them."""

from __future__ import annotations

from irtools.causes.explorer.files import ExplorerFiles, explorer_files, module_table

__all__ = ["ExplorerFiles", "explorer_files", "module_table"]
