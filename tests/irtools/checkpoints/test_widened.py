"""Large weights of 16 bits as float32 that a network maps from disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irtools.checkpoints import plain_checkpoint, widened
from irtools.checkpoints.tensor_files import tensors_in
from irtools.frontends.checkpoint.frontend import TransformersFrontend
from irtools.sources import LoadOptions

pytestmark = pytest.mark.torch


def checkpoint(folder: Path, kind: str) -> Path:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    LlamaForCausalLM(config).to(getattr(torch, kind)).save_pretrained(folder)
    (folder / "generation_config.json").write_text("{}")
    return folder


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_weights_of_16_bits_are_the_same_numbers_in_float32(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = checkpoint(tmp_path / "m", kind)
    monkeypatch.setattr(widened, "LARGE", 1)

    with plain_checkpoint(folder, mapped=True) as plain:
        assert plain.folder != folder
        assert plain.folder.name == "m"
        assert (plain.folder / "generation_config.json").read_text() == "{}"
        wide = {name: (t.kind, t.read()) for name, t in tensors_in(plain.folder).items()}
    narrow = {name: t.read() for name, t in tensors_in(folder).items()}
    assert wide.keys() == narrow.keys()
    for name, (stored, array) in wide.items():
        assert stored == "F32"
        np.testing.assert_array_equal(array, narrow[name].astype(np.float32))


def test_a_network_maps_what_was_widened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    folder = checkpoint(tmp_path / "m", "bfloat16")
    monkeypatch.setattr(widened, "LARGE", 1)

    with plain_checkpoint(folder, mapped=True) as plain:
        module = AutoModelForCausalLM.from_pretrained(plain.folder, dtype=torch.float32)
        address = module.lm_head.weight.data_ptr()
        mapped = [_range(line) for line in Path("/proc/self/maps").read_text().splitlines()]
    assert any(start <= address < end and ".safetensors" in name for start, end, name in mapped)


def _range(line: str) -> tuple[int, int, str]:
    start, _, rest = line.partition("-")
    end, _, name = rest.partition(" ")
    return int(start, 16), int(end, 16), name


@pytest.mark.parametrize(
    ("kind", "least", "mapped"),
    [("float32", 1, True), ("bfloat16", 1, False), ("bfloat16", 1 << 20, True)],
)
def test_what_is_float32_or_small_or_trained_is_given_as_it_is(
    kind: str, least: int, mapped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = checkpoint(tmp_path / "m", kind)
    monkeypatch.setattr(widened, "LARGE", least)
    with plain_checkpoint(folder, mapped=mapped) as plain:
        assert plain.folder == folder


def test_a_damaged_folder_is_left_to_what_loads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = checkpoint(tmp_path / "m", "bfloat16")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    monkeypatch.setattr(widened, "LARGE", 1)
    with plain_checkpoint(folder, mapped=True) as plain:
        assert plain.folder == folder


def test_an_export_is_the_same_and_names_the_folder_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = checkpoint(tmp_path / "m", "bfloat16")
    plain = _weights(folder)
    monkeypatch.setattr(widened, "LARGE", 1)
    wide = _weights(folder)
    assert plain.keys() == wide.keys()
    for name, array in plain.items():
        np.testing.assert_array_equal(array, wide[name])

    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 32}))
    with pytest.raises(Exception, match=r"weights do not fit config.json") as caught:
        TransformersFrontend().load(str(folder))
    assert str(folder) in str(caught.value)
    assert "checkpoint" not in str(caught.value).replace(str(folder), "")


def _weights(folder: Path) -> dict[str, Any]:
    model = TransformersFrontend().load(str(folder), LoadOptions(with_past=True))
    return {
        name: value.const_value.numpy()
        for name, value in model.ir.graph.initializers.items()
        if value.const_value is not None
    }
