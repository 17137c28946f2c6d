"""Datasets and where they come from."""

from __future__ import annotations

from irtools.data.axes import OpenAxis, open_axes, resolve_sizes
from irtools.data.base import Dataset, TextRows, is_ragged
from irtools.data.batches import Batch, BatchPlan, plan_batches, select_rows, select_values
from irtools.data.chat import ChatTemplate, read_chat_template
from irtools.data.checks import check_calibration, fit_dataset
from irtools.data.function import import_function
from irtools.data.harness import HarnessTask, read_task
from irtools.data.harness_rows import IGNORED, LABELS, checksum
from irtools.data.images import read_image, read_images
from irtools.data.labels import are_flags, find_class_names, has_several_labels
from irtools.data.layout import Layout, find_layout
from irtools.data.load import DataSettings, is_text, load_dataset
from irtools.data.npz import read_arrays
from irtools.data.of_network import signature_of
from irtools.data.padding import cut_columns, find_columns, padding_mask, put_at_padding
from irtools.data.preview import PNG_HEAD, text_of, thumbnail_of
from irtools.data.signature import InputSpec, required_inputs
from irtools.data.split import halves
from irtools.data.synthetic import (
    DrawnFor,
    SyntheticSettings,
    draw_feeds,
    longest_text,
    synthesize,
)
from irtools.data.text import (
    encode_texts,
    input_encoder,
    number_classes,
    read_texts,
    set_up_tokenizer,
)

__all__ = [
    "Batch",
    "BatchPlan",
    "ChatTemplate",
    "DataSettings",
    "Dataset",
    "HarnessTask",
    "IGNORED",
    "InputSpec",
    "LABELS",
    "Layout",
    "OpenAxis",
    "PNG_HEAD",
    "DrawnFor",
    "SyntheticSettings",
    "TextRows",
    "are_flags",
    "check_calibration",
    "checksum",
    "cut_columns",
    "draw_feeds",
    "encode_texts",
    "find_class_names",
    "find_columns",
    "find_layout",
    "fit_dataset",
    "halves",
    "has_several_labels",
    "import_function",
    "input_encoder",
    "is_ragged",
    "is_text",
    "load_dataset",
    "longest_text",
    "number_classes",
    "open_axes",
    "padding_mask",
    "put_at_padding",
    "plan_batches",
    "read_arrays",
    "read_image",
    "read_chat_template",
    "read_images",
    "read_task",
    "read_texts",
    "required_inputs",
    "resolve_sizes",
    "select_rows",
    "select_values",
    "set_up_tokenizer",
    "signature_of",
    "synthesize",
    "text_of",
    "thumbnail_of",
]
