"""The pass `rotate`: what it writes, what it leaves alone, and that nothing else changes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
import pytest

from irtools.data import Dataset
from irtools.errors import UsageError
from irtools.model import Model
from irtools.passes.rotation.rotate import Rotate
from irtools.passmanager import PassContext, PassResult, Pipeline, Plan
from irtools.targets import RunnerOptions, find_target
from irtools.testing import apply_pass, read_model

from .networks import EXACT_DB, TOKENS, WIDTH, Network, make

ALWAYS = ":min-gain=none:max-cost=1"
POST_NORM = """<ir_version: 10, opset_import: ["" : 23]>
g (int64[B,6] ids, float[50,32] table, float[32] gain, float[32] offset, float[32,32] w1,
   float[32,32] w2, float[32,8] head) => (float[B,6,8] y) {
  x = Gather(table, ids)
  n = LayerNormalization(x, gain, offset)  a = MatMul(n, w1)  r = Add(a, n)
  m = LayerNormalization(r, gain, offset)  b = MatMul(m, w2)  s = Add(b, m)
  l = LayerNormalization(s, gain, offset)  y = MatMul(l, head)
}"""


PATCHES = """<ir_version: 10, opset_import: ["" : 23]>
g (float[B,4,6,6] x, float[32,4,2,2] kernel, float[32] bias, float[32] gain, float[32] offset,
   float[1,1,32] token, float[1,10,32] positions, float[32,32] w1, float[32] b1, float[32,8] head,
   float[8] b2, int64[3] flat, int64[2] one, int64 zero) => (float[B,8] y) {
  c = Conv<strides = [2, 2]>(x, kernel, bias)
  r = Reshape(c, flat)  t = Transpose<perm = [0, 2, 1]>(r)
  size = Shape<start = 0, end = 1>(x)  shape = Concat<axis = 0>(size, one)
  cls = Expand(token, shape)  all = Concat<axis = 1>(cls, t)  s = Add(all, positions)
  n = LayerNormalization(s, gain, offset)  p = MatMul(n, w1)  q = Add(p, b1)  u = Add(q, s)
  m = LayerNormalization(u, gain, offset)  z = Gather<axis = 1>(m, zero)
  h = MatMul(z, head)  y = Add(h, b2)
}"""


def ids(count: int = 8) -> Dataset:
    drawn = np.random.default_rng(1).integers(0, TOKENS, (count, 6))
    return Dataset({"ids": drawn})


def pictures() -> Dataset:
    return Dataset({"x": np.random.default_rng(1).normal(size=(4, 4, 6, 6)).astype(np.float32)})


def run(
    model: Model, options: str = ALWAYS, data: Dataset | None = None
) -> tuple[Model, PassResult]:
    after = model.clone()
    ctx = PassContext.for_model(model, "ort-cpu:isa=vnni", calibration=data or ids())
    (pass_,) = Pipeline.parse(f"rotate{options}")
    return after, apply_pass(pass_, after.ir, ctx)


def counts(result: PassResult) -> Mapping[str, int]:
    return {name.removeprefix("num-"): n for name, n in result.counters.items() if n}


def kept_db(
    before: Model, after: Model, target: str = "ort-cpu", data: Dataset | None = None
) -> float:
    """Return the signal-to-noise ratio of the worst output."""
    feeds = (data or ids()).feeds
    outputs = []
    for model in (before, after):
        with find_target(target).runner(model, RunnerOptions(threads=1, exact=True)) as runner:
            outputs.append(runner.run(feeds))
    ratios = []
    for name, expected in outputs[0].items():
        noise = np.square(expected.astype(np.float64) - outputs[1][name]).sum()
        ratios.append(10 * np.log10(np.square(expected).sum() / max(noise, 1e-30)))
    return float(min(ratios))


def operators(model: Model) -> list[str]:
    return [node.op_type for node in model.ir.graph]


def array(model: Model, name: str) -> np.ndarray:
    tensor = model.ir.graph.initializers[name].const_value
    assert tensor is not None
    return tensor.numpy()


def test_weights_take_the_rotation_up_and_no_node_is_written() -> None:
    model = make(Network())
    after, result = run(model)
    assert operators(after) == operators(model)
    assert counts(result) == {
        "rotated-streams": 1,
        "rotated-writers": 3,
        "rotated-readers": 5,
        "rotated-heads": 1,
    }
    assert kept_db(model, after) > EXACT_DB
    assert not np.allclose(array(after, "table"), array(model, "table"))
    norms = [node for node in after.ir.graph if node.op_type == "RMSNormalization"]
    gains = {str(node.inputs[1].name) for node in norms if node.inputs[1] is not None}
    assert gains == {"rotated_gain"}
    assert np.array_equal(array(after, "rotated_gain"), np.ones(WIDTH))


def test_large_channels_are_spread_over_all() -> None:
    model = make(Network())
    after, _ = run(model, ":tries=1:min-gain=none")
    peaks = [np.abs(array(m, "table")).max() / array(m, "table").std() for m in (model, after)]
    assert peaks[1] < peaks[0] / 1.5


def test_a_layer_norm_becomes_an_rms_norm_and_its_mean_goes_into_the_writers() -> None:
    model = make(Network("layer", biases=True, positions=True, scaled=True))
    after, result = run(model)
    assert "LayerNormalization" not in operators(after)
    assert operators(after).count("RMSNormalization") == 3
    # The two layer scales are in the weights before them; biases take the offsets.
    assert operators(after).count("Mul") == 0
    assert operators(after).count("Add") == operators(model).count("Add")
    assert counts(result)["folded-means"] == 3
    assert kept_db(model, after) > EXACT_DB


def test_an_offset_becomes_a_bias_where_there_is_none() -> None:
    model = make(Network("layer"))
    after, _ = run(model)
    assert operators(after).count("Add") == operators(model).count("Add") + 5
    assert kept_db(model, after) > EXACT_DB


@pytest.mark.parametrize("opset", [17, 20])
def test_the_opset_is_raised_for_rms_norms(opset: int) -> None:
    # Gelu came with opset 20, so that the older model has no feed-forward block.
    text = POST_NORM.replace(" n)\n", " x)\n").replace("(b, m)", "(b, r)")
    text = text.replace('"" : 23', f'"" : {opset}')
    model = drawn(text)
    after, result = run(model)
    assert counts(result)["folded-means"] == 3
    assert after.ir.opset_imports[""] == 23
    assert kept_db(model, after) > EXACT_DB


def test_a_tied_table_stays_and_a_product_is_at_each_end() -> None:
    model = make(Network(tied=True))
    after, result = run(model)
    assert np.array_equal(array(after, "table"), array(model, "table"))
    assert operators(after).count("MatMul") == operators(model).count("MatMul") + 2
    assert counts(result)["rotation-products"] == 2
    assert kept_db(model, after) > EXACT_DB


def test_a_tied_table_may_become_two() -> None:
    model = make(Network(tied=True))
    after, result = run(model, ALWAYS + ":tied=copy")
    assert operators(after) == operators(model)
    assert "rotation-products" not in counts(result)
    assert after.weight_bytes > model.weight_bytes
    assert kept_db(model, after) > EXACT_DB


def test_a_matrix_that_another_node_reads_is_not_copied() -> None:
    model = make(Network(looked_up_twice=True))
    after, result = run(model)
    assert np.array_equal(array(after, "table"), array(model, "table"))
    assert counts(result)["rotation-products"] == 1
    assert after.weight_bytes - model.weight_bytes <= 4 * WIDTH * (WIDTH + 1)
    assert kept_db(model, after) > EXACT_DB


@pytest.mark.parametrize("norm", ["rms", "layer"])
def test_an_output_after_the_last_norm_is_turned_back(norm: str) -> None:
    model = make(Network(norm, end="norm"))
    after, result = run(model)
    assert counts(result)["rotation-products"] == 1
    assert kept_db(model, after) > EXACT_DB


def test_a_stream_that_is_shown_is_turned_back() -> None:
    model = make(Network(end="stream"))
    after, result = run(model)
    assert counts(result)["rotation-products"] == 1
    assert kept_db(model, after) > EXACT_DB


def test_a_stream_is_not_shown_without_its_mean() -> None:
    model = make(Network("layer", end="stream"))
    after, result = run(model, ALWAYS + ":heads=false")
    assert after.text() == model.text()
    assert counts(result) == {"skipped-output": 1}


def test_a_head_may_read_one_position() -> None:
    model = make(Network("layer", end="first"))
    after, result = run(model)
    assert "rotation-products" not in counts(result)
    assert kept_db(model, after) > EXACT_DB


def test_values_in_a_cache_stay() -> None:
    model = make(Network(cached=True))
    after, result = run(model)
    assert "rotated-heads" not in counts(result)
    assert counts(result)["skipped-values"] == 1
    assert kept_db(model, after) > EXACT_DB


CACHED = """<ir_version: 10, opset_import: ["" : 23]>
g (float[B,6,32] x, float[B,2,P,16] k, float[B,2,P,16] v, float[32,32] wq, float[32,32] wk,
   float[32,32] wv, float[32,32] wo) => (float[B,6,32] z, float[B,2,T,16] k2, float[B,2,T,16] v2) {
  q = MatMul(x, wq)  key = MatMul(x, wk)  value = MatMul(x, wv)
  y, k2, v2 = Attention<q_num_heads = 2, kv_num_heads = 2>(q, key, value, , k, v)
  z = MatMul(y, wo)
}"""


def test_values_of_a_fused_operator_with_a_cache_stay() -> None:
    model = drawn(CACHED)
    after, result = run(model)
    assert after.text() == model.text()
    assert counts(result) == {"skipped-values": 1}


def test_values_of_a_fused_operator_are_rotated() -> None:
    text = CACHED.replace(", , k, v)", ")").replace("y, k2, v2 =", "y =")
    text = text.replace(", float[B,2,T,16] k2, float[B,2,T,16] v2)", ")")
    model = drawn(text.replace("float[B,2,P,16] k, float[B,2,P,16] v, ", ""))
    data = Dataset({"x": np.random.default_rng(1).normal(size=(4, 6, 32)).astype(np.float32)})
    after, result = run(model, data=data)
    assert counts(result) == {"rotated-heads": 1}
    assert kept_db(model, after, data=data) > EXACT_DB


def test_values_of_a_packed_product_are_rotated() -> None:
    model = make(Network("layer", packed=True, biases=True))
    after, result = run(model, ":max-cost=0:min-gain=100")
    assert counts(result) == {"rotated-heads": 1, "skipped-gain": 1}
    before, turned = array(model, "qkv0"), array(after, "qkv0")
    assert np.array_equal(before[:, : 2 * WIDTH], turned[:, : 2 * WIDTH])
    assert not np.allclose(before[:, 2 * WIDTH :], turned[:, 2 * WIDTH :])
    assert kept_db(model, after) > EXACT_DB


@pytest.mark.parametrize("seed", range(12))
def test_any_network_keeps_its_function(seed: int) -> None:
    rng = np.random.default_rng(seed)

    def flip() -> bool:
        return bool(rng.integers(2))

    network = Network(
        norm=("rms", "layer")[seed % 2],
        blocks=int(rng.integers(1, 4)),
        tied=flip(),
        end=("logits", "norm", "first")[rng.integers(3)],
        biases=flip(),
        scaled=flip(),
        positions=flip(),
        cached=flip(),
        packed=flip(),
        seed=seed,
    )
    model = make(network)
    after, result = run(model, ALWAYS + ":tries=2")
    assert counts(result)["rotated-streams"] == 1
    after.verify(interface=model.interface)
    assert kept_db(model, after) > EXACT_DB
    again, second = run(after)
    assert not second.modified
    assert again.text() == after.text()


@pytest.mark.openvino
@pytest.mark.parametrize("norm", ["rms", "layer"])
def test_openvino_gives_the_same(norm: str) -> None:
    model = make(Network(norm, tied=True, biases=True))
    after, _ = run(model)
    assert kept_db(model, after, "openvino-cpu") > EXACT_DB


def test_networks_that_normalize_after_their_blocks_are_declined() -> None:
    model = drawn(POST_NORM)
    after, result = run(model, "")
    assert after.text() == model.text()
    assert counts(result) == {"skipped-single": 1, "skipped-post-norm": 2}
    assert any("blocks are normalized after their sum" in note for note in result.notes)


def test_norms_that_are_written_out_are_named() -> None:
    text = """<ir_version: 10, opset_import: ["" : 23]>
    g (float[B,6,32] x, float[32,8] w) => (float[B,6,8] y) { y = MatMul(x, w) }"""
    _, result = run(drawn(text), "")
    assert any("`fuse` makes them" in note for note in result.notes)


def test_products_that_cost_too_much_are_declined() -> None:
    model = make(Network(tied=True))
    after, result = run(model, ":min-gain=none:heads=false")
    assert after.text() == model.text()
    assert counts(result) == {"skipped-cost": 1}


def test_what_gains_nothing_stays() -> None:
    model = make(Network(outliers=0))
    after, result = run(model, ":min-gain=20:heads=false")
    assert after.text() == model.text()
    assert counts(result) == {"skipped-gain": 1}


def test_sixteen_bits_stay() -> None:
    text = (
        POST_NORM.replace(" n)\n", " x)\n").replace("(b, m)", "(b, r)").replace("float", "float16")
    )
    model = drawn(text)
    after, result = run(model)
    assert after.text() == model.text()
    assert not result.modified


def test_weights_with_nan_stay() -> None:
    model = make(Network())
    broken = array(model, "down0").copy()
    broken[3, 3] = np.nan
    model.ir.graph.initializers["down0"].const_value = ir.tensor(broken)
    after, result = run(model, ALWAYS + ":heads=false")
    assert after.text() == model.text()
    assert counts(result) == {"skipped-nonfinite": 1}


def test_patches_write_the_stream() -> None:
    model = drawn(PATCHES)
    after, result = run(model, data=pictures())
    assert operators(after) == [op.replace("LayerNorm", "RMSNorm") for op in operators(model)]
    assert counts(result)["rotated-writers"] == 6
    assert kept_db(model, after, data=pictures()) > EXACT_DB


def test_patches_in_groups_stay() -> None:
    text = PATCHES.replace("<strides", "<group = 2, strides").replace("32,4,2,2", "32,2,2,2")
    model = drawn(text)
    after, result = run(model, data=pictures())
    assert after.text() == model.text()
    assert counts(result) == {"skipped-shape": 1}


def test_quantized_weights_stay() -> None:
    model = make(Network())
    for pass_ in Pipeline.parse("int8:mode=weight-only:min-size=0"):
        pass_.run(model.ir, PassContext.for_model(model))
    after, result = run(model, ALWAYS + ":heads=false")
    assert after.text() == model.text()
    assert counts(result) == {"skipped-quantized": 1}


def test_rounding_to_eight_bits_loses_less_after_it() -> None:
    # Gains that do not undo the large channels: what a rotation is for.
    model = make(Network(blocks=2))
    kept = []
    # Without what int8 does about such channels by itself.
    plain = "int8:mode=static:outliers=0:smooth=false:method=rtn:min-size=0"
    for text in (plain, f"rotate,{plain}"):
        after = model.clone()
        for pass_ in Pipeline.parse(text):
            ctx = PassContext.for_model(after, "ort-cpu:isa=vnni", calibration=ids(32))
            apply_pass(pass_, after.ir, ctx)
        kept.append(kept_db(model, after))
    assert kept[1] > kept[0] + 2


def test_a_plan_survives_as_text_and_fits_its_model_only() -> None:
    model = make(Network("layer"))
    ctx = PassContext.for_model(model, calibration=ids())
    pass_ = Rotate(min_gain=None)
    plan = pass_.plan(model.ir, ctx)
    again = Plan.from_json(plan.to_json())
    direct, stored = model.clone(), model.clone()
    pass_.apply(direct.ir, plan, ctx)
    pass_.apply(stored.ir, again, ctx)
    assert direct.text() == stored.text() != model.text()
    with pytest.raises(UsageError, match="the plan does not fit the model"):
        pass_.apply(drawn(POST_NORM).ir, again, ctx)


def test_plans_of_other_passes_are_refused() -> None:
    model = make(Network())
    ctx = PassContext.for_model(model, calibration=ids())
    plan = Rotate(min_gain=None).plan(model.ir, ctx)
    decision = plan.decisions[0]
    for data in ({}, {**decision.data, "order": [0, 0]}, {**decision.data, "block": 5}):
        wrong = Plan(plan.pass_text, (type(decision)("x", "y", data=data),))
        with pytest.raises(UsageError, match="not a decision about rotations"):
            Rotate().apply(model.clone().ir, wrong, ctx)


def test_synthetic_data_is_said() -> None:
    model = make(Network())
    result = Rotate().run(model.clone().ir, PassContext.for_model(model))
    assert any("synthetic" in note for note in result.notes)


@pytest.mark.parametrize("options", ["tries=0", "tries=65", "min-gain=-1", "max-cost=2"])
def test_options_have_limits(options: str) -> None:
    with pytest.raises(UsageError, match="expected"):
        Pipeline.parse(f"rotate:{options}")


def drawn(text: str) -> Model:
    rng = np.random.default_rng(0)
    found: dict[str, np.ndarray] = {}
    found |= {"flat": np.asarray([0, 32, -1]), "one": np.asarray([1, 1]), "zero": np.asarray(0)}
    for value in ir.from_onnx_text(text).graph.inputs:
        if (
            value.name in found
            or value.name in ("ids", "x", "k", "v")
            or value.shape is None
            or value.dtype is None
        ):
            continue
        shape = tuple(int(d) for d in value.shape)
        found[value.name or ""] = (0.3 * rng.normal(size=shape)).astype(value.dtype.numpy())
    names = {value.name for value in ir.from_onnx_text(text).graph.inputs}
    return read_model(text, {name: array for name, array in found.items() if name in names})
