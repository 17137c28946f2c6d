"""Which results of a model hold a set number at padding, noted in the model itself.

A model that computes tokens alone has nothing at the padded positions of its results. What is put
there is part of its interface from then on, and what it is compared with holds the same there
(`irtools.data.put_at_padding`).
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


def padded_outputs(*models: ir.Model) -> dict[str, PaddedOutput]:
    """Return the outputs that hold a set number at padding in one of some models, by name."""
    return {name: output for model in models for name, output in _noted(model).items()}


def note_padded_outputs(model: ir.Model, outputs: Mapping[str, PaddedOutput]) -> None:
    """Note outputs in a model, next to those that are noted already."""
    found = {name: asdict(output) for name, output in {**padded_outputs(model), **outputs}.items()}
    model.metadata_props[_KEY] = json.dumps(found, sort_keys=True)


def _noted(model: ir.Model) -> dict[str, PaddedOutput]:
    text = model.metadata_props.get(_KEY)
    try:
        found = json.loads(text) if text else {}
        return {name: PaddedOutput(**fields) for name, fields in found.items()}
    except (AttributeError, TypeError, ValueError):
        return {}  # Another tool's property of that name.
