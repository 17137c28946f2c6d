"""A decoder whose cache does not say how large a head is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from irtools.errors import UnsupportedError
from irtools.model import Model
from irtools.sources import LoadOptions, load_source
from irtools.testing import read_model

_DECODER = """
<ir_version: 10, opset_import: ["" : 23, "com.microsoft" : 1]>
decoder (
  int64[batch, sequence] input_ids,
  int32[batch] last, int32 total,
  float[batch, 2, past, D] "past_key_values.0.key",
  float[batch, 2, past, D] "past_key_values.0.value",
  float[11, 32] words, float[11, 16] keys, float[11, 64] packed
) => (
  float[batch, sequence, 32] logits,
  float[batch, 2, total_sequence, D] "present.0.key",
  float[batch, 2, total_sequence, D] "present.0.value"
) {
  q = Gather (words, input_ids)
  k = Gather (keys, input_ids)
  all = Gather (packed, input_ids)
  logits, "present.0.key", "present.0.value" = ATTENTION
}
"""
_PAST = '"past_key_values.0.key", "past_key_values.0.value"'
_GROUPED = "com.microsoft.GroupQueryAttention <num_heads = 4, kv_num_heads = 2>"
_STANDARD = "Attention <q_num_heads = 4, kv_num_heads = 2>"
_ATTENTION = {
    "grouped": f"{_GROUPED} (q, k, k, {_PAST}, last, total)",
    "packed": f"{_GROUPED} (all, , , {_PAST}, last, total)",
    "standard": f"{_STANDARD} (q, k, k, , {_PAST})",
    "other": f"Other.Attention (q, k, k, {_PAST})",
}


def _written(folder: Path, attention: str, size: str = "kv_cache_dim") -> str:
    text = _DECODER.replace("ATTENTION", _ATTENTION[attention]).replace(", D]", f", {size}]")
    if attention == "other":
        text = text.replace('"com.microsoft" : 1', '"Other" : 1')
    shapes = {"words": (11, 32), "keys": (11, 16), "packed": (11, 64)}
    weights = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    read_model(text, weights).save(folder / "model.onnx")
    return str(folder / "model.onnx")


def _sizes(model: Model) -> set[object]:
    caches = [*model.ir.graph.inputs[3:5], *model.ir.graph.outputs[1:]]
    return {None if value.shape is None else value.shape[3] for value in caches}


@pytest.mark.parametrize("attention", ["grouped", "packed", "standard"])
def test_attention_says_how_large_a_head_is(tmp_path: Path, attention: str) -> None:
    assert _sizes(load_source(_written(tmp_path, attention))) == {8}


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("genai_config.json", {"model": {"decoder": {"head_size": 8}}}),
        ("config.json", {"head_dim": 8, "hidden_size": 64, "num_attention_heads": 4}),
        ("config.json", {"hidden_size": 32, "num_attention_heads": 4}),
    ],
)
def test_else_the_configuration_says_it(
    tmp_path: Path, name: str, settings: dict[str, object]
) -> None:
    (tmp_path / name).write_text(json.dumps(settings))
    assert _sizes(load_source(_written(tmp_path, "other"))) == {8}


def test_what_nothing_says_is_refused_unless_it_is_given(tmp_path: Path) -> None:
    source = _written(tmp_path, "other")
    with pytest.raises(UnsupportedError) as caught:
        load_source(source)
    assert "past_key_values.0.key leaves the size of a head open" in str(caught.value)
    assert "--fix kv_cache_dim=64" in str(caught.value)
    assert _sizes(load_source(source, LoadOptions(sizes=(("kv_cache_dim", 8),)))) == {8}


def test_a_size_that_is_written_stays(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"head_dim": 16}')
    assert _sizes(load_source(_written(tmp_path, "other", "8"))) == {8}
