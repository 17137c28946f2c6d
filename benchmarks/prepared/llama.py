"""Llama decoders of a real architecture with seeded random weights, written shard by shard.

No network is made for it: a tensor is drawn, rounded to bfloat16 and forgotten when its shard is
on the disk, so that memory holds one shard and the largest tensor in float32.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

_SHARD_BYTES = 1 << 29

LLAMA_1B = {
    "vocab_size": 128256,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 32.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
    },
    "tie_word_embeddings": True,
    "bos_token_id": 128000,
    "eos_token_id": 128001,
}
"""The configuration of Llama-3.2-1B: 1,235,814,400 parameters."""


def write_llama(folder: Path, *, layers: int | None = None) -> None:
    """Write a checkpoint folder with the shape of Llama-3.2-1B, in bfloat16 as it is released.

    Weights are normal with a deviation of 0.02, as they are initialised; norms are near 1.

    Args:
        folder: Must not exist.
        layers: Fewer layers of the same size; None: all 16.
    """
    from safetensors.torch import save_file
    from transformers import LlamaConfig

    options = LLAMA_1B if layers is None else {**LLAMA_1B, "num_hidden_layers": layers}
    configuration = LlamaConfig(**options, architectures=["LlamaForCausalLM"], dtype=torch.bfloat16)
    folder.mkdir()
    configuration.save_pretrained(folder)
    places, total = {}, 0
    for number, shard in enumerate(_shards(_weights(configuration)), 1):
        name = f"model-{number:05d}.safetensors"
        save_file(shard, folder / name, metadata={"format": "pt"})
        places |= dict.fromkeys(shard, name)
        total += sum(tensor.nbytes for tensor in shard.values())
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")


def _weights(configuration: Any) -> Iterator[tuple[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    for name, shape in _shapes(configuration):
        drawn = torch.randn(shape, generator=generator).mul_(0.02)
        if len(shape) == 1:
            drawn += 1
        yield name, drawn.to(torch.bfloat16)


def _shapes(configuration: Any) -> Iterator[tuple[str, tuple[int, ...]]]:
    hidden, inner = configuration.hidden_size, configuration.intermediate_size
    queries = configuration.num_attention_heads * configuration.head_dim
    keys = configuration.num_key_value_heads * configuration.head_dim
    yield "model.embed_tokens.weight", (configuration.vocab_size, hidden)
    for number in range(configuration.num_hidden_layers):
        layer = f"model.layers.{number}"
        yield f"{layer}.self_attn.q_proj.weight", (queries, hidden)
        yield f"{layer}.self_attn.k_proj.weight", (keys, hidden)
        yield f"{layer}.self_attn.v_proj.weight", (keys, hidden)
        yield f"{layer}.self_attn.o_proj.weight", (hidden, queries)
        yield f"{layer}.mlp.gate_proj.weight", (inner, hidden)
        yield f"{layer}.mlp.up_proj.weight", (inner, hidden)
        yield f"{layer}.mlp.down_proj.weight", (hidden, inner)
        yield f"{layer}.input_layernorm.weight", (hidden,)
        yield f"{layer}.post_attention_layernorm.weight", (hidden,)
    yield "model.norm.weight", (hidden,)


def _shards(
    weights: Iterator[tuple[str, torch.Tensor]],
) -> Iterator[dict[str, torch.Tensor]]:
    shard: dict[str, torch.Tensor] = {}
    for name, tensor in weights:
        shard[name] = tensor
        if sum(part.nbytes for part in shard.values()) >= _SHARD_BYTES:
            yield shard
            shard = {}
    if shard:
        yield shard
