"""Images from a folder, one subfolder per class or none."""

from __future__ import annotations

import importlib.util
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from irtools.data.base import Dataset
from irtools.data.labels import find_class_names
from irtools.data.signature import InputSpec
from irtools.errors import DataError, MissingExtraError

__all__ = ["ImageSettings", "read_image", "read_images"]

_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
_DEFAULT_SIZE = 224
_IMAGE_RANK = 3
_CHANNELS = frozenset({1, 3})
# PIL numbers its filters as preprocessor configs do; 2 is bilinear.
_BILINEAR = 2


@dataclass(frozen=True)
class ImageSettings:
    """How pixels become numbers: resize, centre crop, scale, normalise.

    The defaults are those of ImageNet models; a `preprocessor_config.json` next to the images or
    the model replaces them.

    Attributes:
        resize: Shorter side before the crop, or (height, width) without a crop; None: the crop
            size divided by 0.875.
        scale: Factor from 0..255.
        raw: Bytes stay bytes: the model scales and normalises them itself.
    """

    resize: int | tuple[int, int] | None = None
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    scale: float = 1 / 255
    resample: int = _BILINEAR
    raw: bool = False


def read_images(
    path: Path, inputs: Sequence[InputSpec], model_folder: Path | None = None
) -> Dataset:
    """Read every image below a folder, sorted by path.

    Classes are the subfolders, numbered by `config.json` or `classes.json` if there is one, else
    in alphabetical order.

    Raises:
        DataError: No images, an unreadable image, or a model that takes no image.
        MissingExtraError: Pillow is not installed.
    """
    if importlib.util.find_spec("PIL") is None:
        raise MissingExtraError("reading images", "image")
    spec, channels, size, last = _image_input(inputs)
    files = sorted(f for f in path.rglob("*") if f.suffix.lower() in _SUFFIXES)
    if not files:
        raise DataError(f"{path} holds no images ({', '.join(sorted(_SUFFIXES))})")
    folders = [path, path.parent, *([model_folder] if model_folder else [])]
    settings, notes = _settings(folders, keep_bytes=spec.dtype == np.uint8)
    # Filled image by image: what is held is one image and the result.
    pixels = np.empty((len(files), channels, *size), spec.dtype if settings.raw else np.float32)
    for row, file in zip(pixels, files, strict=True):
        row[...] = _pixels(file, channels, size, settings, str(file))
    labels, label_notes = _labels(path, files, folders)
    feed = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)) if last else pixels
    return Dataset({spec.name: feed}, labels, source=path.name, notes=notes + label_notes)


def read_image(
    content: bytes, inputs: Sequence[InputSpec], model_folder: Path | None = None
) -> Dataset:
    """Return one image that is held in memory as a sample; as `read_images` makes it of a file.

    Raises:
        DataError: It is not an image, or the model takes none.
        MissingExtraError: Pillow is not installed.
    """
    if importlib.util.find_spec("PIL") is None:
        raise MissingExtraError("reading images", "image")
    spec, channels, size, last = _image_input(inputs)
    folders = [model_folder] if model_folder else []
    settings, notes = _settings(folders, keep_bytes=spec.dtype == np.uint8)
    made = _pixels(io.BytesIO(content), channels, size, settings, "the image")
    pixels = made.astype(spec.dtype if settings.raw else np.float32)[None]
    feed = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)) if last else pixels
    return Dataset({spec.name: feed}, source="an image", notes=notes)


def _image_input(inputs: Sequence[InputSpec]) -> tuple[InputSpec, int, tuple[int, int], bool]:
    """Return the image input, its channels, its height and width, and whether channels are last.

    A model that takes one image without a batch axis gets one at a time.
    """
    shape = inputs[0].shape if len(inputs) == 1 else None
    single = shape is not None and len(shape) == _IMAGE_RANK and {shape[0], shape[2]} & _CHANNELS
    if shape is None or (len(shape) != _IMAGE_RANK + 1 and not single):
        listed = "; ".join(str(spec) for spec in inputs)
        raise DataError(
            "an image folder feeds one input [N,C,H,W], or [C,H,W] of one image; the model takes "
            f"{listed}"
        )
    spec, sides = inputs[0], shape[-_IMAGE_RANK:]
    last = sides[2] in _CHANNELS and sides[0] not in _CHANNELS
    channels, height, width = (sides[2], *sides[:2]) if last else sides
    if channels not in _CHANNELS:
        channels = 3
    size = tuple(n if isinstance(n, int) else _DEFAULT_SIZE for n in (height, width))
    return spec, int(channels), (size[0], size[1]), last


def _settings(
    folders: Sequence[Path], *, keep_bytes: bool
) -> tuple[ImageSettings, tuple[str, ...]]:
    for folder in folders:
        file = folder / "preprocessor_config.json"
        if file.is_file():
            return replace(_from_config(file), raw=keep_bytes), ()
    if keep_bytes:
        note = "no preprocessor_config.json: images resized, their centre cropped, bytes kept"
        return ImageSettings(raw=True), (note,)
    note = "no preprocessor_config.json: images resized and normalised as ImageNet models take them"
    return ImageSettings(), (note,)


def _from_config(file: Path) -> ImageSettings:
    try:
        config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        default = ImageSettings()
        normalises = config.get("do_normalize", True)
        size = config.get("size")
        return ImageSettings(
            resize=_resize(size, bool(config.get("do_center_crop", False))),
            mean=tuple(config.get("image_mean", default.mean)) if normalises else (0.0,),
            std=tuple(config.get("image_std", default.std)) if normalises else (1.0,),
            scale=float(config.get("rescale_factor", default.scale))
            if config.get("do_rescale", True)
            else 1.0,
            resample=int(config.get("resample", default.resample)),
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{file} is not an image processor's configuration: {error}") from error


def _resize(size: Any, crops: bool) -> int | tuple[int, int] | None:
    if isinstance(size, dict) and "shortest_edge" in size:
        return int(size["shortest_edge"])
    if isinstance(size, dict):
        return int(size["height"]), int(size["width"])
    if size is None:
        return None
    return int(size) if crops else (int(size), int(size))


def _pixels(
    file: Path | IO[bytes],
    channels: int,
    size: tuple[int, int],
    settings: ImageSettings,
    name: str,
) -> np.ndarray:
    """Return one image as [C, H, W]."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            drawn = _fit(image.convert("RGB" if channels == 3 else "L"), size, settings)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"cannot read image {name}: {error}") from error
    array = np.asarray(drawn).reshape(*size, channels).transpose(2, 0, 1)
    if settings.raw:
        return array
    array = array.astype(np.float32)
    mean, std = (
        np.array(v, np.float32)[:channels, None, None] for v in (settings.mean, settings.std)
    )
    return np.asarray((array * np.float32(settings.scale) - mean) / std)


def _fit(image: Any, size: tuple[int, int], settings: ImageSettings) -> Any:
    height, width = size
    if isinstance(settings.resize, tuple):
        return image.resize((width, height), settings.resample)
    shorter = max(settings.resize or round(max(size) / 0.875), *size)
    factor = shorter / min(image.size)
    grown = image.resize(
        tuple(max(round(n * factor), m) for n, m in zip(image.size, (width, height), strict=True)),
        settings.resample,
    )
    left, top = (grown.width - width) // 2, (grown.height - height) // 2
    return grown.crop((left, top, left + width, top + height))


def _labels(
    path: Path, files: Sequence[Path], folders: Sequence[Path]
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    names = [file.relative_to(path).parts[0] for file in files]
    if any(file.parent == path for file in files):
        return None, ()
    known = find_class_names(folders[::-1], names)
    if known:
        unknown = sorted(set(names) - set(known))
        if unknown:
            raise DataError(
                f"{path}: subfolder '{unknown[0]}' is not one of the model's classes; known are "
                f"{', '.join(known):.200}"
            )
        return np.array([known[name] for name in names], np.int64), ()
    made = {name: number for number, name in enumerate(sorted(set(names)))}
    listed = ", ".join(f"{number}={name}" for name, number in made.items())
    return np.array([made[name] for name in names], np.int64), (
        f"classes numbered by folder name: {listed:.200}",
    )
