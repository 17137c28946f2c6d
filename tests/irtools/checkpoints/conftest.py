"""GGUF files and quantized checkpoint folders, small ones, byte by byte."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

KINDS = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8}
K_KINDS = {"Q2_K": 10, "Q3_K": 11, "Q4_K": 12, "Q5_K": 13, "Q6_K": 14, "IQ4_NL": 20, "IQ4_XS": 23}
KINDS |= K_KINDS | {"IQ1_S": 19, "BF16": 30}


def text_bytes(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def value_bytes(value: Any) -> bytes:
    match value:
        case bool():
            return struct.pack("<I?", 7, value)
        case int():
            return struct.pack("<II", 4, value)
        case float():
            return struct.pack("<If", 6, value)
        case str():
            return struct.pack("<I", 8) + text_bytes(value)
        case list():
            kind = {str: 8, int: 4, float: 6}[type(value[0])]
            inner = b"".join(value_bytes(item)[4:] for item in value)
            return struct.pack("<IIQ", 9, kind, len(value)) + inner
        case bytes():
            return value
    raise TypeError(value)


@dataclass
class GgufBytes:
    """A file to be.

    Attributes:
        tensors: Name to kind, shape with the outermost axis first, and data.
        offsets: Those that are not where the data is.
    """

    metadata: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, tuple[str | int, tuple[int, ...], bytes]] = field(default_factory=dict)
    offsets: dict[str, int] = field(default_factory=dict)
    version: int = 3
    pairs: int | None = None
    count: int | None = None

    def build(self) -> bytes:
        pairs = len(self.metadata) if self.pairs is None else self.pairs
        count = len(self.tensors) if self.count is None else self.count
        head = b"GGUF" + struct.pack("<IQQ", self.version, count, pairs)
        for key, value in self.metadata.items():
            head += text_bytes(key) + value_bytes(value)
        data = b""
        for name, (kind, shape, raw) in self.tensors.items():
            number = KINDS[kind] if isinstance(kind, str) else kind
            offset = self.offsets.get(name, len(data))
            head += text_bytes(name) + struct.pack("<I", len(shape))
            head += struct.pack(f"<{len(shape)}Q", *reversed(shape))
            head += struct.pack("<IQ", number, offset)
            data += raw + bytes(-len(raw) % 32)
        return head + bytes(-len(head) % 32) + data

    def write(self, path: Path) -> Path:
        path.write_bytes(self.build())
        return path


def floats(shape: tuple[int, ...], seed: int = 0) -> bytes:
    values = np.random.default_rng(seed).standard_normal(shape)
    return values.astype(np.float32).tobytes()


TINY_LLAMA: Mapping[str, Any] = {
    "general.architecture": "llama",
    "llama.context_length": 64,
    "llama.embedding_length": 32,
    "llama.block_count": 1,
    "llama.feed_forward_length": 64,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.freq_base": 10000.0,
    "llama.rope.dimension_count": 8,
    "llama.vocab_size": 131,
}
TINY_SHAPES: Mapping[str, tuple[int, ...]] = {
    "token_embd.weight": (131, 32),
    "output_norm.weight": (32,),
    "blk.0.attn_norm.weight": (32,),
    "blk.0.ffn_norm.weight": (32,),
    "blk.0.attn_q.weight": (32, 32),
    "blk.0.attn_k.weight": (16, 32),
    "blk.0.attn_v.weight": (16, 32),
    "blk.0.attn_output.weight": (32, 32),
    "blk.0.ffn_gate.weight": (64, 32),
    "blk.0.ffn_up.weight": (64, 32),
    "blk.0.ffn_down.weight": (32, 64),
}


@pytest.fixture
def gguf_bytes() -> type[GgufBytes]:
    """What files are made with."""
    return GgufBytes


@pytest.fixture
def tiny_gguf() -> GgufBytes:
    """A Llama of one layer in float32 whose rows of q and k say which they are."""
    tensors: dict[str, tuple[str | int, tuple[int, ...], bytes]] = {
        name: ("F32", shape, floats(shape, seed))
        for seed, (name, shape) in enumerate(TINY_SHAPES.items())
    }
    return GgufBytes(dict(TINY_LLAMA), tensors)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Callable[..., Path]:
    """Write a folder with a config and tensors."""

    def write(tensors: Mapping[str, Any], entry: Mapping[str, Any] | None, name: str = "c") -> Path:
        from safetensors.torch import save_file

        folder = tmp_path / name
        folder.mkdir()
        config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
        if entry is not None:
            config["quantization_config"] = dict(entry)
        (folder / "config.json").write_text(json.dumps(config))
        save_file(dict(tensors), folder / "model.safetensors", metadata={"format": "pt"})
        return folder

    return write
