"""Operators that channels pass: what is cut equals what is masked, and what must block does."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from irtools.analysis.channels import ChannelGroups
from irtools.editing import Editor, constant_of, set_contents
from irtools.model import Model, verify
from irtools.passes.pruning.edit import Cut, remove_channels

HEAD = '<ir_version: 10, opset_import: ["" : 20]>'

PADDED = """
g (float[batch,3,6,6] x, float[8,3,3,3] w_1, float[8,1,3,3] w_2, float[4,8,1,1] w_3)
=> (float[batch,4,4,4] y) <int64[8] p = {0, 0, 0, 1, 0, 0, 1, 0}, float two = {2.0}> {
  a = Conv <pads = [1,1,1,1]> (x, w_1)
  b = Pad (a, p, two)
  c = Conv <group = 8> (b, w_2)
  d = Clip (c)
  e = Slice (d, s, t, u)
  y = Conv (e, w_3)
}
""".replace("e = Slice (d, s, t, u)", "e = HardSwish (d)")

SQUEEZE_EXCITE = """
g (float[batch,3,4,4] x, float[8,3,1,1] w_1, float[8] w_b, float[5,8,1,1] w_2, float[8,5,1,1] w_3,
   float[8,1,3,3] w_4, float[4,8,1,1] w_5)
=> (float[batch,4,8,8] y) <int64[2] axes = {2, 3}, float[4] scales = {1.0, 1.0, 2.0, 2.0}> {
  a = Conv (x, w_1, w_b)
  b = HardSwish (a)
  m = ReduceMean (b, axes)
  s = Conv (m, w_2)
  r = Relu (s)
  f = Conv (r, w_3)
  i = Sigmoid (f)
  c = Mul (b, i)
  d = Conv <group = 8, pads = [1,1,1,1]> (c, w_4)
  e = Resize <mode = "nearest"> (d, , scales)
  y = Conv (e, w_5)
}
"""

DECODER = """
g (float[batch,3,4,4] x, float[8,3,1,1] w_1, float[8,6,2,2] w_2, float[6] w_b, float[6,1,3,3] w_3,
   float[6,5,2,2] w_4, float[4,5,1,1] w_5) => (float[batch,4,h,w] y) {
  a = Conv (x, w_1)
  b = Relu (a)
  c = ConvTranspose <strides = [2, 2]> (b, w_2, w_b)
  d = Relu (c)
  e = ConvTranspose <group = 6> (d, w_3)
  f = ConvTranspose <strides = [2, 2]> (e, w_4)
  y = Conv (f, w_5)
}
"""

RESIZED_TO_SIZES = """
g (float[batch,3,4,4] x, float[8,3,1,1] w_1, float[4,8,1,1] w_2) => (float[batch,4,8,8] y)
<int64[1] channels = {8}, int64[2] size = {8, 8}> {
  a = Conv (x, w_1)
  n = Shape <start = 0, end = 1> (a)
  t = Concat <axis = 0> (n, channels, size)
  b = Resize <mode = "linear"> (a, , , t)
  y = Conv (b, w_2)
}
"""

DENSE_BLOCK = """
g (float[batch,3,4,4] x, float[4,3,1,1] w_1, float[4,4,3,3] w_2, float[2,8,3,3] w_3,
   float[10] w_scale, float[10] w_shift, float[10] w_mean, float[10] w_var, float[10,1,1,1] w_d,
   float[3,10,1,1] w_4)
=> (float[batch,3,4,4] y) {
  a = Conv (x, w_1)
  b = Conv <pads = [1,1,1,1]> (a, w_2)
  ab = Concat <axis = 1> (a, b)
  c = Conv <pads = [1,1,1,1]> (ab, w_3)
  abc = Concat <axis = 1> (ab, c)
  n = BatchNormalization (abc, w_scale, w_shift, w_mean, w_var)
  d = Conv <group = 10> (n, w_d)
  y = Conv (d, w_4)
}
"""

UNEQUAL_SPLIT = """
g (float[batch,8] x, float[8,12] w_1, float[8,4] w_5, float[4,6] w_2, float[8,6] w_3)
=> (float[batch,6] y) <int64[2] sizes = {4, 8}> {
  h = MatMul (x, w_1)
  a, b = Split <axis = -1> (h, sizes)
  z = MatMul (x, w_5)
  m = Mul (a, z)
  c = MatMul (m, w_2)
  d = Softmax (b)
  e = MatMul (d, w_3)
  y = Add (c, e)
}
"""

PACKED_GATE = """
g (float[batch,8] x, float[8,24] w_1, float[12,6] w_2) => (float[batch,6] y)
<int64[2] sizes = {12, 12}> {
  h = MatMul (x, w_1)
  a, b = Split <axis = -1> (h, sizes)
  s = Sigmoid (a)
  m = Mul (s, b)
  y = MatMul (m, w_2)
}
"""

REPEATED_KEYS = """
g (float[batch,5,8] x, float[8,16] w_q, float[8,8] w_k, float[8,8] w_v, float[16,8] w_o)
=> (float[batch,5,8] y) <int64[4] q4 = {0, 5, 4, 4}, int64[4] kv4 = {0, 5, 2, 4},
  int64[1] two = {2}, int64[5] more = {1, 2, 2, 5, 4}, int64[4] back = {0, 4, 5, 4},
  int64[3] merge = {0, 5, 16}> {
  q = MatMul (x, w_q)
  k = MatMul (x, w_k)
  v = MatMul (x, w_v)
  qs = Reshape (q, q4)
  ks = Reshape (k, kv4)
  vs = Reshape (v, kv4)
  qt = Transpose <perm = [0, 2, 1, 3]> (qs)
  kt = Transpose <perm = [0, 2, 1, 3]> (ks)
  vt = Transpose <perm = [0, 2, 1, 3]> (vs)
  ku = Unsqueeze (kt, two)
  vu = Unsqueeze (vt, two)
  ke = Expand (ku, more)
  ve = Expand (vu, more)
  kr = Reshape (ke, back)
  vr = Reshape (ve, back)
  kx = Transpose <perm = [0, 1, 3, 2]> (kr)
  s = MatMul (qt, kx)
  p = Softmax (s)
  c = MatMul (p, vr)
  ct = Transpose <perm = [0, 2, 1, 3]> (c)
  m = Reshape (ct, merge)
  y = MatMul (m, w_o)
}
"""

TORCHSCRIPT_KEYS = (
    REPEATED_KEYS.replace(
        "ke = Expand (ku, more)\n",
        """kn = Shape <start = 1, end = 2> (kt)
  ends = Concat <axis = 0> (five, four)
  wide = Concat <axis = 0> (one, kn, two, ends)
  flat = Reshape (wide, minus)
  length = Shape (flat)
  ones = ConstantOfShape <value = int64[1] {1}> (length)
  negative = Mul (ones, minus)
  same = Equal (flat, negative)
  chosen = Where (same, ones, flat)
  ke = Expand (ku, chosen)
""",
    )
    .replace(
        "kr = Reshape (ke, back)\n",
        """heads = Mul (kn, two)
  target = Concat <axis = 0> (zero, heads, ends)
  kr = Reshape (ke, target)
""",
    )
    .replace(
        "int64[1] two = {2}",
        "int64[1] two = {2}, int64[1] zero = {0}, int64[1] one = {1}, int64[1] four = {4}, "
        "int64[1] five = {5}, int64[1] minus = {-1}",
    )
)

_BIASED_LAYER = """
  qN = MatMul (xN, w_qN)
  vN = MatMul (xN, w_vN)
  qsN = Reshape (qN, split)
  vsN = Reshape (vN, split)
  qtN = Transpose <perm = [0, 2, 1, 3]> (qsN)
  ktN = Transpose <perm = [0, 2, 3, 1]> (qsN)
  vtN = Transpose <perm = [0, 2, 1, 3]> (vsN)
  sN = MatMul (qtN, ktN)
  bN = Add (sN, bias)
  pN = Softmax (bN)
  cN = MatMul (pN, vtN)
  ctN = Transpose <perm = [0, 2, 1, 3]> (cN)
  mN = Reshape (ctN, merge)
  xM = MatMul (mN, w_oN)
"""

SHARED_BIAS = (
    """
g (float[batch,5,8] x1, int64[5,5] places, float[9,4] w_table, float[8,8] w_q1, float[8,8] w_v1,
   float[8,8] w_o1, float[8,8] w_q2, float[8,8] w_v2, float[8,8] w_o2) => (float[batch,5,8] x3)
<int64[4] split = {0, 5, 4, 2}, int64[3] merge = {0, 5, 8}, int64[1] zero = {0}> {
  picked = Gather (w_table, places)
  turned = Transpose <perm = [2, 0, 1]> (picked)
  bias = Unsqueeze (turned, zero)
"""
    + _BIASED_LAYER.replace("N", "1").replace("M", "2").replace("2at2ul", "MatMul")
    + _BIASED_LAYER.replace("N", "2").replace("M", "3").replace("3at3ul", "MatMul")
    + "}"
)

SHARED_WEIGHTS = """
g (float[batch,8] x, float[8,16] w_1, float[16] w_b, float[16,8] w_2) => (float[batch,8] y) {
  a = MatMul (x, w_1)
  b = Add (a, w_b)
  c = Relu (b)
  d = MatMul (c, w_2)
  e = Softmax (d)
  f = MatMul (e, w_1)
  g = Add (f, w_b)
  h = Relu (g)
  y = MatMul (h, w_2)
}
"""

HEADS_IN_BATCH = """
g (float[batch,5,8] x, float[8,8] w_q, float[8,8] w_v, float[1,5,5] w_p, float[8,8] w_o)
=> (float[batch,5,8] y) <int64[4] split = {0, 5, 4, 2}, int64[3] joined = {-1, 5, 2},
  int64[4] apart = {-1, 4, 5, 2}, int64[3] merge = {0, 5, 8}, int64[1] four = {4},
  int64[2] rest = {5, 5}> {
  q = MatMul (x, w_q)
  v = MatMul (x, w_v)
  qs = Reshape (q, split)
  vs = Reshape (v, split)
  qt = Transpose <perm = [0, 2, 1, 3]> (qs)
  vt = Transpose <perm = [0, 2, 1, 3]> (vs)
  qb = Reshape (qt, joined)
  vb = Reshape (vt, joined)
  kb = Transpose <perm = [0, 2, 1]> (qb)
  s = MatMul (qb, kb)
  n = Shape <start = 0, end = 1> (x)
  bh = Mul (n, four)
  t = Concat <axis = 0> (bh, rest)
  o = Expand (w_p, t)
  a = Add (s, o)
  p = Softmax (a)
  c = MatMul (p, vb)
  cs = Reshape (c, apart)
  ct = Transpose <perm = [0, 2, 1, 3]> (cs)
  m = Reshape (ct, merge)
  y = MatMul (m, w_o)
}
"""

RENAMED_BIAS = """
g (float[batch,3,4,4] x, float[8,3,1,1] w_1, float[8] w_b, float[8,8,1,1] w_2, float[4,8,1,1] w_3)
=> (float[batch,4,4,4] y) {
  again = Identity (w_b)
  a = Conv (x, w_1, w_b)
  b = Relu (a)
  c = Conv (b, w_2, again)
  d = Relu (c)
  y = Conv (d, w_3)
}
"""

ROTARY = """
g (float[batch,5,8] x, float[5,1] w_cos, float[5,1] w_sin, int64[batch,5] positions,
   float[8,8] w_q, float[8,8] w_v, float[8,8] w_o) => (float[batch,5,8] y) {
  q = MatMul (x, w_q)
  v = MatMul (x, w_v)
  r = RotaryEmbedding <num_heads = 4> (q, w_cos, w_sin, positions)
  c = Attention <q_num_heads = 4, kv_num_heads = 4> (r, r, v)
  y = MatMul (c, w_o)
}
"""

FLATTENED = """
g (float[batch,length,3] x, float[3,4] w_1, float[20,6] w_2)
=> (float[batch,6] y) <int64[2] flat = {0, -1}> {
  a = MatMul (x, w_1)
  b = Relu (a)
  c = Reshape (b, flat)
  y = MatMul (c, w_2)
}
"""
"""How often the channels repeat on the flattened axis is only said by the weight they meet."""


def _head(text: str) -> str:
    return HEAD.replace("20", "23") if "rotary" in text.lower() else HEAD


MODELS = {
    "renamed-bias": (RENAMED_BIAS, ["channels 8", "channels 8"]),
    "rotary": (ROTARY, ["heads 4"]),
    "padded": (PADDED, ["channels 8"]),
    "decoder": (DECODER, ["channels 8", "channels 6", "channels 5"]),
    "squeeze-excite": (SQUEEZE_EXCITE, ["channels 8", "channels 5"]),
    "resized-to-sizes": (RESIZED_TO_SIZES, ["channels 8"]),
    "dense-block": (DENSE_BLOCK, ["channels 4", "channels 4", "channels 2"]),
    "unequal-split": (UNEQUAL_SPLIT, ["neurons 4"]),
    "packed-gate": (PACKED_GATE, ["neurons 12"]),
    "repeated-keys": (REPEATED_KEYS, ["heads 2"]),
    "torchscript-keys": (TORCHSCRIPT_KEYS, ["heads 2"]),
    "shared-bias": (SHARED_BIAS, ["heads 4", "neurons 8", "heads 4"]),
    "shared-weights": (SHARED_WEIGHTS, ["neurons 16"]),
    "heads-in-batch": (HEADS_IN_BATCH, ["heads 4"]),
    "flattened": (FLATTENED, ["neurons 4"]),
}


def _feeds(model: ir.Model, random_feeds) -> dict[str, np.ndarray]:
    feeds = dict(random_feeds(model))
    if "positions" in feeds:
        feeds["positions"] = np.tile(np.arange(5), (2, 1))
    if "places" in feeds:
        feeds["places"] = (np.arange(25).reshape(5, 5) * 7 % 9).astype(np.int64)
    return feeds


@pytest.mark.parametrize("name", MODELS)
def test_groups(name, build):
    text, expected = MODELS[name]
    found = ChannelGroups.of(build(_head(text) + text))
    assert sorted(f"{g.kind} {g.units}" for g in found) == sorted(expected), found.blocked


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("seed", range(2))
def test_all_groups_cut_at_once_equal_zeros_in_their_sinks(
    name, seed, build, run_model, random_feeds
):
    model = build(_head(name) + MODELS[name][0], seed)
    masked = model.clone()
    rng = np.random.default_rng(seed)
    groups, twins = ChannelGroups.of(model), ChannelGroups.of(masked)
    cuts = []
    for group in groups:
        count = rng.integers(1, group.units)
        cuts.append(Cut(group, tuple(sorted(rng.choice(group.units, count, False).tolist()))))
    for cut, twin in zip(cuts, twins, strict=True):
        for sink in twin.sinks:
            array = constant_of(sink.value).numpy().copy()
            np.moveaxis(array, sink.axis, 0)[sink.map.indices(cut.removed)] = 0
            set_contents(Editor(masked, "prune"), [(sink.node, sink.input)], array, "masked")
    feeds = _feeds(model, random_feeds)
    before = Model(model).interface
    expected = run_model(masked, feeds)
    remove_channels(model, cuts)
    verify(model, interface=before)
    np.testing.assert_allclose(run_model(model, feeds), expected, rtol=1e-5, atol=1e-5)


def test_a_bias_under_a_second_name_leaves_nothing_behind(build):
    model = build(HEAD + RENAMED_BIAS)
    remove_channels(model, [Cut(group, (0, 1)) for group in ChannelGroups.of(model)])
    assert all(v.uses() for v in model.graph.initializers.values())
    assert not any(n.op_type == "Identity" for n in model.graph)


def test_a_shared_bias_is_taken_from_and_does_not_tie_the_layers(build):
    model = build(HEAD + SHARED_BIAS)
    first = ChannelGroups.of(model).groups[0]
    (edit,) = first.take_edits
    assert (edit.node.op_type, edit.axis) == ("Add", 1)
    remove_channels(model, [Cut(first, (0, 2))])
    gathers = [n for n in model.graph if n.op_type == "Gather"]
    assert [constant_of(n.inputs[1]) is not None for n in gathers] == [False, True]
    np.testing.assert_array_equal(constant_of(gathers[1].inputs[1]).numpy(), [0, 2])


def test_layers_that_share_their_weights_still_do(build):
    model = build(HEAD + SHARED_WEIGHTS)
    (group,) = ChannelGroups.of(model)
    assert len(group.roots) == len(group.sinks) == 2
    assert group.parameters_per_unit == 8 + 1 + 8
    remove_channels(model, [Cut(group, (1, 5, 6))])
    products = [n for n in model.graph if n.op_type == "MatMul"]
    assert products[0].inputs[1] is products[2].inputs[1]
    assert products[1].inputs[1] is products[3].inputs[1]


_STOPS = {
    "it pads the axis of the channels": (
        "<int64[8] p = {0, 1, 0, 0, 0, 0, 0, 0}>",
        "b = Pad (a, p) y = Conv (b, w_9)",
    ),
    "how much it pads is not known": ("", "b = Pad (a, n) y = Conv (b, w_8)"),
    "its scale along the channels is not known to be 1": (
        "<float[4] p = {1.0, 2.0, 1.0, 1.0}>",
        "b = Resize (a, , p) y = Conv (b, w_16)",
    ),
    "how often it repeats is not known": ("", "b = Tile (a, m) y = Conv (b, w_8)"),
    "it picks single channels": (
        "",
        "i = Cast <to = 7> (a) b = GatherElements <axis = 1> (a, i) y = Conv (b, w_8)",
    ),
}


@pytest.mark.parametrize("reason", _STOPS)
def test_what_blocks_channels_is_said(reason, build):
    constants, body = _STOPS[reason]
    text = (
        "g (float[batch,3,4,4] x, int64[8] n, int64[4] m, float[8,3,1,1] w_1, float[2,8,1,1] w_8, "
        "float[2,9,1,1] w_9, float[2,16,1,1] w_16, float[2,4,1,1] w_4) => (float[?,?,?,?] y) "
        f"{constants} {{ a = Conv (x, w_1) {body} }}"
    )
    found = ChannelGroups.of(build(_head(text) + text))
    assert not found.groups
    assert any(reason in str(r) for b in found.blocked for r in b.reasons), found.blocked
