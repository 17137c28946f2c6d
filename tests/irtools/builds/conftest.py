"""Releases that several files test with, built once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from irtools.builds.build import BuildSettings, build
from irtools.builds.config import read_config
from irtools.builds.watch import Watch

_CONFIG = """
[models.bag]
source = "model.onnx"
[pipelines]
clean = "cleanup"
[targets]
sse = "ort-cpu:isa=sse"
avx2 = "ort-cpu:isa=avx2"
amx = "ort-cpu:isa=amx"
[measuring]
bench = "none"
check = false
"""
WORDS = ["[PAD]", "[UNK]", "oil", "corn", "ship"]


@pytest.fixture(scope="session")
def text_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release of `bag`, which gives a class and an embedding of a text, for three CPUs.

    Not to be changed: copy it.
    """
    folder = tmp_path_factory.mktemp("project")
    ir.save(_model(), folder / "model.onnx")
    (folder / "tokenizer.json").write_text(_tokenizer(), encoding="utf-8")
    (folder / "classes.json").write_text(json.dumps(["crude", "grain", "trade"]))
    (folder / "irc.toml").write_text(_CONFIG, encoding="utf-8")
    build(read_config(folder / "irc.toml"), BuildSettings(), Watch())
    return folder / "release"


def _tokenizer() -> str:
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {word: number for number, word in enumerate(WORDS)}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return str(made.to_str())


def _model() -> ir.Model:
    """Embeddings of words [5, 3]: hidden states, and their sum over the text as scores."""
    table = np.array([[0, 0, 0], [0, 0, 0], [9, 1, 0], [1, 9, 0], [0, 2, 9]], np.float32)
    ids = ir.val("input_ids", ir.DataType.INT64, ir.Shape(["batch", "seq"]))
    mask = ir.val("attention_mask", ir.DataType.INT64, ir.Shape(["batch", "seq"]))
    rows = ir.val("rows", const_value=ir.tensor(table, name="rows"))
    axis = ir.val("axis", const_value=ir.tensor(np.array([1]), name="axis"))
    last = ir.val("last", const_value=ir.tensor(np.array([2]), name="last"))
    nodes = [ir.node("Gather", [rows, ids]), ir.node("Cast", [mask], {"to": 1})]
    nodes.append(ir.node("Unsqueeze", [nodes[1].outputs[0], last]))
    nodes.append(ir.node("Mul", [nodes[0].outputs[0], nodes[2].outputs[0]]))
    nodes.append(ir.node("ReduceSum", [nodes[3].outputs[0], axis], {"keepdims": 0}))
    hidden, scores = nodes[3].outputs[0], nodes[4].outputs[0]
    hidden.name, scores.name = "last_hidden_state", "logits"
    hidden.type = scores.type = ir.TensorType(ir.DataType.FLOAT)
    hidden.shape, scores.shape = ir.Shape(["batch", "seq", 3]), ir.Shape(["batch", 3])
    graph = ir.Graph(
        [ids, mask],
        [hidden, scores],
        nodes=nodes,
        initializers=[rows, axis, last],
        opset_imports={"": 20},
        name="g",
    )
    return ir.Model(graph, ir_version=10)


@pytest.fixture(autouse=True)
def _cheap(cheap_jobs: None) -> None:
    """Whole commands run here: what they start in processes of their own is not the point."""
