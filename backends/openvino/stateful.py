"""Decoders whose cache stays inside OpenVINO, in the form that its kernel for attention takes.

A stateless decoder hands its keys and values out and gets them back at every step, and the plug-in
joins them by copying. As variables they stay where they are, and attention over them is one kernel
(`ScaledDotProductAttentionWithKVCache`), if the graph is written as its matcher wants it:

    past = Gather(ReadValue(variable), beam_idx)     [B, G, P, D]
    all = Concat(past, new), read by Assign          [B, G, P + S, D]
    Reshape(Broadcast(Unsqueeze(all)))               [B, H, P + S, D], where H > G
    ScaledDotProductAttention(q, keys, values, mask)

The importer repeats keys and values by Tile, to a shape computed from them, which hides the join
from the matcher. Where the model asks for a cache of few bits, the plug-in finds that in its
metadata (u8, u4: a scale and a zero point for groups of numbers, chosen at run time). `beam_idx`
[B] says from which row of the batch each row goes on. Names, order and variables are those of
optimum-intel, which OpenVINO GenAI opens.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from irtools.analysis.cache_codes import CACHE_BITS, CACHE_GROUP
from irtools.analysis.decoder import is_past, present_of
from irtools.backends.openvino.library import import_openvino
from irtools.backends.openvino.source import ImportedModel

__all__ = [
    "BEAMS",
    "CacheVariable",
    "cache_precision",
    "cache_variables",
    "make_stateful",
]

BEAMS = "beam_idx"
_SOURCE_METADATA = "framework"
_OPTIONS = "runtime_options"
_OF_BOTH = "KV_CACHE_PRECISION"
_OF_EACH = ("KEY_CACHE_PRECISION", "VALUE_CACHE_PRECISION")
_GROUPS = ("KEY_CACHE_GROUP_SIZE", "VALUE_CACHE_GROUP_SIZE")
_OPSET = "openvino.opset15"
_IDS = "input_ids"
_TOKENS = {_IDS, "attention_mask", "position_ids"}


@dataclass(frozen=True)
class CacheVariable:
    """Keys or values of one layer as a variable.

    Attributes:
        name: Input of the stateless model.
        present: Output that continues it.
        variable: Name of the variable: both, one after the other.
        heads: Key heads.
        size: Size of a head.
    """

    name: str
    present: str
    variable: str
    heads: int
    size: int


@dataclass(frozen=True)
class _Join:
    """Where new keys or values are joined to those of a cache input."""

    state: CacheVariable
    past: Any
    joined: Any
    result: Any


def cache_variables(model: Any) -> tuple[CacheVariable, ...]:
    """Return the caches that an `openvino.Model` holds as variables, layer by layer."""
    found = []
    for node in model.get_ordered_ops():
        if node.get_type_name() == "ReadValue":
            variable = str(node.get_attributes()["variable_id"])
            name, shape = variable.partition("present")[0], node.get_output_partial_shape(0)
            if is_past(name) and variable == name + present_of(name):
                heads, size = shape[1].get_length(), shape[3].get_length()
                found.append(CacheVariable(name, present_of(name), variable, heads, size))
    return tuple(sorted(found, key=_place))


def cache_precision(model: Any) -> str | None:
    """Return in which type an `openvino.Model` says itself that its cache is kept, the narrower."""
    asked = [[_OPTIONS, name] for name in (_OF_BOTH, *_OF_EACH)]
    found = (str(model.get_rt_info(one).value) for one in asked if model.has_rt_info(one))
    return min(found, default=None)


def _place(state: CacheVariable) -> tuple[int, str]:
    layer, what = state.name.split(".")[1:3]
    return int(layer), what


def make_stateful(imported: ImportedModel) -> ImportedModel:
    """Return the model with its cache as variables; as it is where it has no cache that fits.

    A cache fits where every input of one is joined to new tokens along axis 2, and the result is
    its output. Decoders that take more than tokens, those of encoder-decoders, keep theirs.
    """
    joins = list(_joins(imported))
    others = [port for port in imported.model.inputs if _past_name(port) is None]
    ids = [port for port in others if _IDS in port.get_names()]
    is_alone = all(port.get_names() & _TOKENS for port in others)
    if not (joins and ids and is_alone) or len(joins) + len(others) != len(imported.model.inputs):
        return imported
    ops = importlib.import_module(_OPSET)
    beams = ops.parameter([-1], import_openvino().Type.i32, name=BEAMS)
    beams.output(0).get_tensor().set_names({BEAMS})
    sinks = [_keep(ops, join, ids[0], beams) for join in joins]
    gone = {node.get_name() for join in joins for node in (join.past.get_node(), join.result)}
    results = [r for r in imported.model.get_results() if r.get_name() not in gone]
    inputs = [p for p in imported.model.get_parameters() if p.get_name() not in gone]
    name = imported.model.get_friendly_name()
    model = import_openvino().Model(results, sinks, [*inputs, beams], name)
    _repeat_heads_by_broadcast(ops, model)
    _drop_guards(model)
    _say_precision(imported.model, model)
    model.validate_nodes_and_infer_types()
    presents = {join.state.present for join in joins}
    outputs = tuple(output for output in imported.outputs if output not in presents)
    return replace(imported, model=model, outputs=outputs)


def _say_precision(source: Any, model: Any) -> None:
    """Let the plug-in keep the cache as the metadata of the ONNX file asks for."""
    bits, group = ([_SOURCE_METADATA, name] for name in (CACHE_BITS, CACHE_GROUP))
    if source.has_rt_info(bits):
        asked = str(source.get_rt_info(bits).value).split()
        names = _OF_EACH if len(set(asked)) > 1 else [_OF_BOTH]
        for name, one in zip(names, asked, strict=False):
            model.set_rt_info(f"u{one}", [_OPTIONS, name])
    if source.has_rt_info(group):
        for name in _GROUPS:
            model.set_rt_info(str(source.get_rt_info(group).value), [_OPTIONS, name])


def _joins(imported: ImportedModel) -> Iterator[_Join]:
    results = dict(zip(imported.outputs, imported.model.get_results(), strict=True))
    for port in imported.model.inputs:
        name = _past_name(port)
        result = None if name is None else results.get(present_of(name))
        if name is None or result is None:
            continue
        joined, shape = result.input_value(0), port.get_partial_shape()
        concat = joined.get_node()
        if concat.get_type_name() != "Concat" or concat.get_input_size() != 2:
            continue
        first = concat.input_value(0).get_node().get_name()
        is_fit = shape.rank.is_static and len(shape) == 4 and concat.get_attributes()["axis"] == 2
        if not is_fit or first != port.get_node().get_name():
            continue
        if shape[1].is_static and shape[3].is_static and port.get_element_type().is_real():
            heads, size = shape[1].get_length(), shape[3].get_length()
            present = present_of(name)
            yield _Join(
                CacheVariable(name, present, name + present, heads, size), port, joined, result
            )


def _past_name(port: Any) -> str | None:
    return next((name for name in sorted(port.get_names()) if is_past(name)), None)


def _keep(ops: Any, join: _Join, ids: Any, beams: Any) -> Any:
    """Read the past from a variable in place of an input, and return what assigns to it."""
    state, kind = join.state, join.past.get_element_type()
    batch = ops.gather(ops.shape_of(ids, "i64"), _constant(ops, [0]), _constant(ops, 0))
    sizes = [batch, *(_constant(ops, [size]) for size in (state.heads, 0, state.size))]
    zero = ops.constant(np.zeros((), kind.to_dtype()))
    empty = ops.broadcast(zero, ops.concat(sizes, 0))
    shape = import_openvino().PartialShape([-1, state.heads, -1, state.size])
    read = ops.read_value(empty, state.variable, kind, shape)
    past = ops.gather(read, beams, _constant(ops, 0))
    for reader in join.past.get_target_inputs():
        reader.replace_source_output(past.output(0))
    return ops.assign(join.joined.get_node(), state.variable)


def _repeat_heads_by_broadcast(ops: Any, model: Any) -> None:
    """Let keys and values of attention be repeated by Broadcast, to a constant number of heads."""
    for attention in model.get_ordered_ops():
        if attention.get_type_name() != "ScaledDotProductAttention":
            continue
        for port in (attention.input(1), attention.input(2)):
            chain = _chain(port.get_source_output().get_node(), ("Reshape", "Tile", "Unsqueeze"))
            shape = port.get_partial_shape()
            if chain is None or not (shape[1].is_static and shape[3].is_static):
                continue
            _, tile, unsqueezed = chain
            repeats = tile.input_value(1).get_node()
            if repeats.get_type_name() != "Constant":
                continue
            repeated = ops.broadcast(
                unsqueezed, ops.constant(repeats.data), broadcast_spec="BIDIRECTIONAL"
            )
            wanted = _constant(ops, [0, shape[1].get_length(), -1, shape[3].get_length()])
            port.replace_source_output(ops.reshape(repeated, wanted, True).output(0))


def _drop_guards(model: Any) -> None:
    """Leave out what turns rows of NaN into zeros after attention whose mask is finite.

    The importer writes it for masks of -inf, under which a whole row may have no token.
    """
    for select in model.get_ordered_ops():
        chain = _chain(select, ("Select", "IsNaN", "ScaledDotProductAttention"))
        if chain is None or chain[2].get_input_size() < 4:
            continue
        attention, kept = chain[2], select.input_value(2)
        if kept.get_node().get_name() != attention.get_name() or not _is_finite(attention):
            continue
        for reader in select.output(0).get_target_inputs():
            reader.replace_source_output(kept)


def _is_finite(attention: Any) -> bool:
    """Whether the mask of an attention chooses between finite numbers."""
    mask = attention.input_value(3).get_node()
    if mask.get_type_name() != "Select":
        return False
    chosen = [mask.input_value(index).get_node() for index in (1, 2)]
    return all(c.get_type_name() == "Constant" and np.isfinite(c.data).all() for c in chosen)


def _chain(last: Any, kinds: Sequence[str]) -> list[Any] | None:
    """Return nodes of these kinds that follow each other by their first inputs, the last first."""
    found: list[Any] = []
    for kind in kinds:
        node = found[-1].input_value(0).get_node() if found else last
        if node.get_type_name() != kind:
            return None
        found.append(node)
    return found


def _constant(ops: Any, value: int | Sequence[int]) -> Any:
    return ops.constant(np.array(value, np.int64))
