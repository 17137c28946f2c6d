"""Hazard: names."""

from __future__ import annotations

import onnx

from .base import Builder, Case, accept, graph, model, node, of, refuse, value, with_graph


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


def name_cases() -> list[Case]:
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
