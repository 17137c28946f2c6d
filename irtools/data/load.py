"""One door to data: a path, `module:function` or `synthetic`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import onnx_ir as ir

from irtools.data.axes import named_sizes
from irtools.data.base import Dataset
from irtools.data.checks import fit_dataset
from irtools.data.function import read_function
from irtools.data.harness_rows import read_harness
from irtools.data.images import read_images
from irtools.data.layout import find_layout
from irtools.data.npz import read_npz
from irtools.data.signature import required_inputs
from irtools.data.synthetic import SyntheticSettings, synthesize
from irtools.data.text import TextSettings, read_text
from irtools.errors import DataError, FileError
from irtools.model import Model
from irtools.plugins import is_task

__all__ = ["DataSettings", "is_text", "load_dataset"]

_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_TEXT_SUFFIXES = frozenset({".jsonl", ".csv", ".tsv", ".parquet"})


@dataclass(frozen=True)
class DataSettings:
    """What a path alone does not say.

    Attributes:
        tokenizer: A `tokenizer.json` or its folder; None: next to the data or the model.
        text_columns: One or two columns of text; None: the usual names.
        label_column: Array or column of the labels; None: the usual names.
        max_length: Most tokens per sample.
        samples: Most samples to take, evenly spread over the data; None: all of them.
        class_names: Class name to number; empty: as config.json or classes.json next to the data
            or the model say.
        synthetic: How `synthetic` is drawn; its sizes are named as `--size` names them.
    """

    tokenizer: Path | None = None
    text_columns: tuple[str, ...] | None = None
    label_column: str | None = None
    max_length: int | None = None
    samples: int | None = None
    class_names: Mapping[str, int] = field(default_factory=dict)
    synthetic: SyntheticSettings = field(default_factory=SyntheticSettings)


def load_dataset(
    spec: str, model: Model | ir.Model, settings: DataSettings = DataSettings()
) -> Dataset:
    """Read data for a model, check that it fits, and give it its digest.

    Args:
        spec: A `.npz` of arrays by input name (labels under `labels`), a `.jsonl`, `.csv`, `.tsv`
            or `.parquet` of text, a folder of images, `lm-eval:TASK` (see `irtools.data.harness`),
            `module:function`, or `synthetic`.

    Raises:
        DataError: Data that cannot be read or does not fit the model.
        FileError: No such file, or it cannot be read.
        UsageError: No such function.
        UnsupportedError: An optional package is not installed.
    """
    dataset = fit_dataset(_read(spec, model, settings), model)
    if settings.samples is not None:
        dataset = dataset.spread(settings.samples)
    return dataset.with_digest()


def is_text(spec: str) -> bool:
    """Whether data is text, which takes a tokenizer: a table of it, or a task."""
    return Path(spec).suffix in _TEXT_SUFFIXES or is_task(spec)


def _read(spec: str, model: Model | ir.Model, settings: DataSettings) -> Dataset:
    path = Path(spec)
    folder = _home(model)
    if is_task(spec):
        provided = model.companions if isinstance(model, Model) else {}
        return read_harness(spec, required_inputs(model), _text(settings), folder, provided)
    if path.is_dir():
        return read_images(path, required_inputs(model), folder)
    if path.is_file():
        return _read_file(path, model, settings, folder)
    if spec == "synthetic":
        return synthesize(model, named_sizes(model, settings.synthetic))
    if _FUNCTION.fullmatch(spec):
        return read_function(spec, find_layout(model))
    raise FileError(f"no data at {spec}: no such file or folder")


def _home(model: Model | ir.Model) -> Path | None:
    """Return the folder of a model's tokenizer and such."""
    source = model.source if isinstance(model, Model) else None
    # A checkpoint is a folder itself.
    return source if source is None or source.is_dir() else source.parent


def _read_file(
    path: Path, model: Model | ir.Model, settings: DataSettings, folder: Path | None
) -> Dataset:
    if path.suffix == ".npz":
        return read_npz(path, settings.label_column or "labels")
    if path.suffix in _TEXT_SUFFIXES:
        provided = model.companions if isinstance(model, Model) else {}
        return read_text(path, required_inputs(model), _text(settings), folder, provided)
    raise DataError(
        f"{path}: unknown kind of data; .npz, .jsonl, .csv, .tsv, .parquet, an image folder or "
        "module:function can be read"
    )


def _text(settings: DataSettings) -> TextSettings:
    return TextSettings(
        settings.tokenizer,
        settings.text_columns,
        settings.label_column,
        settings.max_length,
        settings.class_names,
    )
