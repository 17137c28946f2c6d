"""Grids that weights lie on: found from the floats alone, to the last bit, or not at all."""

from __future__ import annotations

import numpy as np
import pytest

from irtools.passes.quantization.ranges.grids import Grid, find_grid, nested, recover

F = np.float32
KEPT = ("q4_0", "q4_1", "q5_0", "q8_0", "gptq", "awq", "per-channel", "q4_k", "q6_k", "ternary")


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    # Channels of different sizes, as trained ones have them.
    return (rng.standard_normal(shape) * rng.uniform(0.5, 3, (shape[0], 1))).astype(F) * F(0.05)


def halves(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float16).astype(F)


def symmetric(w: np.ndarray, block: int, least: int, seed: int = 0) -> np.ndarray:
    """llama.cpp's Q4_0, Q5_0 and Q8_0: the largest number takes the lowest code, or 127."""
    parts = w.reshape(len(w), -1, block)
    at = np.abs(parts).argmax(-1)[..., None]
    top = np.take_along_axis(parts, at, -1)
    scale = halves(top / F(least) if least > -128 else np.abs(top) / F(127))
    codes = np.rint(parts / scale).clip(least, -least - 1)
    return (codes * scale).reshape(w.shape)


def affine(w: np.ndarray, block: int, most: int) -> np.ndarray:
    """llama.cpp's Q4_1: a step and a minimum in float16."""
    parts = w.reshape(len(w), -1, block)
    low = parts.min(-1, keepdims=True)
    step = (parts.max(-1, keepdims=True) - low) / F(most)
    codes = np.rint((parts - low) / step).clip(0, most)
    return (codes * halves(step) + halves(low)).reshape(w.shape)


def zero_points(w: np.ndarray, block: int, half: np.dtype | type = np.float16) -> np.ndarray:
    """GPTQ and AWQ: s (q - z) with whole z."""
    parts = w.reshape(len(w), -1, block)
    low = np.minimum(parts.min(-1, keepdims=True), 0)
    scale = ((parts.max(-1, keepdims=True) - low) / F(15)).astype(half).astype(F)
    zero = np.rint(-low / scale).clip(0, 15)
    codes = (np.rint(parts / scale) + zero).clip(0, 15)
    return ((codes - zero) * scale).reshape(w.shape)


def k_quant(w: np.ndarray, most: int) -> np.ndarray:
    """Q4_K and Q5_K: steps and minima of eight blocks in 6 bits of a float16 each."""
    parts = w.reshape(len(w), -1, 8, 32)
    low = np.minimum(parts.min(-1), 0)
    step, minimum = (parts.max(-1) - low) / F(most), -low
    outer = [halves(x.max(-1, keepdims=True) / F(63)) for x in (step, minimum)]
    steps, minima = (
        np.rint(x / o).clip(0, 63) * o for x, o in zip((step, minimum), outer, strict=True)
    )
    codes = np.rint((parts + minima[..., None]) / np.maximum(steps, 1e-9)[..., None])
    return (steps[..., None] * codes.clip(0, most) - minima[..., None]).reshape(w.shape).astype(F)


def q6_k(w: np.ndarray) -> np.ndarray:
    parts = w.reshape(len(w), -1, 16, 16)
    scale = np.abs(parts).max(-1) / F(31)
    outer = halves(scale.max(-1, keepdims=True) / F(127))
    scales = np.rint(scale / outer) * outer
    codes = np.rint(parts / np.maximum(scales, 1e-9)[..., None]).clip(-32, 31)
    return (scales[..., None] * codes).reshape(w.shape).astype(F)


def made(kind: str) -> np.ndarray:
    w = drawn(24, 512, seed=len(kind))
    match kind:
        case "q4_0":
            return symmetric(w, 32, -8)
        case "q5_0":
            return symmetric(w, 32, -16)
        case "q8_0":
            return symmetric(w, 32, -128)
        case "q4_1":
            return affine(w, 32, 15)
        case "gptq":
            return zero_points(w, 128)
        case "awq":
            return zero_points(w, 64)
        case "per-channel":
            return symmetric(w, 512, -128)
        case "q4_k":
            return k_quant(w, 15)
        case "q6_k":
            return q6_k(w)
        case "ternary":
            return np.sign(np.rint(w * 20)) * F(0.0625)
    raise KeyError(kind)


FOUND = {
    "q4_0": Grid(4, 32, "integer", True, "f16"),
    "q4_1": Grid(4, 32, "float", False, "f16", 8),
    "q5_0": Grid(8, 32, "integer", True, "f16"),
    "q8_0": Grid(8, 32, "integer", True, "f16"),
    "gptq": Grid(4, 128, "integer", False, "f16"),
    "awq": Grid(4, 64, "integer", False, "f16"),
    "per-channel": Grid(8, 128, "integer", True, "f16"),
    "q4_k": Grid(4, 32, "float", False, "nested", 8),
    "q6_k": Grid(8, 16, "integer", True, "nested"),
    "ternary": Grid(4, 128, "integer", True, "f16"),
}


@pytest.mark.parametrize("kind", KEPT)
def test_the_grid_is_found_in_either_direction(kind: str) -> None:
    w = made(kind)
    assert find_grid(w, 0) == FOUND[kind]
    assert find_grid(np.ascontiguousarray(w.T), 1) == FOUND[kind]


@pytest.mark.parametrize("kind", KEPT)
def test_codes_and_steps_give_every_bit_back(kind: str) -> None:
    w, grid = made(kind), FOUND[kind]
    found = recover(w, grid.bits, grid.block, grid.zero)
    assert found is not None
    np.testing.assert_array_equal(found.restored(), w)
    assert found.codes.max() - found.codes.min() < 1 << (grid.bits + (not grid.signed))


@pytest.mark.parametrize("kind", KEPT)
def test_one_bit_of_one_number_breaks_it(kind: str) -> None:
    w = made(kind).copy()
    place = np.unravel_index(np.abs(w).argmax(), w.shape)
    w[place] = np.nextafter(w[place], F(0))
    assert find_grid(w, 0) is None


@pytest.mark.parametrize(
    "w",
    [
        pytest.param(drawn(24, 512), id="float32"),
        pytest.param(drawn(24, 512).astype(np.float16).astype(F), id="float16"),
        pytest.param(affine(drawn(24, 512), 32, 15) * F(1.1), id="scaled by a float"),
        pytest.param(np.full((4, 64), np.nan, F), id="nan"),
        pytest.param(np.where(np.arange(64) < 1, F(np.inf), made("q4_0")[:4, :64]), id="infinity"),
        pytest.param(made("q4_0")[:, :40], id="no block divides 40"),
        pytest.param(np.zeros((0, 64), F), id="empty"),
    ],
)
def test_what_lies_on_no_grid(w: np.ndarray) -> None:
    assert find_grid(w, 0) is None


def test_permuted_inputs_break_the_blocks() -> None:
    w = made("gptq")
    assert find_grid(w[:, np.random.default_rng(0).permutation(512)], 0) is None


def test_blocks_of_zeros_and_of_one_number_are_on_a_grid() -> None:
    w = made("q4_1").copy()
    w[3] = 0
    w[5, :32] = F(np.float16(0.1))
    assert find_grid(w, 0) == FOUND["q4_1"]
    assert find_grid(np.zeros((4, 64), F), 0) == Grid(4, 64, "integer", True, "f16")


def test_work_on_a_hostile_weight_is_bounded() -> None:
    """Two numbers a block, whose distance every number of steps could divide."""
    w = np.where(np.arange(512) % 32 == 0, F(1.0000001), F(0.3)) * np.ones((2000, 1), F)
    w[-1, -1] = F(0.77)
    assert find_grid(w, 0) is None


def test_scales_of_scales() -> None:
    outer = halves(drawn(6, 3))
    codes = np.random.default_rng(1).integers(-63, 64, (6, 3, 8))
    numbers = (codes * outer[..., None]).reshape(6, 24)
    found = nested(numbers)
    assert found is not None
    again = found[0].reshape(6, 3, 8).astype(F) * found[1].astype(F)[..., None]
    np.testing.assert_array_equal(again.reshape(6, 24), numbers)
    assert nested(drawn(6, 24)) is None and nested(numbers[:, :20]) is None
