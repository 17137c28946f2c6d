"""Groups are found, whole, and only where every operator has a rule."""

from __future__ import annotations

import numpy as np
import pytest

from irtools.analysis.channels import ChannelGroups
from irtools.editing import Editor, constant_of, set_contents
from irtools.model import Model, verify
from irtools.passes.pruning.edit import Cut, remove_channels

_EXPECTED = {
    "ffn": [("neurons", 32)],
    "erf-ffn": [("neurons", 32)],
    "heads": [("heads", 4)],
    "dynamo-heads": [("heads", 4)],
    "fused-heads": [("heads", 4)],
    "grouped-heads": [("heads", 2)],
    "conv": [("channels", 16)],
}


@pytest.mark.parametrize("name", _EXPECTED)
def test_groups_of_known_structures(name, build):
    found = ChannelGroups.of(build(name))
    assert [(g.kind, g.units) for g in found] == _EXPECTED[name]
    (group,) = found.groups
    assert group.roots and group.sinks


@pytest.mark.parametrize("name", _EXPECTED)
@pytest.mark.parametrize("seed", range(3))
def test_removal_equals_zeros_where_units_are_summed_up(name, seed, build, run_model, random_feeds):
    model = build(name, seed)
    masked = model.clone()
    rng = np.random.default_rng(seed)
    (group,) = ChannelGroups.of(model)
    (twin,) = ChannelGroups.of(masked)
    kept = tuple(sorted(rng.choice(group.units, max(1, group.units // 2), replace=False).tolist()))
    cut = Cut(group, kept)
    for sink in twin.sinks:
        array = constant_of(sink.value).numpy().copy()
        np.moveaxis(array, sink.axis, 0)[sink.map.indices(cut.removed)] = 0
        set_contents(Editor(masked, "prune"), [(sink.node, sink.input)], array, "masked")
    feeds = random_feeds(model, seed)
    dense = run_model(model, feeds)
    expected = run_model(masked, feeds)
    before = Model(model).interface
    remove_channels(model, [cut])
    verify(model, interface=before)
    np.testing.assert_allclose(run_model(model, feeds), expected, rtol=1e-5, atol=1e-5)
    assert not np.allclose(dense, expected, atol=1e-2), "the removed units mattered"


@pytest.mark.parametrize("name", _EXPECTED)
def test_removal_leaves_the_tensors_of_the_original_alone(name, build):
    model = build(name)
    original = {k: v.const_value.numpy().copy() for k, v in model.graph.initializers.items()}
    copy = model.clone()
    (group,) = ChannelGroups.of(copy)
    remove_channels(copy, [Cut(group, (0,))])
    assert {k: v.shape for k, v in original.items()} == {
        k: v.const_value.numpy().shape for k, v in model.graph.initializers.items()
    }
    for name_, array in original.items():
        np.testing.assert_array_equal(model.graph.initializers[name_].const_value.numpy(), array)


@pytest.mark.parametrize("kept", [(0,), (1, 3), (0, 1, 2)])
def test_head_counts_written_in_constants_follow(kept, build):
    model = build("heads")
    (group,) = ChannelGroups.of(model)
    remove_channels(model, [Cut(group, kept)])
    shapes = {
        tuple(constant_of(n.inputs[1]).numpy().tolist())
        for n in model.graph
        if n.op_type == "Reshape"
    }
    assert shapes == {(0, 5, len(kept), 2), (0, 5, len(kept) * 2)}


def test_a_head_count_in_a_shared_concat_is_copied_on_write(build):
    model = build("dynamo-heads")
    (group,) = ChannelGroups.of(model)
    assert [(e.part, e.element, e.factor) for e in group.shape_edits] == [(2, 0, 1)]
    remove_channels(model, [Cut(group, (1, 2, 3))])
    (four,) = (
        constant_of(v).numpy().tolist()
        for n in model.graph
        if n.op_type == "Concat"
        for v in n.inputs[2:3]
        if constant_of(v) is not None and constant_of(v).numpy().tolist() != [-1]
    )
    assert four == [3]


def test_attention_attributes_follow(build):
    model = build("grouped-heads")
    (group,) = ChannelGroups.of(model)
    remove_channels(model, [Cut(group, (1,))])
    (node,) = [n for n in model.graph if n.op_type == "Attention"]
    assert node.attributes.get_int("q_num_heads") == 4
    assert node.attributes.get_int("kv_num_heads") == 1


def test_depthwise_group_attribute_follows(build):
    model = build("conv")
    (group,) = ChannelGroups.of(model)
    remove_channels(model, [Cut(group, tuple(range(5)))])
    depthwise = next(n for n in model.graph if n.attributes.get_int("group", 1) > 1)
    assert depthwise.attributes.get_int("group") == 5


_SHARED_BIAS = """
<ir_version: 10, opset_import: ["" : 20]>
two (float[batch,8] x, float[8,32] w_1, float[32] w_b, float[32,8] w_2, float[8,32] w_3,
     float[32,8] w_4) => (float[batch,8] y) {
  a = MatMul(x, w_1)
  b = Add(a, w_b)
  c = Relu(b)
  d = MatMul(c, w_2)
  e = Softmax(d)
  f = MatMul(e, w_3)
  g = Add(f, w_b)
  h = Relu(g)
  y = MatMul(h, w_4)
}
"""


def test_a_bias_shared_by_two_layers_is_copied_on_write(build, run_model, random_feeds):
    model = build(_SHARED_BIAS)
    first, second = ChannelGroups.of(model)
    remove_channels(model, [Cut(first, (0, 1, 2))])
    sizes = [constant_of(n.inputs[1]).shape[0] for n in model.graph if n.op_type == "Add"]
    assert sizes == [3, 32]
    assert second.units == 32
    run_model(model, random_feeds(model))


def test_a_bias_shared_by_two_layers_is_cut_for_each(build, run_model, random_feeds):
    model = build(_SHARED_BIAS)
    first, second = ChannelGroups.of(model)
    remove_channels(model, [Cut(first, (0, 1, 2)), Cut(second, (3, 4))])
    sizes = [constant_of(n.inputs[1]).shape[0] for n in model.graph if n.op_type == "Add"]
    assert sizes == [3, 2]
    verify(model)
    run_model(model, random_feeds(model))


_BLOCKED = {
    "it normalises over the channels": "y = Softmax(h)\n}",
    "no channel rule for this operator": "t = TopKish(h)\ny = MatMul(t, w_2)\n}",
    "its channels are the model's output y": "y = Relu(h)\n}",
    "it sums over the channels": "y = ReduceMean<keepdims=1>(h, axes)\n}",
    "may or may not be broadcast": "t = Add(h, other)\ny = MatMul(t, w_2)\n}",
}


@pytest.mark.parametrize("reason", _BLOCKED)
def test_what_blocks_a_group_is_said(reason):
    import onnx_ir as ir

    tail = _BLOCKED[reason]
    domain = ', "custom" : 1' if "TopKish" in tail else ""
    tail = tail.replace("TopKish", "custom.TopKish")
    text = f"""
    <ir_version: 10, opset_import: ["" : 20{domain}]>
    g (float[batch,8] x, float[batch,n] other, float[8,32] w_1, float[32,8] w_2)
    => (float[batch,m] y) {{
      axes = Constant <value_ints = [-1]> ()
      h = MatMul(x, w_1)
      {tail}
    """
    model = ir.from_onnx_text(text)
    for value in [v for v in model.graph.inputs if v.name.startswith("w_")]:
        model.graph.inputs.remove(value)
        value.const_value = ir.tensor(np.ones(value.shape.numpy(), np.float32), name=value.name)
        model.graph.register_initializer(value)
    found = ChannelGroups.of(model)
    assert not found.groups
    assert any(reason in str(r) for r in found.blocked[0].reasons), found.blocked


def test_overridable_weights_are_left_alone(build):
    model = build("ffn")
    for name in ("w_one", "w_two"):
        model.graph.inputs.append(model.graph.initializers[name])
    assert not ChannelGroups.of(model).groups


def test_a_matrix_with_another_use_blocks_its_group(build):
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    tied (float[batch,8] x, float[8,8] w_1, float[8,8] w_2) => (float[batch,8] y) {
      a = MatMul(x, w_1)
      b = Relu(a)
      c = MatMul(b, w_2)
      d = Softmax(c)
      e = MatMul(d, w_1)
      f = Softmax(e)
      y = MatMul(f, w_2)
    }
    """
    found = ChannelGroups.of(build(text))
    assert not found.groups
    assert any("used elsewhere" in str(r) for b in found.blocked for r in b.reasons)


def test_a_product_of_unknown_rank_is_counted_as_blocked(build):
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    tied (float[batch,8] x, int64[n] s, float[8,8] w_1) => (y) {
      a = Reshape(x, s)
      b = MatMul(a, w_1)
      y = Relu(b)
    }
    """
    found = ChannelGroups.of(build(text))
    assert not found.groups
    assert [str(b.reasons[0]) for b in found.blocked] == [
        "MatMul: the rank of its result is not known"
    ]
