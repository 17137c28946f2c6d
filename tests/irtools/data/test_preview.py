"""What a person sees of a sample."""

from __future__ import annotations

import base64
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from irtools.data import PNG_HEAD, Dataset, TextRows, text_of, thumbnail_of


def _decoded(text: str) -> np.ndarray:
    """Return the picture [H, W, C] of a PNG whose lines have no filter; its checksums hold."""
    content = base64.b64decode(text)
    assert content.startswith(PNG_HEAD)
    parts, at = {}, len(PNG_HEAD)
    while at < len(content):
        (length,) = struct.unpack_from(">I", content, at)
        kind, body = content[at + 4 : at + 8], content[at + 8 : at + 8 + length]
        (check,) = struct.unpack_from(">I", content, at + 8 + length)
        assert check == zlib.crc32(kind + body)
        parts[kind], at = body, at + 12 + length
    width, height, depth, colour = struct.unpack_from(">IIBB", parts[b"IHDR"])
    channels = {0: 1, 2: 3}[colour]
    lines = np.frombuffer(zlib.decompress(parts[b"IDAT"]), np.uint8).reshape(height, -1)
    assert depth == 8 and not lines[:, 0].any() and list(parts)[-1] == b"IEND"
    return lines[:, 1:].reshape(height, width, channels)


def test_bytes_stay_as_they_are() -> None:
    picture = np.arange(5 * 7, dtype=np.uint8).reshape(5, 7, 1)
    found = _decoded(thumbnail_of(Dataset({"x": picture.transpose(2, 0, 1)[None]}), 0))
    assert np.array_equal(found, picture)


def test_what_is_normalised_is_stretched_and_made_small() -> None:
    rng = np.random.default_rng(0)
    blocks = np.kron(rng.standard_normal((3, 24, 45)), np.ones((5, 5))).astype(np.float32)
    found = _decoded(thumbnail_of(Dataset({"x": np.stack([blocks * 0, blocks])}), 1))
    small = blocks[:, ::5, ::5].transpose(1, 2, 0)
    wanted = (small - small.min()) / (small.max() - small.min()) * 255
    assert found.shape == (24, 45, 3)
    assert np.abs(found - wanted).max() <= 1
    channels_last = Dataset({"x": blocks.transpose(1, 2, 0)[None]})
    assert np.array_equal(_decoded(thumbnail_of(channels_last, 0)), found)


@pytest.mark.parametrize(
    "feeds",
    [
        {"x": np.zeros((1, 16), np.float32)},
        {"x": np.zeros((1, 3, 2, 40), np.float32)},
        {"x": np.zeros((1, 5, 40, 40), np.float32)},
        {"x": np.zeros((1, 3, 40, 40), np.float32), "y": np.zeros((1, 2), np.float32)},
        {"x": np.array([["a"]], object)},
    ],
    ids=["a row", "too thin", "five channels", "two inputs", "text"],
)
def test_what_is_not_a_picture_has_none(feeds: dict[str, np.ndarray]) -> None:
    assert thumbnail_of(Dataset(feeds), 0) == ""


def test_a_constant_or_broken_picture_is_black() -> None:
    pixels = np.full((2, 1, 8, 8), 3.0, np.float32)
    pixels[1, 0, 0, 0] = np.nan
    found = [_decoded(thumbnail_of(Dataset({"x": pixels}), row)) for row in (0, 1)]
    assert not found[0].any() and found[1].max() == 255 and found[1][0, 0, 0] == 0


def test_texts_are_cut_and_harmless() -> None:
    rows = (("a\n\x1b[31m  b", "second"), ("x" * 500,))
    texts = TextRows(rows, Path("tokenizer.json"), lambda rows, files: {})
    data = Dataset({"ids": np.zeros((2, 4), np.int64)}, texts=texts)
    assert text_of(data, 0) == "a \\x1b[31m b | second"
    assert len(text_of(data, 1)) == 300
    assert text_of(Dataset({"ids": np.zeros((2, 4), np.int64)}), 0) == ""
