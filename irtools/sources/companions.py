"""The files next to a model that say how its inputs are made and its outputs are read."""

from __future__ import annotations

from pathlib import Path

__all__ = ["ADAPTER_SUFFIX", "PAST_SUFFIX", "TOKENIZER_FILES", "companions_in"]

ADAPTER_SUFFIX = ".onnx_adapter"
"""Of an adapter in the format of ONNX Runtime: arrays by the names of inputs."""

PAST_SUFFIX = ".past.npz"
"""Of a learned prompt or prefix: the cache that a text begins after, by the names of inputs."""

_FILES = {
    "config.json": False,
    "generation_config.json": False,
    "tokenizer.json": True,
    "tokenizer_config.json": True,
    "special_tokens_map.json": True,
    "added_tokens.json": False,
    "vocab.txt": True,
    "vocab.json": False,
    "merges.txt": False,
    "spm.model": False,
    "spiece.model": False,
    "tokenizer.model": False,
    "sentencepiece.bpe.model": False,
    "chat_template.jinja": False,
    "chat_template.json": False,
    "preprocessor_config.json": True,
    "processor_config.json": False,
    "classes.json": False,
}
"""Whether a newly trained network takes the file over: it is read with `tokenizer.json` alone, and
the configuration is its own."""

TOKENIZER_FILES = tuple(name for name, taken_over in _FILES.items() if taken_over)
"""Those that a trained network takes over from the checkpoint that it was made from."""


def companions_in(folder: Path) -> tuple[Path, ...]:
    """Return those that a folder has, in a fixed order, and adapters that its model takes."""
    known = tuple(path for name in _FILES if (path := folder / name).is_file())
    adapters = (path for end in (ADAPTER_SUFFIX, PAST_SUFFIX) for path in folder.glob(f"*{end}"))
    return (*known, *sorted(adapters))
