"""NF4, the 4-bit type of QLoRA (Dettmers 2023), computed in float32: for machines without a GPU.

Blocks of 64 weights share one absmax; a weight is the nearest of sixteen quantiles of the normal
distribution times that absmax. With double quantization the absmax is 8 bits itself: its distance
from the mean, in blocks of 256 with one float32 scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from irtools.model import NF4_LEVELS

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["BLOCK", "Nf4", "quantize_nf4"]

BLOCK = 64
_SCALE_BLOCK = 256


@dataclass(frozen=True)
class Nf4:
    """A quantized tensor.

    Attributes:
        codes: uint8 numbers of levels [blocks, 64]; the last block may be filled up.
        absmax: float32 [blocks], as it is after double quantization.
        shape: Of the tensor.
    """

    codes: Tensor
    absmax: Tensor
    shape: tuple[int, ...]

    def dequantize(self) -> Tensor:
        """Return the float32 tensor that the codes stand for."""
        levels = torch.tensor(NF4_LEVELS)[self.codes.long()]
        flat = (levels * self.absmax[:, None]).reshape(-1)
        count = int(torch.tensor(self.shape).prod())
        return flat[:count].reshape(self.shape)


def quantize_nf4(weight: Tensor, *, double: bool = True) -> Nf4:
    """Quantize a tensor of any shape in blocks along its flattened rows.

    Args:
        double: Quantize the absmax of the blocks, too.
    """
    flat = weight.detach().float().reshape(-1)
    blocks = torch.nn.functional.pad(flat, (0, -len(flat) % BLOCK)).reshape(-1, BLOCK)
    absmax = blocks.abs().amax(dim=1)
    if double:
        absmax = _double_quantized(absmax)
    # A block of zeros has absmax 0; any divisor gives it the code of 0.
    scaled = blocks / torch.where(absmax > 0, absmax, torch.ones_like(absmax))[:, None]
    levels = torch.tensor(NF4_LEVELS)
    borders = (levels[1:] + levels[:-1]) / 2
    codes = torch.bucketize(scaled, borders).to(torch.uint8)
    return Nf4(codes, absmax, tuple(weight.shape))


def _double_quantized(absmax: Tensor) -> Tensor:
    """Return the absmax of blocks after 8 bits: mean + s c, s = max |absmax - mean| / 127."""
    mean = absmax.mean()
    centred = torch.nn.functional.pad(absmax - mean, (0, -len(absmax) % _SCALE_BLOCK))
    grouped = centred.reshape(-1, _SCALE_BLOCK)
    scale = grouped.abs().amax(dim=1, keepdim=True) / 127
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    codes = (grouped / scale).round().clamp(-127, 127)
    found = (codes * scale).reshape(-1)[: len(absmax)] + mean
    return found.clamp(min=0)
