"""A release in use."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import irtools
from irtools.builds import load as module
from irtools.builds.build import BuildSettings, build
from irtools.builds.config import read_config
from irtools.builds.watch import Watch
from irtools.errors import (
    DataError,
    FileError,
    TargetUnavailableError,
    UnknownNameError,
    UsageError,
)
from irtools.targets import Isa

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
_WORDS = ["[PAD]", "[UNK]", "oil", "corn", "ship"]


def _tokenizer() -> str:
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {word: number for number, word in enumerate(_WORDS)}
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


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    ir.save(_model(), folder / "model.onnx")
    (folder / "tokenizer.json").write_text(_tokenizer(), encoding="utf-8")
    (folder / "classes.json").write_text(json.dumps(["crude", "grain", "trade"]))
    (folder / "irc.toml").write_text(_CONFIG, encoding="utf-8")
    build(read_config(folder / "irc.toml"), BuildSettings(), Watch())
    return folder / "release"


def test_texts_get_classes_and_embeddings(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Isa, "detect", classmethod(lambda cls: Isa.VNNI))
    texts = ["oil oil", "corn", "ship corn ship", *["oil"] * 20]
    with irtools.load(release) as model:
        # The newest instruction set that this CPU has.
        assert model.name == "bag/clean/avx2" and model.classes[1] == "grain"
        assert model.predict(texts) == ["crude", "grain", "trade", *["crude"] * 20]
        vectors = model.encode(texts[:3], normalize=False)
        np.testing.assert_allclose(vectors[2], [1 / 3, 13 / 3, 6], rtol=1e-6)
        unit = model.encode(texts[:3])
        np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, rtol=1e-6)
        ids = np.array([[2, 3]])
        found = model.run({"input_ids": ids, "attention_mask": np.ones_like(ids)})
        np.testing.assert_allclose(found["logits"], [[10, 10, 0]])
        for wrong in ("oil", []):
            with pytest.raises(DataError, match="a list of texts"):
                model.predict(wrong)


def test_hidden_states_are_averaged_over_the_text_and_not_over_its_padding() -> None:
    hidden = np.array([[[2.0, 4.0], [4.0, 0.0], [9.0, 9.0]]], np.float32)
    mask = {"attention_mask": np.array([[1, 1, 0]])}
    found = module._pooled(mask, {"last_hidden_state": hidden})
    np.testing.assert_allclose(found, [[3, 2]])
    np.testing.assert_allclose(module._pooled({}, {"last_hidden_state": hidden}), [[5, 13 / 3]])
    rows = np.array([[1.0, 2.0]], np.float32)
    assert module._pooled(mask, {"last_hidden_state": hidden, "pooler": rows}) is rows
    assert module._pooled(mask, {"y": rows}) is rows
    with pytest.raises(DataError, match="not embeddings"):
        module._pooled({}, {"y": np.ones((1, 2, 3, 4), np.float32)})


@pytest.mark.parametrize(
    ("here", "chosen"), [(Isa.AMX, "amx"), (Isa.AVX512, "avx2"), (Isa.SSE, "sse")]
)
def test_the_build_is_that_for_this_machine(
    release: Path, monkeypatch: pytest.MonkeyPatch, here: Isa, chosen: str
) -> None:
    monkeypatch.setattr(Isa, "detect", classmethod(lambda cls: here))
    with irtools.load(release, "bag/clean") as model:
        assert model.name == f"bag/clean/{chosen}"


def test_what_cannot_be_loaded_is_told(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FileError, match="is not a release"):
        irtools.load(tmp_path)
    with pytest.raises(UnknownNameError, match="no build 'bad/clean'; did you mean"):
        irtools.load(release, "bad/clean")
    monkeypatch.setattr(Isa, "detect", classmethod(lambda cls: Isa.ARM))
    with pytest.raises(TargetUnavailableError, match="bag/clean/sse is for sse"):
        irtools.load(release)
    manifest = release / "irtools.json"
    other = tmp_path / "irtools.json"
    text = manifest.read_text(encoding="utf-8")
    other.write_text(text.replace("bag/clean/sse", "sack/clean/sse"), encoding="utf-8")
    with pytest.raises(UsageError, match="several models: say which of sack, bag"):
        irtools.load(tmp_path)
