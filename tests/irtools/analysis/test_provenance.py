from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from irtools.analysis.provenance import module_name, module_of, selects


def _node(name: str = "", **properties: str) -> ir.Node:
    node = ir.Node("", "MatMul", [ir.Value(name="x"), ir.Value(name="w")], name=name)
    node.metadata_props.update({f"pkg.torch.onnx.{k}": v for k, v in properties.items()})
    return node


def test_scopes_of_the_dynamo_exporter_come_first() -> None:
    scopes = "['', 'bert', 'bert.encoder.layer.0.query', 'linear']"
    assert module_name(_node("/other/MatMul", name_scopes=scopes)) == "bert.encoder.layer.0.query"


@pytest.mark.parametrize("scopes", ["", "not a list", "['only']", "3", "[", "['', ''"])
def test_scopes_that_say_nothing_are_passed_over(scopes: str) -> None:
    assert module_name(_node("MatMul_3", name_scopes=scopes)) == "MatMul_3"


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("/bert/encoder/layer.0/output/dense/MatMul", "bert.encoder.layer.0.output.dense"),
        ("/blocks/blocks.1/conv1/conv1.0/Conv", "blocks.1.conv1.0"),
        ("/classifier/Gemm", "classifier"),
    ],
)
def test_paths_of_the_torchscript_exporter(name: str, module: str) -> None:
    assert module_name(_node(name)) == module


@pytest.mark.parametrize("name", ["/Concat", "/", "//"])
def test_a_path_without_a_module_falls_back_to_the_name(name: str) -> None:
    assert module_name(_node(name)) == name


def test_a_parameter_names_its_module() -> None:
    weight = ir.Value(name="encoder.fc.weight")
    weight.const_value = ir.tensor(np.ones((2, 2), np.float32), name=weight.name)
    node = ir.Node("", "MatMul", [ir.Value(name="x"), weight], name="n7")
    assert module_name(node) == "encoder.fc"


def test_a_bias_that_is_added_names_the_module() -> None:
    bias = ir.Value(name="encoder.fc.bias")
    bias.const_value = ir.tensor(np.ones(2, np.float32), name=bias.name)
    node = _node("n7")
    ir.Node("", "Add", [node.outputs[0], bias])
    assert module_name(node) == "encoder.fc"


def test_without_any_trace_the_node_or_its_output_serves() -> None:
    node = _node("")
    node.outputs[0].name = "val_3"
    assert module_name(node) == "val_3"


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("bert.encoder.layer.0.output.dense/MatMul", "bert.encoder.layer.0.output.dense"),
        ("classifier/MatMul_2", "classifier"),
        ("classifier/Add", "classifier/Add"),
        ("while/body/MatMul", "while/body/MatMul"),
        ("MatMul", "MatMul"),
    ],
)
def test_our_own_node_names_hold_the_module(name: str, module: str) -> None:
    assert module_name(_node(name)) == module


def test_a_module_is_never_guessed_from_parameters() -> None:
    weight = ir.Value(name="encoder.fc.weight")
    weight.const_value = ir.tensor(np.ones((2, 2), np.float32), name=weight.name)
    assert module_of(ir.Node("", "MatMul", [ir.Value(name="x"), weight], name="n7")) == ""


@pytest.mark.parametrize(
    ("pattern", "name", "found"),
    [
        ("classifier", "classifier", True),
        ("classifier*", "model.classifier.dense", True),
        ("layer.1", "encoder.layer.1.output", True),
        ("layer.1", "encoder.layer.11.output", False),
        ("layer.[01].*dense", "encoder.layer.1.output.dense", True),
        ("dense", "encoder.condenser", False),
    ],
)
def test_patterns_select_whole_words(pattern: str, name: str, found: bool) -> None:
    assert (selects([pattern], ["other", name]) == pattern) is found
