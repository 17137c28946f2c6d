"""Hazard: tensors, wherever they sit."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .base import (
    FLOAT,
    Builder,
    Case,
    accept,
    edited,
    graph,
    model,
    node,
    of,
    refuse,
    value,
    weight,
    with_graph,
)
from .graph_parts import (
    add_training,
    make_branch,
    make_calling,
    make_function,
    make_if_model,
    make_plain,
    make_softmax_function,
)


def _tensor(edit: Callable[[onnx.TensorProto], object]) -> Builder:
    return edited(lambda m: edit(m.graph.initializer[0]))


def _typed(kind: int, values: object, shape: Iterable[int] = (2,), dtype=None) -> Builder:
    """A model whose output is a weight of one type, held in the typed field."""

    def build() -> onnx.ModelProto:
        tensor = helper.make_tensor("k", kind, list(shape), values)
        output = value("k2", tuple(shape), kind)
        body = [node("Identity", "k", "k2"), node("Neg", "x", "y")]
        opset = 24
        return model(
            graph(body, outputs=[value("y"), output], weights=[tensor]), ir=11, opset=opset
        )

    return of(build)


def _dims(*dims: int) -> Builder:
    def edit(tensor: onnx.TensorProto) -> None:
        del tensor.dims[:]
        tensor.dims.extend(dims)

    return _tensor(edit)


def _as_floats(count: int, *, keep_raw: bool = False) -> Builder:
    def edit(tensor: onnx.TensorProto) -> None:
        if not keep_raw:
            tensor.ClearField("raw_data")
        tensor.float_data.extend([0.5] * count)

    return _tensor(edit)


def make_sparse(name: str, dims=(4, 3), values=(1.0, 2.0), indices=(0, 5), kind=FLOAT):
    held = helper.make_tensor(name, kind, [len(values)], list(values))
    flat = np.array(indices, np.int64)
    return helper.make_sparse_tensor(held, numpy_helper.from_array(flat, f"{name}_i"), list(dims))


def _sparse_weight(**options: object) -> Builder:
    def edit(proto: onnx.ModelProto) -> None:
        del proto.graph.initializer[0]
        proto.graph.sparse_initializer.append(make_sparse("w", **options))

    return edited(edit)


def _constant(tensor: onnx.TensorProto) -> list[onnx.NodeProto]:
    return [node("Constant", "", "w", value=tensor), node("MatMul", "x w", "y")]


def _broken(name: str = "w") -> onnx.TensorProto:
    tensor = weight(name)
    tensor.raw_data = tensor.raw_data[:-4]
    return tensor


def _in_training(tensor: onnx.TensorProto) -> Builder:
    def edit(proto: onnx.ModelProto) -> None:
        add_training(proto)
        proto.training_info[0].algorithm.initializer[0].CopyFrom(tensor)

    return edited(edit)


def wherever(make: Callable[[], onnx.TensorProto]) -> dict[str, Builder]:
    """The places, other than the main graph's weights, in which a tensor can sit."""

    def subgraph(folder: Path) -> Path:
        branch = make_branch([node("MatMul", "x w", "r")], weights=[make()])
        return make_if_model(branch)(folder)

    def sparse(folder: Path) -> Path:
        def edit(proto: onnx.ModelProto) -> None:
            item = proto.graph.sparse_initializer.add()
            item.CopyFrom(make_sparse("k", values=(1.0,) * 12, indices=range(12)))
            item.values.CopyFrom(make())
            item.values.name = "k"

        return edited(edit)(folder)

    def in_function(folder: Path) -> Path:
        body = [node("Constant", "", "w", value=make()), node("MatMul", "a w", "r")]
        return make_calling(make_function("F", body))(folder)

    def default(folder: Path) -> Path:
        function = make_softmax_function()
        function.attribute_proto.append(helper.make_attribute("k", make()))
        return make_calling(function, axis=1)(folder)

    return {
        "subgraph": subgraph,
        "attribute": lambda folder: make_plain(*_constant(make()))(folder),
        "function": in_function,
        "function_default": default,
        "training": lambda folder: _in_training(make())(folder),
        "sparse": sparse,
    }


def _input_dims(*dims: int) -> Builder:
    return with_graph(inputs=[value("x", dims)])


def tensor_cases() -> list[Case]:
    kinds = TensorProto
    bad_dtype = edited(lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 77))
    return [
        refuse("raw_too_short", _tensor(lambda t: setattr(t, "raw_data", t.raw_data[:-1])), "'w'"),
        refuse(
            "raw_too_long", _tensor(lambda t: setattr(t, "raw_data", t.raw_data + b"\0")), "'w'"
        ),
        refuse("typed_too_short", _as_floats(11), "11 values"),
        refuse("typed_too_long", _as_floats(13), "13 values"),
        refuse("raw_and_typed", _as_floats(12, keep_raw=True), "exactly one"),
        refuse("no_data", _tensor(lambda t: t.ClearField("raw_data")), "'w'"),
        refuse(
            "wrong_field",
            _tensor(lambda t: (t.ClearField("raw_data"), t.int64_data.extend([1] * 12))),
            "int64_data",
        ),
        refuse("unknown_dtype", _tensor(lambda t: setattr(t, "data_type", 99)), "99"),
        refuse("undefined_dtype", _tensor(lambda t: setattr(t, "data_type", 0)), "unknown"),
        refuse("other_dtype", _tensor(lambda t: setattr(t, "data_type", kinds.DOUBLE)), "bytes"),
        refuse(
            "strings_as_raw", _tensor(lambda t: setattr(t, "data_type", kinds.STRING)), "strings"
        ),
        refuse("segment", _tensor(lambda t: setattr(t.segment, "end", 3)), "segment"),
        refuse("negative_dim", _dims(-4, 3), "-4"),
        refuse("two_negative_dims", _dims(-4, -3), "-4"),
        refuse("huge_dim", _dims(2**40 + 1, 3), "dimension"),
        refuse("wrapping_dims", _dims(2**32, 2**32), "bytes"),
        refuse("overflow_dims", _dims(2**40, 2**40, 2**40), "bytes"),
        refuse("overflow_to_equal", _dims(2**33, 2**31, 12), "bytes"),
        refuse("many_dims", _dims(*([1] * 65), 12), "66 dimensions"),
        refuse("input_negative_dim", _input_dims(-5, 4), "-5"),
        refuse("input_huge_dim", _input_dims(2**41, 4), str(2**41)),
        refuse("input_unknown_dtype", bad_dtype, "77"),
        *(refuse(f"broken_in_{k}", b, "") for k, b in wherever(_broken).items()),
        refuse("sparse_out_of_range", _sparse_weight(indices=(0, 12)), "out of range"),
        refuse("sparse_negative_index", _sparse_weight(indices=(-1, 3)), "out of range"),
        refuse("sparse_index_twice", _sparse_weight(indices=(3, 3)), "two values"),
        refuse("sparse_too_few_indices", _sparse_weight(indices=(3,)), "indices"),
        refuse("sparse_bomb", _sparse_weight(dims=(2**20, 2**16)), "limit"),
        refuse("sparse_huge_dims", _sparse_weight(dims=(2**39, 2**39)), "limit"),
        accept("sparse_ok", _sparse_weight()),
        accept("sparse_coordinates", _sparse_weight(indices=((0, 0), (1, 2)))),
        accept(
            "sparse_constant",
            make_plain(
                node("Constant", "", "w", sparse_value=make_sparse("v")), node("MatMul", "x w", "y")
            ),
        ),
        accept("constant_node", make_plain(*_constant(weight()))),
        accept("large_constant", make_plain(*_constant(weight(shape=(4, 9000))))),
        accept("typed_float", _typed(kinds.FLOAT, [1.0, 2.0])),
        accept("typed_double", _typed(kinds.DOUBLE, [1.0, 2.0])),
        accept("typed_int64", _typed(kinds.INT64, [1, -2])),
        accept("typed_int32", _typed(kinds.INT32, [1, -2])),
        accept("typed_int8", _typed(kinds.INT8, [1, -2])),
        accept("typed_uint8", _typed(kinds.UINT8, [1, 200])),
        accept("typed_uint64", _typed(kinds.UINT64, [1, 2**63])),
        accept("typed_bool", _typed(kinds.BOOL, [True, False])),
        accept("typed_float16", _typed(kinds.FLOAT16, [1.0, 2.0])),
        accept("typed_bfloat16", _typed(kinds.BFLOAT16, [1.0, 2.0])),
        accept("typed_float8", _typed(kinds.FLOAT8E4M3FN, [1.0, 2.0])),
        accept("typed_int4", _typed(kinds.INT4, [1, -2, 3], (3,))),
        accept("typed_uint4", _typed(kinds.UINT4, [1, 2, 3], (3,))),
        accept("typed_complex", _typed(kinds.COMPLEX64, [1 + 2j, 3j])),
        accept("string_tensors", _typed(kinds.STRING, [b"a", "\u00e9".encode()])),
        accept("scalar", _typed(kinds.FLOAT, [1.0], ())),
        accept("zero_size", _typed(kinds.FLOAT, [], (0, 3))),
        accept(
            "zero_size_raw", with_graph(weights=[weight(), weight("b", (3,)), weight("e", (0,))])
        ),
        accept("float16_model", _cast_model(np.float16)),
        accept("int64_model", _cast_model(np.int64)),
        accept("nan_inf_weights", _weights_of(np.nan, np.inf, -np.inf)),
        accept("extreme_weights", _weights_of(3.4e38, -3.4e38, 1e-45)),
        accept(
            "large_weight",
            with_graph(weights=[weight(), weight("b", (3,)), weight("z", (99, 999))]),
        ),
        accept(
            "tied_weights",
            make_plain(
                node("MatMul", "x w", "h"),
                node("MatMul", "h wt", "m"),
                node("Add", "m x", "y"),
                weights=[weight(), weight("wt", (3, 4))],
            ),
        ),
    ]


def _cast_model(dtype: object) -> Builder:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return with_graph(
        inputs=[value("x", ("N", 4), kind)],
        outputs=[value("y", ("N", 3), kind)],
        weights=[weight(dtype=dtype), weight("b", (3,), dtype)],
    )


def _weights_of(*values: float) -> Builder:
    array = np.array([values] * 4, np.float32)
    return with_graph(weights=[numpy_helper.from_array(array, "w"), weight("b", (3,))])
