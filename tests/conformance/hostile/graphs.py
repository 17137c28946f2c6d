"""Hazard: graphs, functions and types."""

from __future__ import annotations

import numpy as np
from onnx import numpy_helper

from .base import Case, accept, edited, node, of, refuse, value, weight, with_graph
from .graph_parts import (
    add_metadata,
    add_training,
    annotate,
    make_attribute_edit,
    make_branch,
    make_call,
    make_calling,
    make_chain,
    make_doubling,
    make_fan_out,
    make_fold_bomb,
    make_function,
    make_if_model,
    make_loop,
    make_nested_if,
    make_overloaded,
    make_plain,
    make_quantized,
    make_repeat_attribute,
    make_scan_identity,
    make_sequence,
    make_softmax_function,
    nest_type,
)
from .tensors import make_sparse


def graph_cases() -> list[Case]:
    neg = node("Neg", "x", "y")
    then = make_branch([node("Relu", "x", "r")])
    vague = [value("y", None)]
    return [
        refuse("no_graph", edited(lambda m: m.ClearField("graph")), "no graph"),
        refuse("empty_graph", edited(lambda m: m.graph.Clear()), "no outputs"),
        refuse("no_outputs", edited(lambda m: m.graph.ClearField("output")), "no outputs"),
        refuse("no_nodes", edited(lambda m: m.graph.ClearField("node")), "'y'"),
        refuse(
            "cycle",
            make_plain(node("Add", "x b", "a"), node("Neg", "a", "b"), node("Neg", "b", "y")),
            "cycle",
        ),
        refuse("self_cycle", make_plain(node("Add", "x y", "y")), "cycle"),
        refuse(
            "long_cycle",
            make_plain(
                node("Add", "x d", "a"),
                node("Neg", "a", "b"),
                node("Neg", "b", "d"),
                node("Neg", "d", "y"),
            ),
            "cycle",
        ),
        refuse("dangling_input", make_plain(node("Add", "x ghost", "y")), "'ghost'"),
        refuse("dangling_output", make_plain(neg, outputs=[value("y"), value("ghost")]), "'ghost'"),
        refuse("doubled_value", make_plain(neg, node("Relu", "x", "y")), "'y'"),
        refuse("doubled_in_one_node", make_plain(node("Split", "x", "y y", axis=1)), "'y'"),
        refuse("node_redefines_input", make_plain(node("Neg", "x", "x"), neg), "'x'"),
        refuse(
            "node_redefines_weight",
            make_plain(node("Neg", "x", "w"), neg, weights=[weight()]),
            "'w'",
        ),
        refuse("output_twice", make_plain(neg, outputs=[value("y"), value("y")]), "twice"),
        refuse("input_twice", make_plain(neg, inputs=[value("x"), value("x")]), "'x'"),
        refuse(
            "input_without_name", make_plain(neg, inputs=[value("x"), value("")]), "without a name"
        ),
        refuse("weight_without_name", make_plain(neg, weights=[weight("")]), "without a name"),
        refuse(
            "duplicate_initializer",
            with_graph(weights=[weight(), weight("b", (3,)), weight()]),
            "two initializers named 'w'",
        ),
        refuse(
            "sparse_and_dense_weight",
            edited(lambda m: m.graph.sparse_initializer.append(make_sparse("w"))),
            "'w'",
        ),
        refuse("too_few_inputs", make_plain(node("Add", "x", "y")), "input"),
        refuse("too_many_inputs", make_plain(node("Neg", "x x", "y")), "input"),
        refuse("too_many_outputs", make_plain(node("Neg", "x", "y z")), "output"),
        refuse("unknown_attribute", make_plain(node("Neg", "x", "y", wrong=1)), "wrong"),
        refuse("missing_attribute", make_plain(node("Cast", "x", "y")), "'to'"),
        refuse("attribute_twice", make_repeat_attribute(), "axis"),
        refuse("attribute_of_wrong_type", make_plain(node("Softmax", "x", "y", axis=1.5)), "axis"),
        refuse(
            "attribute_with_two_values", make_attribute_edit(lambda a: a.floats.append(1.0)), "axis"
        ),
        refuse("attribute_type_lies", make_attribute_edit(lambda a: setattr(a, "type", 1)), "axis"),
        refuse(
            "attribute_without_type", make_attribute_edit(lambda a: a.ClearField("type")), "type"
        ),
        refuse(
            "attribute_without_name", make_attribute_edit(lambda a: a.ClearField("name")), "no name"
        ),
        refuse(
            "if_without_branch", make_plain(node("If", "x", "y", then_branch=then)), "else_branch"
        ),
        refuse(
            "branch_output_is_outer",
            make_if_model(make_branch([node("Neg", "x", "r")], ["x"])),
            "outer",
        ),
        refuse(
            "branch_output_twice",
            make_if_model(
                make_branch([node("Neg", "x", "r")], ["r", "r"]),
                make_branch([node("Neg", "x", "p"), node("Neg", "x", "q")], "pq"),
                "y z",
            ),
            "twice",
        ),
        refuse(
            "branch_shadows_outer",
            make_if_model(make_branch([node("Neg", "x", "x")], ["x"])),
            "'x'",
        ),
        refuse(
            "branch_reads_sibling", make_if_model(make_branch([node("Neg", "r2", "r")])), "'r2'"
        ),
        refuse(
            "branch_reads_own_result", make_if_model(make_branch([node("Neg", "y", "r")])), "'y'"
        ),
        refuse(
            "branch_dangling", make_if_model(make_branch([node("Neg", "ghost", "r")])), "'ghost'"
        ),
        refuse(
            "branch_unknown_operator",
            make_if_model(make_branch([node("Flobnicate", "x", "r")])),
            "Flobnicate",
        ),
        refuse("outer_reads_inner", make_if_model(then, extra=[node("Neg", "r", "z")]), "'r'"),
        refuse("nested_if_40", make_nested_if(40), "nested"),
        refuse("nested_if_200", make_nested_if(200), "nested"),
        refuse("nested_type", edited(nest_type(200)), "nested"),
        refuse(
            "function_recursive", make_calling(make_function("F", [make_call("F")])), "calls itself"
        ),
        refuse(
            "function_mutual",
            make_calling(
                make_function("F", [make_call("G")]), make_function("G", [make_call("F")])
            ),
            "calls itself",
        ),
        refuse("function_doubling", make_calling(*make_doubling(40)), "1000000"),
        refuse("function_doubling_4000", make_calling(*make_doubling(4000)), "1000000"),
        refuse(
            "function_twice",
            make_calling(
                make_function("F", [node("Neg", "a", "r")]),
                make_function("F", [node("Relu", "a", "r")]),
            ),
            "twice",
        ),
        refuse("function_missing", make_calling(make_function("G", [node("Neg", "a", "r")])), "F"),
        refuse(
            "function_dangling",
            make_calling(make_function("F", [node("Neg", "ghost", "r")])),
            "'ghost'",
        ),
        refuse(
            "function_reads_outer", make_calling(make_function("F", [node("Neg", "x", "r")])), "'x'"
        ),
        refuse(
            "function_without_output",
            make_calling(make_function("F", [node("Neg", "a", "q")])),
            "'r'",
        ),
        refuse(
            "function_unknown_operator",
            make_calling(make_function("F", [node("Flobnicate", "a", "r")])),
            "Flobnicate",
        ),
        refuse(
            "function_without_name",
            make_calling(make_function("", [node("Neg", "a", "r")]), name="Neg"),
            "name",
        ),
        accept("unsorted", make_plain(node("Neg", "a", "y"), node("Neg", "x", "a"))),
        accept(
            "branch_reads_later",
            make_if_model(
                make_branch([node("Neg", "late", "r")]), extra=[node("Neg", "x", "late")]
            ),
        ),
        accept("nested_if_30", make_nested_if(30)),
        accept("if_captures", make_if_model(then)),
        accept("branch_identity_needed", make_if_model(make_branch([node("Identity", "x", "r")]))),
        accept(
            "branch_with_weight",
            make_if_model(make_branch([node("MatMul", "x k", "r")], weights=[weight("k")])),
        ),
        accept("siblings_share_names", make_if_model(then, make_branch([node("Neg", "x", "r")]))),
        accept("loop", make_loop([node("Identity", "ci", "co"), node("Neg", "s", "so")])),
        accept(
            "loop_stacks",
            make_loop(
                [node("Identity", "ci", "co"), node("Neg", "s", "so"), node("Abs", "s", "t")],
                ("co", "so", "t"),
            ),
        ),
        accept("scan_identity", make_scan_identity()),
        accept("long_chain", make_chain(5000)),
        accept("wide_fan_out", make_fan_out(3000)),
        accept("unused_input", make_plain(neg, inputs=[value("x"), value("unused")])),
        accept("unused_weight", with_graph(weights=[weight(), weight("b", (3,)), weight("z")])),
        accept("dead_nodes", make_plain(neg, node("Relu", "x", "dead"))),
        accept("output_is_input", make_plain(neg, outputs=[value("y"), value("x")])),
        accept(
            "output_is_weight",
            make_plain(neg, weights=[weight()], outputs=[value("y"), value("w", (4, 3))]),
        ),
        accept("overridable_initializer", with_graph(inputs=[value("x"), value("w", (4, 3))])),
        accept(
            "absent_optional_input",
            make_plain(
                node("Clip", "x _ m", "y"), weights=[numpy_helper.from_array(np.float32(1), "m")]
            ),
        ),
        accept("absent_optional_output", make_plain(node("Dropout", "x", "y _"))),
        accept("same_input_twice", make_plain(node("Add", "x x", "y"))),
        accept("random_op", make_plain(node("RandomNormalLike", "x", "y"))),
        accept("output_without_shape", make_plain(neg, outputs=vague)),
        accept("size_minus_one", make_plain(neg, inputs=[value("x", (-1, 4))])),
        accept("fold_bomb_4tb", make_fold_bomb()),
        accept("function_ok", make_calling(make_function("F", [node("Neg", "a", "r")]))),
        accept(
            "function_nested",
            make_calling(
                make_function("F", [make_call("G")]), make_function("G", [node("Neg", "a", "r")])
            ),
        ),
        accept("function_attribute", make_calling(make_softmax_function(), axis=1)),
        accept("function_overload", of(make_overloaded)),
        accept("sequence_type", make_sequence()),
        accept("already_qdq", of(make_quantized)),
        accept("quantization_annotation", edited(annotate)),
        accept("training_info", edited(add_training)),
        accept("metadata_and_docs", edited(add_metadata)),
        accept("value_info", edited(lambda m: m.graph.value_info.append(value("h", ("N", 3))))),
    ]
