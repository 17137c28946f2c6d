"""What a checkpoint says of its quantization, and the method that reads weights stored so."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irtools.checkpoints.methods.base import Method
from irtools.checkpoints.methods.compressed import PackedCodes, WholeNumbers, read_schemes
from irtools.checkpoints.methods.fp8 import Fp8
from irtools.checkpoints.methods.grouped import Awq, Gptq, sizes_of
from irtools.checkpoints.methods.nf4 import Nf4
from irtools.errors import ModelError, UnsupportedError
from irtools.words import one_line, printable

__all__ = ["Entry", "method_of", "read_entry", "without_entry"]

_ENTRIES = ("quantization_config", "compression_config")
# Files of AutoGPTQ and AutoAWQ from before config.json held it, with the keys of today.
_OLDER: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "quantize_config.json": ("gptq", {}),
    "quant_config.json": ("awq", {"w_bit": "bits", "q_group_size": "group_size"}),
}


@dataclass(frozen=True)
class Entry:
    """What is said of quantization.

    Attributes:
        file: Where.
        method: Its name (`gptq`).
    """

    file: Path
    method: str
    values: Mapping[str, Any]


def read_entry(folder: Path) -> Entry | None:
    """Return what a checkpoint says of its quantization, if anything.

    Raises:
        ModelError: `config.json` is not JSON.
    """
    config = _read_json(folder / "config.json")
    for holder in _holders(config):
        for name in _ENTRIES:
            if isinstance(values := holder.get(name), dict):
                return Entry(folder / "config.json", _method_name(values), values)
    for name, (method, renamed) in _OLDER.items():
        if (folder / name).is_file():
            found = _read_json(folder / name)
            values = {renamed.get(key, key): value for key, value in found.items()}
            return Entry(folder / name, method, values)
    return None


def without_entry(folder: Path) -> dict[str, Any]:
    """Return the config of a checkpoint without a word of quantization."""
    config = _read_json(folder / "config.json")
    for holder in _holders(config):
        for name in _ENTRIES:
            holder.pop(name, None)
    return config


def method_of(folder: Path, entry: Entry) -> Method:
    """Return what reads the weights.

    Raises:
        ModelError: The entry lacks what its method needs.
        UnsupportedError: A method, or a format of one, that is not read.
    """
    values = entry.values
    match entry.method:
        case "gptq":
            return _gptq(folder, values)
        case "awq":
            return _awq(folder, values)
        case "auto-round" | "intel/auto-round":
            return _auto_round(folder, values)
        case "compressed-tensors":
            return _compressed(folder, values)
        case "bitsandbytes" if not values.get("load_in_8bit"):
            return Nf4()
        case "fp8":
            return Fp8(_block(folder, values.get("weight_block_size")))
    raise _unread(folder, entry.method)


def _gptq(folder: Path, values: Mapping[str, Any]) -> Gptq:
    form = values.get("checkpoint_format") or values.get("format") or "gptq"
    if form not in ("gptq", "gptq_v2"):
        raise _unread(folder, f"gptq in the format {form}")
    return Gptq(*_sizes(values, "dynamic"), shifted=form == "gptq")


def _awq(folder: Path, values: Mapping[str, Any]) -> Awq:
    form = str(values.get("version") or "gemm").lower()
    if form != "gemm":
        raise _unread(folder, f"awq in the format {form}")
    return Awq(*_sizes(values))


def _auto_round(folder: Path, values: Mapping[str, Any]) -> Method:
    form = values.get("packing_format") or "auto_round:auto_gptq"
    if form == "auto_round:llm_compressor":
        return _compressed(folder, values)
    sizes = _sizes(values, "extra_config")
    match form:
        case "auto_round:auto_awq" | "auto_round:awq":
            return Awq(*sizes)
        case "auto_round:auto_gptq" | "auto_round:gptq":
            return Gptq(*sizes)
        case "auto_round" | "auto_round:gptqmodel" | "auto_round:exllamav2":
            return Gptq(*sizes, shifted=False)
    raise _unread(folder, f"auto-round in the format {form}")


def _compressed(folder: Path, values: Mapping[str, Any]) -> Method:
    form = values.get("format")
    match form:
        case "pack-quantized":
            return PackedCodes(read_schemes(folder, values))
        case "int-quantized" | "float-quantized" | "naive-quantized":
            return WholeNumbers(read_schemes(folder, values))
    raise _unread(folder, f"compressed-tensors in the format {form}")


def _sizes(values: Mapping[str, Any], *tables: str) -> tuple[frozenset[int], frozenset[int]]:
    return sizes_of(values, "bits", *tables), sizes_of(values, "group_size", *tables)


def _block(folder: Path, found: Any) -> tuple[int, int] | None:
    if found is None:
        return None
    if isinstance(found, list) and len(found) == 2 and all(type(n) is int and n > 0 for n in found):
        return found[0], found[1]
    raise ModelError(
        f"{folder}: the quantization config says weight_block_size = {printable(found)}, expected "
        "two positive numbers"
    )


def _unread(folder: Path, what: str) -> UnsupportedError:
    return UnsupportedError(
        f"{folder}: the weights are quantized ({printable(what)}), which is not turned back into "
        "floats here; export the checkpoint that they were made from, and quantize it with "
        "--passes int8 or int4"
    )


def _holders(config: Mapping[str, Any]) -> Iterator[Any]:
    """Yield the config, and those of the networks that it is put together from."""
    yield config
    yield from (inner for inner in config.values() if isinstance(inner, dict))


def _method_name(values: Mapping[str, Any]) -> str:
    name = values.get("quant_method")
    if name is None and (values.get("load_in_4bit") or values.get("load_in_8bit")):
        name = "bitsandbytes"
    return str(name or "no method named").lower()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read: {one_line(error)}") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path} is not a table in JSON")
    return found
