"""SmolLM2-135M-Instruct out of its GGUF file: network and tokenizer."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from benchmarks.prepared.gguf_file import Gguf


def smollm2(gguf: Gguf) -> Any:
    """SmolLM2-135M-Instruct with the weights of a GGUF file, in evaluation mode.

    llama.cpp stores the rows of q and k so that rotary pairs are neighbours; transformers needs
    the two halves of a head one after the other.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    about = {key.removeprefix("llama."): value for key, value in gguf.metadata.items()}
    heads, kv_heads = about["attention.head_count"], about["attention.head_count_kv"]
    configuration = LlamaConfig(
        vocab_size=gguf.tensors["token_embd.weight"][1][0],
        hidden_size=about["embedding_length"],
        intermediate_size=about["feed_forward_length"],
        num_hidden_layers=about["block_count"],
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=about["context_length"],
        rms_norm_eps=about["attention.layer_norm_rms_epsilon"],
        rope_theta=about["rope.freq_base"],
        bos_token_id=gguf.metadata["tokenizer.ggml.bos_token_id"],
        eos_token_id=gguf.metadata["tokenizer.ggml.eos_token_id"],
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(configuration)
    state = {}
    for name in gguf.tensors:
        array = gguf.tensor(name)
        if name.endswith(("attn_q.weight", "attn_k.weight")):
            array = _half_by_half(array, heads if "attn_q" in name else kv_heads)
        state[_llama_name(name)] = torch.from_numpy(array)
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state)
    return model.eval()


def _half_by_half(rows: np.ndarray, heads: int) -> np.ndarray:
    """Put the even rows of each head before the odd ones."""
    split = rows.reshape(heads, -1, 2, rows.shape[1])
    return np.ascontiguousarray(split.swapaxes(1, 2).reshape(rows.shape))


_LLAMA_NAMES = {
    "token_embd": "embed_tokens",
    "output_norm": "norm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}


def _llama_name(name: str) -> str:
    *block, part, kind = name.removeprefix("blk.").split(".")
    place = f"layers.{block[0]}." if block else ""
    return f"model.{place}{_LLAMA_NAMES[part]}.{kind}"


def smollm2_tokenizer(gguf: Gguf) -> Any:
    """The byte-level BPE of the file, digits apart, as the SmolLM2 release has it."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens = gguf.metadata["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in gguf.metadata["tokenizer.ggml.merges"]]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    kinds = gguf.metadata["tokenizer.ggml.token_type"]
    control = 3
    marks = [t for t, kind in zip(tokens, kinds, strict=True) if kind == control]
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in marks])
    return tokenizer
