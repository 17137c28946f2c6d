"""Which results of a model hold a set number at padding, noted in the model itself.

A model that computes tokens alone has nothing at the padded positions of its results. What is put
there is part of its interface from then on: who compares it with another model leaves those
positions out, and may check the number.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import onnx_ir as ir

__all__ = ["PaddedOutput", "note_padded_outputs", "padded_outputs"]

_KEY = "irtools.padding"


@dataclass(frozen=True)
class PaddedOutput:
    """An output [B, S, ...] whose padded positions hold one number.

    Attributes:
        mask: Input [B, S] that says which positions are padding.
        padding: What the mask holds there.
        number: What the output holds there.
    """

    mask: str
    padding: float
    number: float


def padded_outputs(model: ir.Model) -> dict[str, PaddedOutput]:
    """Return the outputs that hold a set number at padding, by name."""
    text = model.metadata_props.get(_KEY)
    try:
        found = json.loads(text) if text else {}
        return {name: PaddedOutput(**fields) for name, fields in found.items()}
    except (AttributeError, TypeError, ValueError):
        return {}  # Another tool's property of that name.


def note_padded_outputs(model: ir.Model, outputs: Mapping[str, PaddedOutput]) -> None:
    """Note outputs in a model, next to those that are noted already."""
    found = {name: asdict(output) for name, output in {**padded_outputs(model), **outputs}.items()}
    model.metadata_props[_KEY] = json.dumps(found, sort_keys=True)
