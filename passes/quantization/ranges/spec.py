"""How a tensor is to be quantized, in words: `QuantSpec` and its parts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import onnx_ir as ir

__all__ = [
    "ACTIVATION_S8",
    "ACTIVATION_U8",
    "BlockSpec",
    "Granularity",
    "PerAxes",
    "PerAxis",
    "PerBlock",
    "PerTensor",
    "QuantSpec",
    "Scales",
    "Scheme",
    "WeightRange",
    "dividing_block",
    "weight_spec",
]


@dataclass(frozen=True)
class PerTensor:
    """One scale for the whole tensor: x [B, S, K] has scale []."""


@dataclass(frozen=True)
class PerAxis:
    """One scale per index along `axis`: W [K, N] with axis 1 has scale [N]."""

    axis: int


@dataclass(frozen=True)
class PerAxes:
    """One scale per index along several axes: W [D, G, I] with axes (0, 1) has scale [D, G, 1].

    No axes: one scale for the whole tensor, [1, 1, 1].
    """

    axes: tuple[int, ...]


@dataclass(frozen=True)
class PerBlock:
    """One scale per `block_size` neighbours along `axis`: W [K, N], axis 0: [ceil(K/size), N]."""

    axis: int
    block_size: int


Granularity: TypeAlias = PerTensor | PerAxis | PerAxes | PerBlock

WeightRange: TypeAlias = Literal["full", "pairs", "7-bit"]
"""How much of 8 bits weights use. `pairs`: as much as neighbours allow whose products are added
in saturating 16 bits; `7-bit`: half, which is safe whatever the order of the neighbours."""

_BITS = {ir.DataType.INT8: 8, ir.DataType.UINT8: 8, ir.DataType.INT32: 32}


@dataclass(frozen=True)
class QuantSpec:
    """The integer form of a tensor.

    Attributes:
        dtype: INT8, UINT8, or INT32 for biases.
        granularity: What shares a scale.
        symmetric: The zero point is 0 (signed) or the middle (unsigned), and the range is the
            same on both sides.
        bits: Bits that are used of `dtype`; 7 keeps u8 x s8 sums inside 16 bits on CPUs without
            VNNI.
        pair_safe: Scales are chosen so that no two neighbours along the input channels leave
            16 bits when they are multiplied by u8 and added (`irtools.analysis.saturation`).
    """

    dtype: ir.DataType
    granularity: Granularity = PerTensor()
    symmetric: bool = True
    bits: int = 8
    pair_safe: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in _BITS or not 2 <= self.bits <= _BITS[self.dtype]:
            raise ValueError(f"{self.bits} bits of {self.dtype} is not a quantized form")

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest integer. Symmetric signed forms leave out the lowest code.

        -128 has no mirror image, and two products of it would be the one case in which the
        sum of a pair of s8 products leaves 16 bits.
        """
        if self.dtype == ir.DataType.UINT8:
            return 0, 2**self.bits - 1
        top: int = 2 ** (self.bits - 1) - 1
        if self.bits == 7:
            # u8 x s8: 2 * 255 * 64 = 32 640 still fits into 16 bits.
            top = 64
        return (-top if self.symmetric else -top - 1), top


ACTIVATION_U8 = QuantSpec(ir.DataType.UINT8, PerTensor(), symmetric=False)
"""`u8-affine`: the form that both runtimes multiply by s8 weights fastest."""

ACTIVATION_S8 = QuantSpec(ir.DataType.INT8, PerTensor(), symmetric=True)
"""`s8-symmetric`."""


def weight_spec(granularity: Granularity, weight_range: WeightRange = "full") -> QuantSpec:
    """Return the form of a weight: s8, symmetric, within a range that does not saturate."""
    return QuantSpec(
        ir.DataType.INT8,
        granularity,
        symmetric=True,
        bits=7 if weight_range == "7-bit" else 8,
        pair_safe=weight_range == "pairs",
    )


Scheme: TypeAlias = Literal["symmetric", "affine", "nf4"]

Scales: TypeAlias = Literal["float32", "s8"]
"""How the scales of blocks are stored. `s8`: as codes of 8 bits times a step for each output
channel, which is a byte for each block in place of four."""


@dataclass(frozen=True)
class BlockSpec:
    """A weight of which `block` neighbours along the input channels share a scale.

    Attributes:
        bits: 2, 4 or 8.
        block: Neighbours that share a scale: a power of two from 16.
        scheme: `symmetric`: codes around 0, and a scale that may be negative, so that the
            largest magnitude of a block takes the code that has no mirror image (-8, of 2 bits
            -2).
            `affine`: a zero point per block. `nf4`: codes are numbers of a table of 16 normal
            quantiles.
        scales: How scales are stored. Those of `nf4` are float32.
    """

    bits: Literal[2, 4, 8]
    block: int
    scheme: Scheme = "symmetric"
    scales: Scales = "float32"

    def __post_init__(self) -> None:
        if self.block < 16 or self.block & (self.block - 1):
            raise ValueError(f"a block of {self.block} is not a power of two from 16")
        if self.scheme == "nf4" and self.bits != 4:
            raise ValueError("nf4 has 4 bits")
        if self.scheme == "nf4" and self.scales != "float32":
            raise ValueError("nf4 has scales in float32")

    @property
    def dtype(self) -> ir.DataType:
        """Type of the codes."""
        signed = "" if self.scheme == "symmetric" else "U"
        return ir.DataType[f"{signed}INT{self.bits}"]

    def fits(self, channels: int) -> BlockSpec | None:
        """Return the same with the largest block up to this one that divides `channels`.

        Kernels need whole blocks. None where not even 16 divides.
        """
        block = dividing_block(channels, self.block)
        return None if block is None else replace(self, block=block)


def dividing_block(channels: int, block: int) -> int | None:
    """Return the largest block up to `block`, halved again and again, that divides `channels`.

    None where not even 16 divides.
    """
    while channels % block:
        block //= 2
        if block < 16:
            return None
    return block
