"""Random graphs over padded texts: tokens keep their numbers, whatever reads padding and what not.

Each statement either computes every position by itself, or hides padding as a mask does, or reads
all positions: then `unpad` must leave alone what it reads.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from irtools.data import put_at_padding
from irtools.model import padded_outputs, verify
from irtools.passmanager import PassContext, Pipeline
from irtools.testing import read_model

from .node_tests import RUNTIME_ERRORS, difference, run_in_ort

_HEAD = """
<ir_version: 10, opset_import: ["" : 23]>
texts (
  float[N,S,8] x, int64[N,S] mask, float[8,8] w, float[8,8] u, float[8] g, float[8] b,
  int64[1] first, int64[1] second, int64[1] third, int64[2] rows, int64[2] two, int64[1] end,
  float low, float zero, int64 at
) => ("""
_BEGIN = """
  seen = Cast <to = 9> (mask)
  flags = Cast <to = 1> (mask)
  column = Unsqueeze (flags, third)
  open = Unsqueeze (seen, two)
  keys = Where (open, zero, low)
  length = Shape <start = 1, end = 2> (x)
  square = Concat <axis = 0> (second, second, length, second)
  bias = Expand (keys, square)
  close = Where (seen, zero, low)
  row = Unsqueeze (close, second)
  sizes = Shape (x)
"""
_STATEMENTS = {
    "gelu": "{y} = Gelu ({a})",
    "tanh": "{y} = Tanh ({a})",
    "add": "{y} = Add ({a}, {c})",
    "mul": "{y} = Mul ({a}, {c})",
    "product": "{y} = MatMul ({a}, w)",
    "other product": "{y} = MatMul ({a}, u)",
    "norm": "{y} = LayerNormalization <axis = -1> ({a}, g, b)",
    "hidden": "{y} = Mul ({a}, column)",
    "features": "{y} = Softmax <axis = -1> ({a})",
    "turned": (
        "t{y} = Transpose <perm = [0, 2, 1]> ({a})  {y} = Transpose <perm = [0, 2, 1]> (t{y})"
    ),
    "joined": ("r{y} = Reshape ({a}, rows)  p{y} = MatMul (r{y}, w)  {y} = Reshape (p{y}, sizes)"),
    "attention": ("{y} = Attention <q_num_heads = 2, kv_num_heads = 2> ({a}, {c}, {c}, bias)"),
    "written attention": (
        "t{y} = Transpose <perm = [0, 2, 1]> ({c})  s{y} = MatMul ({a}, t{y})  "
        "m{y} = Add (s{y}, row)  p{y} = Softmax <axis = -1> (m{y})  {y} = MatMul (p{y}, {c})"
    ),
    "open attention": "{y} = Attention <q_num_heads = 2, kv_num_heads = 2> ({a}, {c}, {c})",
    "sum of tokens": (
        "h{y} = Mul ({a}, column)  m{y} = ReduceSum <keepdims = 1> (h{y}, second)  "
        "{y} = Add ({c}, m{y})"
    ),
    "mean of all": "m{y} = ReduceMean <keepdims = 1> ({a}, second)  {y} = Add ({c}, m{y})",
    "largest of all": "m{y} = ReduceMax <keepdims = 1> ({a}, second)  {y} = Add ({c}, m{y})",
    "running sum": "{y} = CumSum ({a}, second)",
    "the first": "f{y} = Gather <axis = 1> ({a}, first)  {y} = Add ({c}, f{y})",
    "shifted": (
        "h{y} = Slice ({a}, first, second, second)  t{y} = Slice ({a}, second, end, second)  "
        "{y} = Concat <axis = 1> (t{y}, h{y})"
    ),
}
_MIXING = ("open attention", "mean of all", "largest of all", "running sum", "shifted")
_READINGS = {
    "states": ("float[N,S,8] y", "y = Identity ({a})"),
    "the first": ("float[N,8] y", "y = Gather <axis = 1> ({a}, at)"),
    "sum of tokens": (
        "float[N,8] y",
        "h = Mul ({a}, column)  y = ReduceSum <keepdims = 0> (h, second)",
    ),
    "mean of all": ("float[N,8] y", "y = ReduceMean <keepdims = 0> ({a}, second)"),
}


def random_texts(seed: int) -> ir.Model:
    rng = np.random.default_rng(seed)
    names = sorted(_STATEMENTS)
    # One graph of three mixes positions somewhere.
    chances = np.array([0.3 * (seed % 3 == 0) if name in _MIXING else 1.0 for name in names])
    made, body = ["x"], _BEGIN
    for number in range(int(rng.integers(4, 12))):
        a, c = made[-1], str(rng.choice(made))
        statement = _STATEMENTS[str(rng.choice(names, p=chances / chances.sum()))]
        body += f"  {statement.format(y=f'v{number}', a=a, c=c)}\n"
        made.append(f"v{number}")
    output, reading = _READINGS[str(rng.choice(sorted(_READINGS), p=[0.1, 0.3, 0.3, 0.3]))]
    text = f"{_HEAD}{output}) {{ {body} {reading.format(a=made[-1])} }}"
    numbers = {"first": [0], "second": [1], "third": [2], "rows": [-1, 8], "two": [1, 2]}
    weights = {name: np.asarray(n, np.int64) for name, n in numbers.items()}
    weights |= {"end": np.asarray([2**62]), "at": np.asarray(0)}
    weights |= {"low": np.asarray(-1e4, np.float32), "zero": np.asarray(0, np.float32)}
    shapes = {"w": (8, 8), "u": (8, 8), "g": (8,), "b": (8,)}
    weights |= {n: rng.normal(0, 0.5, s).astype(np.float32) for n, s in shapes.items()}
    return read_model(text, weights).ir


def feeds(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    mask = rng.integers(0, 2, (5, 6))
    mask[:, rng.integers(0, 6)] = 1  # A text has a token.
    mask[0], mask[1] = [1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 1, 1]
    return {"x": rng.standard_normal((5, 6, 8)).astype(np.float32), "mask": mask}


@pytest.mark.parametrize("first", range(0, 90, 30))
def test_tokens_keep_their_numbers(first: int, make_context: Callable[..., PassContext]) -> None:
    changed = 0
    for seed in range(first, first + 30):
        before, arrays = random_texts(seed), feeds(seed)
        after = before.clone()
        ctx = make_context()
        for step in Pipeline.parse("remove-dead-code,unpad"):
            ctx.drop_analyses()
            changed += step.run(after, ctx).counters.get("num-unpadded-products", 0) > 0
        verify(after)
        names = [value.name or "" for value in before.graph.outputs]
        try:
            expected = dict(zip(names, run_in_ort(ir.to_proto(before), arrays), strict=True))
        except RUNTIME_ERRORS:
            continue
        found = dict(zip(names, run_in_ort(ir.to_proto(after), arrays), strict=True))
        for name, array in put_at_padding(expected, arrays, padded_outputs(after)).items():
            assert difference(array, found[name]) <= 1e-5, f"seed {seed}"
    assert changed > 5
