"""What a person sees of a sample: its text, or the picture that the model was fed."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np

from irtools.data.base import Dataset
from irtools.words import printable

__all__ = ["PNG_HEAD", "text_of", "thumbnail_of"]

PNG_HEAD = b"\x89PNG\r\n\x1a\n"
"""The first bytes of a PNG file (ISO/IEC 15948, 5.2)."""

_MOST_LETTERS = 300
_LONGEST_SIDE = 48
_IMAGE_RANK = 3
_LEAST_SIDE = 4
_GREY, _RGB = 1, 3
_COLOUR_TYPES = {_GREY: 0, _RGB: 2}


def text_of(data: Dataset, row: int) -> str:
    """Return the text of a sample, cut at 300 letters; empty where it did not come as text."""
    if data.texts is None:
        return ""
    parts = (" ".join(part.split()) for part in data.texts.rows[row])
    return printable(" | ".join(parts), _MOST_LETTERS)


def thumbnail_of(data: Dataset, row: int) -> str:
    """Return the picture of a sample as a PNG in base64; empty where a sample is not a picture.

    It is what the model is fed, at 48 pixels a side at most; its numbers, which may be normalised,
    are stretched to the range of a picture.
    """
    if len(data.feeds) != 1:
        return ""
    ((_, array),) = data.feeds.items()
    picture = _picture(np.asarray(array[row]) if len(array) else np.zeros(0))
    return "" if picture is None else base64.b64encode(_png(_small(picture))).decode()


def _picture(sample: np.ndarray) -> np.ndarray | None:
    """Return a sample as uint8 [H, W, C], C 1 or 3; None where it is not a picture."""
    if sample.ndim == _IMAGE_RANK + 1 and sample.shape[0] == 1:
        sample = sample[0]
    if sample.ndim != _IMAGE_RANK or sample.dtype.kind not in "fiu" or min(sample.shape) < 1:
        return None
    if sample.shape[0] in _COLOUR_TYPES:
        sample = sample.transpose(1, 2, 0)
    if sample.shape[2] not in _COLOUR_TYPES or min(sample.shape[:2]) < _LEAST_SIDE:
        return None
    if sample.dtype == np.uint8:
        return sample
    numbers = np.nan_to_num(sample.astype(np.float64), posinf=0.0, neginf=0.0)
    low, high = numbers.min(), numbers.max()
    scaled = (numbers - low) * (255 / (high - low)) if high > low else np.zeros_like(numbers)
    return scaled.round().astype(np.uint8)


def _small(picture: np.ndarray) -> np.ndarray:
    """Return a picture [H, W, C] whose longer side has 48 pixels at most, means of its blocks."""
    step = -(-max(picture.shape[:2]) // _LONGEST_SIDE)
    height, width = (max(size // step, 1) * step for size in picture.shape[:2])
    if min(picture.shape[:2]) < step:
        return picture[::step, ::step]
    blocks = picture[:height, :width].reshape(height // step, step, width // step, step, -1)
    return np.asarray(blocks.mean(axis=(1, 3)).round(), np.uint8)


def _png(picture: np.ndarray) -> bytes:
    """Return a picture [H, W, C] as a PNG file, 8 bits a channel, without a filter."""
    height, width, channels = picture.shape
    head = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0)
    lines = b"".join(b"\0" + line.tobytes() for line in np.ascontiguousarray(picture))
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b""))
    return PNG_HEAD + b"".join(_chunk(*part) for part in parts)


def _chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)
