"""Weights that a network has no place for: layers are refused, the rest is reported or harmless."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from irtools.errors import ModelError
from irtools.frontends.checkpoint.weights import open_checkpoint

pytestmark = pytest.mark.torch


def edited(folder: Path, to: Path, **changes: Any) -> Path:
    """Copy a checkpoint with some entries of its config replaced."""
    shutil.copytree(folder, to)
    config = json.loads((to / "config.json").read_text()) | changes
    (to / "config.json").write_text(json.dumps(config))
    return to


def with_weights(folder: Path, to: Path, renamed: Mapping[str, str]) -> Path:
    """Copy a checkpoint with some weights saved once more, under other names."""
    from safetensors.numpy import load_file, save_file

    shutil.copytree(folder, to)
    weights = load_file(to / "model.safetensors")
    more = {new: weights[old].copy() for old, new in renamed.items()}
    save_file(weights | more, to / "model.safetensors", metadata={"format": "pt"})
    return to


@pytest.mark.parametrize(
    ("family", "changes", "task", "what"),
    [
        ("bert", {"num_hidden_layers": 1}, None, "2 layers encoder.layer.N"),
        ("bert", {"num_hidden_layers": 1}, "feature-extraction", "2 layers encoder.layer.N"),
        ("gpt2", {"n_layer": 1}, None, "2 layers h.N"),
        ("distilbert", {"n_layers": 1}, None, "2 layers transformer.layer.N"),
        ("llama", {"num_hidden_layers": 1}, None, "2 layers layers.N"),
        ("vit", {"num_hidden_layers": 1}, None, "2 layers layers.N"),
        ("whisper", {"decoder_layers": 1}, None, "2 layers decoder.layers.N"),
        ("t5", {"num_layers": 1}, None, "2 layers encoder.block.N"),
        ("resnet", {"depths": [1]}, "feature-extraction", "2 layers encoder.stages.N"),
    ],
)
def test_more_layers_than_the_config_makes(
    tiny: Callable[[str], Path],
    tmp_path: Path,
    family: str,
    changes: dict[str, Any],
    task: str | None,
    what: str,
) -> None:
    if "depths" in changes:
        changes = changes | {"hidden_sizes": [8], "out_features": None, "out_indices": None}
    folder = edited(tiny(family), tmp_path / "c", **changes)
    with pytest.raises(ModelError, match=rf"hold {what}, and the config makes 1.*has no place"):
        open_checkpoint(folder, task=task)


def test_a_teacher_is_read_whole_or_not_at_all(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    from irtools.frontends.students.networks.checkpoints import load_network

    folder = edited(tiny("bert"), tmp_path / "c", num_hidden_layers=1)
    with pytest.raises(ModelError, match="hold 2 layers"):
        load_network(folder)


def test_layers_that_predict_further_tokens_are_no_loss(
    tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    changes = {"num_hidden_layers": 1, "num_nextn_predict_layers": 1}
    folder = edited(tiny("llama"), tmp_path / "c", **changes)
    assert open_checkpoint(folder).notes == ()


@pytest.mark.parametrize(
    ("family", "task", "old", "new"),
    [
        # The pretraining head, the pooler and buffers of older versions.
        ("bert", None, "classifier.weight", "cls.predictions.transform.dense.weight"),
        ("bert", None, "classifier.weight", "bert.embeddings.position_ids"),
        ("bert-mlm", None, "cls.predictions.bias", "bert.pooler.dense.bias"),
        ("gpt2", None, "transformer.h.0.attn.c_attn.bias", "transformer.h.0.attn.masked_bias"),
        # The head that another task has no use for.
        ("bert", "feature-extraction", "classifier.weight", "dropped.weight"),
    ],
)
def test_harmless_leftovers_are_not_told(
    tiny: Callable[[str], Path],
    tmp_path: Path,
    family: str,
    task: str | None,
    old: str,
    new: str,
) -> None:
    folder = with_weights(tiny(family), tmp_path / "c", {old: new})
    assert open_checkpoint(folder, task=task).notes == ()


def test_other_leftovers_are_one_note(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    query = "bert.encoder.layer.{}.attention.self.query"
    adapter = {f"{query.format(n)}.weight": f"{query.format(n)}.lora_A.weight" for n in (0, 1)}
    folder = with_weights(tiny("bert"), tmp_path / "c", adapter)
    wanted = (
        "BertForSequenceClassification has no place for 2 weights of the checkpoint, which were "
        f"left out: '{query.format(0)}.lora_A.weight' and others"
    )
    assert open_checkpoint(folder).notes == (wanted,)
