"""How OpenVINO is asked to compile and to run, and what its inputs take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from irtools.backends.openvino.library import clean_message, release
from irtools.errors import OptionError, UnsupportedError
from irtools.targets import InputSlot, RunnerOptions

__all__ = ["CACHE_PRECISION", "compiled_by", "plugin_config", "slot_of"]

CACHE_PRECISION = "KV_CACHE_PRECISION"
_PRECISIONS = {"f32": "f32", "bf16": "bf16", "f16": "f16"}
_NUMPY_TYPES = {
    "boolean": np.dtype(np.bool_),
    "f16": np.dtype(np.float16),
    "f32": np.dtype(np.float32),
    "f64": np.dtype(np.float64),
    "string": np.dtype(object),
    **{f"{k}{b}": np.dtype(f"{k}{b // 8}") for k in "iu" for b in (8, 16, 32, 64)},
}


def plugin_config(options: RunnerOptions, device: str) -> dict[str, str]:
    """Return the plug-in's properties for `options`.

    Three of OpenVINO's defaults change numbers: bf16 on CPUs that have it, int8 activations in
    front of compressed weights, and a cache of 8 bits inside. `exact` switches them off.

    Raises:
        OptionError: No such precision.
    """
    config = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1"}
    if options.threads is not None and device == "CPU":
        config["INFERENCE_NUM_THREADS"] = str(options.threads)
    if options.precision is not None:
        if options.precision not in _PRECISIONS:
            known = ", ".join(_PRECISIONS)
            raise OptionError(f"precision is {options.precision!r}, expected one of {known}")
        config["INFERENCE_PRECISION_HINT"] = _PRECISIONS[options.precision]
    if options.exact:
        config |= {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
        config |= {CACHE_PRECISION: "f32"}
    return config


def compiled_by(
    core: Any,
    model: Any,
    device: str,
    config: Mapping[str, str],
    other: Mapping[str, str] = MappingProxyType({}),
) -> Any:
    """Compile an `openvino.Model`, with `other` properties in place of those of `config`.

    Raises:
        UnsupportedError: OpenVINO refuses it.
    """
    try:
        return core.compile_model(model, device, {**config, **other})
    except RuntimeError as error:
        raise UnsupportedError(
            f"OpenVINO {release()} cannot compile the model for {device}: {clean_message(error)}"
        ) from error


def slot_of(port: Any, outputs: Sequence[str]) -> InputSlot:
    """Return what an input takes, given the names of the outputs."""
    # What is returned as it came has two names.
    name = min(port.get_names().difference(outputs), default=port.get_any_name())
    shape = port.get_partial_shape()
    sizes = None
    if shape.rank.is_static:
        sizes = tuple(size.get_length() if size.is_static else None for size in shape)
    element = port.get_element_type().get_type_name()
    return InputSlot(name, _NUMPY_TYPES.get(element), sizes)
