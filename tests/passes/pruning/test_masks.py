"""Masks of zeros: what counts as small, and which weights take part."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from irtools.passes.pruning.masks import blocked_mask, prunable_weights, smallest_mask


def test_small_is_small_in_size_whatever_the_sign() -> None:
    array = np.array([[-9.0, 1.0, -0.5, 3.0], [0.1, -0.2, 5.0, -6.0]], np.float32)
    assert smallest_mask(array, 3).tolist() == [
        [False, False, True, False],
        [True, True, False, False],
    ]
    found = blocked_mask(array, axis=1, zeros=2, block=4)
    assert found is not None
    assert found.tolist() == [[False, True, True, False], [True, True, False, False]]


def test_blocks_lie_along_the_axis() -> None:
    array = np.arange(1, 9, dtype=np.float32).reshape(4, 2)
    found = blocked_mask(array, axis=0, zeros=1, block=2)
    assert found is not None
    assert found.tolist() == [[True, True], [False, False], [True, True], [False, False]]
    assert blocked_mask(array, axis=0, zeros=1, block=3) is None


def weights(text: str, w: np.ndarray) -> list[int]:
    model = ir.from_onnx_text(f'<ir_version: 10, opset_import: ["" : 20]> {text}')
    (value,) = [v for v in model.graph.inputs if v.name == "w"]
    model.graph.inputs.remove(value)
    value.const_value = ir.tensor(w.astype(np.float32), name="w")
    model.graph.register_initializer(value)
    return [found.axis for found in prunable_weights(model)]


@pytest.mark.parametrize(
    ("text", "axis"),
    [
        ("g (float[n,4] x, float[4,4] w) => (float[n,4] y) { y = MatMul(x, w) }", 0),
        ("g (float[n,4] x, float[4,4] w) => (float[n,4] y) { y = Gemm(x, w) }", 0),
        ("g (float[n,4] x, float[4,4] w) => (float[n,4] y) { y = Gemm<transB=1>(x, w) }", 1),
    ],
)
def test_blocks_of_a_weight_lie_along_its_inputs(text: str, axis: int) -> None:
    assert weights(text, np.ones((4, 4))) == [axis]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_take_no_part(bad: float) -> None:
    text = "g (float[n,4] x, float[4,4] w) => (float[n,4] y) { y = MatMul(x, w) }"
    assert weights(text, np.full((4, 4), bad)) == []
