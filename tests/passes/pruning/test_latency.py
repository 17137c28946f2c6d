"""Blocks hold what a group's latency depends on, and run by themselves."""

from __future__ import annotations

import numpy as np
import pytest

from irtools.analysis.channels import ChannelGroups
from irtools.data import SyntheticSettings
from irtools.passes.pruning import latency
from irtools.passes.pruning.latency import bench_sizes, measure_table

_REAL_CLOCK = latency.time_blocks

_TWO_LAYERS = """
<ir_version: 10, opset_import: ["" : 20]>
two (float[batch,seq,8] x, float[8,32] w_1, float[32,8] w_2, float[8,32] w_3, float[32,8] w_4,
     float[8] w_s, float[8] w_t) => (float[batch,seq,8] y) {
  a = MatMul(x, w_1)
  b = Relu(a)
  c = MatMul(b, w_2)
  d = LayerNormalization(c, w_s, w_t)
  e = MatMul(d, w_3)
  f = Gelu(e)
  g = MatMul(f, w_4)
  y = LayerNormalization(g, w_s, w_t)
}
"""


@pytest.fixture(name="timed")
def _timed(monkeypatch):
    """Instead of timing, run every block once and say how many weights it has."""
    seen = []

    def time_blocks(blocks, ctx):
        seen.append(blocks)
        return [float(sum(v.const_value.size for v in _weights(b.model))) for b in blocks]

    monkeypatch.setattr(latency, "time_blocks", time_blocks)
    return seen


def _weights(model):
    return model.graph.initializers.values()


@pytest.mark.parametrize(
    ("label", "sizes"),
    [("batch=1 sequence=64", (1, 64)), ("batch=8", (8, 128)), ("", (1, 128))],
)
def test_sizes_of_a_benchmark(label, sizes):
    found = bench_sizes(label)
    assert (found.samples, found.sequence) == sizes


def test_equal_layers_are_timed_once_at_their_widths(build, data_context, timed):
    model = build(_TWO_LAYERS)
    groups = ChannelGroups.of(model).groups
    sizes = SyntheticSettings(samples=2, sequence=5)
    table = measure_table(model, groups, sizes, data_context(None))
    (blocks,) = timed
    assert [sorted(n.op_type for n in b.model.graph) for b in blocks] == [
        ["MatMul", "MatMul", "Relu"]
    ] * 3
    assert [sum(v.const_value.size for v in _weights(b.model)) for b in blocks] == [512, 256, 64]
    for group in groups:
        np.testing.assert_allclose(table.gain(group, [0, 8, 16, 28]), [0, 128, 256, 448])


@pytest.mark.parametrize("name", ["ffn", "heads", "dynamo-heads", "grouped-heads", "conv"])
def test_blocks_run(name, build, data_context, timed):
    model = build(name)
    ctx = data_context(None)
    found = ChannelGroups.of(model)
    measure_table(model, found.groups, SyntheticSettings(samples=2, sequence=5), ctx)
    (blocks,) = timed
    monotone = [sum(v.const_value.size for v in _weights(b.model)) for b in blocks]
    assert len(blocks) == min(found.groups[0].units, 3) and monotone == sorted(
        monotone, reverse=True
    )
    times = _REAL_CLOCK(blocks, ctx)
    assert all(ms > 0 for ms in times)
