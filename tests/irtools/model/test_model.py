"""Model: reading, text, fingerprint."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import irtools.model as package
from irtools.errors import UnsupportedError
from irtools.model import FreshNames, Model, print_model
from irtools.model.wire import cut_weights

TEXT = """
<ir_version: 10, opset_import: ["" : 17]>
agraph (float[N, 4] x) => (float[N, 4] y)
<float[4, 4] w = {1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16}, float[1] one = {0.1}>
{
    h = MatMul (x, w)
    g = MatMul (h, w)
    y = Add (g, one)
}
"""


def make() -> Model:
    return Model.from_proto(onnx.parser.parse_model(TEXT))


def big_proto(count: int = 3, *, order: str = "C") -> onnx.ModelProto:
    """x -> MatMul with several weights large enough to be mapped."""
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.normal(size=(64, 64)).astype(np.float32), f"w{i}")
        for i in range(count)
    ]
    nodes = [helper.make_node("MatMul", [f"v{i}", f"w{i}"], [f"v{i + 1}"]) for i in range(count)]
    info = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 64]) for n in ("v0", f"v{count}")
    ]
    graph = helper.make_graph(nodes, "g", info[:1], info[1:], weights)
    return helper.make_model(
        graph, ir_version=10, opset_imports=[helper.make_opsetid("", 17)], producer_name="test"
    )


def test_size_minus_one_is_an_open_size() -> None:
    proto = onnx.parser.parse_model(TEXT)
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    model = Model.from_proto(proto)
    shape = model.ir.graph.inputs[0].shape
    assert shape is not None and shape[0] == ir.SymbolicDim(None) and shape[1] == 4
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value == -1


def test_exports() -> None:
    assert sorted(package.__all__) == package.__all__
    assert all(hasattr(package, name) for name in package.__all__)


def test_text_is_canonical() -> None:
    assert make().text() == (
        "ir 10, opset 17\n"
        "graph (x: float32[N, 4]) -> (y: float32[N, 4])\n"
        "  w: float32[4, 4] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, "
        "13.0, 14.0, 15.0, 16.0]\n"
        "  one: float32[1] = [0.1]\n"
        "  h = MatMul(x, w)\n"
        "  g = MatMul(h, w)\n"
        "  y = Add(g, one)\n"
    )


def test_type_attributes_are_printed_whole() -> None:
    kind = helper.make_optional_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, [2]))
    node = helper.make_node("Optional", [], ["o"], type=kind.optional_type.elem_type)
    proto = make().to_proto()
    proto.graph.node.append(node)
    assert "Optional<type=float32[2]>()" in Model.from_proto(proto).text()


def test_large_tensors_are_printed_by_digest() -> None:
    text = Model.from_proto(big_proto()).text()
    assert "w0: float32[64, 64] = sha256:" in text
    assert len(text) < 1000


def _change_weight(model: Model) -> None:
    value = model.ir.graph.initializers["w"]
    assert value.const_value is not None
    array = value.const_value.numpy().copy()
    array[0, 0] += 1e-3
    value.const_value = ir.Tensor(array, name="w")


CHANGES = {
    "weight": _change_weight,
    "operator": lambda m: setattr(m.ir.graph[2], "op_type", "Sub"),
    "wiring": lambda m: m.ir.graph[1].replace_input_with(0, m.ir.graph.inputs[0]),
    "node name": lambda m: setattr(m.ir.graph[0], "name", "other"),
    "metadata": lambda m: m.ir.metadata_props.update(a="b"),
    "opset": lambda m: m.ir.graph.opset_imports.update({"": 18}),
    "attribute": lambda m: m.ir.graph[0].attributes.add(ir.AttrInt64("k", 1)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_text_and_fingerprint_see_every_change(change: str) -> None:
    model = make()
    text, fingerprint = model.text(), model.fingerprint()
    copy = model.clone()
    CHANGES[change](copy)
    assert copy.text() != text and copy.fingerprint() != fingerprint
    assert model.text() == text and model.fingerprint() == fingerprint


def test_fingerprint_ignores_path_and_layout(tmp_path: Path) -> None:
    model = Model.from_proto(big_proto())
    found = {model.fingerprint()}
    for name, external in (("a", False), ("b", True)):
        (tmp_path / name).mkdir()
        saved = model.save(tmp_path / name / f"{name}.onnx", external_data=external)
        found.add(Model.load(saved.files[0]).fingerprint())
    assert len(found) == 1


def test_loaded_and_saved_unchanged_is_equal(tmp_path: Path) -> None:
    proto = big_proto()
    proto.graph.node[0].doc_string = "first"
    proto.metadata_props.add(key="k", value="v")
    proto.graph.value_info.append(helper.make_tensor_value_info("v1", TensorProto.FLOAT, ["N", 64]))
    onnx.save(proto, tmp_path / "in.onnx")
    for external in (False, True):
        Model.load(tmp_path / "in.onnx").save(tmp_path / "out.onnx", external_data=external)
        again = onnx.load(tmp_path / "out.onnx")
        for tensor in again.graph.initializer:
            tensor.ClearField("data_location")
            tensor.ClearField("external_data")
        assert again == proto


def test_large_weights_are_mapped_and_right(tmp_path: Path) -> None:
    proto = big_proto()
    onnx.save(proto, tmp_path / "m.onnx")
    model = Model.load(tmp_path / "m.onnx")
    for tensor in proto.graph.initializer:
        array = model.ir.graph.initializers[tensor.name].const_value.numpy()
        np.testing.assert_array_equal(array, numpy_helper.to_array(tensor))
        assert not array.flags.writeable and not array.flags.owndata


def test_loading_many_models_leaks_no_descriptors(tmp_path: Path) -> None:
    onnx.save(big_proto(), tmp_path / "m.onnx")
    gc.collect()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(50):
        Model.load(tmp_path / "m.onnx").text()
    gc.collect()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 3000), max_size=5),
    names=st.lists(st.text(max_size=5), max_size=3),
)
def test_cutting_loses_nothing(sizes: list[int], names: list[str]) -> None:
    proto = onnx.ModelProto(ir_version=8)
    for name in names:
        proto.graph.node.add(op_type=name)
    for i, size in enumerate(sizes):
        tensor = numpy_helper.from_array(np.full(size, i, np.float32), f"w{i}")
        proto.graph.initializer.append(tensor)
    proto.opset_import.add(version=17)
    data = memoryview(proto.SerializeToString())
    skeleton = cut_weights(data)
    again = onnx.ModelProto.FromString(skeleton.message)
    for position, (offset, length) in skeleton.spans.items():
        again.graph.initializer[position].raw_data = bytes(data[offset : offset + length])
    assert again == proto
    assert set(skeleton.spans) == {i for i, size in enumerate(sizes) if 4 * size > 4096}


def test_numbers_and_custom_operators() -> None:
    model = make()
    assert (model.num_parameters, model.weight_bytes, model.opset) == (17, 68, 17)
    assert model.unknown_ops() == ()
    model.ir.graph[0].domain, model.ir.graph[0].op_type = "my.ops", "Op"
    assert model.unknown_ops() == (("my.ops", "Op"),)


def test_interface_names_what_may_be_overridden() -> None:
    model = make()
    model.ir.graph.inputs.append(model.ir.graph.initializers["one"])
    interface = model.interface
    assert interface.overridable == ("one",)
    assert [str(info) for info in interface.required] == ["x: float32[N, 4]"]


def test_fresh_names_are_free_everywhere() -> None:
    names = FreshNames(make().ir)
    assert [names.make("h"), names.make("h"), names.make("new")] == ["h_1", "h_2", "new"]


@pytest.mark.parametrize("in_sequence", [True, False])
def test_map_types_survive_reading_and_writing(in_sequence: bool, tmp_path: Path) -> None:
    """ZipMap of scikit-learn exports: `onnx_ir` has no type for what it makes."""
    proto = onnx.parser.parse_model(TEXT)
    kind = proto.graph.output[0].type
    kind.Clear()
    inner = kind.sequence_type.elem_type if in_sequence else kind
    inner.map_type.key_type = TensorProto.INT64
    inner.map_type.value_type.tensor_type.elem_type = TensorProto.FLOAT
    wanted = onnx.TypeProto()
    wanted.CopyFrom(kind)
    model = Model.from_proto(proto).clone()
    assert model.interface.outputs[0].dtype == ""
    model.save(tmp_path / "m.onnx")
    again = onnx.load(tmp_path / "m.onnx")
    assert again.graph.output[0].type == wanted
    assert proto.graph.output[0].type == wanted


def test_opaque_types_are_refused_with_the_reason() -> None:
    proto = onnx.parser.parse_model(TEXT)
    kind = proto.graph.output[0].type
    kind.Clear()
    kind.opaque_type.name = "thing"
    with pytest.raises(UnsupportedError, match="opaque type"):
        Model.from_proto(proto)


def test_long_lists_are_printed_by_their_content() -> None:
    def listed(*numbers: float, count: int = 300) -> str:
        model = ir.from_onnx_text(
            '<ir_version: 8, opset_import: ["" : 17, "acme" : 1]> g (float[n] x) => (float[n] y) '
            "{ y = acme.Trees (x) }"
        )
        node = model.graph.node(0)
        node.attributes["values"] = ir.AttrFloat32s("values", [*numbers, *[1.0] * count])
        node.attributes["ids"] = ir.AttrInt64s("ids", list(range(count)))
        return print_model(model)

    text = listed(1.0)
    assert "values=[301] = sha256:" in text and "ids=[300] = sha256:" in text
    assert listed(1.0) == text != listed(np.nextafter(np.float32(1), np.float32(2)))
    assert "sha256" not in listed(count=256)
