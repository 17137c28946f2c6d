"""Weights that came on grids, as a model's metadata say.

A reader of quantized checkpoints notes which weights it read off codes. Where one of them lies on
no grid later, a pass has moved it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import onnx_ir as ir

__all__ = ["note_grids", "noted_grids"]

_KEY = "weights_on_grids"


def note_grids(model: ir.Model, grids: Mapping[str, str]) -> None:
    """Note which initializers lie on grids.

    Args:
        model: Gets the note, in its metadata.
        grids: Name to how the checkpoint calls its grid (`Q4_1`); names that the model does not
            have are left out.
    """
    names: dict[str, list[str]] = {}
    for name in model.graph.initializers:
        if name in grids:
            names.setdefault(grids[name], []).append(name)
    if names:
        model.metadata_props[_KEY] = json.dumps(names)


def noted_grids(model: ir.Model) -> dict[str, str]:
    """Return name to grid of what was noted; a note that is damaged counts as none."""
    try:
        found = json.loads(model.metadata_props.get(_KEY, "{}"))
        return {str(name): str(grid) for grid, names in found.items() for name in names}
    except (ValueError, AttributeError, TypeError):
        return {}
