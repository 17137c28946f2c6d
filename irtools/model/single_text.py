"""What a model that computes tokens alone computes of one text without padding.

Then every position is a token, and what moves rows moves nothing. Each node that does says in its
metadata what its result is; a lowering can make a branch of that, which is the model as it was.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

__all__ = ["ONE_TEXT", "OneText", "is_token_flags", "mark_token_flags", "note_one_text", "one_text"]

ONE_TEXT = "pkg.irtools.one_text"
"""Key of the metadata; it is of one node, and not of what takes its place."""
_FLAGS = "tokens"


@dataclass(frozen=True)
class OneText:
    """The first result of a node, of one text without padding.

    Attributes:
        source: Which input it is; None: it is zeros.
        shape: To give it, as Reshape reads it; None: it has the shape of the input.
    """

    source: int | None = 0
    shape: tuple[int, ...] | None = None


def note_one_text(
    value: ir.Value, source: int | None = 0, shape: Sequence[int] | None = None
) -> None:
    """Note at the node of a value what the value is; see `OneText`."""
    node = value.producer()
    assert node is not None
    found = {"source": source, "shape": None if shape is None else list(shape)}
    node.metadata_props[ONE_TEXT] = json.dumps(found)


def one_text(node: ir.Node) -> OneText | None:
    """Return what is noted at a node."""
    text = node.metadata_props.get(ONE_TEXT)
    if text is None or text == _FLAGS:
        return None
    found = json.loads(text)
    shape = found["shape"]
    return OneText(found["source"], None if shape is None else tuple(shape))


def mark_token_flags(value: ir.Value) -> None:
    """Mark the value bool [B, S] that is true at tokens."""
    node = value.producer()
    assert node is not None
    node.metadata_props[ONE_TEXT] = _FLAGS


def is_token_flags(node: ir.Node) -> bool:
    """Whether the result of a node says what is a token."""
    return node.metadata_props.get(ONE_TEXT) == _FLAGS
