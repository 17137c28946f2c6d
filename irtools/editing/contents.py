"""Other contents for constants that some nodes read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from irtools.editing.editor import Editor
from irtools.editing.readers import require_weight

__all__ = ["new_contents", "set_contents", "take_place"]


def set_contents(
    editor: Editor, places: Sequence[tuple[ir.Node, int]], array: np.ndarray, suffix: str
) -> ir.Value:
    """Give a constant input of some nodes new contents; other uses keep the old ones.

    Tensors are shared between clones of a model, so none is written into. A node that reads one
    past an Identity reads a constant of its own afterwards.

    Args:
        editor: Of the model.
        places: Nodes and which input; all have the same constant.
        array: The contents, cast to the type of the old ones.
        suffix: Of the new name, where the old one is still taken.
    """
    node, position = places[0]
    old = node.inputs[position]
    assert old is not None
    new = new_contents(editor, old, array.astype(require_weight(old).numpy().dtype), suffix)
    for node, position in places:
        node.replace_input_with(position, new)
    take_place(editor, old, new)
    return new


def new_contents(editor: Editor, old: ir.Value, array: np.ndarray, suffix: str) -> ir.Value:
    """Return a new constant with what is noted at an old one."""
    value = editor.constant(f"{old.name}_{suffix}", array)
    value.metadata_props.update(old.metadata_props)
    return value


def take_place(editor: Editor, old: ir.Value, new: ir.Value) -> None:
    """Drop a constant without uses and give its name to what replaced it."""
    editor.drop_unread(old)
    name = old.name
    if name is not None and not old.uses() and name not in editor.graph.initializers:
        new.name = name
        if new.const_value is not None:
            new.const_value.name = name
