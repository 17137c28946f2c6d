"""Hazard: versions of operator sets and of the format."""

from __future__ import annotations

from onnx import helper

from .base import Builder, Case, accept, edited, graph, model, of, refuse, value


def _opset(version: int) -> Builder:
    return edited(lambda m: setattr(m.opset_import[0], "version", version))


def _import(domain: str, version: int) -> Builder:
    return edited(lambda m: m.opset_import.add(domain=domain, version=version))


def _op(op: str, domain: str = "", opset: int = 17, **imports: int) -> Builder:
    body = [helper.make_node(op, ["x"], ["y"], domain=domain)]
    return of(lambda: model(graph(body, outputs=[value("y")], weights=[]), opset=opset, **imports))


def version_cases() -> list[Case]:
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
        refuse("opset_twice", _import("", 18), "two opsets"),
        refuse("opset_alias_twice", _import("ai.onnx", 18), "two opsets, 17 and 18"),
        refuse("domain_not_imported", _op("Foo", "my.ops"), "my.ops"),
        refuse("unknown_operator", _op("Flobnicate"), "Flobnicate"),
        refuse("operator_too_new", _op("Gelu"), "Gelu"),
        accept("unknown_domain", _op("Foo", "my.ops", **{"my.ops": 1})),
        accept("runtime_domain", _op("FastGelu", "com.microsoft", **{"com.microsoft": 1})),
        accept("opset_listed_again", _import("", 17)),
        accept("opset_listed_again_by_its_alias", _import("ai.onnx", 17)),
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
