"""Every family of networks goes in: exported, compared with torch, named as usual."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from irtools.analysis.provenance import module_of
from irtools.sources import load_source

pytestmark = [pytest.mark.torch, pytest.mark.slow]

TEXT = ("input_ids", "attention_mask")
# Inputs, first output, and a module that must be found among those of the nodes.
FAMILIES = {
    "bert-ner": ((*TEXT, "token_type_ids"), "logits", "bert.encoder.layer.1.attention.self.query"),
    "bert-qa": ((*TEXT, "token_type_ids"), "start_logits", "bert.encoder.layer.0.output.dense"),
    "roberta": ((*TEXT, "token_type_ids"), "logits", "roberta.encoder.layer.1.intermediate.dense"),
    "mpnet": (TEXT, "last_hidden_state", "encoder.layer.1.attention.attn.q"),
    "distilbert": (TEXT, "logits", "distilbert.transformer.layer.1.ffn.lin1"),
    "albert": (
        (*TEXT, "token_type_ids"),
        "logits",
        "albert.encoder.albert_layer_groups.0.albert_layers.0.ffn",
    ),
    "deberta-v2": (TEXT, "logits", "deberta.encoder.layer.1.attention.self.query_proj"),
    "layoutlm": (
        (*TEXT, "token_type_ids", "bbox"),
        "logits",
        "layoutlm.encoder.layer.1.intermediate.dense",
    ),
    "lilt": (
        (*TEXT, "token_type_ids", "bbox"),
        "last_hidden_state",
        "encoder.layer.1.intermediate.dense",
    ),
    "ernie": (
        (*TEXT, "token_type_ids", "task_type_ids"),
        "last_hidden_state",
        "encoder.layer.1.intermediate.dense",
    ),
    # A window leaves rows of padding without any key.
    "gemma3-sliding": (TEXT, "logits", "model.layers.0.mlp.down_proj"),
    "vit": (("pixel_values",), "logits", "classifier"),
    "dinov2": (("pixel_values",), "last_hidden_state", "layernorm"),
    "resnet": (("pixel_values",), "logits", "classifier.1"),
    "clip-text": (TEXT, "last_hidden_state", "encoder.layers.1.mlp.fc1"),
    "clip-vision": (("pixel_values",), "last_hidden_state", "encoder.layers.1.mlp.fc1"),
    "xlnet": ((*TEXT, "token_type_ids"), "logits", "transformer.layer.1.ff.layer_1"),
    "efficientnet": (("pixel_values",), "logits", "classifier"),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_family_equals_torch_and_keeps_its_names(tiny: Callable[[str], Path], family: str) -> None:
    # load_source compares with torch on several sizes, padding included.
    model = load_source(str(tiny(family)))
    inputs, output, module = FAMILIES[family]
    assert tuple(v.name for v in model.interface.inputs) == inputs
    assert all(v.shape and v.shape[0] == "batch" for v in model.interface.inputs)
    assert model.interface.outputs[0].name == output
    assert module in {module_of(node) for node in model.ir.graph}
    assert not any(value.name.startswith("val_") for n in model.ir.graph for value in n.outputs)
