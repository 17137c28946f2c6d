"""Checkpoints that are quantized, exported: their weights are in the model, to the last bit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irtools.checkpoints import plain_checkpoint
from irtools.errors import ModelError
from irtools.sources import load_source

pytestmark = pytest.mark.torch

GROUP = 16


def quantized(folder: Path, to: Path) -> dict[str, np.ndarray]:
    """Copy a checkpoint with its projections in GPTQ's form; return what they stand for."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, to)
    config = json.loads((to / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4, "group_size": GROUP}
    (to / "config.json").write_text(json.dumps(config))
    tensors: dict[str, Any] = {}
    meant: dict[str, np.ndarray] = {}
    for name, weight in load_file(to / "model.safetensors").items():
        if "proj" not in name:
            tensors[name] = weight
            continue
        outputs, inputs = weight.shape
        blocks = weight.reshape(outputs, -1, GROUP)
        scale = (blocks.abs().amax(2) / 7).to(torch.float16)
        codes = (blocks / scale.float()[..., None]).round().clamp(-8, 7).to(torch.int64) + 8
        shifts = 4 * torch.arange(8)
        words = (codes.reshape(outputs, -1, 8) << shifts).sum(-1).T.contiguous()
        base = name.removesuffix(".weight")
        tensors |= {
            f"{base}.qweight": words.to(torch.uint32).view(torch.int32),
            # Zero points of 8, stored as 7.
            f"{base}.qzeros": torch.full((inputs // GROUP, outputs // 8), 0x77777777).int(),
            f"{base}.scales": scale.T.contiguous(),
        }
        meant[name] = ((codes - 8).float() * scale.float()[..., None]).reshape(weight.shape).numpy()
    save_file(tensors, to / "model.safetensors", metadata={"format": "pt"})
    return meant


def weights_of(model: Any) -> dict[str, np.ndarray]:
    return {name: v.const_value.numpy() for name, v in model.ir.graph.initializers.items()}


def test_weights_are_exported_exactly(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    meant = quantized(tiny("llama"), tmp_path / "c")
    model = load_source(str(tmp_path / "c"))
    assert len(meant) == 14
    found = list(weights_of(model).values())
    for name, wanted in meant.items():
        fitting = (a for a in found if a.size == wanted.size)
        assert any(np.array_equal(a, wanted) or np.array_equal(a, wanted.T) for a in fitting), name
    assert model.source == tmp_path / "c"
    assert model.notes[0].startswith("the weights are quantized (gptq): 14 weights read back")


def test_an_error_names_the_checkpoint(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    quantized(tiny("llama"), tmp_path / "c")
    config = json.loads((tmp_path / "c" / "config.json").read_text())
    (tmp_path / "c" / "config.json").write_text(json.dumps(config | {"intermediate_size": 32}))
    with pytest.raises(ModelError, match=r"weights do not fit config\.json") as caught:
        load_source(str(tmp_path / "c"))
    assert str(caught.value).startswith(f"{tmp_path / 'c'}: ")


def test_the_plain_folder_is_what_transformers_loads(
    tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    import torch
    from transformers import LlamaForCausalLM

    meant = quantized(tiny("llama"), tmp_path / "c")
    with plain_checkpoint(tmp_path / "c") as plain:
        found = LlamaForCausalLM.from_pretrained(plain.folder).state_dict()
    untouched = LlamaForCausalLM.from_pretrained(tiny("llama")).state_dict()
    for name, tensor in found.items():
        wanted = torch.from_numpy(meant[name]) if name in meant else untouched[name]
        assert torch.equal(tensor, wanted), name
