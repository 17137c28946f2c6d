"""The arithmetic of blocks, against plain numpy."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from irtools.passes.quantization.ranges.blocks import (
    NF4,
    dequantize_rows,
    is_finite,
    pack_codes,
    quantize_rows,
    slabs,
    unpack_codes,
)
from irtools.passes.quantization.ranges.spec import BlockSpec

SYMMETRIC, AFFINE, NF = BlockSpec(4, 16), BlockSpec(4, 16, "affine"), BlockSpec(4, 16, "nf4")
rows_of_two_blocks = arrays(
    np.float32, (3, 32), elements=st.floats(-1e3, 1e3, width=32, allow_subnormal=False)
)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def nearest_to_largest(rows: np.ndarray) -> np.ndarray:
    """What a plain quantizer makes: -7 to 7, scaled by the largest magnitude of a block."""
    parts = rows.reshape(len(rows), -1, 16)
    scale = np.abs(parts).max(axis=-1, keepdims=True) / 7
    return (np.rint(parts / np.where(scale > 0, scale, 1)) * scale).reshape(rows.shape)


@given(st.integers(1, 40).flatmap(lambda n: arrays(np.int8, n, elements=st.integers(-8, 7))))
def test_packing_is_that_of_onnx_and_its_inverse(codes: np.ndarray) -> None:
    for bits, kind in ((4, ml_dtypes.int4), (2, ml_dtypes.int2)):
        half = 1 << (bits - 1)
        narrow = codes.clip(-half, half - 1)
        packed = pack_codes(narrow, bits)
        as_onnx = ir.Tensor(narrow.astype(kind), ir.DataType[f"INT{bits}"])
        assert packed.tobytes() == as_onnx.tobytes()
        found = unpack_codes(packed, codes.size, bits, signed=True)
        np.testing.assert_array_equal(found, narrow)
        unsigned = narrow.view(np.uint8) & (2 * half - 1)
        found = unpack_codes(packed, codes.size, bits, signed=False)
        np.testing.assert_array_equal(found, unsigned)


@settings(max_examples=60)
@given(rows_of_two_blocks)
def test_codes_are_the_nearest_to_their_scale(rows: np.ndarray) -> None:
    for spec, low, high in ((SYMMETRIC, -8, 7), (AFFINE, 0, 15)):
        found = quantize_rows(rows, spec)
        assert found.codes.min() >= low and found.codes.max() <= high
        scale = np.repeat(found.scale, 16, axis=1)
        inside = (found.codes > low) & (found.codes < high)
        error = np.abs(rows - dequantize_rows(found))
        assert (error <= np.abs(scale) / 2 * 1.001 + 1e-30)[inside].all()


@settings(max_examples=60)
@given(rows_of_two_blocks)
def test_the_scale_is_no_worse_than_that_of_the_largest_magnitude(rows: np.ndarray) -> None:
    plain = np.square(rows - nearest_to_largest(rows)).sum(dtype=np.float64)
    error = np.square(rows - dequantize_rows(quantize_rows(rows, SYMMETRIC))).sum(dtype=np.float64)
    energy = np.square(rows).sum(dtype=np.float64)
    assert error <= plain * 1.001 + 1e-6 * energy


def test_least_squares_and_zero_points_pay_on_normal_weights() -> None:
    rows = normal(64, 512)

    def error(found: np.ndarray) -> float:
        return float(np.square(rows - found).mean())

    plain = error(nearest_to_largest(rows))
    symmetric = error(dequantize_rows(quantize_rows(rows, SYMMETRIC)))
    affine = error(dequantize_rows(quantize_rows(rows, AFFINE)))
    assert symmetric < 0.85 * plain
    assert affine < 0.95 * symmetric


@pytest.mark.parametrize("spec", [SYMMETRIC, AFFINE, NF, BlockSpec(8, 16)])
def test_zeros_stay_zero(spec: BlockSpec) -> None:
    rows = normal(2, 32)
    rows[0], rows[1, 3] = 0, 0
    found = dequantize_rows(quantize_rows(rows, spec))
    assert not found[0].any() and found[1, 3] == 0


def test_what_is_on_the_grid_is_exact() -> None:
    codes = np.arange(-8, 8, dtype=np.float32)
    rows = np.stack([codes * 0.25, codes * -0.5])
    np.testing.assert_array_equal(dequantize_rows(quantize_rows(rows, SYMMETRIC)), rows)
    shifted = np.stack([(codes + 3) * 0.25])
    np.testing.assert_array_equal(dequantize_rows(quantize_rows(shifted, AFFINE)), shifted)


def test_nf4_takes_the_nearest_level() -> None:
    rows = normal(8, 64)
    found = quantize_rows(rows, NF)
    scaled = rows.reshape(8, -1, 16) / found.scale[..., None]
    nearest = np.abs(scaled[..., None] - NF4).argmin(axis=-1).reshape(8, 64)
    np.testing.assert_array_equal(found.codes, nearest)


def test_half_precision_scales_are_the_ones_that_codes_belong_to() -> None:
    found = quantize_rows(normal(4, 64), SYMMETRIC, np.float16)
    assert found.scale.dtype == np.float16
    again = np.rint(normal(4, 64).reshape(4, -1, 16) / found.scale.astype(np.float32)[..., None])
    np.testing.assert_array_equal(found.codes, again.clip(-8, 7).reshape(4, 64))


@pytest.mark.parametrize("axis", [0, 1])
def test_slabs_cover_a_weight_once(axis: int, monkeypatch) -> None:
    monkeypatch.setattr("irtools.passes.quantization.ranges.blocks.SLAB_ELEMENTS", 64)
    weight = normal(13, 21)
    pieces = list(slabs(weight, axis))
    assert len(pieces) > 1 and all(cut.start % 2 == 0 for cut, _ in pieces)
    rows = np.concatenate([piece for _, piece in pieces])
    np.testing.assert_array_equal(rows, weight if axis == 0 else weight.T)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_infinities_are_found(bad: float, monkeypatch) -> None:
    monkeypatch.setattr("irtools.passes.quantization.ranges.blocks.SLAB_ELEMENTS", 8)
    weight = normal(5, 7)
    assert is_finite(weight)
    weight[3, 4] = bad
    assert not is_finite(weight)


@pytest.mark.parametrize(
    ("channels", "block"), [(384, 128), (576, 64), (96, 32), (48, 16), (40, None)]
)
def test_the_largest_block_that_divides(channels: int, block: int | None) -> None:
    found = BlockSpec(4, 128).fits(channels)
    assert (None if found is None else found.block) == block


@pytest.mark.parametrize("block", [8, 48])
def test_blocks_are_powers_of_two(block: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        BlockSpec(4, block)


@pytest.mark.parametrize("scales", ["float32", "s8"])
@pytest.mark.parametrize("size", [1e-13, 1e-25, 1e-33])
def test_weights_of_any_size_keep_as_much(size: float, scales: str) -> None:
    rows = normal(8, 64)
    for spec in (BlockSpec(4, 32, scales=scales), BlockSpec(8, 32, "affine", scales)):
        usual = dequantize_rows(quantize_rows(rows, spec)) - rows
        small = (rows * np.float32(size)).astype(np.float32)
        lost = dequantize_rows(quantize_rows(small, spec)) - small
        least = 1.2 * np.linalg.norm(usual) / np.linalg.norm(rows)
        assert np.linalg.norm(lost.astype(np.float64)) < least * np.linalg.norm(
            small.astype(np.float64)
        )
