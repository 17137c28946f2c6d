"""GGUF files."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from irtools.checkpoints import is_gguf
from irtools.errors import UnsupportedError
from irtools.model import Model
from irtools.sources import Claim, LoadOptions, companions_in

__all__ = ["GgufFrontend"]


class GgufFrontend:
    """A GGUF file of llama.cpp, exported as the checkpoint that it is one of.

    Its weights are read into float32, exactly as its codes and scales have them. Config and
    tokenizer are made of its metadata.
    """

    name: ClassVar[str] = "gguf"
    summary: ClassVar[str] = "a GGUF file of llama.cpp (Llama, Mistral, SmolLM2, Qwen2, Qwen3)"

    def accepts(self, source: str) -> Claim:
        return "own" if is_gguf(Path(source)) else None

    def parts(self, source: str, options: LoadOptions) -> tuple[str, ...]:
        return ()

    def companions(self, source: str) -> tuple[Path, ...]:
        return ()

    def load(self, source: str, options: LoadOptions = LoadOptions()) -> Model:
        if options.example is not None or options.weights is not None:
            raise UnsupportedError(
                "a GGUF file provides its own inputs and weights; leave out --example and --weights"
            )
        # Every source is asked whether it is a GGUF file: what reads one is loaded for one.
        from irtools.checkpoints import plain_checkpoint
        from irtools.frontends.checkpoint.frontend import export_plain

        with plain_checkpoint(Path(source)) as plain:
            model = export_plain(plain, options)
            made = {path.name: path.read_bytes() for path in companions_in(plain.folder)}
            model.companions = {**made, **model.companions}
        return model
