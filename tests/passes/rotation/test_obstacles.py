"""Streams that were found and cannot be rotated in this model, or for this target."""

from __future__ import annotations

import dataclasses

import onnx_ir as ir

from irtools.analysis.shapes import SymbolicShapes
from irtools.passes.rotation.decide import obstacle
from irtools.passes.rotation.find import StreamSettings, find_streams
from irtools.passes.rotation.stream import Stream
from irtools.targets import find_target

from .networks import Network, make

CAPABILITIES = find_target("ort-cpu:isa=vnni").capabilities


def stream_of(network: Network) -> tuple[Stream, ir.Model]:
    model = make(network).ir
    (stream,) = find_streams(model, SymbolicShapes.of(model), StreamSettings(max_cost=1)).found
    return stream, model


def test_a_mean_needs_a_target_that_normalizes_without_one() -> None:
    stream, model = stream_of(Network("layer"))
    assert obstacle(stream, model, CAPABILITIES) is None
    without = dataclasses.replace(CAPABILITIES, fused_ops=frozenset())
    assert obstacle(stream, model, without) == "target"
    old = dataclasses.replace(CAPABILITIES, max_opset=22)
    assert obstacle(stream, model, old) == "target"


def test_a_stream_without_a_mean_needs_nothing_of_the_target() -> None:
    stream, model = stream_of(Network("rms"))
    without = dataclasses.replace(CAPABILITIES, fused_ops=frozenset())
    assert obstacle(stream, model, without) is None


def test_a_mean_needs_a_model_whose_opset_can_be_raised() -> None:
    stream, model = stream_of(Network("layer"))
    model.graph.opset_imports[""] = 1
    assert obstacle(stream, model, CAPABILITIES) == "opset"
