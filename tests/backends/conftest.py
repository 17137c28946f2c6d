"""A small decoder as `fuse` leaves it: grouped attention with a cache, rotary embedding, a mask."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from irtools.analysis.decoder import CachedDecoder, find_decoder
from irtools.model import Model
from irtools.targets import Runner
from irtools.testing import read_model

_DECODER = """
<ir_version: 10, opset_import: ["" : 23]>
decoder (
  int64[batch, sequence] input_ids,
  int64[batch, "past_sequence + sequence"] attention_mask,
  int64[batch, sequence] position_ids,
  float[batch, 2, past_sequence, 8] "past_key_values.0.key",
  float[batch, 2, past_sequence, 8] "past_key_values.0.value",
  float[61, 32] words, float[32, 32] wq, float[32, 16] wk, float[32, 16] wv, float[32, 61] head,
  float[4] frequencies
) => (
  float[batch, sequence, 61] logits,
  float[batch, 2, "past_sequence + sequence", 8] "present.0.key",
  float[batch, 2, "past_sequence + sequence", 8] "present.0.value"
) {
  hidden = Gather (words, input_ids)
  q = MatMul (hidden, wq)
  k = MatMul (hidden, wk)
  v = MatMul (hidden, wv)
  one = Constant <value_ints = [1]> ()
  last_axis = Constant <value_ints = [2]> ()
  places = Cast <to = 1> (position_ids)
  place = Unsqueeze (places, last_axis)
  angles = Mul (place, frequencies)
  cos = Cos (angles)
  sin = Sin (angles)
  turned_q = RotaryEmbedding <num_heads = 4> (q, cos, sin)
  turned_k = RotaryEmbedding <num_heads = 2> (k, cos, sin)
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
  shut = Constant <value_float = -1.7e38> ()
  bias = Where (allowed, open, shut)
  mixed, "present.0.key", "present.0.value" =
    Attention <q_num_heads = 4, kv_num_heads = 2, scale = 0.3>
    (turned_q, turned_k, v, bias, "past_key_values.0.key", "past_key_values.0.value")
  sum = Add (mixed, hidden)
  logits = MatMul (sum, head)
}
"""
_SHAPES = {"words": (61, 32), "wq": (32, 32), "wk": (32, 16), "wv": (32, 16), "head": (32, 61)}


@pytest.fixture(scope="session")
def grouped_decoder() -> Model:
    """Four heads over two, with seeded weights."""
    rng = np.random.default_rng(3)
    weights = {n: rng.normal(0, 0.5, s).astype(np.float32) for n, s in _SHAPES.items()}
    weights["frequencies"] = (0.3 ** np.arange(4)).astype(np.float32)
    return read_model(_DECODER, weights)


@pytest.fixture(scope="session")
def decoder(grouped_decoder: Model) -> CachedDecoder:
    """What is fed to it, and comes back."""
    found = find_decoder(grouped_decoder.ir)
    assert found is not None
    return found


@pytest.fixture(scope="session")
def read_padded() -> Callable[..., list[dict[str, np.ndarray]]]:
    return _read_padded


def _read_padded(
    runner: Runner, decoder: CachedDecoder, ids: np.ndarray, ends: Sequence[int]
) -> list[dict[str, np.ndarray]]:
    """Read two texts up to each of the ends, the second with three tokens of padding in front."""
    mask = np.ones_like(ids)
    mask[1, :3] = 0
    places = np.maximum(mask.cumsum(axis=1) - 1, 0)
    found, past, start = [], decoder.empty(2), 0
    for end in ends:
        feeds = {
            "input_ids": ids[:, start:end],
            "attention_mask": mask[:, :end],
            "position_ids": places[:, start:end],
        }
        outputs = runner.run(feeds | past)
        past = decoder.next_past(feeds, outputs)
        # What padding gives does not matter.
        kept = mask[:, start:end].astype(bool)
        found.append({**outputs, "logits": outputs["logits"][kept]})
        start = end
    return found
