"""From torch to a model: any module by its factory, and what other frontends build on."""

from irtools.frontends.torch.check import (
    RELATIVE_TOLERANCE,
    PlainTrial,
    Trial,
    compare,
    in_file,
    relative_l2,
)
from irtools.frontends.torch.export import convert
from irtools.frontends.torch.failures import LIBRARY_FAILURES, first_line, translate_errors
from irtools.frontends.torch.source import (
    CHECK_SIZES,
    EXAMPLE_SIZES,
    Tensors,
    TorchSource,
    tensors_of,
)
from irtools.frontends.torch.tensors import read_tensors

__all__ = [
    "CHECK_SIZES",
    "EXAMPLE_SIZES",
    "LIBRARY_FAILURES",
    "PlainTrial",
    "RELATIVE_TOLERANCE",
    "Tensors",
    "TorchSource",
    "Trial",
    "compare",
    "convert",
    "first_line",
    "in_file",
    "read_tensors",
    "relative_l2",
    "tensors_of",
    "translate_errors",
]
