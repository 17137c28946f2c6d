"""Layers refitted one after another, each to what the pruned layers before it give."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from irtools.analysis.channels import ChannelGroups
from irtools.editing import constant_of
from irtools.model import verify
from irtools.passes.pruning.cut import cut_units
from irtools.passes.pruning.evidence import collect_evidence
from irtools.passes.pruning.linear import linear_layer
from irtools.passes.pruning.sequence import refit_in_sequence, side_by_side

_DEEP = """
<ir_version: 10, opset_import: ["" : 20]>
deep (float[batch,8] x, float[8,24] w_1, float[24] w_b1, float[24,8] w_2, float[8] w_c1,
      float[8,24] w_3, float[24] w_b2, float[24,8] w_4, float[8] w_c2, float[8,24] w_5,
      float[24,8] w_6) => (float[batch,8] y) {
  a1 = MatMul (x, w_1)
  b1 = Add (a1, w_b1)
  c1 = Relu (b1)
  d1 = MatMul (c1, w_2)
  e1 = Add (d1, w_c1)
  x2 = LayerNormalization (e1, w_c2, w_c1)
  a2 = MatMul (x2, w_3)
  b2 = Add (a2, w_b2)
  c2 = Relu (b2)
  d2 = MatMul (c2, w_4)
  e2 = Add (d2, w_c2)
  x3 = LayerNormalization (e2, w_c1, w_c2)
  a3 = MatMul (x3, w_5)
  c3 = Relu (a3)
  y = MatMul (c3, w_6)
}
"""


def _error(dense, model, feeds, run_model):
    a, b = run_model(dense, feeds), run_model(model, feeds)
    return float(np.linalg.norm(a - b) / np.linalg.norm(a))


@pytest.mark.parametrize("seed", range(3))
def test_later_layers_make_up_for_earlier_ones(seed, build, run_model, data_context):
    dense = build(_DEEP, seed)
    rng = np.random.default_rng(seed)
    feeds, unseen = ({"x": rng.standard_normal((n, 8)).astype(np.float32)} for n in (800, 400))
    ctx = data_context(feeds)
    model = dense.clone()
    groups = ChannelGroups.of(model).groups
    kept = {g.name: tuple(sorted(rng.choice(24, 14, False).tolist())) for g in groups}
    sinks = [linear_layer(sink.node) for group in groups for sink in group.sinks]
    layers = cut_units(model, kept, collect_evidence(model, sinks, ctx))
    at_once = _error(dense, model, unseen, run_model)
    original = {k: v.const_value.numpy().copy() for k, v in dense.graph.initializers.items()}
    assert refit_in_sequence(model, dense, layers, ctx) == 3
    verify(model)
    assert _error(dense, model, unseen, run_model) < 0.98 * at_once
    for name, array in original.items():
        np.testing.assert_array_equal(dense.graph.initializers[name].const_value.numpy(), array)


def test_two_models_in_one_share_what_is_equal(build, run_model):
    dense = build(_DEEP)
    other = dense.clone()
    value = other.graph.initializers["w_2"]
    value.const_value = ir.tensor(value.const_value.numpy() * 2, name="w_2")
    twin, renamed = side_by_side(other, dense, ["e1"], ["e1", "c1"])
    verify(twin)
    assert sorted(renamed) == ["c1", "e1"]
    assert len(twin.graph.initializers) == 5, "w_1, w_b1, w_c1 once, w_2 twice"
    feeds = {"x": np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)}
    names = [v.name for v in twin.graph.outputs]
    assert names == ["e1", renamed["e1"], renamed["c1"]]
    first = run_model(twin, feeds)
    c1 = np.maximum(feeds["x"] @ _array(dense, "w_1") + _array(dense, "w_b1"), 0)
    expected = c1 @ _array(dense, "w_2") * 2 + _array(dense, "w_c1")
    np.testing.assert_allclose(first, expected, rtol=1e-4, atol=1e-4)


def _array(model, name):
    return constant_of(model.graph.initializers[name]).numpy()
