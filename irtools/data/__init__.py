"""Datasets and where they come from."""

from __future__ import annotations

from irtools.data.base import Dataset
from irtools.data.checks import check_calibration, fit_dataset
from irtools.data.load import DataSettings, is_text, load_dataset
from irtools.data.signature import InputSpec, required_inputs
from irtools.data.synthetic import SyntheticSettings, draw_feeds, synthesize

__all__ = [
    "DataSettings",
    "Dataset",
    "InputSpec",
    "SyntheticSettings",
    "check_calibration",
    "draw_feeds",
    "fit_dataset",
    "is_text",
    "load_dataset",
    "required_inputs",
    "synthesize",
]
