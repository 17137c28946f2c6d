"""A GGUF file as a plain checkpoint folder."""

from __future__ import annotations

from pathlib import Path

from irtools.checkpoints.gguf.file import Gguf
from irtools.checkpoints.gguf.network import find_network
from irtools.checkpoints.gguf.tokenizer import write_tokenizer
from irtools.checkpoints.shards import Shards
from irtools.checkpoints.unpacked import Unpacked
from irtools.files import json_text
from irtools.words import counted

__all__ = ["unpack"]

_FLOATS = ("F32", "F16", "BF16")


def unpack(path: Path, folder: Path) -> Unpacked:
    """Write config, weights in float32 and tokenizer of a GGUF file into a folder.

    Raises:
        IrtoolsError: As `Gguf.open`, `find_network` and `Gguf.tensor`.
    """
    gguf = Gguf.open(path)
    network = find_network(gguf)
    (folder / "config.json").write_text(json_text(network.config), encoding="utf-8")
    with Shards(folder) as shards:
        for tensor, parameter in network.names.items():
            shards.add(parameter, network.parameter(gguf, tensor))
    lacks_tokenizer = write_tokenizer(gguf, folder)
    kinds = {parameter: gguf.tensors[tensor].kind for tensor, parameter in network.names.items()}
    return Unpacked(
        (_note(gguf), *(() if lacks_tokenizer is None else (lacks_tokenizer,))),
        {name: kind for name, kind in kinds.items() if kind not in _FLOATS},
    )


def _note(gguf: Gguf) -> str:
    kinds: dict[str, int] = {}
    for place in gguf.tensors.values():
        kinds[place.kind] = kinds.get(place.kind, 0) + 1
    found = ", ".join(f"{kind} {n}" for kind, n in sorted(kinds.items()) if kind not in _FLOATS)
    if not found:
        return f"read {counted(len(gguf.tensors), 'tensor')} of {gguf.path}"
    return f"read {counted(len(gguf.tensors), 'tensor')} of {gguf.path} as float32 ({found})"
