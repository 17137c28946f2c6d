"""Fusion on what exporters write: committed tiny exports, and fresh ones where torch is there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

Fuse = Callable[..., Any]
EncoderFeeds = Callable[..., dict[str, np.ndarray]]

GRAPHS = sorted((Path(__file__).parents[2] / "data" / "graphs").glob("*.onnx"))
SIZES = ((1, 8), (3, 5), (2, 1))
LAYERS = 2


@pytest.mark.parametrize("path", GRAPHS, ids=lambda p: p.stem)
def test_every_block_fuses(path: Path, fuse: Fuse, encoder_feeds: EncoderFeeds) -> None:
    fused = fuse(ir.load(path), "cleanup,fuse")
    norms = 2 * LAYERS + 1
    counts = {op: fused.count(op) for op in ("Attention", "Gelu", "LayerNormalization", "Softmax")}
    assert counts == {
        "Attention": LAYERS,
        "Gelu": LAYERS,
        "LayerNormalization": norms,
        "Softmax": 0,
    }
    assert "did not fuse" not in fused.notes
    for batch, length in SIZES:
        feeds = encoder_feeds(fused.before, batch, length, seed=batch, padded_row=True)
        assert fused.error(feeds) <= 1e-5


@pytest.mark.parametrize("path", GRAPHS, ids=lambda p: p.stem)
def test_blocks_take_packed_heads(path: Path, fuse: Fuse) -> None:
    """Q, K and V come straight from the linear layers: no reshape is left around attention."""
    fused = fuse(ir.load(path), "cleanup,fuse")
    for node in fused.after.graph:
        if node.op_type == "Attention":
            assert {v.producer().op_type for v in node.inputs[:3]} == {"Add"}
            (user,) = node.outputs[0].consumers()
            assert user.op_type == "MatMul"


@pytest.mark.openvino
@pytest.mark.parametrize("path", GRAPHS, ids=lambda p: p.stem)
def test_same_answers_in_openvino(path: Path, fuse: Fuse, encoder_feeds: EncoderFeeds) -> None:
    fused = fuse(ir.load(path), "cleanup,fuse", "openvino-cpu")
    assert fused.count("Attention") == LAYERS
    for batch, length in SIZES[:2]:
        feeds = encoder_feeds(fused.before, batch, length, seed=batch, padded_row=True)
        assert fused.error(feeds, "openvino-cpu") <= 1e-5


@pytest.mark.parametrize("path", GRAPHS[:1], ids=lambda p: p.stem)
def test_without_clean_up_the_reasons_are_given(path: Path, fuse: Fuse) -> None:
    fused = fuse(ir.load(path))
    counters = fused.results[0].counters
    assert counters["num-fused-attention"] + counters["num-unfused-attention"] == LAYERS
    assert ("did not fuse attention" in fused.notes) == (counters["num-unfused-attention"] > 0)
