"""Products of one input by weights in blocks become one, with the same numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from irtools.backends.onnxruntime.block_weights import lower_block_weights
from irtools.backends.onnxruntime.lowering import lower_for_cpu
from irtools.backends.onnxruntime.target import OrtCpu
from irtools.editing import Editor
from irtools.model import Model
from irtools.passmanager import PassContext, Pipeline
from irtools.passmanager.manager import PassManager
from irtools.targets import Isa, RunnerOptions
from irtools.testing import read_model

_CPU = OrtCpu(Isa.VNNI)
_BLOCKS = "int4:min-size=0"
_OPEN = """
<ir_version: 10, opset_import: ["" : 21]>
block (
  float[B,S,64] x, float[64,96] w1, float[64,32] w2, float[64,32] w3, float[96] b1, float[32] b2,
  float[32] b3, float[64,32] w4, float[64,32] w5, float[64,32] w6, float[64,32] w7, float half
) => ("""
_PLAIN = "q = MatMul(x, w1)  k = MatMul(x, w2)  v = MatMul(x, w3)"
_BIASED = """
  q0 = MatMul(x, w1)  k0 = MatMul(x, w2)  v0 = MatMul(x, w3)
  q = Add(q0, b1)  k = Add(k0, b2)  v = Add(v0, b3)
"""
_ONE_BIASED = "k0 = MatMul(x, w2)  v0 = MatMul(x, w3)  k = Add(k0, b2)  v = Mul(v0, b3) q = Exp(k)"
_END = "c = Concat<axis=-1>(q, k, v)  y = Tanh(c)"

_Quantized = Callable[[str, str], Model]


def _model(body: str, outputs: str = "float[B,S,N] y") -> Model:
    rng = np.random.default_rng(0)
    shapes = {f"w{place}": (64, 32) for place in range(2, 8)}
    shapes |= {"w1": (64, 96)}
    shapes |= {"b1": (96,), "b2": (32,), "b3": (32,)}
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    model = read_model(
        f"{_OPEN}{outputs}) {{ {body} }}",
        weights | {"half": np.asarray(0.5, np.float32)},
    )
    for value in [v for v in model.ir.graph.initializers.values() if not v.uses()]:
        del model.ir.graph.initializers[value.name]
    return model


@pytest.fixture
def quantized(make_context: Callable[..., PassContext]) -> _Quantized:
    def make(body: str, passes: str = _BLOCKS, outputs: str = "float[B,S,N] y") -> Model:
        steps = PassManager(Pipeline.parse(passes), ()).run(_model(body, outputs), make_context())
        return steps[-1].model

    return make


def _operators(model: Model) -> Counter[str]:
    return Counter(node.op_type for node in model.ir.graph)


def _outputs(model: Model, optimizations: bool = False) -> dict[str, np.ndarray]:
    x = np.random.default_rng(1).standard_normal((2, 3, 64), np.float32)
    with _CPU.runner(model, RunnerOptions(threads=1, exact=not optimizations)) as runner:
        return dict(runner.run({"x": x}))


def _lowered(before: Model) -> tuple[Model, dict[str, int]]:
    after = Model(before.ir.clone())
    counts = dict(lower_for_cpu(after.ir, _CPU.capabilities, merge="blocks"))
    after.verify()
    again = lower_for_cpu(after.ir.clone(), _CPU.capabilities, merge="blocks")
    assert "merged-products" not in again
    assert "merged-products" not in _CPU.lower(before.ir.clone())
    apart = Model(before.ir.clone())
    lower_block_weights(Editor(apart.ir, "lower"))
    for optimizations in (False, True):
        expected = _outputs(apart, optimizations)
        for name, found in _outputs(after, optimizations).items():
            noise = np.abs(found - expected[name]).max()
            assert noise <= 5e-6 * np.abs(expected[name]).max()
    return after, counts


@pytest.mark.parametrize("body", [_PLAIN, _BIASED], ids=["plain", "biased"])
def test_three_become_one(body: str, quantized: _Quantized) -> None:
    after, counts = _lowered(quantized(body + _END))
    assert counts == {"MatMulNBits": 3, "merged-products": 1}
    assert _operators(after) == {"MatMulNBits": 1, "Split": 1, "Concat": 1, "Tanh": 1} | (
        {"Add": 1} if body is _BIASED else {}
    )


def test_golden(quantized: _Quantized) -> None:
    after, _ = _lowered(quantized("k = MatMul(x, w2)  v = MatMul(x, w3)  y = Add(k, v)"))
    lines = [line.strip().partition('  "')[0] for line in after.text().splitlines()]
    attributes = "K=64, N=64, accuracy_level=4, bits=4, block_size=32"
    weights = ", ".join(
        f"w2_quantized_{part}_merged" for part in ("blocks", "scales", "zero_points")
    )
    assert [line for line in lines if " = " in line and ": " not in line] == [
        f"k_merged = com.microsoft::MatMulNBits<{attributes}>(x, {weights})",
        "k, v = Split<axis=-1>(k_merged, k_merged_sizes)",
        "y = Add(k, v)",
    ]


def test_a_bias_of_one_alone_stays(quantized: _Quantized) -> None:
    after, counts = _lowered(quantized(_ONE_BIASED + _END))
    assert counts == {"MatMulNBits": 2, "merged-products": 1}
    assert _operators(after)["Add"] == 1


def test_results_of_the_model_keep_their_names(quantized: _Quantized) -> None:
    outputs = "float[B,S,32] k, float[B,S,32] v"
    after, counts = _lowered(quantized("k = MatMul(x, w2)  v = MatMul(x, w3)", _BLOCKS, outputs))
    assert counts["merged-products"] == 1
    assert [value.name for value in after.ir.graph.outputs] == ["k", "v"]


def test_minima_go_along() -> None:
    """Blocks with minima: codes and block sums, each a product, and their sum."""
    rng, minima = np.random.default_rng(0), {}
    text = """
    <ir_version: 10, opset_import: ["" : 21]>
    grid (float[B,S,64] x, int4[64,96] c1, int4[64,32] c2, float16[2,96] s1, float16[2,32] s2,
      float[2,96] m1, float[2,32] m2, int64[4] blocks, int64[1] last, float one, float other
    ) => (float[B,S,128] y) {
      parts = Reshape(x, blocks)  sums = ReduceSum<keepdims=0>(parts, last)
      t1 = Cast<to=1>(s1)  t2 = Cast<to=1>(s2)  n1 = Mul(t1, one)  n2 = Mul(t2, other)
      o1 = Add(m1, n1)  o2 = Add(m2, n2)
      d1 = DequantizeLinear<axis=0, block_size=32>(c1, t1)
      d2 = DequantizeLinear<axis=0, block_size=32>(c2, t2)
      p1 = MatMul(sums, o1)  p2 = MatMul(sums, o2)  q1 = MatMul(x, d1)  q2 = MatMul(x, d2)
      r1 = Add(q1, p1)  r2 = Add(q2, p2)  y = Concat<axis=-1>(r1, r2)
    }
    """
    for name, channels in (("1", 96), ("2", 32)):
        codes = rng.integers(-8, 8, (64, channels)).astype(ir.DataType.INT4.numpy())
        minima[f"c{name}"] = codes
        minima[f"s{name}"] = rng.random((2, channels)).astype(np.float16)
        minima[f"m{name}"] = rng.normal(size=(2, channels)).astype(np.float32)
    numbers = {"blocks": np.array([0, 0, 2, 32]), "last": np.array([-1])}
    numbers |= {"one": np.asarray(8, np.float32), "other": np.asarray(8, np.float32)}
    after, counts = _lowered(read_model(text, minima | numbers))
    assert counts == {"merged-products": 1}
    found = _operators(after)
    assert (found["MatMul"], found["DequantizeLinear"], found["Split"]) == (2, 1, 1)


@pytest.mark.parametrize(
    ("body", "passes"),
    [
        pytest.param(_PLAIN + _END, "cleanup", id="float32"),
        pytest.param(_PLAIN + _END, "int8:mode=weight-only:min-size=0", id="8 bits without blocks"),
        pytest.param("k = MatMul(x, w2)  y = Exp(k)", _BLOCKS, id="one product"),
        pytest.param(
            "k = MatMul(x, w2)  e = Exp(x)  v = MatMul(e, w3)  y = Add(k, v)",
            _BLOCKS,
            id="other inputs",
        ),
        pytest.param(
            "k = MatMul(x, w2)  v = MatMul(x, w2)  y = Mul(k, v)", _BLOCKS, id="one weight twice"
        ),
    ],
)
def test_others_stay(body: str, passes: str, quantized: _Quantized) -> None:
    _, counts = _lowered(quantized(body, passes))
    assert "merged-products" not in counts


def test_at_most_four_become_one(quantized: _Quantized) -> None:
    places = range(2, 8)
    products = "  ".join(f"p{i} = MatMul(x, w{i})  r{i} = Exp(p{i})" for i in places)
    joined = ", ".join(f"r{i}" for i in places)
    after, counts = _lowered(quantized(f"{products}  c = Concat<axis=-1>({joined})  y = Tanh(c)"))
    assert counts["merged-products"] == 2
    assert [len(n.outputs) for n in after.ir.graph if n.op_type == "Split"] == [4, 2]


def test_a_number_is_no_bias(quantized: _Quantized) -> None:
    """One result is shifted by a number, the other by a bias: products alone become one."""
    body = "k0 = MatMul(x, w2)  v0 = MatMul(x, w3)  k = Add(k0, half)  v = Add(v0, b3)"
    after, counts = _lowered(quantized(f"{body}  y = Mul(k, v)"))
    assert counts["merged-products"] == 1 and _operators(after)["Add"] == 2


def test_blocks_of_another_size_stay(quantized: _Quantized) -> None:
    body = "k = MatMul(x, w2)  v = MatMul(x, w3)  y = Add(k, v)"
    passes = f"{_BLOCKS}:exclude=*v*,{_BLOCKS}:block=64"
    _, counts = _lowered(quantized(body, passes))
    assert counts == {"MatMulNBits": 2}
