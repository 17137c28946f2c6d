"""Raising a model's opset where that provably changes nothing."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir

from irtools.model.naming import FreshNames
from irtools.model.scopes import shown
from irtools.model.versions import MAX_OPSET
from irtools.model.walk import nested_graphs

__all__ = ["OpsetChange", "first_change", "opset_of", "raise_opset"]


@dataclass(frozen=True)
class OpsetChange:
    """What `raise_opset` did.

    Attributes:
        before: The opset before.
        after: The opset now; `before` where it could not be raised.
        reason: Why it could not be raised, with the node; empty where it could.
        rewritten: Nodes that were written another way to mean the same.
    """

    before: int
    after: int
    reason: str = ""
    rewritten: int = 0

    def __bool__(self) -> bool:
        return not self.reason


def opset_of(model: ir.Model) -> int:
    """Return the version of the standard operators that a model uses; 0 where it uses none."""
    return model.graph.opset_imports.get("", 0)


def raise_opset(model: ir.Model, to: int) -> OpsetChange:
    """Raise the opset of a model, its subgraphs and its functions in place.

    A node passes if its operator is the same at both versions, or differs in nothing but a wider
    choice of types, or in an option whose default is the old behaviour (reviewed, listed here), or
    can be written in the new way (`axes` as an input and the like). One node that does not pass
    leaves the whole model as it was.

    Args:
        model: The model.
        to: The opset wanted. A model that has it, or a newer one, is left alone.
    """
    before = opset_of(model)
    if to > MAX_OPSET:
        return OpsetChange(before, before, f"opset {to} is newer than {MAX_OPSET}")
    if not before or before >= to:
        return OpsetChange(before, before)
    if before < _OLDEST:
        return OpsetChange(before, before, f"opset {before} is older than {_OLDEST}")
    planned: list[tuple[ir.Node, _Rewrite]] = []
    bodies = [(model.graph, before)]
    bodies += [(f.graph, f.opset_imports.get("", to)) for f in model.functions.values()]
    for body, version in bodies:
        for node in (node for graph in nested_graphs(body) for node in graph):
            steps = () if node.domain else _steps(node.op_type, version, to)
            for step in steps:
                rewrite, reason = _judge(node, step)
                if reason:
                    return OpsetChange(before, before, reason)
                if rewrite is not None:
                    planned.append((node, rewrite))
    names = FreshNames(model)
    for node, rewrite in planned:
        rewrite(node, names)
    _stamp(model, to)
    return OpsetChange(before, to, rewritten=len(planned))


def first_change(op_type: str, to: int = MAX_OPSET) -> int | None:
    """Return the first opset in which a standard operator means something else, None for never.

    From there on no older node of it is raised.
    """
    steps = _steps(op_type, _OLDEST, to)
    changed = (
        s.new.since_version for s in steps if not (_keeps_meaning(s) or _key(s) in _REWRITES)
    )
    return next(changed, None)


_OLDEST = 11
"""Older operators differ in ways that are not covered here."""

_Rewrite = Callable[[ir.Node, FreshNames], None]


@dataclass(frozen=True)
class _Step:
    """An operator at one version and at the next version that changed it."""

    op_type: str
    old: onnx.defs.OpSchema
    new: onnx.defs.OpSchema


@functools.cache
def _steps(op_type: str, version: int, to: int) -> tuple[_Step, ...]:
    steps = []
    while version < to:
        old = _schema(op_type, version)
        version += 1
        new = _schema(op_type, version)
        if old is None or new is None:
            continue
        if old.since_version != new.since_version:
            steps.append(_Step(op_type, old, new))
    return tuple(steps)


def _schema(op_type: str, version: int) -> onnx.defs.OpSchema | None:
    try:
        return onnx.defs.get_schema(op_type, version, "")
    except onnx.defs.SchemaError:
        return None


def _judge(node: ir.Node, step: _Step) -> tuple[_Rewrite | None, str]:
    """Return the rewrite that a step needs, if any, or the reason why it cannot be taken."""
    if _key(step) in _REWRITES:
        applies, rewrite = _REWRITES[_key(step)]
        if applies(node):
            return rewrite, ""
    elif _keeps_meaning(step):
        return None, ""
    return None, (
        f"{step.op_type} node {shown(node.name or node.outputs[0].name)} means something else "
        f"from opset {step.new.since_version} on"
    )


def _key(step: _Step) -> tuple[str, int]:
    return step.op_type, step.new.since_version


def _keeps_meaning(step: _Step) -> bool:
    return _key(step) in _SAME or (step.op_type not in _CHANGED_SILENTLY and _is_wider(step))


# Same signature, other meaning: GroupNormalization 21 scales per channel and not per group,
# GridSample 20 renames its modes.
_CHANGED_SILENTLY = frozenset({"GroupNormalization", "GridSample"})

# New options whose defaults are the old behaviour, each read in onnx's operator changelog.
_SAME = frozenset(
    {
        ("ArgMax", 12),  # select_last_index
        ("ArgMin", 12),
        ("AveragePool", 19),  # dilations
        ("BatchNormalization", 14),  # training_mode; extra outputs of inference never existed
        ("Cast", 19),  # saturate, for float8
        ("CastLike", 19),
        ("Cast", 24),  # round_mode, for float8
        ("CastLike", 24),
        ("Constant", 12),  # other spellings of the value
        ("DequantizeLinear", 13),  # axis; a scalar scale has none
        ("DequantizeLinear", 21),  # block_size
        ("DequantizeLinear", 23),  # output_dtype
        ("Erf", 13),
        ("GRU", 14),  # layout
        ("GatherND", 12),  # batch_dims
        ("LSTM", 14),
        ("QuantizeLinear", 13),
        ("QuantizeLinear", 19),  # saturate, for float8
        ("QuantizeLinear", 21),  # block_size, output_dtype
        ("QuantizeLinear", 23),  # precision
        ("LpPool", 18),  # ceil_mode, dilations
        ("Pad", 18),  # axes
        ("RNN", 14),
        ("Reshape", 14),  # allowzero
        ("Resize", 13),
        ("Resize", 18),  # antialias, axes, keep_aspect_ratio_policy
        ("ScatterElements", 16),  # reduction
        ("ScatterND", 16),
        ("Shape", 15),  # start, end
    }
)


@functools.cache
def _is_wider(step: _Step) -> bool:
    """Whether the newer version differs in nothing but a wider choice of types."""
    old, new = step.old, step.new
    return (
        _attributes(old) == _attributes(new)
        and _parameters(old.inputs) == _parameters(new.inputs)
        and _parameters(old.outputs) == _parameters(new.outputs)
        and all(_types(new, i).issuperset(t) for i, t in enumerate(_all_types(old)))
    )


def _attributes(schema: onnx.defs.OpSchema) -> Mapping[str, tuple[object, ...]]:
    return {
        name: (a.type, a.required, a.default_value.SerializeToString())
        for name, a in schema.attributes.items()
    }


def _parameters(parameters: object) -> list[tuple[object, ...]]:
    assert isinstance(parameters, list)
    return [(p.option, p.is_homogeneous, p.min_arity) for p in parameters]


def _all_types(schema: onnx.defs.OpSchema) -> list[frozenset[str]]:
    return [frozenset(p.types) for p in (*schema.inputs, *schema.outputs)]


def _types(schema: onnx.defs.OpSchema, index: int) -> frozenset[str]:
    return _all_types(schema)[index]


def _stamp(model: ir.Model, to: int) -> None:
    # A Function's opset_imports are those of its graph.
    for imports in (
        model.graph.opset_imports,
        *(f.opset_imports for f in model.functions.values()),
    ):
        if "" in imports:
            imports[""] = max(to, imports[""])
    table = {row[2]: row[1] for row in onnx.helper.VERSION_TABLE}
    model.ir_version = max(model.ir_version, table.get(to, 0))


def _list_to_input(node: ir.Node, names: FreshNames) -> None:
    """Turn the attribute `axes` or `split` into the second input, as a Constant."""
    key = "split" if node.op_type == "Split" else "axes"
    attribute = node.attributes.pop(key, None)
    if attribute is not None:
        _add_constant(node, key, np.array(attribute.as_ints(), np.int64), names)


def _ratio_to_input(node: ir.Node, names: FreshNames) -> None:
    """Dropout: its ratio matters in training only, but is kept."""
    attribute = node.attributes.pop("ratio", None)
    if attribute is not None:
        _add_constant(node, "ratio", np.array(attribute.as_float(), np.float32), names)


def _add_constant(node: ir.Node, key: str, array: np.ndarray, names: FreshNames) -> None:
    name = names.make(f"{node.outputs[0].name}_{key}")
    tensor = ir.Tensor(array, name=name)
    constant = ir.node("Constant", [], attributes={"value": tensor}, name=name)
    constant.outputs[0].name = name
    constant.outputs[0].type = ir.TensorType(tensor.dtype)
    constant.outputs[0].shape = tensor.shape
    node.prepend(constant)
    node.resize_inputs(2)
    node.replace_input_with(1, constant.outputs[0])


def _count_outputs(node: ir.Node, names: FreshNames) -> None:
    """Split 18 needs the number of equal parts as an attribute."""
    if len(node.inputs) < 2 or node.inputs[1] is None:
        node.attributes["num_outputs"] = ir.AttrInt64("num_outputs", len(node.outputs))


def _name_axis(node: ir.Node, names: FreshNames) -> None:
    """Softmax up to 12 flattens all axes from `axis` on, which is the last one here."""
    node.attributes["axis"] = ir.AttrInt64("axis", -1)


def _always(node: ir.Node) -> bool:
    return True


def _is_literal(node: ir.Node) -> bool:
    """Whether the attribute to be moved is a value and not a function's parameter."""
    return not any(a.is_ref() for a in node.attributes.values())


def _has_last_axis(node: ir.Node) -> bool:
    axis = node.attributes.get_int("axis", 1) if _is_literal(node) else None
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    return axis == -1 or (shape is not None and axis == len(shape) - 1)


_REWRITES: Mapping[tuple[str, int], tuple[Callable[[ir.Node], bool], _Rewrite]] = {
    **{
        (op, 13): (_is_literal, _list_to_input)
        for op in ("Squeeze", "Unsqueeze", "Split", "ReduceSum")
    },
    **{
        (op, 18): (_is_literal, _list_to_input)
        for op in (
            "ReduceL1",
            "ReduceL2",
            "ReduceLogSum",
            "ReduceLogSumExp",
            "ReduceMax",
            "ReduceMean",
            "ReduceMin",
            "ReduceProd",
            "ReduceSumSquare",
        )
    },
    ("Dropout", 12): (_is_literal, _ratio_to_input),
    ("Split", 18): (_always, _count_outputs),
    **{(op, 13): (_has_last_axis, _name_axis) for op in ("Softmax", "LogSoftmax", "Hardmax")},
}
"""(operator, version) to whether a node can be written the new way, and how."""
