"""A small text classifier, block by block."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

VOCABULARY, HIDDEN, CLASSES = 40, 8, 3

_BLOCK = """
  q{i} = MatMul({x}, w_q{i})
  k{i} = MatMul({x}, w_k{i})
  v{i} = MatMul({x}, w_v{i})
  kt{i} = Transpose <perm = [0, 2, 1]> (k{i})
  s{i} = MatMul(q{i}, kt{i})
  sm{i} = Add(s{i}, bias)
  p{i} = Softmax <axis = -1> (sm{i})
  c{i} = MatMul(p{i}, v{i})
  r{i} = Add(c{i}, {h})
"""
_POST = """
  n{i} = LayerNormalization(r{i}, ones)
  f{i} = MatMul(n{i}, w_f{i})
  g{i} = Gelu(f{i})
  e{i} = Add(g{i}, n{i})
  h{i} = LayerNormalization(e{i}, ones)
"""
_PRE = """
  n{i} = LayerNormalization(r{i}, ones)
  f{i} = MatMul(n{i}, w_f{i})
  g{i} = Gelu(f{i})
  h{i} = Add(g{i}, r{i})
"""


def _text(blocks: int, pre_norm: bool, batch: str) -> str:
    weights = "".join(f", float[8,8] w_{kind}{i}" for i in range(1, blocks + 1) for kind in "qkvf")
    body = ""
    for i in range(1, blocks + 1):
        h = f"h{i - 1}"
        if pre_norm:
            body += f"\n  x{i} = LayerNormalization({h}, ones)"
        body += _BLOCK.format(i=i, h=h, x=f"x{i}" if pre_norm else h)
        body += (_PRE if pre_norm else _POST).format(i=i)
    return f"""
<ir_version: 10, opset_import: ["" : 20]>
classifier (int64[{batch},seq] input_ids, int64[{batch},seq] attention_mask,
            float[40,8] w_table, float[8] w_ones, float[8,3] w_head{weights})
=> (float[{batch},3] logits) {{
  zero = Constant <value_int = 0> ()
  one = Constant <value_float = 1.0> ()
  far = Constant <value_float = -10000.0> ()
  middle = Constant <value_ints = [1]> ()
  ones = Identity(w_ones)
  h0 = Gather(w_table, input_ids)
  floats = Cast <to = 1> (attention_mask)
  hidden = Sub(one, floats)
  scaled = Mul(hidden, far)
  bias = Unsqueeze(scaled, middle)
{body}
  first = Gather <axis = 1> (h{blocks}, zero)
  logits = MatMul(first, w_head)
}}
"""


@pytest.fixture(scope="session")
def make_classifier() -> Callable[..., ir.Model]:
    """`make_classifier(blocks=4, pre_norm=False, batch="batch")`, with seeded weights."""

    def make(blocks: int = 4, pre_norm: bool = False, batch: str = "batch") -> ir.Model:
        model = ir.from_onnx_text(_text(blocks, pre_norm, batch))
        rng = np.random.default_rng(blocks)
        for value in list(model.graph.inputs):
            if not str(value.name).startswith("w_"):
                continue
            model.graph.inputs.remove(value)
            assert value.shape is not None
            sizes = [int(size) for size in value.shape if isinstance(size, int)]
            array = rng.standard_normal(sizes).astype(np.float32) * 0.6
            if value.name == "w_ones":
                array = np.ones(sizes, np.float32)
            value.const_value = ir.tensor(array, name=value.name)
            model.graph.initializers.add(value)
        return model

    return make


@pytest.fixture(scope="session")
def make_feeds() -> Callable[[int], dict[str, np.ndarray]]:
    """Token ids of 6 columns; every row but the first ends in padding."""

    def make(rows: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(rows)
        mask = np.ones((rows, 6), np.int64)
        for row in range(1, rows):
            mask[row, 6 - row % 4 :] = 0
        return {
            "input_ids": rng.integers(1, VOCABULARY, (rows, 6)) * mask,
            "attention_mask": mask,
        }

    return make
