"""Files that users and attackers hand to a model compiler, legal ones among them.

`CASES` holds them all. Each builds its files below a folder of its own and returns the path to be
opened. Legal cases must be accepted and survive a save; the others must be refused in one line that
contains the needle, in under two seconds, without reading `CANARY` from outside the model's folder.
The categories are those of the project's reliability survey: what a file is, versions, graphs,
tensors, external data, names.
"""

from __future__ import annotations

import json
import os
import pickle
import socket
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CANARY = b"CANARY-3f1c9a77e0d24b58"
"""Content of the file outside the model's folder that no output may ever hold."""

Builder = Callable[[Path], Path]


@dataclass(frozen=True)
class Case:
    """A file and what must become of it."""

    name: str
    build: Builder
    expectation: Literal["accept", "refuse"]
    needle: str = ""


# --- parts ---------------------------------------------------------------------------------------

FLOAT = TensorProto.FLOAT


def value(name: str, shape: Iterable[object] | None = ("N", 4), kind: int = FLOAT):
    return helper.make_tensor_value_info(name, kind, None if shape is None else list(shape))


def weight(name: str = "w", shape: tuple[int, ...] = (4, 3), dtype: object = np.float32):
    count = int(np.prod(shape))
    array = (np.arange(count) % 7 - 3).astype(dtype).reshape(shape)
    return numpy_helper.from_array(array, name)


def node(op: str, inputs: str, outputs: str, **attributes: object):
    named = [[n if n != "_" else "" for n in text.split()] for text in (inputs, outputs)]
    return helper.make_node(op, *named, **attributes)


def graph(nodes=None, inputs=None, outputs=None, weights=None, name="g"):
    return helper.make_graph(
        nodes if nodes is not None else [node("MatMul", "x w", "h"), node("Add", "h b", "y")],
        name,
        inputs if inputs is not None else [value("x")],
        outputs if outputs is not None else [value("y", ("N", 3))],
        weights if weights is not None else [weight(), weight("b", (3,))],
    )


def model(
    of: onnx.GraphProto | None = None, *, ir: int = 10, opset: int = 17, functions=(), **more
):
    imports = [helper.make_opsetid(d, v) for d, v in {"": opset, **more}.items()]
    return helper.make_model(
        of or graph(), ir_version=ir, opset_imports=imports, functions=list(functions)
    )


def write(folder: Path, data: bytes | onnx.ModelProto, name: str = "model.onnx") -> Path:
    """Write a model into `folder/model/`, with the canary next to that folder."""
    inner = folder / "model"
    inner.mkdir(parents=True, exist_ok=True)
    (folder / "secret.bin").write_bytes(CANARY * 8)
    path = inner / name
    path.write_bytes(data if isinstance(data, bytes) else data.SerializeToString())
    return path


def of(make: Callable[[], onnx.ModelProto | bytes], name: str = "model.onnx") -> Builder:
    return lambda folder: write(folder, make(), name)


def edited(edit: Callable[[onnx.ModelProto], object], **options: object) -> Builder:
    """Build the plain model with one thing changed."""

    def build() -> onnx.ModelProto:
        proto = model(**options)
        edit(proto)
        return proto

    return of(build)


def with_graph(**parts: object) -> Builder:
    return of(lambda: model(graph(**parts)))


def accept(name: str, build: Builder) -> Case:
    return Case(name, build, "accept")


def refuse(name: str, build: Builder, needle: str) -> Case:
    return Case(name, build, "refuse", needle)


# --- what the file is ----------------------------------------------------------------------------


def _raw(data: bytes) -> Builder:
    return of(lambda: data)


def _zip(folder: Path) -> Path:
    path = write(folder, b"")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"x")
    return path


class _Touch:
    """Unpickling this would create a file."""

    def __reduce__(self):
        return (os.system, ("touch PWNED",))


def _folder(folder: Path) -> Path:
    (folder / "model.onnx").mkdir(parents=True)
    return folder / "model.onnx"


def _pipe(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    os.mkfifo(folder / "model.onnx")
    return folder / "model.onnx"


def _socket(folder: Path) -> Path:
    path = write(folder, b"").parent / "s.onnx"
    here = Path.cwd()
    os.chdir(path.parent)  # socket paths are short
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(here)
    return path


def _link_to(target: str) -> Builder:
    def build(folder: Path) -> Path:
        path = write(folder, b"")
        path.unlink()
        path.symlink_to(target)
        return path

    return build


def _missing(folder: Path) -> Path:
    return write(folder, b"x").with_name("absent.onnx")


def _truncated(percent: float) -> Builder:
    def build() -> bytes:
        data = model().SerializeToString()
        return data[: max(1, int(len(data) * percent / 100))]

    return of(build)


def _safetensors() -> bytes:
    head = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return len(head).to_bytes(8, "little") + head + bytes(4)


def _file_cases() -> list[Case]:
    lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
    return [
        refuse("empty_file", _raw(b""), "empty"),
        refuse("git_lfs_pointer", _raw(lfs), "git-lfs pointer"),
        refuse("html_page", _raw(b"<!DOCTYPE html><html>404</html>"), "web page"),
        refuse("html_with_space", _raw(b"\n\n  <html><body>login"), "web page"),
        refuse("xml_file", _raw(b'<?xml version="1.0"?><net/>'), "XML"),
        refuse("json_file", _raw(b'{"model": 1}'), "JSON"),
        refuse("text_file", _raw(b"ir_version: 8\ngraph { }\n" * 20), "text file"),
        refuse("text_utf8", _raw("modèle\n".encode() * 200), "text file"),
        refuse("zip_named_onnx", _zip, "zip archive"),
        refuse("pickle_named_onnx", of(lambda: pickle.dumps(_Touch())), "pickle"),
        refuse("safetensors_named_onnx", of(_safetensors), "safetensors"),
        refuse("gguf_named_onnx", _raw(b"GGUF\x03\0\0\0" + bytes(64)), "GGUF"),
        refuse("hdf5_named_onnx", _raw(b"\x89HDF\r\n\x1a\n" + bytes(64)), "HDF5"),
        refuse("gzip_named_onnx", _raw(b"\x1f\x8b\x08\0" + bytes(64)), "gzip"),
        refuse("ort_format", _raw(b"\x18\0\0\0ORTM" + bytes(64)), "ORT"),
        refuse("random_bytes", _raw(bytes((i * 167 + 13) % 256 for i in range(999))), ""),
        refuse("zeros", _raw(bytes(4096)), ""),
        refuse("is_a_directory", _folder, "not a regular file"),
        refuse("named_pipe", _pipe, "not a regular file"),
        refuse("socket_file", _socket, "not a regular file"),
        refuse("endless_device", _link_to("/dev/zero"), "not a regular file"),
        refuse("null_device", _link_to("/dev/null"), "not a regular file"),
        refuse("dangling_link", _link_to("nowhere.onnx"), "no such file"),
        refuse("link_loop", _link_to("model.onnx"), "model.onnx"),
        refuse("missing_file", _missing, "no such file"),
        *(refuse(f"trunc_{p}", _truncated(p), "") for p in (0.5, 10, 50, 90, 99)),
        refuse("message_of_another_kind", of(lambda: weight().SerializeToString()), ""),
        accept("plain", of(model)),
        accept(
            "unknown_protobuf_field", of(lambda: model().SerializeToString() + b"\xc2\x3e\x01x")
        ),
    ]


# --- versions ------------------------------------------------------------------------------------


def _opset(version: int) -> Builder:
    return edited(lambda m: setattr(m.opset_import[0], "version", version))


def _import(domain: str, version: int) -> Builder:
    return edited(lambda m: m.opset_import.add(domain=domain, version=version))


def _op(op: str, domain: str = "", opset: int = 17, **imports: int) -> Builder:
    body = [helper.make_node(op, ["x"], ["y"], domain=domain)]
    return of(lambda: model(graph(body, outputs=[value("y")], weights=[]), opset=opset, **imports))


def _version_cases() -> list[Case]:
    return [
        refuse("ir_newest", of(lambda: model(ir=14)), "IR version 14"),
        refuse("ir_999", of(lambda: model(ir=999)), "IR version 999"),
        refuse("ir_2", of(lambda: model(ir=2)), "IR version 2"),
        refuse("ir_zero", of(lambda: model(ir=0)), "IR version 0"),
        refuse("ir_negative", of(lambda: model(ir=-1)), "IR version -1"),
        refuse("opset_27", _opset(27), "opset 27"),
        refuse("opset_newest", _opset(28), "reads 7 to 26"),
        refuse("opset_999", _opset(999), "opset 999"),
        refuse("opset_6", _opset(6), "opset 6"),
        refuse("opset_zero", _opset(0), "opset 0"),
        refuse("opset_negative", _opset(-3), "opset -3"),
        refuse("ml_opset_99", _import("ai.onnx.ml", 99), "opset 99"),
        refuse("no_opset_import", edited(lambda m: m.ClearField("opset_import")), "no opset"),
        refuse("opset_twice", _import("", 18), "twice"),
        refuse("opset_alias_twice", _import("ai.onnx", 17), "twice"),
        refuse("domain_not_imported", _op("Foo", "my.ops"), "my.ops"),
        refuse("unknown_operator", _op("Flobnicate"), "Flobnicate"),
        refuse("operator_too_new", _op("Gelu"), "Gelu"),
        accept("unknown_domain", _op("Foo", "my.ops", **{"my.ops": 1})),
        accept("runtime_domain", _op("FastGelu", "com.microsoft", **{"com.microsoft": 1})),
        accept("alias_domain", edited(lambda m: setattr(m.opset_import[0], "domain", "ai.onnx"))),
        accept("operator_new_enough", _op("Gelu", opset=20)),
        *(accept(f"opset_{v}", _op("Relu", opset=v)) for v in range(7, 27)),
        *(accept(f"ir_{v}", of(lambda v=v: model(ir=v))) for v in range(4, 14)),
        accept(
            "ir_3",
            of(
                lambda: model(
                    graph(inputs=[value("x"), value("w", (4, 3)), value("b", (3,))]), ir=3
                )
            ),
        ),
    ]


# --- graphs --------------------------------------------------------------------------------------


def _branch(nodes, outputs=("r",), inputs=(), weights=(), name="branch"):
    shaped = [value(o, None) for o in outputs]
    return helper.make_graph(nodes, name, [value(i, None) for i in inputs], shaped, list(weights))


def _if(then, orelse=None, outputs: str = "y"):
    orelse = orelse or _branch([node("Neg", "x", "r2")], ["r2"])
    return node("If", "c", outputs, then_branch=then, else_branch=orelse)


def _if_model(then, orelse=None, outputs: str = "y", extra=()) -> Builder:
    nodes = [_if(then, orelse, outputs), *extra]
    inputs = [value("x"), value("c", (), TensorProto.BOOL)]
    results = [value(name, None) for name in outputs.split()]
    return with_graph(nodes=nodes, inputs=inputs, outputs=results, weights=[])


def _message(number: int, payload: bytes) -> bytes:
    """Encode one length-delimited protobuf field."""
    length, size = bytearray(), len(payload)
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    return bytes([number << 3 | 2]) + bytes([*length, size]) + payload


def _nested_if(depth: int) -> Builder:
    """Ifs inside Ifs; put together as bytes, because the library refuses to nest so deep."""

    def build() -> bytes:
        body = _branch([node("Neg", "x", "r0")], ["r0"]).SerializeToString()
        for level in range(1, depth + 1):
            other = _branch([node("Relu", "x", f"e{level}")], [f"e{level}"]).SerializeToString()
            item = node("If", "c", f"r{level}").SerializeToString()
            for name, part in (("then_branch", body), ("else_branch", other)):
                graph_type = b"\xa0\x01\x05"
                item += _message(5, _message(1, name.encode()) + _message(6, part) + graph_type)
            result = value(f"r{level}", None).SerializeToString()
            body = _message(1, item) + _message(2, b"b") + _message(12, result)
        for info in (value("x"), value("c", (), TensorProto.BOOL)):
            body += _message(11, info.SerializeToString())
        head = model()
        head.ClearField("graph")
        return head.SerializeToString() + _message(7, body)

    return of(build)


def _function(name: str, body, *, domain="local", inputs=("a",), outputs=("r",), **more):
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    return helper.make_function(domain, name, list(inputs), list(outputs), body, imports, **more)


def _call(name: str, inputs: str = "a", outputs: str = "r", **attributes: object):
    return helper.make_node(name, inputs.split(), outputs.split(), domain="local", **attributes)


def _calling(*functions: onnx.FunctionProto, name: str = "F", **attributes: object) -> Builder:
    def build() -> onnx.ModelProto:
        body = [_call(name, "x", "y", **attributes)]
        return model(
            graph(body, outputs=[value("y", None)], weights=[]), functions=functions, local=1
        )

    return of(build)


def _doubling(levels: int) -> list[onnx.FunctionProto]:
    made = [_function("F0", [node("Neg", "a", "r")])]
    for i in range(1, levels):
        made.append(
            _function(f"F{i}", [_call(f"F{i - 1}", "a", "m"), _call(f"F{i - 1}", "m", "r")])
        )
    made.append(_function("F", [_call(f"F{levels - 1}")]))
    return made


def _loop(body_nodes, outputs=("co", "so"), state: str = "s", extra=()) -> Builder:
    body = helper.make_graph(
        body_nodes,
        "body",
        [value("i", (), TensorProto.INT64), value("ci", (), TensorProto.BOOL), value(state, None)],
        [value("co", (), TensorProto.BOOL), *(value(o, None) for o in outputs[1:])],
        list(extra),
    )
    loop = node("Loop", "n c x", " ".join(f"y{k}" for k in range(len(outputs) - 1)), body=body)
    inputs = [value("x"), value("n", (), TensorProto.INT64), value("c", (), TensorProto.BOOL)]
    results = [value(f"y{k}", None) for k in range(len(outputs) - 1)]
    return with_graph(nodes=[loop], inputs=inputs, outputs=results, weights=[])


def _scan_identity() -> Builder:
    body = _branch([node("Identity", "s", "so"), node("Identity", "e", "eo")], ["so", "eo"], "se")
    scan = node("Scan", "x0 x", "y z", num_scan_inputs=1, body=body)
    return with_graph(
        nodes=[scan],
        inputs=[value("x0", (4,)), value("x")],
        outputs=[value("y", None), value("z", None)],
        weights=[],
    )


def _chain(length: int) -> Builder:
    def build() -> onnx.ModelProto:
        nodes = [node("Neg", f"v{i}", f"v{i + 1}") for i in range(length)]
        return model(graph(nodes, [value("v0")], [value(f"v{length}")], []))

    return of(build)


def _fan_out(width: int) -> Builder:
    def build() -> onnx.ModelProto:
        nodes = [node("Neg", "x", f"v{i}") for i in range(width)]
        nodes.append(node("Sum", " ".join(f"v{i}" for i in range(width)), "y"))
        return model(graph(nodes, outputs=[value("y")], weights=[]))

    return of(build)


def _sum_of(first: str, second: str) -> list[onnx.NodeProto]:
    return [node("Neg", "x", first), node("Neg", "x", second), node("Add", "a b", "y")]


def _plain(*nodes: onnx.NodeProto, outputs=None, **more: object) -> Builder:
    return with_graph(
        nodes=list(nodes),
        outputs=outputs or [value("y", None)],
        weights=more.pop("weights", []),
        **more,
    )


def _attribute_edit(edit: Callable[[onnx.AttributeProto], object]) -> Builder:
    def build() -> onnx.ModelProto:
        proto = model(graph([node("Softmax", "x", "y", axis=-1)], outputs=[value("y")], weights=[]))
        edit(proto.graph.node[0].attribute[0])
        return proto

    return of(build)


def _repeat_attribute() -> Builder:
    def build() -> onnx.ModelProto:
        proto = model(graph([node("Softmax", "x", "y", axis=-1)], outputs=[value("y")], weights=[]))
        proto.graph.node[0].attribute.append(helper.make_attribute("axis", 0))
        return proto

    return of(build)


def _graph_cases() -> list[Case]:
    neg = node("Neg", "x", "y")
    then = _branch([node("Relu", "x", "r")])
    vague = [value("y", None)]
    return [
        refuse("no_graph", edited(lambda m: m.ClearField("graph")), "no graph"),
        refuse("empty_graph", edited(lambda m: m.graph.Clear()), "no outputs"),
        refuse("no_outputs", edited(lambda m: m.graph.ClearField("output")), "no outputs"),
        refuse("no_nodes", edited(lambda m: m.graph.ClearField("node")), "'y'"),
        refuse(
            "cycle",
            _plain(node("Add", "x b", "a"), node("Neg", "a", "b"), node("Neg", "b", "y")),
            "cycle",
        ),
        refuse("self_cycle", _plain(node("Add", "x y", "y")), "cycle"),
        refuse(
            "long_cycle",
            _plain(
                node("Add", "x d", "a"),
                node("Neg", "a", "b"),
                node("Neg", "b", "d"),
                node("Neg", "d", "y"),
            ),
            "cycle",
        ),
        refuse("unsorted", _plain(node("Neg", "a", "y"), node("Neg", "x", "a")), "not sorted"),
        refuse("dangling_input", _plain(node("Add", "x ghost", "y")), "'ghost'"),
        refuse("dangling_output", _plain(neg, outputs=[value("y"), value("ghost")]), "'ghost'"),
        refuse("doubled_value", _plain(neg, node("Relu", "x", "y")), "'y'"),
        refuse("doubled_in_one_node", _plain(node("Split", "x", "y y", axis=1)), "'y'"),
        refuse("node_redefines_input", _plain(node("Neg", "x", "x"), neg), "'x'"),
        refuse(
            "node_redefines_weight", _plain(node("Neg", "x", "w"), neg, weights=[weight()]), "'w'"
        ),
        refuse("output_twice", _plain(neg, outputs=[value("y"), value("y")]), "twice"),
        refuse("input_twice", _plain(neg, inputs=[value("x"), value("x")]), "'x'"),
        refuse("input_without_name", _plain(neg, inputs=[value("x"), value("")]), "without a name"),
        refuse("weight_without_name", _plain(neg, weights=[weight("")]), "without a name"),
        refuse(
            "duplicate_initializer",
            with_graph(weights=[weight(), weight("b", (3,)), weight()]),
            "two initializers named 'w'",
        ),
        refuse(
            "sparse_and_dense_weight",
            edited(lambda m: m.graph.sparse_initializer.append(_sparse("w"))),
            "'w'",
        ),
        refuse("too_few_inputs", _plain(node("Add", "x", "y")), "input"),
        refuse("too_many_inputs", _plain(node("Neg", "x x", "y")), "input"),
        refuse("too_many_outputs", _plain(node("Neg", "x", "y z")), "output"),
        refuse("unknown_attribute", _plain(node("Neg", "x", "y", wrong=1)), "wrong"),
        refuse("missing_attribute", _plain(node("Cast", "x", "y")), "'to'"),
        refuse("attribute_twice", _repeat_attribute(), "axis"),
        refuse("attribute_of_wrong_type", _plain(node("Softmax", "x", "y", axis=1.5)), "axis"),
        refuse(
            "attribute_with_two_values", _attribute_edit(lambda a: a.floats.append(1.0)), "axis"
        ),
        refuse("attribute_type_lies", _attribute_edit(lambda a: setattr(a, "type", 1)), "axis"),
        refuse("attribute_without_type", _attribute_edit(lambda a: a.ClearField("type")), "type"),
        refuse(
            "attribute_without_name", _attribute_edit(lambda a: a.ClearField("name")), "no name"
        ),
        refuse("if_without_branch", _plain(node("If", "x", "y", then_branch=then)), "else_branch"),
        refuse(
            "branch_output_is_outer", _if_model(_branch([node("Neg", "x", "r")], ["x"])), "outer"
        ),
        refuse(
            "branch_output_twice",
            _if_model(
                _branch([node("Neg", "x", "r")], ["r", "r"]),
                _branch([node("Neg", "x", "p"), node("Neg", "x", "q")], "pq"),
                "y z",
            ),
            "twice",
        ),
        refuse("branch_shadows_outer", _if_model(_branch([node("Neg", "x", "x")], ["x"])), "'x'"),
        refuse(
            "branch_reads_later",
            _if_model(_branch([node("Neg", "late", "r")]), extra=[node("Neg", "x", "late")]),
            "late",
        ),
        refuse("branch_reads_sibling", _if_model(_branch([node("Neg", "r2", "r")])), "'r2'"),
        refuse("branch_reads_own_result", _if_model(_branch([node("Neg", "y", "r")])), "'y'"),
        refuse("branch_dangling", _if_model(_branch([node("Neg", "ghost", "r")])), "'ghost'"),
        refuse(
            "branch_unknown_operator",
            _if_model(_branch([node("Flobnicate", "x", "r")])),
            "Flobnicate",
        ),
        refuse("outer_reads_inner", _if_model(then, extra=[node("Neg", "r", "z")]), "'r'"),
        refuse("nested_if_40", _nested_if(40), "nested"),
        refuse("nested_if_200", _nested_if(200), "nested"),
        refuse("nested_type", edited(_nest_type(200)), "nested"),
        refuse("function_recursive", _calling(_function("F", [_call("F")])), "calls itself"),
        refuse(
            "function_mutual",
            _calling(_function("F", [_call("G")]), _function("G", [_call("F")])),
            "calls itself",
        ),
        refuse("function_doubling", _calling(*_doubling(40)), "1000000"),
        refuse("function_doubling_4000", _calling(*_doubling(4000)), "1000000"),
        refuse(
            "function_twice",
            _calling(
                _function("F", [node("Neg", "a", "r")]), _function("F", [node("Relu", "a", "r")])
            ),
            "twice",
        ),
        refuse("function_missing", _calling(_function("G", [node("Neg", "a", "r")])), "F"),
        refuse(
            "function_dangling", _calling(_function("F", [node("Neg", "ghost", "r")])), "'ghost'"
        ),
        refuse("function_reads_outer", _calling(_function("F", [node("Neg", "x", "r")])), "'x'"),
        refuse("function_without_output", _calling(_function("F", [node("Neg", "a", "q")])), "'r'"),
        refuse(
            "function_unknown_operator",
            _calling(_function("F", [node("Flobnicate", "a", "r")])),
            "Flobnicate",
        ),
        refuse(
            "function_without_name",
            _calling(_function("", [node("Neg", "a", "r")]), name="Neg"),
            "name",
        ),
        accept("nested_if_30", _nested_if(30)),
        accept("if_captures", _if_model(then)),
        accept("branch_identity_needed", _if_model(_branch([node("Identity", "x", "r")]))),
        accept(
            "branch_with_weight",
            _if_model(_branch([node("MatMul", "x k", "r")], weights=[weight("k")])),
        ),
        accept("siblings_share_names", _if_model(then, _branch([node("Neg", "x", "r")]))),
        accept("loop", _loop([node("Identity", "ci", "co"), node("Neg", "s", "so")])),
        accept(
            "loop_stacks",
            _loop(
                [node("Identity", "ci", "co"), node("Neg", "s", "so"), node("Abs", "s", "t")],
                ("co", "so", "t"),
            ),
        ),
        accept("scan_identity", _scan_identity()),
        accept("long_chain", _chain(5000)),
        accept("wide_fan_out", _fan_out(3000)),
        accept("unused_input", _plain(neg, inputs=[value("x"), value("unused")])),
        accept("unused_weight", with_graph(weights=[weight(), weight("b", (3,)), weight("z")])),
        accept("dead_nodes", _plain(neg, node("Relu", "x", "dead"))),
        accept("output_is_input", _plain(neg, outputs=[value("y"), value("x")])),
        accept(
            "output_is_weight",
            _plain(neg, weights=[weight()], outputs=[value("y"), value("w", (4, 3))]),
        ),
        accept("overridable_initializer", with_graph(inputs=[value("x"), value("w", (4, 3))])),
        accept(
            "absent_optional_input",
            _plain(
                node("Clip", "x _ m", "y"), weights=[numpy_helper.from_array(np.float32(1), "m")]
            ),
        ),
        accept("absent_optional_output", _plain(node("Dropout", "x", "y _"))),
        accept("same_input_twice", _plain(node("Add", "x x", "y"))),
        accept("random_op", _plain(node("RandomNormalLike", "x", "y"))),
        accept("output_without_shape", _plain(neg, outputs=vague)),
        accept("size_minus_one", _plain(neg, inputs=[value("x", (-1, 4))])),
        accept("fold_bomb_4tb", _fold_bomb()),
        accept("function_ok", _calling(_function("F", [node("Neg", "a", "r")]))),
        accept(
            "function_nested",
            _calling(_function("F", [_call("G")]), _function("G", [node("Neg", "a", "r")])),
        ),
        accept("function_attribute", _calling(_softmax_function(), axis=1)),
        accept("function_overload", of(_overloaded)),
        accept("sequence_type", _sequence()),
        accept("already_qdq", of(_quantized)),
        accept("quantization_annotation", edited(_annotate)),
        accept("training_info", edited(_add_training)),
        accept("metadata_and_docs", edited(_add_metadata)),
        accept("value_info", edited(lambda m: m.graph.value_info.append(value("h", ("N", 3))))),
    ]


def _nest_type(depth: int) -> Callable[[onnx.ModelProto], None]:
    def edit(proto: onnx.ModelProto) -> None:
        kind = helper.make_tensor_type_proto(FLOAT, [1])
        for _ in range(depth):
            kind = helper.make_sequence_type_proto(kind)
        proto.graph.input[0].type.CopyFrom(kind)

    return edit


def _fold_bomb() -> Builder:
    size = numpy_helper.from_array(np.array([2**20, 2**20], np.int64), "size")
    body = [
        node("ConstantOfShape", "size", "t"),
        node("ReduceMax", "t", "r", keepdims=0),
        node("Add", "x r", "y"),
    ]
    return _plain(*body, weights=[size])


def _softmax_function() -> onnx.FunctionProto:
    inner = node("Softmax", "a", "r")
    inner.attribute.add(name="axis", ref_attr_name="axis", type=onnx.AttributeProto.INT)
    return _function("F", [inner], attributes=["axis"])


def _overloaded() -> onnx.ModelProto:
    first, second = (_function("F", [node(op, "a", "r")]) for op in ("Neg", "Relu"))
    second.overload = "other"
    calls = [_call("F", "x", "m"), _call("F", "m", "y")]
    calls[1].overload = "other"
    body = graph(calls, outputs=[value("y", None)], weights=[])
    return model(body, functions=[first, second], local=1)


def _sequence() -> Builder:
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(FLOAT, None))
    output = helper.make_value_info("y", kind)
    return _plain(node("SequenceConstruct", "x x", "y"), outputs=[output])


def _quantized() -> onnx.ModelProto:
    scale = numpy_helper.from_array(np.float32(0.1), "s")
    zero = numpy_helper.from_array(np.uint8(128), "z")
    body = [node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "y")]
    return model(graph(body, outputs=[value("y")], weights=[scale, zero]))


def _annotate(proto: onnx.ModelProto) -> None:
    item = proto.graph.quantization_annotation.add(tensor_name="w")
    item.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="b")


def _add_training(proto: onnx.ModelProto) -> None:
    part = proto.training_info.add()
    part.algorithm.CopyFrom(graph(name="step"))
    part.update_binding.add(key="w", value="y")


def _add_metadata(proto: onnx.ModelProto) -> None:
    proto.doc_string, proto.producer_name, proto.domain = "what it is", "me", "org.example"
    proto.model_version = 7
    proto.metadata_props.add(key="license", value="Apache-2.0")
    proto.graph.doc_string = "the graph"
    proto.graph.metadata_props.add(key="a", value="b")
    proto.graph.node[0].doc_string = "the node"
    proto.graph.node[0].metadata_props.add(key="module", value="encoder.0")
    proto.graph.initializer[0].doc_string = "the weight"
    proto.graph.initializer[0].metadata_props.add(key="k", value="v")
    proto.graph.input[0].doc_string = "the input"


# --- tensors -------------------------------------------------------------------------------------


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


def _sparse(name: str, dims=(4, 3), values=(1.0, 2.0), indices=(0, 5), kind=FLOAT):
    held = helper.make_tensor(name, kind, [len(values)], list(values))
    flat = np.array(indices, np.int64)
    return helper.make_sparse_tensor(held, numpy_helper.from_array(flat, f"{name}_i"), list(dims))


def _sparse_weight(**options: object) -> Builder:
    def edit(proto: onnx.ModelProto) -> None:
        del proto.graph.initializer[0]
        proto.graph.sparse_initializer.append(_sparse("w", **options))

    return edited(edit)


def _constant(tensor: onnx.TensorProto) -> list[onnx.NodeProto]:
    return [node("Constant", "", "w", value=tensor), node("MatMul", "x w", "y")]


def _broken(name: str = "w") -> onnx.TensorProto:
    tensor = weight(name)
    tensor.raw_data = tensor.raw_data[:-4]
    return tensor


def _in_training(tensor: onnx.TensorProto) -> Builder:
    def edit(proto: onnx.ModelProto) -> None:
        _add_training(proto)
        proto.training_info[0].algorithm.initializer[0].CopyFrom(tensor)

    return edited(edit)


def _wherever(make: Callable[[], onnx.TensorProto]) -> dict[str, Builder]:
    """The places, other than the main graph's weights, in which a tensor can sit."""

    def subgraph(folder: Path) -> Path:
        branch = _branch([node("MatMul", "x w", "r")], weights=[make()])
        return _if_model(branch)(folder)

    def sparse(folder: Path) -> Path:
        def edit(proto: onnx.ModelProto) -> None:
            item = proto.graph.sparse_initializer.add()
            item.CopyFrom(_sparse("k", values=(1.0,) * 12, indices=range(12)))
            item.values.CopyFrom(make())
            item.values.name = "k"

        return edited(edit)(folder)

    def in_function(folder: Path) -> Path:
        body = [node("Constant", "", "w", value=make()), node("MatMul", "a w", "r")]
        return _calling(_function("F", body))(folder)

    def default(folder: Path) -> Path:
        function = _softmax_function()
        function.attribute_proto.append(helper.make_attribute("k", make()))
        return _calling(function, axis=1)(folder)

    return {
        "subgraph": subgraph,
        "attribute": lambda folder: _plain(*_constant(make()))(folder),
        "function": in_function,
        "function_default": default,
        "training": lambda folder: _in_training(make())(folder),
        "sparse": sparse,
    }


def _input_dims(*dims: int) -> Builder:
    return with_graph(inputs=[value("x", dims)])


def _tensor_cases() -> list[Case]:
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
        *(refuse(f"broken_in_{k}", b, "") for k, b in _wherever(_broken).items()),
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
            _plain(
                node("Constant", "", "w", sparse_value=_sparse("v")), node("MatMul", "x w", "y")
            ),
        ),
        accept("constant_node", _plain(*_constant(weight()))),
        accept("large_constant", _plain(*_constant(weight(shape=(4, 9000))))),
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
            _plain(
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


# --- external data -------------------------------------------------------------------------------

W_BYTES = weight().raw_data


def _external(name: str = "w", **entries: object) -> onnx.TensorProto:
    tensor = weight(name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, item in entries.items():
        tensor.external_data.add(key=key, value=str(item))
    return tensor


def _ext(
    prepare: Callable[[Path], object] = lambda inner: (inner / "w.bin").write_bytes(W_BYTES),
    edit: Callable[[onnx.TensorProto], object] = lambda tensor: None,
    **entries: object,
) -> Builder:
    """A model whose weight is outside; `prepare` makes the files in the model's folder."""

    def build(folder: Path) -> Path:
        tensor = _external(**({"location": "w.bin"} | entries))
        edit(tensor)
        path = write(folder, model(graph(weights=[tensor, weight("b", (3,))])))
        prepare(path.parent)
        return path

    return build


def _copy_to(name: str, data: bytes = W_BYTES) -> Callable[[Path], object]:
    def prepare(inner: Path) -> None:
        path = inner / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    return prepare


def _symlink(name: str, target: str) -> Callable[[Path], object]:
    def prepare(inner: Path) -> None:
        (inner / name).symlink_to(target)

    return prepare


def _hard_link(inner: Path) -> None:
    (inner / "w.bin").hardlink_to(inner.parent / "secret.bin")


def _hard_link_inside(inner: Path) -> None:
    (inner / "first.bin").write_bytes(W_BYTES)
    (inner / "w.bin").hardlink_to(inner / "first.bin")


def _link_chain(inner: Path) -> None:
    (inner / "w.bin").symlink_to("hop.bin")
    (inner / "hop.bin").symlink_to("../secret.bin")


def _linked_folder(inner: Path) -> None:
    (inner / "sub").symlink_to("..")


def _hub_cache(folder: Path) -> Path:
    """A model hub's cache: a snapshot of links into one folder of blobs."""
    path = _ext(location="model.onnx_data")(folder)
    blobs, snapshot = folder / "blobs", folder / "snapshots" / "0a1b"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    (blobs / "aaaa").write_bytes(path.read_bytes())
    (blobs / "bbbb").write_bytes(W_BYTES)
    (snapshot / "model.onnx").symlink_to("../../blobs/aaaa")
    (snapshot / "model.onnx_data").symlink_to("../../blobs/bbbb")
    return snapshot / "model.onnx"


def _hub_cache_escape(folder: Path) -> Path:
    path = _hub_cache(folder)
    (path.parent / "model.onnx_data").unlink()
    (path.parent / "model.onnx_data").symlink_to("../../secret.bin")
    return path


def _shared_file(folder: Path) -> Path:
    tensors = [
        _external("w", location="all.bin", offset=64, length=48),
        _external("b", location="all.bin", offset=0, length=12),
    ]
    del tensors[1].dims[:]
    tensors[1].dims.extend([3])
    path = write(folder, model(graph(weights=tensors)))
    (path.parent / "all.bin").write_bytes(bytes(64) + W_BYTES)
    return path


def _packed(folder: Path) -> Path:
    tensor = _external("k", location="w.bin", length=6)
    tensor.data_type = TensorProto.INT4
    body = [node("Identity", "k", "k2"), node("Neg", "x", "y")]
    outputs = [value("y"), value("k2", (4, 3), TensorProto.INT4)]
    path = write(folder, model(graph(body, outputs=outputs, weights=[tensor]), opset=21))
    (path.parent / "w.bin").write_bytes(bytes(range(6)))
    return path


def _external_cases() -> list[Case]:
    locations = {
        "absolute": ("/etc/hostname", "absolute"),
        "parent": ("../secret.bin", "out of"),
        "parent_inside": ("a/../../secret.bin", "out of"),
        "parent_behind_dot": ("./../secret.bin", "out of"),
        "parent_that_returns": ("../model/w.bin", "out of"),
        "backslash": ("..\\secret.bin", "holds one of"),
        "drive": ("C:secret.bin", "holds one of"),
        "url": ("file:///etc/hostname", "holds one of"),
        "address_marker": ("*/_ORT_MEM_ADDR_/*", "holds one of"),
        "zero_byte": ("w.bin\0/../../secret.bin", "control character"),
        "line_break": ("w\n.bin", "control character"),
        "empty": ("", "empty"),
        "folder": (".", "not a regular file"),
        "home": ("~/secret.bin", "no such file"),
        "missing": ("absent.bin", "absent.bin"),
        "below_a_file": ("w.bin/x", "w.bin"),
        "long": ("a" * 5000, "initializer 'w'"),
    }
    climb = _wherever(lambda: _external(location="../secret.bin"))
    twice = lambda t: t.external_data.add(key="location", value="w.bin")  # noqa: E731
    raw_too = lambda t: setattr(t, "raw_data", W_BYTES)  # noqa: E731
    strings = lambda t: setattr(t, "data_type", TensorProto.STRING)  # noqa: E731
    no_location = lambda t: t.external_data.pop(0)  # noqa: E731
    return [
        *(refuse(f"ext_{k}", _ext(location=loc), needle) for k, (loc, needle) in locations.items()),
        *(refuse(f"ext_in_{k}", b, "out of") for k, b in climb.items()),
        refuse("ext_no_location", _ext(edit=no_location), "empty"),
        refuse("ext_location_twice", _ext(edit=twice), "twice"),
        refuse("ext_unknown_key", _ext(__class__="x"), "__class__"),
        refuse("ext_offset_negative", _ext(offset=-8), "offset"),
        refuse("ext_offset_text", _ext(offset="0x10"), "offset"),
        refuse("ext_offset_unicode", _ext(offset="\u0661"), "offset"),
        refuse("ext_offset_beyond", _ext(offset=4096), "48 bytes"),
        refuse("ext_offset_huge", _ext(offset=10**18), "48 bytes"),
        refuse("ext_offset_digits", _ext(offset="9" * 5000), "offset"),
        refuse("ext_length_short", _ext(length=44), "44"),
        refuse("ext_length_long", _ext(length=52), "52"),
        refuse("ext_length_huge", _ext(length=2**50), str(2**50)),
        refuse("ext_length_negative", _ext(length=-1), "length"),
        refuse("ext_file_short", _ext(_copy_to("w.bin", W_BYTES[:40])), "40 bytes"),
        refuse("ext_file_empty", _ext(_copy_to("w.bin", b"")), "0 bytes"),
        refuse(
            "ext_is_folder", _ext(lambda inner: (inner / "w.bin").mkdir()), "not a regular file"
        ),
        refuse("ext_is_pipe", _ext(lambda inner: os.mkfifo(inner / "w.bin")), "not a regular file"),
        refuse("ext_is_device", _ext(_symlink("w.bin", "/dev/zero")), "outside"),
        refuse("ext_link_out", _ext(_symlink("w.bin", "../secret.bin")), "outside"),
        refuse("ext_link_absolute", _ext(_symlink("w.bin", "/etc/hostname")), "outside"),
        refuse("ext_link_chain", _ext(_link_chain), "outside"),
        refuse("ext_link_dangling", _ext(_symlink("w.bin", "nowhere")), "no such file"),
        refuse("ext_link_loop", _ext(_symlink("w.bin", "w.bin")), "w.bin"),
        refuse("ext_folder_link_out", _ext(_linked_folder, location="sub/secret.bin"), "outside"),
        refuse("ext_hard_link_out", _ext(_hard_link), "hard link"),
        refuse("ext_hub_cache_escape", _hub_cache_escape, "outside"),
        refuse("ext_and_raw", _ext(edit=raw_too), "inside the file and outside"),
        refuse("ext_strings", _ext(edit=strings), "strings"),
        accept("ext_ok", _ext(offset=0, length=48)),
        accept("ext_no_length", _ext()),
        accept("ext_checksum", _ext(checksum="da39a3ee5e6b4b0d3255bfef95601890afd80709")),
        accept("ext_ok_subdir", _ext(_copy_to("sub/deep/w.bin"), location="sub/deep/w.bin")),
        accept("ext_dot_slash", _ext(location="./w.bin")),
        accept("ext_dots_in_name", _ext(_copy_to("w..v2...bin"), location="w..v2...bin")),
        accept(
            "ext_spaces_and_emoji",
            _ext(_copy_to("my w \U0001f600.bin"), location="my w \U0001f600.bin"),
        ),
        accept(
            "ext_link_inside",
            _ext(lambda i: (_copy_to("real.bin")(i), _symlink("w.bin", "real.bin")(i))),
        ),
        accept("ext_hard_link_inside", _ext(_hard_link_inside)),
        accept("ext_shared_file", _shared_file),
        accept("ext_hub_cache", _hub_cache),
        accept("ext_packed", _packed),
    ]


# --- names ---------------------------------------------------------------------------------------


def _named_model(name: str) -> Builder:
    """A model that uses one name for a value, a node, a weight and a dimension."""

    def build() -> onnx.ModelProto:
        proto = model(
            graph(
                [node("MatMul", "x w", "h"), node("Add", "h b", "y")],
                [value("x", (name, 4))],
                [value("y", (name, 3))],
            )
        )
        proto.graph.node[0].name = name
        proto.graph.node[0].output[0] = proto.graph.node[1].input[0] = f"h{name}"
        proto.graph.initializer[0].name = proto.graph.node[0].input[1] = f"w{name}"
        return proto

    return of(build)


def _same_node_names() -> onnx.ModelProto:
    proto = model()
    for item in proto.graph.node:
        item.name = "same"
    return proto


def _name_cases() -> list[Case]:
    names = {
        "newline": "a\nERROR: forged line",
        "carriage_return": "a\rforged",
        "ansi": "\x1b[2J\x1b[31mred",
        "tab_and_zero": "a\tb\0c",
        "script": "<script>alert(1)</script>",
        "image": '"><img src=x onerror=alert(1)>',
        "template": "{{7*7}}${7*7}%s%n",
        "csv": "=HYPERLINK(1)",
        "quotes": 'it\'s "quoted" \\ back',
        "emoji": "\U0001f600 \u00e9\u4e2d",
        "right_to_left": "\u202egnp.exe",
        "line_separator": "a\u2028b",
        "path": "../../etc/passwd",
        "slashes": "/encoder/layer.0/attention/MatMul_output_0",
        "number": "42",
        "dots_and_colons": "a.b:0",
        "long": "n" * 250,
        "longer": "n" * 20000,
    }
    return [
        *(accept(f"name_{key}", _named_model(name)) for key, name in names.items()),
        accept(
            "name_io",
            with_graph(
                nodes=[node("Neg", "input.1", "12")],
                inputs=[value("input.1")],
                outputs=[value("12")],
                weights=[],
            ),
        ),
        accept("empty_node_names", of(model)),
        accept("duplicate_node_names", of(_same_node_names)),
        accept("file_name_spaces", of(model, "my model (1).onnx")),
        accept("file_name_emoji", of(model, "mod\u00e8le \U0001f600.onnx")),
        accept("file_name_line_break", of(model, "a\nb.onnx")),
        accept("file_name_without_suffix", of(model, "model")),
        refuse("broken_with_line_break", of(lambda: b"", "a\nb.onnx"), "empty"),
    ]


def _all_cases() -> tuple[Case, ...]:
    groups = (
        _file_cases,
        _version_cases,
        _graph_cases,
        _tensor_cases,
        _external_cases,
        _name_cases,
    )
    return tuple(case for make in groups for case in make())


CASES = _all_cases()
