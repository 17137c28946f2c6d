"""NF4: the sixteen numbers, the nearest of them, and what double quantization costs."""

from __future__ import annotations

import numpy as np
import pytest

from irtools.model.nf4 import NF4_LEVELS

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def nf4():
    from irtools.frontends.students.networks import nf4

    return nf4


def test_levels_are_those_of_the_paper() -> None:
    shown = (
        -1, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.0910500, 0,
        0.0795803, 0.1609302, 0.2461123, 0.3379152, 0.4407098, 0.5626170, 0.7229568, 1,
    )  # fmt: skip
    np.testing.assert_allclose(NF4_LEVELS, shown, atol=5e-8)


def test_levels_stand_for_themselves(nf4) -> None:
    weight = 3.0 * torch.tensor(NF4_LEVELS).repeat(4)
    found = nf4.quantize_nf4(weight, double=False)
    assert found.codes.flatten().tolist() == list(range(16)) * 4
    torch.testing.assert_close(found.dequantize(), weight)


def test_every_weight_gets_the_nearest_level(nf4) -> None:
    weight = torch.randn(7, 33, generator=torch.Generator().manual_seed(0))
    found = nf4.quantize_nf4(weight, double=False)
    flat = weight.reshape(-1).numpy()
    levels = np.array(NF4_LEVELS, np.float32)
    for start in range(0, len(flat), nf4.BLOCK):
        block = flat[start : start + nf4.BLOCK]
        scale = np.abs(block).max()
        nearest = scale * levels[np.abs(block[:, None] / scale - levels).argmin(axis=1)]
        dequantized = found.dequantize().reshape(-1).numpy()[start : start + nf4.BLOCK]
        np.testing.assert_allclose(dequantized, nearest, rtol=1e-6)
    assert found.dequantize().shape == weight.shape


def test_error_is_that_of_four_bits_and_double_quantization_adds_little(nf4) -> None:
    weight = 0.02 * torch.randn(256, 256, generator=torch.Generator().manual_seed(0))

    def error(double: bool) -> float:
        dequantized = nf4.quantize_nf4(weight, double=double).dequantize()
        return float((dequantized - weight).norm() / weight.norm())

    assert 0.08 < error(double=False) < 0.10
    assert error(double=False) < error(double=True) < 1.01 * error(double=False)


def test_zeros_and_small_tensors(nf4) -> None:
    for weight in (torch.zeros(100), torch.zeros(1), torch.tensor([[0.5]])):
        for double in (False, True):
            dequantized = nf4.quantize_nf4(weight, double=double).dequantize()
            torch.testing.assert_close(dequantized, weight)
