"""torch's exporter alone: what `irc export` is compared with.

    python -m benchmarks.exporter CHECKPOINT OUT [--with-past]

Loads a checkpoint with transformers and writes what `torch.onnx.export(dynamo=True)` makes of it,
with the same dynamic axes, as its documentation has it; nothing is compared or renamed.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, DynamicCache

OPSET = 20
DYNAMIC = torch.export.Dim.DYNAMIC


class WithCache(torch.nn.Module):
    """A decoder that takes keys and values of each layer as tensors, and returns them."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        position_ids: torch.Tensor,
        *past: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        pairs = list(zip(past[::2], past[1::2], strict=True))
        found = self.network(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=DynamicCache(pairs),
            use_cache=True,
        )
        layers = found.past_key_values.layers
        return found.logits, *(tensor for one in layers for tensor in (one.keys, one.values))


def main() -> None:
    """Export one checkpoint."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--with-past", action="store_true")
    given = parser.parse_args()
    config = AutoConfig.from_pretrained(given.checkpoint)
    kind = AutoModelForCausalLM if given.with_past else AutoModel
    network = kind.from_pretrained(given.checkpoint, dtype=torch.float32).eval()
    if given.with_past:
        module, inputs, axes = WithCache(network), *_cached(config)
    else:
        module, inputs, axes = network, *_plain(config)
    torch.onnx.export(
        module, inputs, given.out, dynamo=True, opset_version=OPSET, dynamic_shapes=axes
    )


def _plain(config: Any) -> tuple[tuple[torch.Tensor, ...], Any]:
    if hasattr(config, "image_size"):
        images = torch.zeros(2, 3, config.image_size, config.image_size)
        return (images,), ({0: DYNAMIC},)
    ids = torch.arange(12).reshape(2, 6)
    return (ids, torch.ones_like(ids)), ({0: DYNAMIC, 1: DYNAMIC},) * 2


def _cached(config: Any) -> tuple[tuple[torch.Tensor, ...], Any]:
    heads = config.num_key_value_heads
    size = config.hidden_size // config.num_attention_heads
    past = [torch.zeros(2, heads, 7, size) for _ in range(2 * config.num_hidden_layers)]
    ids = torch.arange(6).reshape(2, 3)
    positions = torch.arange(7, 10).expand(2, 3)
    plain = {0: DYNAMIC, 1: DYNAMIC}
    cache = tuple({0: DYNAMIC, 2: DYNAMIC} for _ in past)
    return (ids, torch.ones(2, 10, dtype=torch.int64), positions, *past), (*(plain,) * 3, cache)


if __name__ == "__main__":
    main()
