"""A checkpoint folder whose weights are quantized, as a plain one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from irtools.checkpoints.entry import method_of, read_entry, without_entry
from irtools.checkpoints.methods.base import Layout, Method
from irtools.checkpoints.parts import Parts
from irtools.checkpoints.shards import Shards
from irtools.checkpoints.tensor_files import StoredArray, tensor_files, tensors_in
from irtools.checkpoints.unpacked import Unpacked, is_weights, link
from irtools.errors import ModelError
from irtools.files import json_text
from irtools.words import counted, printable

__all__ = ["is_quantized", "unpack"]

# What the methods store next to, or in place of, a weight.
_MARKS = re.compile(
    r"\.(qweight|qzeros|g_idx|weight_packed|weight_scale(_inv)?|SCB|weight\.(absmax|quant_map)"
    r"|\w+_blocks)$"
)
_INTEGERS = frozenset({"I8", "U8", "I32"})
_SMALL_FLOATS = ("F8", "F4")
_WIDE = ("F16", "BF16", "F64")
_WEIGHTS = re.compile(r".*\.(safetensors|bin|pt|pth|gguf|onnx|h5|msgpack)|.*\.index\.json")


def is_quantized(folder: Path) -> bool:
    """Whether a checkpoint is quantized, or speaks of it.

    One that is damaged is not: what loads it says how.
    """
    try:
        return read_entry(folder) is not None or _first_mark(folder) is not None
    except ModelError:
        return False


def unpack(folder: Path, made: Path) -> Unpacked:
    """Write a checkpoint with its weights in float32 into a folder; other files are linked.

    Raises:
        IrtoolsError: Weights and config contradict each other, or the method is not read.
    """
    entry, mark = read_entry(folder), _first_mark(folder)
    if entry is None:
        raise ModelError(
            f"{folder}: {mark} is quantized, and config.json has no quantization_config that says "
            "how to read it; give the config that belongs to the weights, or the weights before "
            "quantization"
        )
    link(folder, made, _is_other)
    (made / "config.json").write_text(json_text(without_entry(folder)), encoding="utf-8")
    files = tensor_files(folder)
    if mark is None and files:
        link(folder, made, is_weights)
        note = f"{entry.file} speaks of quantized weights ({printable(entry.method)}), and they "
        return Unpacked((f"{note}are plain floats: read as such",))
    method = method_of(folder, entry)
    if not files:
        raise ModelError(
            f"{folder}: the weights are quantized ({printable(entry.method)}) and not in "
            "safetensors; save them as safetensors"
        )
    regular = _write(folder, made, method)
    name = printable(entry.method)
    notes = [
        f"the weights are quantized ({name}): {counted(len(regular), 'weight')} read back into "
        "float32, each exactly as its codes and scales have it"
    ]
    if any(found is Layout.SCATTERED for found in regular.values()):
        count = list(regular.values()).count(Layout.SCATTERED)
        notes.append(
            f"{counted(count, 'weight')} with groups in the order of activations (desc_act): no "
            "kernel here takes such groups, and int4 rounds these weights again"
        )
    grids = {f"{n}.weight": name for n, found in regular.items() if found is Layout.BLOCKS}
    return Unpacked(tuple(notes), grids)


def _write(folder: Path, made: Path, method: Method) -> dict[str, Layout]:
    """Write all weights; return how the codes of those that were quantized lie."""
    stored = tensors_in(folder)
    groups = _groups(stored, method)
    taken = {f"{name}.{suffix}" for name, parts in groups.items() for suffix in parts}
    if not groups:
        raise ModelError(
            f"{folder}: no weight is stored as the quantization config says (none has "
            f"{method.main}); give the config that belongs to the weights"
        )
    layouts = {}
    with Shards(made) as shards:
        for name, stored_parts in groups.items():
            parts = Parts(folder, name, stored_parts)
            array = method.weight(parts)
            layouts[name] = method.layout(parts)
            if not np.isfinite(array).all():
                raise ModelError(
                    f"{folder}: {printable(name)!r} holds numbers that are not finite; the weights "
                    "are damaged"
                )
            shards.add(f"{name}.weight", array)
        for name, tensor in stored.items():
            if name not in taken and not name.endswith(method.unread):
                shards.add(name, _plain(folder, name, tensor))
    return layouts


def _groups(stored: Mapping[str, StoredArray], method: Method) -> dict[str, dict[str, StoredArray]]:
    """Return the tensors of each quantized weight, by what follows the name of its module."""
    suffix = f".{method.main}"
    names = [name.removesuffix(suffix) for name in stored if name.endswith(suffix)]
    found = {}
    for name in names:
        own = (method.main, *method.others)
        found[name] = {s: stored[f"{name}.{s}"] for s in own if f"{name}.{s}" in stored}
    return found


def _plain(folder: Path, name: str, tensor: StoredArray) -> np.ndarray:
    if _is_mark(name, tensor):
        raise ModelError(
            f"{folder}: {printable(name)!r} ({tensor.kind}) is quantized in another way than the "
            "quantization config says; give the config that belongs to the weights"
        )
    found = tensor.read()
    return found.astype(np.float32) if tensor.kind in _WIDE else found


def _first_mark(folder: Path) -> str | None:
    """Return the name and type of the first weight that is not floats."""
    marked = (item for item in tensors_in(folder).items() if _is_mark(*item))
    return next((f"{printable(name)!r} ({tensor.kind})" for name, tensor in marked), None)


def _is_mark(name: str, tensor: StoredArray) -> bool:
    is_integer = tensor.kind in _INTEGERS and len(tensor.shape) > 1 and name.endswith("weight")
    return bool(_MARKS.search(name)) or tensor.kind.startswith(_SMALL_FLOATS) or is_integer


def _is_other(name: str) -> bool:
    """Whether a file is neither the config nor weights."""
    return name != "config.json" and not _WEIGHTS.fullmatch(name)
