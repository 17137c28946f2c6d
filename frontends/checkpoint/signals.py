"""Inputs that are no text: images, sounds as waves or as features of frames, and time series.

Sounds [batch, samples] have a dynamic length where a network's convolutions make frames of them
(wav2vec 2.0, Baevski et al. 2020, and its like); features of frames and time series that a table
of positions was made for have the length of that table.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

from irtools.errors import UnsupportedError
from irtools.frontends.torch import Tensors

__all__ = ["Signal", "channels_of", "features", "find_signal", "image_size", "images"]

_DEFAULT_IMAGE = 224


@dataclass(frozen=True)
class Signal:
    """What a network takes in place of a text.

    Attributes:
        name: The input.
        make: Batch and length to inputs of a seeded draw; of fixed length where `axes` has none.
        axes: Axis to name of those that are dynamic.
    """

    name: str
    make: Callable[[int, int], Tensors]
    axes: Mapping[int, str]


def find_signal(module: Any, folder: Path) -> Signal | None:
    """Return what a network takes; None: a text.

    Raises:
        UnsupportedError: It takes something else, or more.
    """
    parameters = inspect.signature(module.forward).parameters
    if "input_ids" in parameters:
        return None
    for name, kind in _KINDS.items():
        found = kind(module.config, folder) if name in parameters else None
        if found is not None and _needed(parameters) <= {name}:
            return found
    raise UnsupportedError(
        f"{type(module).__name__} takes {', '.join(parameters)}; expected input_ids, pixel_values, "
        "input_values (waves, or frames of a fixed number), input_features or past_values alone"
    )


def images(torch: Any, channels: int, size: tuple[int, int], batch: int, _: int) -> dict[str, Any]:
    """Return seeded normalised pixels."""
    return _numbers(torch, "pixel_values", (channels, *size), batch, 0)


def channels_of(config: Any) -> int:
    """Return the channels of an image; some families say none and mean colours."""
    return int(getattr(config, "num_channels", 3))


def image_size(config: Any, folder: Path) -> tuple[int, int]:
    """Return height and width that a network was trained on."""
    size = getattr(config, "image_size", None)
    if size is None:
        size = _processed_size(folder) or _DEFAULT_IMAGE
    if isinstance(size, int):
        return size, size
    return int(size[0]), int(size[1])


def _processed_size(folder: Path) -> tuple[int, int] | int | None:
    file = folder / "preprocessor_config.json"
    if not file.is_file():
        return None
    config = json.loads(file.read_text(encoding="utf-8"))
    size = config.get("crop_size") if config.get("do_center_crop") else config.get("size")
    match size:
        case int():
            return size
        case {"height": int(height), "width": int(width)}:
            return height, width
        case {"shortest_edge": int(edge)}:
            return edge
        case _:
            return None


def _needed(parameters: Mapping[str, inspect.Parameter]) -> set[str]:
    """Return the parameters that a call must give."""
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {
        name
        for name, parameter in parameters.items()
        if parameter.default is inspect.Parameter.empty and parameter.kind not in several
    }


def _image(config: Any, folder: Path) -> Signal:
    import torch

    vision = getattr(config, "vision_config", config)
    make = partial(images, torch, channels_of(vision), image_size(vision, folder))
    return Signal("pixel_values", make, {0: "batch"})


def _sound(config: Any, _: Path) -> Signal | None:
    """Waves that convolutions make frames of, or a spectrogram of as many frames as a table has."""
    kernels, strides = getattr(config, "conv_kernel", None), getattr(config, "conv_stride", None)
    if kernels and strides:
        return Signal("input_values", partial(_waves, kernels, strides), {0: "batch", 1: "samples"})
    return _frames("input_values", config, "max_length", "num_mel_bins")


def features(config: Any) -> Signal | None:
    """Features of each frame: [batch, frames, features], or as Whisper has them turned."""
    width = getattr(config, "feature_projection_input_dim", None)
    if width is not None:
        make = partial(_framed, "input_features", width)
        return Signal("input_features", make, {0: "batch", 1: "frames"})
    bins, most = getattr(config, "num_mel_bins", 0), getattr(config, "max_source_positions", 0)
    return _fixed("input_features", (bins, 2 * most)) if bins and most else None


def _series(config: Any, _: Path) -> Signal | None:
    return _frames("past_values", config, "context_length", "num_input_channels")


_KINDS: Mapping[str, Callable[[Any, Path], Signal | None]] = {
    "pixel_values": _image,
    "input_values": _sound,
    "input_features": lambda config, _: features(config),
    "past_values": _series,
}


def _frames(name: str, config: Any, length: str, width: str) -> Signal | None:
    sizes = tuple(getattr(config, attribute, 0) for attribute in (length, width))
    return _fixed(name, sizes) if all(sizes) else None


def _fixed(name: str, sizes: tuple[int, ...]) -> Signal:
    import torch

    return Signal(name, lambda batch, _: _numbers(torch, name, sizes, batch, 0), {0: "batch"})


def _framed(name: str, width: int, batch: int, length: int) -> dict[str, Any]:
    import torch

    return _numbers(torch, name, (length, width), batch, length)


def _waves(
    kernels: Collection[int], strides: Collection[int], batch: int, length: int
) -> dict[str, Any]:
    """Return sounds of so many frames, and some samples that fill no further one."""
    import torch

    samples = length
    for kernel, stride in zip(reversed([*kernels]), reversed([*strides]), strict=True):
        samples = (samples - 1) * stride + kernel
    samples += length % prod(strides)
    return _numbers(torch, "input_values", (samples,), batch, length)


def _numbers(
    torch: Any, name: str, sizes: tuple[int, ...], batch: int, length: int
) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(batch * 1000 + length)
    return {name: torch.randn(batch, *sizes, generator=generator)}
