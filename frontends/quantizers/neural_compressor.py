"""Intel Neural Compressor's weight-only quantizers: rounding, GPTQ and AWQ."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch

from irtools.errors import MissingExtraError, UnsupportedError
from irtools.files import scratch_folder
from irtools.frontends.quantizers.grids import Codes, put_in_place, weight_of
from irtools.frontends.quantizers.options import Reader, flag, read_options, share, whole
from irtools.sources import QuantizerRequest
from irtools.words import counted, one_line

__all__ = ["NeuralCompressor"]

_TOOL = "neural-compressor"


_COMMON: Mapping[str, Reader] = {
    "bits": whole(2, 8),
    "group_size": whole(-1, 1 << 20),
    "use_sym": flag,
    "use_mse_search": flag,
    "quant_lm_head": flag,
}
_OPTIONS: Mapping[str, Mapping[str, Reader]] = {
    "rtn": {**_COMMON, "use_full_range": flag},
    "gptq": {**_COMMON, "percdamp": share, "block_size": whole(1, 1 << 16)},
    "awq": {**_COMMON, "use_auto_scale": flag, "use_auto_clip": flag, "use_full_range": flag},
}
_DEFAULTS: Mapping[str, object] = {"bits": 4, "group_size": 32, "use_sym": False}
_WHOLE: Mapping[str, Mapping[str, object]] = {
    "rtn": {"use_layer_wise": False},
    "gptq": {"use_layer_wise": False},
    "awq": {"use_layer_wise": False},
}
"""Or weights are read from the checkpoint again, which it would look for on a hub."""
_CONFIGS = {"rtn": "RTNConfig", "gptq": "GPTQConfig", "awq": "AWQConfig"}


class NeuralCompressor:
    """`neural_compressor.torch.quantization`, its options by their own names.

    Those that put weights on no grid of blocks are left out: other data types than integers, and
    orders of columns that need an index. Groups of 32 with zero points where nothing is said.
    """

    methods: ClassVar[Mapping[str, str]] = {
        "rtn": "each weight to the nearest code",
        "gptq": "errors make up for each other on calibration data",
        "awq": "input channels scaled by how large they are, a Mul for each layer",
    }
    needs_data: ClassVar[frozenset[str]] = frozenset({"gptq", "awq"})

    def check(self, request: QuantizerRequest) -> None:
        _read(request)

    def quantize(
        self, module: Any, samples: Sequence[Mapping[str, Any]], request: QuantizerRequest
    ) -> tuple[Any, tuple[str, ...]]:
        values = {**_read(request), **_WHOLE[request.method]}
        with _library() as (library, folder):
            config = getattr(library, _CONFIGS[request.method])
            if request.method == "gptq":
                # It looks there for weights of empty modules; a name would be asked of a hub.
                values["model_path"] = folder
            try:
                made = _run(library, module, config(**values), samples, request.method)
            except Exception as error:  # Whatever the tool raises is its own and no bug of ours.
                reason = one_line(str(error) or type(error).__name__)
                raise UnsupportedError(f"{_TOOL}:{request.method} failed: {reason}") from error
        count, scaled = _as_linear(made)
        if not count:
            raise UnsupportedError(f"{_TOOL}:{request.method} found no Linear to quantize")
        notes = [f"{_TOOL}:{request.method}: {counted(count, 'Linear')} in {values['bits']} bits"]
        if scaled:
            notes.append(f"{counted(scaled, 'Linear')} read scaled inputs, a Mul each")
        return made, tuple(notes)


def _read(request: QuantizerRequest) -> dict[str, Any]:
    """Return the options of the method as it takes them."""
    return read_options(request, _OPTIONS[request.method], _DEFAULTS)


def _run(
    library: Any, module: Any, config: Any, samples: Sequence[Mapping[str, Any]], method: str
) -> Any:
    if method == "rtn":
        return library.convert(library.prepare(module, config))
    # Samples have no padding, so that masks say nothing; it runs modules by position.
    (name,) = {"input_ids", "pixel_values"} & set(samples[0])
    inputs = [sample[name] for sample in samples]
    more = {"example_inputs": inputs[0]} if method == "awq" else {}
    prepared = library.prepare(module, config, **more)
    with torch.no_grad():
        for sample in inputs:
            prepared(sample)
    return library.convert(prepared)


def _as_linear(module: Any) -> tuple[int, int]:
    """Put ordinary layers in the place of the tool's, and return how many of which kind."""
    count = scaled = 0
    for parent in list(module.modules()):
        for name, layer in list(parent.named_children()):
            kind = type(layer).__name__
            if kind == "INCWeightOnlyLinear":
                setattr(parent, name, put_in_place(layer, weight_of(_codes(layer)), layer.bias))
                count += 1
            scaled += kind == "MulLinear"
    return count, scaled


def _codes(layer: Any) -> Codes:
    found = layer.unpack()
    group = layer.group_size if layer.group_size > 0 else layer.in_features
    return Codes(found["int_weight"], found["scales"], found.get("zp"), group)


@contextlib.contextmanager
def _library() -> Iterator[tuple[Any, str]]:
    """Import the library, with what it writes in a folder that is gone afterwards.

    It makes folders for logs and settings in the current folder and in the home folder, when it is
    imported and when it works, and prints what it does.

    Yields:
        The module, and the folder.

    Raises:
        MissingExtraError: It is not installed.
    """
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(scratch_folder("quantizer"))
        for context in (contextlib.chdir(folder), _environment(folder), _no_logs()):
            stack.enter_context(context)
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        try:
            from neural_compressor.torch import quantization
        except ImportError as error:
            raise MissingExtraError("--quantizer neural-compressor", _TOOL) from error
        yield quantization, str(folder)


@contextlib.contextmanager
def _environment(folder: Any) -> Iterator[None]:
    wanted = {"HABANA_LOGS": str(folder)}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextlib.contextmanager
def _no_logs() -> Iterator[None]:
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(disabled)
