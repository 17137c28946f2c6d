"""The network of a GGUF file as Transformers has it: configuration, and names of the parameters.

Every key of the network and every tensor must be understood: what a file says and nothing here
reads could change the function.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from irtools.checkpoints.gguf.file import Gguf
from irtools.errors import ModelError, UnsupportedError
from irtools.words import printable

__all__ = ["Network", "find_network"]


@dataclass(frozen=True)
class Network:
    """What a file holds.

    Attributes:
        config: What `config.json` says of it.
        names: Tensor to parameter.
        heads: Heads of tensors whose rows llama.cpp keeps with rotary pairs as neighbours; the
            halves of a head one after the other is how Transformers has them.
    """

    config: Mapping[str, Any]
    names: Mapping[str, str]
    heads: Mapping[str, int]

    def parameter(self, gguf: Gguf, name: str) -> np.ndarray:
        """Return the float32 values of a parameter by the name of its tensor."""
        found = gguf.tensor(name)
        heads = self.heads.get(name)
        if heads is None:
            return found
        split = found.reshape(heads, -1, 2, *found.shape[1:])
        return np.ascontiguousarray(split.swapaxes(1, 2).reshape(found.shape))


@dataclass(frozen=True)
class _Family:
    """Networks of the shape of Llama.

    Attributes:
        neighbours: Rotary pairs are neighbours in the file.
    """

    architecture: str
    model_type: str
    neighbours: bool = False


_FAMILIES: Mapping[str, _Family] = {
    # Mistral and SmolLM2 call themselves llama.
    "llama": _Family("LlamaForCausalLM", "llama", neighbours=True),
    "qwen2": _Family("Qwen2ForCausalLM", "qwen2"),
    "qwen3": _Family("Qwen3ForCausalLM", "qwen3"),
}
_SIZES: Mapping[str, str] = {
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
}
# What the sizes say already, or nothing that changes the function.
_REPEATED = frozenset({"vocab_size", "tensor_data_layout", "rope.scaling.finetuned"})
_WHOLE: Mapping[str, str] = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_IN_BLOCK: Mapping[str, str] = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_ROPE_FACTORS = "rope_freqs.weight"


def find_network(gguf: Gguf) -> Network:
    """Return the network of a file.

    Raises:
        ModelError: Something that its network needs is absent or of the wrong kind.
        UnsupportedError: An architecture, a key or a tensor that is not understood.
    """
    name = gguf.metadata.get("general.architecture")
    family = _FAMILIES.get(name) if isinstance(name, str) else None
    if family is None:
        raise UnsupportedError(
            f"{gguf.path} holds a network of the architecture {printable(name)!r}; read are "
            f"{', '.join(_FAMILIES)}: export the checkpoint that the file was made from"
        )
    keys = _Keys(gguf, str(name))
    config = _config(gguf, family, keys)
    keys.refuse_rest()
    names = _names(gguf)
    heads = {}
    if family.neighbours:
        of = {"attn_q": "num_attention_heads", "attn_k": "num_key_value_heads"}
        for tensor in names:
            kind = tensor.split(".")[-2]
            if kind in of:
                heads[tensor] = config[of[kind]]
                _check_heads(gguf, tensor, heads[tensor])
    return Network(config, names, heads)


class _Keys:
    """The keys of the architecture, and which of them were read."""

    def __init__(self, gguf: Gguf, architecture: str) -> None:
        self._gguf, self._prefix = gguf, f"{architecture}."
        found = (key for key in gguf.metadata if key.startswith(self._prefix))
        self._rest = {key.removeprefix(self._prefix) for key in found} - _REPEATED

    def take(self, key: str, fits: Callable[[Any], bool], default: Any = None) -> Any:
        self._rest.discard(key)
        found = self._gguf.metadata.get(self._prefix + key, default)
        if found is None:
            raise ModelError(f"{self._gguf.path} does not say {self._prefix}{key}")
        if not fits(found):
            raise ModelError(
                f"{self._gguf.path} says {self._prefix}{key} = {printable(found)}, which no "
                "network of this kind has"
            )
        return found

    def has(self, key: str) -> bool:
        return self._prefix + key in self._gguf.metadata

    def refuse_rest(self) -> None:
        if self._rest:
            key = self._prefix + min(self._rest)
            raise UnsupportedError(
                f"{self._gguf.path} says {printable(key)} = "
                f"{printable(self._gguf.metadata[key])}, which is not understood here and may "
                "change what the network computes; export the checkpoint that it was made from"
            )


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 < value <= 1 << 24


def _is_nothing(value: Any) -> bool:
    return type(value) is int and value == 0


def _is_number(value: Any) -> bool:
    return isinstance(value, float) and 0 < value < 1e12


def _shortest(value: float) -> float:
    """Return the float64 that one would write for a float32: 1e-05, and not 9.999999747e-06."""
    return float(str(np.float32(value)))


def _config(gguf: Gguf, family: _Family, keys: _Keys) -> dict[str, Any]:
    config: dict[str, Any] = {
        "architectures": [family.architecture],
        "model_type": family.model_type,
        "hidden_act": "silu",
        "torch_dtype": "float32",
    }
    for key, entry in _SIZES.items():
        config[entry] = keys.take(key, _is_count, config.get("num_attention_heads"))
    heads = config["num_attention_heads"]
    size = keys.take("attention.key_length", _is_count, config["hidden_size"] // heads)
    for key in ("attention.value_length", "rope.dimension_count"):
        # Rotation of a part of the head, or values of another width, are other networks.
        keys.take(key, lambda found: found == size, size)
    config["head_dim"] = size
    config["rms_norm_eps"] = _shortest(keys.take("attention.layer_norm_rms_epsilon", _is_number))
    for key in ("expert_count", "expert_used_count"):
        keys.take(key, _is_nothing, 0)
    config["rope_parameters"] = _rope(gguf, keys, size)
    config["vocab_size"] = _rows(gguf, "token_embd.weight")
    config["tie_word_embeddings"] = "output.weight" not in gguf.tensors
    if family.model_type == "llama":
        config["attention_bias"] = "blk.0.attn_q.bias" in gguf.tensors
        config["mlp_bias"] = "blk.0.ffn_up.bias" in gguf.tensors
    for mark, entry in (("bos", "bos"), ("eos", "eos"), ("padding", "pad")):
        number = gguf.metadata.get(f"tokenizer.ggml.{mark}_token_id")
        if isinstance(number, int) and number < config["vocab_size"]:
            config[f"{entry}_token_id"] = number
    return config


def _rope(gguf: Gguf, keys: _Keys, size: int) -> dict[str, Any]:
    base = _shortest(keys.take("rope.freq_base", _is_number, 1e4))
    found: dict[str, Any] = {"rope_type": "default", "rope_theta": base}
    if keys.has("rope.scaling.type"):
        kind = keys.take("rope.scaling.type", lambda name: name in ("none", "linear"))
        if kind == "linear":
            found |= {
                "rope_type": kind,
                "factor": _shortest(keys.take("rope.scaling.factor", _is_number)),
            }
    if _ROPE_FACTORS in gguf.tensors:
        found |= _llama3(gguf, base, size)
    return found


def _llama3(gguf: Gguf, base: float, size: int) -> dict[str, Any]:
    """Return how Llama 3 stretches its rotary frequencies, where a file's divisors are just that.

    The file has the divisor of each frequency; Transformers computes it out of four numbers, of
    which Llama 3 releases have changed the first alone.
    """
    divisors = gguf.tensor(_ROPE_FACTORS).astype(np.float64)
    factor, low, high, context = float(divisors.max()), 1.0, 4.0, 8192
    waves = 2 * np.pi * base ** (np.arange(0, size, 2) / size)
    smooth = np.clip((context / waves - low) / (high - low), 0, 1)
    expected = 1 / ((1 - smooth) / factor + smooth)
    if divisors.shape != expected.shape or not np.allclose(divisors, expected, rtol=1e-5):
        raise UnsupportedError(
            f"{gguf.path} stretches its rotary frequencies ({_ROPE_FACTORS}) in a way that is not "
            "understood here; export the checkpoint that it was made from"
        )
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": context,
    }


def _rows(gguf: Gguf, name: str) -> int:
    if name not in gguf.tensors:
        raise ModelError(f"{gguf.path} has no tensor {name!r}")
    return gguf.tensors[name].shape[0]


def _names(gguf: Gguf) -> dict[str, str]:
    found = {}
    for name in gguf.tensors:
        match = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)", name)
        table = _WHOLE if match is None or match[1] is None else _IN_BLOCK
        if match is not None and match[2] in table:
            block = f"model.layers.{int(match[1])}." if match[1] else ""
            found[name] = f"{block}{table[match[2]]}.{match[3]}"
        elif name != _ROPE_FACTORS:
            raise UnsupportedError(
                f"{gguf.path} has the tensor {printable(name)!r}, which its architecture has no "
                "place for here; export the checkpoint that it was made from"
            )
    return found


def _check_heads(gguf: Gguf, name: str, heads: int) -> None:
    rows = gguf.tensors[name].shape[0]
    if rows % (2 * heads):
        raise ModelError(
            f"{gguf.path}: tensor {printable(name)!r} has {rows} rows, which {heads} heads do not "
            "divide into pairs"
        )
