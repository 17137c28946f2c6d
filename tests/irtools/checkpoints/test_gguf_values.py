"""Tensors of GGUF files are what ggml makes of them, to the last bit.

The reference is written after its ggml-quants.c, number by number in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irtools.checkpoints import Gguf

pytestmark = pytest.mark.gguf

F = np.float32
_LEVELS = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)


def half(raw: bytes, at: int) -> np.float32:
    return F(np.frombuffer(raw[at : at + 2], "<f2")[0])


def signed(value: int) -> int:
    return value - 256 if value > 127 else value


def q4_0(raw: bytes) -> Iterator[np.float32]:
    d = half(raw, 0)
    yield from (F((b & 15) - 8) * d for b in raw[2:])
    yield from (F((b >> 4) - 8) * d for b in raw[2:])


def q4_1(raw: bytes) -> Iterator[np.float32]:
    d, m = half(raw, 0), half(raw, 2)
    yield from (F(b & 15) * d + m for b in raw[4:])
    yield from (F(b >> 4) * d + m for b in raw[4:])


def fifth(high: bytes, place: int) -> int:
    return (int.from_bytes(high, "little") >> place & 1) << 4


def q5_0(raw: bytes) -> Iterator[np.float32]:
    d, high = half(raw, 0), raw[2:6]
    yield from (F(((b & 15) | fifth(high, j)) - 16) * d for j, b in enumerate(raw[6:]))
    yield from (F(((b >> 4) | fifth(high, j + 16)) - 16) * d for j, b in enumerate(raw[6:]))


def q5_1(raw: bytes) -> Iterator[np.float32]:
    d, m, high = half(raw, 0), half(raw, 2), raw[4:8]
    yield from (F((b & 15) | fifth(high, j)) * d + m for j, b in enumerate(raw[8:]))
    yield from (F((b >> 4) | fifth(high, j + 16)) * d + m for j, b in enumerate(raw[8:]))


def q8_0(raw: bytes) -> Iterator[np.float32]:
    d = half(raw, 0)
    yield from (F(signed(b)) * d for b in raw[2:])


def scale_min(scales: bytes, j: int) -> tuple[int, int]:
    if j < 4:
        return scales[j] & 63, scales[j + 4] & 63
    return (
        (scales[j + 4] & 15) | ((scales[j - 4] >> 6) << 4),
        (scales[j + 4] >> 4) | ((scales[j] >> 6) << 4),
    )


def q4_k(raw: bytes) -> Iterator[np.float32]:
    d, least, scales, codes = half(raw, 0), half(raw, 2), raw[4:16], raw[16:]
    for j in range(8):
        scale, minimum = scale_min(scales, j)
        part = codes[32 * (j // 2) : 32 * (j // 2) + 32]
        for b in part:
            yield (d * F(scale)) * F(b >> 4 if j % 2 else b & 15) - least * F(minimum)


def q5_k(raw: bytes) -> Iterator[np.float32]:
    d, least, scales, high, codes = half(raw, 0), half(raw, 2), raw[4:16], raw[16:48], raw[48:]
    for j in range(8):
        scale, minimum = scale_min(scales, j)
        part = codes[32 * (j // 2) : 32 * (j // 2) + 32]
        for n, b in enumerate(part):
            code = (b >> 4 if j % 2 else b & 15) + (16 if high[n] >> j & 1 else 0)
            yield (d * F(scale)) * F(code) - least * F(minimum)


def q6_k(raw: bytes) -> Iterator[np.float32]:
    low, high, scales, d = raw[:128], raw[128:192], raw[192:208], half(raw, 208)
    for n in range(256):
        part, place = divmod(n, 128)
        quarter, at = divmod(place, 32)
        b = low[64 * part + 32 * (quarter % 2) + at]
        four = b & 15 if quarter < 2 else b >> 4
        two = high[32 * part + at] >> (2 * quarter) & 3
        scale = signed(scales[8 * part + 2 * quarter + at // 16])
        yield (d * F(scale)) * F((four | two << 4) - 32)


def q2_k(raw: bytes) -> Iterator[np.float32]:
    scales, codes, d, least = raw[:16], raw[16:80], half(raw, 80), half(raw, 82)
    for n in range(256):
        part, place = divmod(n, 128)
        quarter, at = divmod(place, 32)
        scale = scales[n // 16]
        code = codes[32 * part + at] >> (2 * quarter) & 3
        yield (d * F(scale & 15)) * F(code) - least * F(scale >> 4)


def q3_k(raw: bytes) -> Iterator[np.float32]:
    mask, codes, packed, d = raw[:32], raw[32:96], raw[96:108], half(raw, 108)
    for n in range(256):
        part, place = divmod(n, 128)
        quarter, at = divmod(place, 32)
        j = n // 16
        four = packed[j % 8] & 15 if j < 8 else packed[j % 8] >> 4
        two = packed[8 + j % 4] >> (2 * (j // 4)) & 3
        code = codes[32 * part + at] >> (2 * quarter) & 3
        less = 0 if mask[at] >> (4 * part + quarter) & 1 else 4
        yield (d * F((four | two << 4) - 32)) * F(code - less)


def iq4_nl(raw: bytes) -> Iterator[np.float32]:
    d = half(raw, 0)
    yield from (d * F(_LEVELS[b & 15]) for b in raw[2:])
    yield from (d * F(_LEVELS[b >> 4]) for b in raw[2:])


def iq4_xs(raw: bytes) -> Iterator[np.float32]:
    d, high, low, codes = half(raw, 0), int.from_bytes(raw[2:4], "little"), raw[4:8], raw[8:]
    for j in range(8):
        scale = (low[j // 2] >> (4 * (j % 2)) & 15) | (high >> (2 * j) & 3) << 4
        part = codes[16 * j : 16 * j + 16]
        for shift in (0, 4):
            yield from ((d * F(scale - 32)) * F(_LEVELS[b >> shift & 15]) for b in part)


def f32(raw: bytes) -> Iterator[np.float32]:
    yield from np.frombuffer(raw, "<f4")


def f16(raw: bytes) -> Iterator[np.float32]:
    yield half(raw, 0)


def bf16(raw: bytes) -> Iterator[np.float32]:
    yield from np.frombuffer(b"\0\0" + raw, "<f4")


Values = Callable[[bytes], Iterator[np.float32]]
REFERENCE: Mapping[str, tuple[int, int, tuple[int, ...], Values]] = {
    "F32": (1, 4, (), f32),
    "F16": (1, 2, (), f16),
    "BF16": (1, 2, (), bf16),
    "Q4_0": (32, 18, (0,), q4_0),
    "Q4_1": (32, 20, (0, 2), q4_1),
    "Q5_0": (32, 22, (0,), q5_0),
    "Q5_1": (32, 24, (0, 2), q5_1),
    "Q8_0": (32, 34, (0,), q8_0),
    "Q2_K": (256, 84, (80, 82), q2_k),
    "Q3_K": (256, 110, (108,), q3_k),
    "Q4_K": (256, 144, (0, 2), q4_k),
    "Q5_K": (256, 176, (0, 2), q5_k),
    "Q6_K": (256, 210, (208,), q6_k),
    "IQ4_NL": (32, 18, (0,), iq4_nl),
    "IQ4_XS": (256, 136, (0,), iq4_xs),
}
"""Numbers and bytes of a block, where its halves are, and what it stands for."""


def random_blocks(kind: str, count: int, seed: int) -> bytes:
    """Return blocks of random codes and of scales as real files have them, of both signs."""
    rng = np.random.default_rng(seed)
    numbers, size, halves, _ = REFERENCE[kind]
    if numbers == 1:
        values = rng.standard_normal(count).astype(np.float32)
        if kind == "BF16":
            return b"".join(value.tobytes()[2:] for value in values)
        return values.astype(np.float16 if kind == "F16" else np.float32).tobytes()
    blocks = rng.integers(0, 256, (count, size), np.uint8)
    for at in halves:
        scales = (rng.standard_normal(count) * 0.01).astype(np.float16)
        blocks[:, at : at + 2] = scales.view(np.uint8).reshape(count, 2)
    return blocks.tobytes()


def dequantized(kind: str, raw: bytes) -> np.ndarray:
    """Return the float32 numbers of blocks, one after the other."""
    _, size, _, values = REFERENCE[kind]
    blocks = (raw[at : at + size] for at in range(0, len(raw), size))
    return np.array([value for block in blocks for value in values(block)], np.float32)


@pytest.mark.parametrize("kind", sorted(REFERENCE))
def test_every_type_is_exact(kind: str, tmp_path: Path, gguf_bytes: Callable[..., Any]) -> None:
    rows, columns = (3, 2) if kind in ("F32", "F16", "BF16") else (3, 512)
    raw = random_blocks(kind, rows * columns // REFERENCE[kind][0], seed=len(kind))
    file = gguf_bytes({"x": 1}, {"w": (kind, (rows, columns), raw)}).write(tmp_path / "w.gguf")
    found = Gguf.open(file).tensor("w")
    wanted = dequantized(kind, raw).reshape(rows, columns)
    assert found.dtype == np.float32
    # As integers, so that the sign of 0 counts as well.
    np.testing.assert_array_equal(found.view(np.uint32), wanted.view(np.uint32))


def test_the_official_writer_is_read(tmp_path: Path) -> None:
    from gguf import GGMLQuantizationType, GGUFWriter
    from gguf.quants import quantize

    weight = np.random.default_rng(0).standard_normal((6, 64)).astype(np.float32)
    writer = GGUFWriter(tmp_path / "w.gguf", "llama")
    writer.add_array("names", ["a", "é"])
    writer.add_array("numbers", [1, 2, 3])
    packed = quantize(weight, GGMLQuantizationType.Q4_1)
    writer.add_tensor("w", packed, raw_dtype=GGMLQuantizationType.Q4_1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = Gguf.open(tmp_path / "w.gguf")
    assert found.metadata["names"] == ["a", "é"] and found.metadata["numbers"] == [1, 2, 3]
    assert found.tensors["w"].shape == (6, 64)
    np.testing.assert_array_equal(
        found.tensor("w").reshape(-1), dequantized("Q4_1", packed.tobytes())
    )
