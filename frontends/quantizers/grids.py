"""Codes and scales that a tool chose, as the numbers that they stand for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from irtools.errors import UnsupportedError

__all__ = ["Codes", "put_in_place", "weight_of"]


@dataclass(frozen=True, eq=False)
class Codes:
    """A weight [N, K] in groups along K.

    Attributes:
        codes: Whole numbers, [N, K].
        scale: [N, K / group].
        zero_point: Of the scale's shape, or None for 0.
        group: Neighbours that share a scale; the last group may be shorter.
    """

    codes: Any
    scale: Any
    zero_point: Any
    group: int


def weight_of(found: Codes) -> Any:
    """Return (c - z) s as float32 [N, K].

    Scales are rounded to 16 significant bits, so that products of them and codes are exact and the
    grid can be found from the numbers alone. Those of most tools are float16, and stay as they are.
    """
    inner = found.codes.shape[1]
    scale = _short(found.scale.float()).repeat_interleave(found.group, dim=1)[:, :inner]
    codes = found.codes.float()
    if found.zero_point is not None:
        codes = codes - found.zero_point.float().repeat_interleave(found.group, dim=1)[:, :inner]
    return codes * scale


def put_in_place(layer: Any, weight: Any, bias: Any) -> Any:
    """Return a Linear with a weight [N, K] and the bias of the layer that it takes the place of.

    Raises:
        UnsupportedError: The weight is not finite.
    """
    if not torch.isfinite(weight).all():
        raise UnsupportedError(f"weights of {type(layer).__name__} became NaN or infinity")
    made = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    made.weight = torch.nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        made.bias = torch.nn.Parameter(bias.float(), requires_grad=False)
    return made.eval()


def _short(scale: Any) -> Any:
    """Round float32 numbers to 16 significant bits."""
    raw = scale.contiguous().view(torch.int32)
    return ((raw + 0x80) & ~0xFF).view(torch.float32)
