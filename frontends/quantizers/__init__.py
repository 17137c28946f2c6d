"""Other tools' weight quantizers, run on a torch module before it is exported."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irtools.lazy import lazy_names

if TYPE_CHECKING:
    from irtools.frontends.quantizers.apply import quantized_module
    from irtools.frontends.quantizers.auto_round import AutoRound
    from irtools.frontends.quantizers.neural_compressor import NeuralCompressor

__all__ = ["AutoRound", "NeuralCompressor", "quantized_module"]

__getattr__ = lazy_names(
    __name__,
    {
        "AutoRound": "irtools.frontends.quantizers.auto_round",
        "NeuralCompressor": "irtools.frontends.quantizers.neural_compressor",
        "quantized_module": "irtools.frontends.quantizers.apply",
    },
)
