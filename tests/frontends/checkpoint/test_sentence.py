"""Folders of sentence-transformers: what comes after the encoder."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from irtools.errors import ModelError

pytestmark = pytest.mark.torch

H = 6


def _source() -> Any:
    import torch

    from irtools.frontends.torch import TorchSource

    class Encoder(torch.nn.Module):
        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            states = torch.sin(input_ids[..., None] * torch.arange(1, H + 1))
            return {"last_hidden_state": states, "pooler_output": states[:, 0] * 0}

    axes = {name: {0: "batch", 1: "sequence"} for name in ("input_ids", "attention_mask")}
    outputs = ("last_hidden_state", "pooler_output")
    return TorchSource(Encoder(), lambda b, s: {}, axes, outputs, "here")


def _inputs() -> dict[str, Any]:
    import torch

    ids = torch.arange(1, 9).reshape(2, 4)
    return {"input_ids": ids, "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])}


def _write(folder: Path, *modules: tuple[str, dict[str, Any]]) -> None:
    listed = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.T"}]
    listed[0]["type"] = "sentence_transformers.models.Transformer"
    for n, (kind, config) in enumerate(modules, 1):
        path = f"{n}_{kind}"
        (folder / path).mkdir()
        (folder / path / "config.json").write_text(json.dumps(config))
        kind = f"sentence_transformers.models.{kind}"
        listed.append({"idx": n, "name": str(n), "path": path, "type": kind})
    (folder / "modules.json").write_text(json.dumps(listed))


def _with(folder: Path) -> Any:
    from irtools.frontends.checkpoint.sentence import with_sentence_embedding

    return with_sentence_embedding(_source(), folder)


def _rows() -> list[np.ndarray]:
    ids = np.arange(1, 9).reshape(2, 4)
    states = np.sin(ids[..., None] * np.arange(1, H + 1))
    return [states[0], states[1, :2]]


_WEIGHTS = SimpleNamespace(all=lambda n: np.arange(1, n + 1)[:, None])
_POOLED = {
    "cls_token": lambda r: r[0],
    "max_tokens": lambda r: r.max(0),
    "mean_tokens": lambda r: r.mean(0),
    "mean_sqrt_len_tokens": lambda r: r.sum(0) / np.sqrt(len(r)),
    "weightedmean_tokens": lambda r: (r * _WEIGHTS.all(len(r))).sum(0) / _WEIGHTS.all(len(r)).sum(),
    "lasttoken": lambda r: r[-1],
}


@pytest.mark.parametrize("mode", _POOLED)
def test_each_mode_reads_the_tokens_of_the_mask_alone(mode: str, tmp_path: Path) -> None:
    _write(tmp_path, ("Pooling", {f"pooling_mode_{mode}": True, "word_embedding_dimension": H}))
    source = _with(tmp_path)
    assert source.outputs == ("sentence_embedding",)
    found = source.run(_inputs())["sentence_embedding"].numpy()
    np.testing.assert_allclose(found, [_POOLED[mode](r) for r in _rows()], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("named", ["cls+lasttoken", ["lasttoken", "cls"]])
def test_vectors_of_several_modes_are_joined(named: Any, tmp_path: Path) -> None:
    _write(tmp_path, ("Pooling", {"pooling_mode": named}))
    found = _with(tmp_path).run(_inputs())["sentence_embedding"].numpy()
    wanted = [np.concatenate((r[0], r[-1])) for r in _rows()]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_layers_after_pooling_follow_in_order(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    dense = {"activation_function": "torch.nn.modules.activation.ReLU"}
    pooling = ("Pooling", {"pooling_mode": "mean"})
    _write(tmp_path, pooling, ("Dense", dense), ("LayerNorm", {"dimension": 3}), ("Normalize", {}))
    weight = torch.linspace(-1, 1, 3 * H).reshape(3, H)
    save_file({"linear.weight": weight}, tmp_path / "2_Dense" / "model.safetensors")
    norm = {"norm.weight": torch.tensor([1.0, 2.0, 3.0]), "norm.bias": torch.ones(3)}
    torch.save(norm, tmp_path / "3_LayerNorm" / "pytorch_model.bin")
    found = _with(tmp_path).run(_inputs())["sentence_embedding"].numpy()
    mean = np.array([r.mean(0) for r in _rows()])
    y = np.maximum(mean @ weight.numpy().T, 0)
    y = (y - y.mean(1, keepdims=True)) / np.sqrt(y.var(1, keepdims=True) + 1e-5) * [1, 2, 3] + 1
    wanted = y / np.linalg.norm(y, axis=1, keepdims=True)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "config", "reason"),
    [
        ("CNN", {}, "CNN has no form here"),
        ("Pooling", {"pooling_mode_attention": True}, "pools by pooling_mode_attention"),
        ("Dense", {"activation_function": "mine.Wave"}, "has the activation mine.Wave"),
        ("Dense", {"module_input_name": "token_embeddings"}, "module_input_name"),
    ],
)
def test_what_has_no_form_leaves_the_encoder_alone_and_is_named(
    kind: str, config: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    _write(tmp_path, (kind, config), ("Normalize", {}))
    source = _with(tmp_path)
    assert source.outputs == ("last_hidden_state", "pooler_output")
    (note,) = source.notes
    assert f"left out of the export: {kind} (1_{kind}), Normalize (2_Normalize)" in note
    assert reason in note


def test_prompts_that_pooling_leaves_out_are_told(tmp_path: Path) -> None:
    _write(tmp_path, ("Pooling", {"pooling_mode": "mean", "include_prompt": False}))
    (note,) = _with(tmp_path).notes
    assert "include_prompt is false" in note


@pytest.mark.parametrize("text", ["{", '[{"path": "1"}]'])
def test_a_damaged_list_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text(text)
    with pytest.raises(ModelError, match=r"modules\.json"):
        _with(tmp_path)


def test_a_layer_without_weights_is_refused(tmp_path: Path) -> None:
    _write(tmp_path, ("Pooling", {"pooling_mode": "mean"}), ("Dense", {}))
    with pytest.raises(ModelError, match="2_Dense: weights cannot be read"):
        _with(tmp_path)
