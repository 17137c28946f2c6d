"""What network a GGUF file holds, and where each of its tensors goes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irtools.checkpoints import Gguf, PlainCheckpoint, is_gguf, plain_checkpoint
from irtools.errors import IrtoolsError, ModelError, UnsupportedError

pytestmark = pytest.mark.gguf


def weights_of(plain: PlainCheckpoint) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    files = sorted(plain.folder.glob("*.safetensors"))
    return {name: array for file in files for name, array in load_file(file).items()}


def config_of(plain: PlainCheckpoint) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((plain.folder / "config.json").read_text())
    return found


def test_rows_of_q_and_k_go_back_to_halves(tiny_gguf: Any, tmp_path: Path) -> None:
    file = tiny_gguf.write(tmp_path / "m.gguf")
    stored = Gguf.open(file)
    with plain_checkpoint(file) as plain:
        found = weights_of(plain)
    assert len(found) == len(stored.tensors)
    for name, heads in (("q", 4), ("k", 2)):
        # Row 2 r + h of a head in the file is row r of half h in the network.
        wanted = np.empty((heads, 2, 4, 32), np.float32)
        rows = stored.tensor(f"blk.0.attn_{name}.weight").reshape(heads, 8, 32)
        for half in range(2):
            for row in range(4):
                wanted[:, half, row] = rows[:, 2 * row + half]
        np.testing.assert_array_equal(
            found[f"model.layers.0.self_attn.{name}_proj.weight"], wanted.reshape(-1, 32)
        )
    for tensor, parameter in (
        ("token_embd", "model.embed_tokens"),
        ("output_norm", "model.norm"),
        ("blk.0.attn_v", "model.layers.0.self_attn.v_proj"),
        ("blk.0.attn_output", "model.layers.0.self_attn.o_proj"),
        ("blk.0.ffn_down", "model.layers.0.mlp.down_proj"),
        ("blk.0.attn_norm", "model.layers.0.input_layernorm"),
    ):
        np.testing.assert_array_equal(
            found[f"{parameter}.weight"], stored.tensor(f"{tensor}.weight")
        )


def test_the_config_says_what_the_metadata_say(tiny_gguf: Any, tmp_path: Path) -> None:
    tiny_gguf.metadata["tokenizer.ggml.eos_token_id"] = 2
    with plain_checkpoint(tiny_gguf.write(tmp_path / "m.gguf")) as plain:
        assert config_of(plain) == {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_act": "silu",
            "torch_dtype": "float32",
            "max_position_embeddings": 64,
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "intermediate_size": 64,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "rms_norm_eps": 1e-5,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
            "vocab_size": 131,
            "tie_word_embeddings": True,
            "attention_bias": False,
            "mlp_bias": False,
            "eos_token_id": 2,
        }
    assert not plain.folder.exists()


def test_qwen2_keeps_its_rows(tiny_gguf: Any, tmp_path: Path) -> None:
    metadata = {k.replace("llama.", "qwen2."): v for k, v in tiny_gguf.metadata.items()}
    tiny_gguf.metadata = {**metadata, "general.architecture": "qwen2"}
    for name, rows in (("q", 32), ("k", 16), ("v", 16)):
        bias = np.arange(rows, dtype=np.float32).tobytes()
        tiny_gguf.tensors[f"blk.0.attn_{name}.bias"] = ("F32", (rows,), bias)
    file = tiny_gguf.write(tmp_path / "m.gguf")
    with plain_checkpoint(file) as plain:
        found, config = weights_of(plain), config_of(plain)
    assert config["architectures"] == ["Qwen2ForCausalLM"] and "attention_bias" not in config
    q = Gguf.open(file).tensor("blk.0.attn_q.weight")
    np.testing.assert_array_equal(found["model.layers.0.self_attn.q_proj.weight"], q)
    np.testing.assert_array_equal(found["model.layers.0.self_attn.k_proj.bias"], np.arange(16))


def llama3_divisors(factor: float, base: float, size: int) -> np.ndarray:
    """As Llama 3.1 has them, number by number."""
    found = []
    for place in range(0, size, 2):
        wave = 2 * np.pi * base ** (place / size)
        if wave < 8192 / 4:
            found.append(1.0)
        elif wave > 8192:
            found.append(factor)
        else:
            smooth = (8192 / wave - 1) / (4 - 1)
            found.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(found, np.float32)


def test_stretched_rotations_of_llama3_are_recognized(tiny_gguf: Any, tmp_path: Path) -> None:
    tiny_gguf.metadata["llama.rope.freq_base"] = 500000.0
    divisors = llama3_divisors(8.0, 500000.0, 8)
    tiny_gguf.tensors["rope_freqs.weight"] = ("F32", (4,), divisors.tobytes())
    with plain_checkpoint(tiny_gguf.write(tmp_path / "m.gguf")) as plain:
        assert config_of(plain)["rope_parameters"] == {
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        }
        assert not any("rope" in name for name in weights_of(plain))
    tiny_gguf.tensors["rope_freqs.weight"] = ("F32", (4,), (divisors + 0.5).tobytes())
    with (
        pytest.raises(UnsupportedError, match="in a way that is not understood"),
        plain_checkpoint(tiny_gguf.write(tmp_path / "n.gguf")),
    ):
        pass


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"general.architecture": "mamba"}, "the architecture 'mamba'; read are llama, qwen2"),
        ({"llama.logit_scale": 2.0}, r"llama.logit_scale = 2.0, which is not understood here"),
        ({"llama.expert_count": 8}, "llama.expert_count = 8, which no network"),
        ({"llama.rope.dimension_count": 4}, "llama.rope.dimension_count = 4, which no network"),
        ({"llama.rope.scaling.type": "yarn"}, "llama.rope.scaling.type = yarn, which no network"),
        ({"llama.attention.head_count": [4, 4]}, r"head_count = \[4, 4\], which no network"),
        ({"llama.embedding_length": -5.0}, "llama.embedding_length = -5.0, which no network"),
        ({"llama.block_count": None}, "does not say llama.block_count"),
        (
            {"llama.attention.head_count": 3, "llama.rope.dimension_count": 10},
            "'blk.0.attn_q.weight' has 32 rows, which 3 heads do not divide",
        ),
    ],
)
def test_what_is_not_understood_is_refused(
    tiny_gguf: Any, tmp_path: Path, metadata: dict[str, Any], said: str
) -> None:
    found = {**tiny_gguf.metadata, **metadata}
    tiny_gguf.metadata = {key: value for key, value in found.items() if value is not None}
    file = tiny_gguf.write(tmp_path / "m.gguf")
    with (
        pytest.raises((ModelError, UnsupportedError), match=said) as caught,
        plain_checkpoint(file),
    ):
        pass
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


def test_a_tensor_without_a_place_is_refused(tiny_gguf: Any, tmp_path: Path) -> None:
    tiny_gguf.tensors["blk.0.ffn_gate_inp.weight"] = ("F32", (4,), bytes(16))
    with (
        pytest.raises(UnsupportedError, match=r"tensor 'blk.0.ffn_gate_inp.weight', which its"),
        plain_checkpoint(tiny_gguf.write(tmp_path / "m.gguf")),
    ):
        pass


def test_errors_name_the_source(tiny_gguf: Any, tmp_path: Path) -> None:
    file = tiny_gguf.write(tmp_path / "m.gguf")
    with pytest.raises(IrtoolsError) as caught, plain_checkpoint(file) as plain:
        raise ModelError(f"{plain.folder} has no weights for 3 parameters")
    assert str(caught.value) == f"{file} has no weights for 3 parameters"


def test_a_file_is_known_by_its_first_bytes(
    tiny_gguf: Any, tmp_path: Path, gguf_bytes: Callable[..., Any]
) -> None:
    assert is_gguf(tiny_gguf.write(tmp_path / "named.bin"))
    assert not is_gguf(tiny_gguf.write(tmp_path / "named.onnx"))
    assert not is_gguf(tmp_path)
    (tmp_path / "other.bin").write_bytes(b"PK")
    assert not is_gguf(tmp_path / "other.bin")
