"""GGUF files as sources of models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from irtools.checkpoints import Gguf
from irtools.errors import ModelError
from irtools.sources import find_frontend, load_source

pytestmark = [pytest.mark.torch, pytest.mark.gguf]

# A tensor of llama.cpp for each parameter of Llama.
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}


def tensor_name(parameter: str) -> str:
    block = f"blk.{parameter.split('.')[2]}." if ".layers." in parameter else ""
    (found,) = (name for part, name in NAMES.items() if f"{part}." in parameter)
    return f"{block}{found}.weight"


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random Llama, written by llama.cpp's own package as its converter writes them."""
    import torch
    from gguf import GGMLQuantizationType, GGUFWriter
    from gguf.quants import quantize
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=96,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        rope_theta=10000.0,
    )
    module = LlamaForCausalLM(config)
    file = tmp_path_factory.mktemp("gguf") / "tiny.Q4_1.gguf"
    writer = GGUFWriter(file, "llama")
    writer.add_vocab_size(96)
    writer.add_context_length(64)
    writer.add_embedding_length(64)
    writer.add_block_count(2)
    writer.add_feed_forward_length(96)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(16)
    for name, weight in module.state_dict().items():
        array = weight.numpy() * (8 if weight.ndim > 1 else 1)
        if "q_proj" in name or "k_proj" in name:
            heads = 4 if "q_proj" in name else 2
            # As llama.cpp's converter does: pairs of rows that rotate together become neighbours.
            array = array.reshape(heads, 2, 8, 64).swapaxes(1, 2).reshape(array.shape)
        if array.ndim == 1:
            writer.add_tensor(tensor_name(name), array)
            continue
        kind = GGMLQuantizationType.Q8_0 if "embed" in name else GGMLQuantizationType.Q4_1
        writer.add_tensor(tensor_name(name), quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def test_weights_are_exported_exactly(llama: Path) -> None:
    assert find_frontend(str(llama)).name == "gguf"
    # The outputs are compared with torch on the way.
    model = load_source(str(llama))
    values = (v.const_value.numpy() for v in model.ir.graph.initializers.values())
    found = [np.sort(array, axis=None) for array in values if array.size > 1]
    stored = Gguf.open(llama)
    for name in stored.tensors:
        # Rows of q and k come in another order.
        wanted = np.sort(stored.tensor(name), axis=None)
        assert any(np.array_equal(array, wanted) for array in found), name
    assert model.source == llama and "config.json" in model.companions
    assert model.notes[0] == f"read 21 tensors of {llama} as float32 (Q4_1 15, Q8_0 1)"


def test_transformers_reads_the_same_weights(llama: Path) -> None:
    """Against Transformers' own reader of GGUF files, which shares nothing with ours."""
    import torch
    from transformers import AutoModelForCausalLM

    from irtools.checkpoints import plain_checkpoint

    with plain_checkpoint(llama) as plain:
        ours = AutoModelForCausalLM.from_pretrained(plain.folder).state_dict()
    theirs = AutoModelForCausalLM.from_pretrained(
        llama.parent, gguf_file=llama.name, dtype=torch.float32
    )
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(ours[name], tensor), name


def test_a_folder_says_which_file_to_give(llama: Path) -> None:
    with pytest.raises(ModelError, match=r"tiny.Q4_1.gguf is a GGUF file: give its own name"):
        find_frontend(str(llama.parent))
