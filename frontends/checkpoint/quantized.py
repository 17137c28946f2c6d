"""What `config.json` says of quantized weights, against what the weights are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from irtools.errors import ModelError, UnsupportedError

__all__ = ["read_as_floats"]

_ENTRY = "quantization_config"
# Methods whose weights transformers turns back into floats while it reads them, on any machine.
_DEQUANTIZED = frozenset({"fp8"})
# What the methods store next to, or in place of, a weight.
_MARKS = re.compile(
    r"\.(qweight|qzeros|g_idx|weight_packed|weight_scale(_inv)?|SCB|weight\.(absmax|quant_map)"
    r"|\w+_blocks)$"
)
_INTEGERS = frozenset({"I8", "U8", "I32"})


def read_as_floats(folder: Path, config: Any) -> tuple[str, ...]:
    """Make a config say what its weights are, where it speaks of quantization.

    Transformers skips methods that it does not know, and fills float weights into networks that it
    made for others.

    Args:
        folder: The checkpoint.
        config: Its config; changed where the weights are plain floats.

    Returns:
        What the user should know.

    Raises:
        ModelError: The weights are quantized, and the config does not say how.
        UnsupportedError: They are, by a method that is not turned back into floats here.
    """
    found = next(_quantized(folder), None)
    holders = [config, config.get_text_config(decoder=True)]
    given = next((g for h in holders if (g := getattr(h, _ENTRY, None)) is not None), None)
    if given is None:
        if found is not None:
            raise ModelError(
                f"{folder}: {found} is quantized, and config.json has no {_ENTRY} that says how to "
                "read it; give the config that belongs to the weights, or the weights before "
                "quantization"
            )
        return ()
    method = _method(given)
    if found is not None or not any(folder.glob("*.safetensors")):
        if method in _DEQUANTIZED:
            given["dequantize"] = True  # With a GPU they would stay as they are.
            return (f"the weights are quantized ({method}) and were read back into floats",)
        raise UnsupportedError(
            f"{folder}: the weights are quantized ({method}), which is not turned back into floats "
            "here; export the checkpoint that they were made from, and quantize it with --passes "
            "int8 or int4"
        )
    for holder in holders:
        if hasattr(holder, _ENTRY):
            delattr(holder, _ENTRY)
    return (
        f"{folder}/config.json speaks of quantized weights ({method}), and they are plain floats: "
        "read as such",
    )


def _method(given: Any) -> str:
    """Return the name of a method, however the entry is written."""
    entry = given if isinstance(given, dict) else given.to_dict()
    name = entry.get("quant_method")
    if name is None and (entry.get("load_in_4bit") or entry.get("load_in_8bit")):
        name = "bitsandbytes"
    return str(getattr(name, "value", name) or "no method named")


def _quantized(folder: Path) -> Iterator[str]:
    """Yield the names of weights that are not floats; reads the heads of the files alone."""
    from safetensors import SafetensorError, safe_open

    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="np") as weights:
                for name in weights.keys():  # noqa: SIM118
                    if _MARKS.search(name):
                        yield repr(name)
                        continue
                    part = weights.get_slice(name)
                    kind, rank = part.get_dtype(), len(part.get_shape())
                    is_integer = kind in _INTEGERS and rank > 1 and name.endswith("weight")
                    if kind.startswith(("F8", "F4")) or is_integer:
                        yield f"{name!r} ({kind})"
        except (OSError, SafetensorError):
            continue  # Reported where the weights are loaded.
