"""Checkpoints that are quantized, or say so."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from irtools.errors import ModelError, UnsupportedError
from irtools.frontends.checkpoint.quantized import read_as_floats
from irtools.frontends.checkpoint.weights import open_checkpoint, read_config

pytestmark = pytest.mark.torch

BLOCK = 16
FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [BLOCK, BLOCK]}


def copied(folder: Path, to: Path, entry: dict[str, Any] | None, *, fp8: bool) -> Path:
    """Copy a checkpoint with an entry about quantization, its layers in fp8 or as they are."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, to)
    config = json.loads((to / "config.json").read_text())
    config |= {} if entry is None else {"quantization_config": entry}
    (to / "config.json").write_text(json.dumps(config))
    if fp8:
        weights: dict[str, Any] = {}
        for name, weight in load_file(to / "model.safetensors").items():
            weights |= in_fp8(name, weight) if "proj" in name else {name: weight}
        save_file(weights, to / "model.safetensors", metadata={"format": "pt"})
    return to


def in_fp8(name: str, weight: Any) -> dict[str, Any]:
    """Quantize blocks of 16 x 16 to float8 e4m3, whose largest number is 448."""
    import torch

    rows, columns = weight.shape[0] // BLOCK, weight.shape[1] // BLOCK
    blocks = weight.reshape(rows, BLOCK, columns, BLOCK)
    scale = blocks.abs().amax((1, 3)) / 448
    made = (blocks / scale[:, None, :, None]).reshape(weight.shape).to(torch.float8_e4m3fn)
    return {name: made, f"{name}_scale_inv": scale}


@pytest.mark.parametrize("method", ["fp8", "gptq", "bitsandbytes", "wonder"])
def test_plain_weights_are_read_as_they_are(
    tiny: Callable[[str], Path], tmp_path: Path, method: str
) -> None:
    import torch

    folder = copied(tiny("llama"), tmp_path / "c", {"quant_method": method, "bits": 4}, fp8=False)
    found = open_checkpoint(folder)
    wanted = open_checkpoint(tiny("llama")).module.state_dict()
    assert all(torch.equal(t, wanted[n]) for n, t in found.module.state_dict().items())
    (note,) = found.notes
    assert f"({method}), and they are plain floats" in note


def test_fp8_is_read_back_into_floats(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    folder = copied(tiny("llama"), tmp_path / "c", FP8, fp8=True)
    found = open_checkpoint(folder)
    assert found.notes == ("the weights are quantized (fp8) and were read back into floats",)
    name = "model.layers.1.mlp.up_proj.weight"
    stored = load_file(folder / "model.safetensors")
    scale = stored[f"{name}_scale_inv"].repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)
    read = found.module.state_dict()[name]
    assert type(found.module.model.layers[1].mlp.up_proj) is torch.nn.Linear
    torch.testing.assert_close(read, stored[name].float() * scale, rtol=1e-2, atol=1e-4)


def test_quantized_weights_of_other_methods_are_refused(
    tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = copied(tiny("llama"), tmp_path / "c", {"quant_method": "awq"}, fp8=True)
    with pytest.raises(UnsupportedError, match=r"quantized \(awq\).*checkpoint that they were"):
        open_checkpoint(folder)


def test_quantized_weights_without_a_word_in_the_config_are_refused(
    tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = copied(tiny("llama"), tmp_path / "c", None, fp8=True)
    with pytest.raises(ModelError, match=r"'model.layers.0.*is quantized, and config.json has no"):
        open_checkpoint(folder)


def test_fp8_is_asked_for_as_floats_on_every_machine(
    tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    """With a GPU the library would keep it, and nothing here could run it."""
    folder = copied(tiny("llama"), tmp_path / "c", FP8, fp8=True)
    config = read_config(folder, trust_remote_code=False)
    read_as_floats(folder, config)
    assert config.quantization_config["dequantize"] is True
