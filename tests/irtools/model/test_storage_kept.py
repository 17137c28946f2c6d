"""A model that is read and written has the declarations and the sparse tensors that it had."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from irtools.model import Model

FLOAT = TensorProto.FLOAT


def _model(nodes: list[onnx.NodeProto], **parts: object) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", FLOAT, ["n", 64])
    y = helper.make_tensor_value_info("y", FLOAT, ["n", "m"])
    graph = helper.make_graph(nodes, "g", [x], [y], **parts)  # type: ignore[arg-type]
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def _weight(name: str, *shape: int) -> onnx.TensorProto:
    rng = np.random.default_rng(len(name))
    return numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)


def _sparse(
    name: str, *, kept: int = 40, columns: int = 32, by_axis: bool = False
) -> onnx.SparseTensorProto:
    """[64, columns] with few values, one of them -0.0."""
    rng = np.random.default_rng(0)
    places = np.sort(rng.choice(64 * columns, kept, replace=False)).astype(np.int64)
    values = rng.normal(size=kept).astype(np.float32)
    values[3] = -0.0
    if by_axis:
        places = np.stack(np.unravel_index(places, (64, columns)), axis=1).astype(np.int64)
    return helper.make_sparse_tensor(
        numpy_helper.from_array(values, name), numpy_helper.from_array(places), [64, columns]
    )


def _written(proto: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    onnx.save(proto, folder / "in.onnx")
    Model.load(folder / "in.onnx").save(folder / "out.onnx")
    return onnx.load(folder / "out.onnx")


def _outputs(proto: onnx.ModelProto) -> np.ndarray:
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    x = np.random.default_rng(1).normal(size=(3, 64)).astype(np.float32)
    return np.asarray(session.run(None, {"x": x})[0])


def _branch(name: str, *, declared: bool) -> onnx.GraphProto:
    weight = _weight(f"{name}_w", 64, 8)
    info = helper.make_tensor_value_info(f"{name}_w", FLOAT, [64, 8])
    output = helper.make_tensor_value_info(f"{name}_y", FLOAT, None)
    node = helper.make_node("MatMul", ["x", f"{name}_w"], [f"{name}_y"])
    return helper.make_graph(
        [node], name, [], [output], [weight], value_info=[info] if declared else []
    )


def test_types_of_weights_in_branches_are_written_where_they_were_read(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
        helper.make_node("Cast", ["s"], ["c"], to=TensorProto.BOOL),
        helper.make_node(
            "If",
            ["c"],
            ["y"],
            then_branch=_branch("one", declared=False),
            else_branch=_branch("other", declared=True),
        ),
    ]
    proto = _model(nodes)
    written = _written(proto, tmp_path)
    branches = {a.name: a.g for a in written.graph.node[2].attribute}
    assert not branches["then_branch"].value_info
    assert [info.name for info in branches["else_branch"].value_info] == ["other_w"]
    assert written.ByteSize() <= proto.ByteSize()


@pytest.mark.parametrize("by_axis", [False, True])
def test_sparse_stays_sparse(by_axis: bool, tmp_path: Path) -> None:
    proto = _model(
        [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("Add", ["z", "b"], ["y"])],
        initializer=[_weight("b", 32)],
        sparse_initializer=[_sparse("w", by_axis=by_axis)],
    )
    written = _written(proto, tmp_path)
    (sparse,) = written.graph.sparse_initializer
    assert (
        numpy_helper.to_array(sparse.values).tobytes()
        == numpy_helper.to_array(proto.graph.sparse_initializer[0].values).tobytes()
    )
    assert [tensor.name for tensor in written.graph.initializer] == ["b"]
    assert np.array_equal(_outputs(written), _outputs(proto))
    onnx.checker.check_model(written)


def test_sparse_between_weights_too_large_to_copy(tmp_path: Path) -> None:
    """What is put into the file uncopied is found by its position among the dense ones."""
    proto = _model(
        [
            helper.make_node("MatMul", ["x", "w"], ["z"]),
            helper.make_node("MatMul", ["z", "first"], ["a"]),
            helper.make_node("MatMul", ["a", "second"], ["y"]),
        ],
        initializer=[_weight("first", 2048, 80), _weight("second", 80, 4096)],
        sparse_initializer=[_sparse("w", columns=2048)],
    )
    once = _written(proto, tmp_path)
    # Read once more: the sparse one now comes before the dense ones in memory.
    twice = _written(once, tmp_path)
    for written in (once, twice):
        assert [s.values.name for s in written.graph.sparse_initializer] == ["w"]
        assert np.array_equal(_outputs(written), _outputs(proto))
    assert (tmp_path / "out.onnx").stat().st_size <= proto.ByteSize()


def test_sparse_that_saves_nothing_is_written_dense(tmp_path: Path) -> None:
    proto = _model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        sparse_initializer=[_sparse("w", kept=64 * 32 // 2)],
    )
    written = _written(proto, tmp_path)
    assert not written.graph.sparse_initializer
    assert [tensor.name for tensor in written.graph.initializer] == ["w"]
    assert not written.graph.initializer[0].metadata_props
    assert np.array_equal(_outputs(written), _outputs(proto))


def test_a_changed_tensor_is_not_taken_for_the_sparse_one(tmp_path: Path) -> None:
    proto = _model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], sparse_initializer=[_sparse("w")]
    )
    onnx.save(proto, tmp_path / "in.onnx")
    model = Model.load(tmp_path / "in.onnx")
    value = model.ir.graph.initializers["w"]
    assert value.const_value is not None
    value.const_value = ir.Tensor(value.const_value.numpy() + 1, name="w")
    model.save(tmp_path / "out.onnx")
    written = onnx.load(tmp_path / "out.onnx")
    assert not written.graph.sparse_initializer
    dense = numpy_helper.to_array(written.graph.initializer[0])
    assert np.count_nonzero(dense == 1.0) >= 64 * 32 - 40
