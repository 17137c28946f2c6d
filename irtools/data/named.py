"""Values of inputs whose name says what they are: rates, lengths, scales, sizes of an image.

Random numbers there would describe an input that cannot be: a sequence longer than the one that
is fed, an image of negative height. The names are those of public exports (Silero VAD's `sr`,
VITS's `scales` and `input_lengths`, librosa's `fmin` and `fmax`, Paddle's `im_shape` and
`scale_factor`, SAM's `orig_im_size`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from irtools.data.signature import InputSpec

__all__ = ["named_value"]

_SAMPLE_RATE = 16000
_THRESHOLD = 0.5
_MOST_BOXES = 10
_LENGTHS = frozenset({"len", "lens", "length", "lengths"})
_RATES = frozenset({"sr", "samplerate", "samplingrate"})
_FREQUENCIES = MappingProxyType({"fmin": 50.0, "fmax": 2000.0})
"""In hertz: a voice lies between them."""
_SCALES = frozenset({"scale", "scales", "speed", "pace"})
_SIZES = frozenset({"shape", "shapes", "size", "sizes"})
_THRESHOLDS = frozenset({"thresh", "threshold"})
_PAIR = 2
_IMAGE_RANK = 4
_LEAST_SIDE = 4

Sizes = Mapping[str, tuple[int, ...]]


def named_value(
    spec: InputSpec, specs: Sequence[InputSpec], sizes: Sizes
) -> np.ndarray | float | None:
    """Return what an input holds by its name, one number or one row [2]; None: nothing is known.

    Args:
        spec: The input.
        specs: All inputs.
        sizes: Input name to the sizes that are drawn for one sample, batch axis left out.
    """
    words = [word for word in re.split(r"[^a-z0-9]+", _split(spec.name)) if word]
    joined = "".join(words)
    if joined in _RATES or joined.endswith(("samplerate", "samplingrate")):
        return float(_SAMPLE_RATE)
    if spec.dtype.kind == "f" and joined in _FREQUENCIES:
        return _FREQUENCIES[joined]
    small = len(sizes[spec.name]) <= 1
    if not small:
        return None
    if spec.dtype.kind in "iu" and _LENGTHS & set(words):
        return _length(spec, specs, sizes)
    if _SIZES & set(words) and sizes[spec.name] == (_PAIR,):
        return _image_size(specs, sizes)
    if spec.dtype.kind == "f" and (_SCALES & set(words) or joined.endswith(("scale", "scales"))):
        return 1.0
    if spec.dtype.kind == "f" and _THRESHOLDS & set(words):
        return _THRESHOLD
    if spec.dtype.kind in "iu" and words[:1] == ["max"]:
        return float(_MOST_BOXES)
    return None


def _split(name: str) -> str:
    """Part `inputLengths` into words."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _length(spec: InputSpec, specs: Sequence[InputSpec], sizes: Sizes) -> float | None:
    """Return the drawn length of the sequence that an input counts: that named like it, if any."""
    others = [s for s in specs if s.name != spec.name and s.shape is not None and sizes[s.name]]
    stem = re.sub(r"[_.]?(len|lens|length|lengths)$", "", spec.name.lower())
    others.sort(key=lambda other: not (stem and other.name.lower().startswith(stem)))
    for other in others:
        assert other.shape is not None
        drawn = sizes[other.name]
        stated = other.shape[len(other.shape) - len(drawn) :]
        for size, known in zip(drawn, stated, strict=True):
            if not isinstance(known, int):
                return float(size)
    return float(sizes[others[0].name][0]) if others else None


def _image_size(specs: Sequence[InputSpec], sizes: Sizes) -> np.ndarray | None:
    """Return height and width of the image among the inputs."""
    for spec in specs:
        if spec.shape is None or len(spec.shape) != _IMAGE_RANK:
            continue
        first, *middle, last = sizes[spec.name][-3:]
        pair = (first, *middle) if last < _LEAST_SIDE else (*middle, last)
        return np.array(pair, np.float64)
    return None
