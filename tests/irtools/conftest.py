"""Models that several rooms test with, and jobs that cost little."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from irtools.measure import timing
from irtools.measure.base import BenchSettings
from irtools.measure.child import Child
from irtools.measure.timing import Contender
from irtools.model import Model

from .forked import Server

_run_block = timing._run_block


@pytest.fixture(scope="session")
def _server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def cheap_jobs(_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let jobs be forks of one process, and blocks of timing short; rooms ask for it."""
    monkeypatch.setattr(Child, "start", _server.start)
    monkeypatch.setattr(timing, "_run_block", _run_short_block)


def _run_short_block(
    name: str, one: Contender, turns: Any, settings: BenchSettings, samples: Any
) -> None:
    """Stand for `_run_block`, and be quick where a test does not say how long a block is."""
    if settings.block_seconds == BenchSettings.block_seconds:
        settings = replace(settings, block_seconds=0.02)
    _run_block(name, one, turns, settings, samples)


_DECODER = """
<ir_version: 10, opset_import: ["" : 20]>
decoder (
  int64[batch, sequence] input_ids,
  int64[batch, "past_sequence + sequence"] attention_mask,
  int64[batch, sequence] position_ids,
  float[batch, 1, past_sequence, 8] "past_key_values.0.key",
  float[batch, 1, past_sequence, 8] "past_key_values.0.value"
) => (
  float[batch, sequence, 61] logits,
  float[batch, 1, "past_sequence + sequence", 8] "present.0.key",
  float[batch, 1, "past_sequence + sequence", 8] "present.0.value"
) <{weights}> {{
  word = Gather (words, input_ids)
  place = Gather (places, position_ids)
  hidden = Add (word, place)
  one = Constant <value_ints = [1]> ()
  query = Unsqueeze (hidden, one)
  "present.0.key" = Concat <axis = 2> ("past_key_values.0.key", query)
  doubled = Add (query, query)
  "present.0.value" = Concat <axis = 2> ("past_key_values.0.value", doubled)
  turned = Transpose <perm = [0, 1, 3, 2]> ("present.0.key")
  scores = MatMul (query, turned)
  total = Shape <start = 1, end = 2> (attention_mask)
  new = Shape <start = 1, end = 2> (input_ids)
  past = Sub (total, new)
  zero = Constant <value_ints = [0]> ()
  none = Squeeze (zero)
  step = Squeeze (one)
  first = Squeeze (past)
  last = Squeeze (total)
  keys = Range (none, last, step)
  queries = Range (first, last, step)
  column = Unsqueeze (queries, one)
  causal = GreaterOrEqual (column, keys)
  kept = Cast <to = 9> (attention_mask)
  axes = Constant <value_ints = [1, 2]> ()
  wide = Unsqueeze (kept, axes)
  allowed = And (wide, causal)
  open = Constant <value_float = 0.0> ()
  shut = Constant <value_float = -1e9> ()
  bias = Where (allowed, open, shut)
  biased = Add (scores, bias)
  shares = Softmax <axis = -1> (biased)
  mixed = MatMul (shares, "present.0.value")
  flat = Squeeze (mixed, one)
  same = Identity (flat)
  sum = Add (same, hidden)
  logits = MatMul (sum, head)
}}
"""


@pytest.fixture(scope="session")
def cached_decoder() -> Model:
    """A decoder of one layer with its cache as inputs and outputs, 48 positions and 61 tokens."""
    rng = np.random.default_rng(0)
    weights = []
    for name, rows, columns in (("words", 61, 8), ("places", 48, 8), ("head", 8, 61)):
        numbers = ", ".join(map(str, rng.normal(0, 0.5, rows * columns)))
        weights.append(f"float[{rows},{columns}] {name} = {{{numbers}}}")
    model = ir.from_onnx_text(_DECODER.format(weights=", ".join(weights)))
    model.metadata_props["task"] = "text-generation"
    return Model(model)


@pytest.fixture(scope="session")
def plain_decoder(cached_decoder: Model) -> Model:
    """The same network without a cache: it reads the whole text at every step."""
    model = cached_decoder.ir.clone()
    graph = model.graph
    for node in [node for node in graph if node.op_type == "Concat"]:
        _, new = node.inputs
        graph.outputs.remove(node.outputs[0])
        node.outputs[0].replace_all_uses_with(new)
        graph.remove(node, safe=True)
    for value in [v for v in graph.inputs if v.name.startswith("past")]:
        graph.inputs.remove(value)
    next(v for v in graph.inputs if v.name == "attention_mask").shape = graph.inputs[0].shape
    return Model(model)
