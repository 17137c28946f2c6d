"""Training through the rounding of weights, so that a network learns to live with it.

    forward    y = x r(W)^T + b        r: as the weight is stored afterwards
    backward   dL/dW = dL/dr(W)        as if r were the identity (straight-through, Bengio 2013)

What is trained are the unrounded weights. In the end they are replaced by what r makes of them:
they lie on the grid of the passes `int8` (a step for each output channel) or `int4` (blocks, which
it finds and keeps), so that no plan has to travel with the checkpoint.

`ternary` has the weights -a, 0 and a, with a for each output channel (Li et al. 2016, as in XTC):
0 below 0.7 of the mean magnitude, a the mean of what is left. Runtimes multiply it as 4 bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from irtools.errors import UnsupportedError
from irtools.frontends.students.networks.anatomy import PROJECTIONS

if TYPE_CHECKING:
    from irtools.students import WeightRounding

__all__ = ["round_weights", "rounded_layers", "trained_through"]

_BLOCKS = (32, 16)
_THRESHOLD = 0.7
_TINY = 2.0**-100


def rounded_layers(network: nn.Module, form: WeightRounding) -> dict[str, nn.Linear]:
    """Return the layers whose weights are rounded, by name.

    Raises:
        UnsupportedError: There are none.
    """
    # Of a language model it shares its weight with the table of its inputs.
    head = getattr(network, "get_output_embeddings", lambda: None)()
    found = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear)
        and module is not head
        and PROJECTIONS not in name.split(".")
        and (form != "int4" or _block(module) is not None)
    }
    if not found:
        raise UnsupportedError(f"{type(network).__name__} has no Linear that {form} is for")
    return found


@contextmanager
def trained_through(network: nn.Module, form: WeightRounding | None) -> Iterator[None]:
    """Let the layers of a network compute with rounded weights; their parameters stay as they are.

    Args:
        form: None: nothing is done.
    """
    layers = [] if form is None else list(rounded_layers(network, form).values())
    for layer in layers:
        assert form is not None
        layer.forward = partial(_forward, layer, _ROUNDINGS[form])
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def round_weights(network: nn.Module, form: WeightRounding) -> int:
    """Replace weights by what they are rounded to, and return of how many layers."""
    layers = rounded_layers(network, form)
    with torch.no_grad():
        for layer in layers.values():
            layer.weight.copy_(_ROUNDINGS[form](layer, layer.weight.float()))
    return len(layers)


_Rounding = Callable[[nn.Linear, Tensor], Tensor]


def _forward(layer: nn.Linear, rounding: _Rounding, x: Tensor) -> Tensor:
    weight = layer.weight
    with torch.no_grad():
        moved = rounding(layer, weight.float()) - weight
    return functional.linear(x, weight + moved.to(weight.dtype), layer.bias)


def _block(layer: nn.Linear) -> int | None:
    return next((block for block in _BLOCKS if layer.in_features % block == 0), None)


def _eight_bits(layer: nn.Linear, weight: Tensor) -> Tensor:
    """[N, K] with a step for each row, 127 to its largest magnitude."""
    step = (weight.abs().amax(dim=1, keepdim=True) / 127).clamp_min(_TINY)
    return torch.round(weight / step) * step


def _four_bits(layer: nn.Linear, weight: Tensor) -> Tensor:
    """[N, K] in blocks of 16 steps and a zero point; steps of 16 significant bits."""
    blocks = weight.reshape(len(weight), -1, _block(layer) or weight.shape[1])
    low = blocks.amin(dim=2, keepdim=True).clamp_max(0)
    top = blocks.amax(dim=2, keepdim=True).clamp_min(0)
    step = _short(((top - low) / 15).clamp_min(_TINY))
    zero = torch.round(-low / step).clamp(0, 15)
    codes = (torch.round(blocks / step) + zero).clamp(0, 15) - zero
    return (codes * step).reshape(weight.shape)


def _three_values(layer: nn.Linear, weight: Tensor) -> Tensor:
    """[N, K] of -a, 0 and a for each row."""
    size = weight.abs()
    kept = size > _THRESHOLD * size.mean(dim=1, keepdim=True)
    step = (size * kept).sum(dim=1, keepdim=True) / kept.sum(dim=1, keepdim=True).clamp_min(1)
    return weight.sign() * kept * _short(step)


def _short(steps: Tensor) -> Tensor:
    """Round float32 numbers to 16 significant bits, so that codes times steps are exact."""
    raw = steps.contiguous().view(torch.int32)
    return ((raw + 0x80) & ~0xFF).view(torch.float32)


_ROUNDINGS: Mapping[str, _Rounding] = {
    "int8": _eight_bits,
    "int4": _four_bits,
    "ternary": _three_values,
}
