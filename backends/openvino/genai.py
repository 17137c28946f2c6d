"""What OpenVINO GenAI needs next to a decoder: a file name, and the tokenizer as two models."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irtools.analysis.decoder import find_decoder
from irtools.backends.openvino.library import clean_message, import_openvino
from irtools.targets import Companions

if TYPE_CHECKING:
    from irtools.model import Model

__all__ = ["MAIN", "complete", "writes_text"]

MAIN = "openvino_model"
_TOKENIZER = "tokenizer.json"
_NAMES = ("openvino_tokenizer", "openvino_detokenizer")
_MISSING = "no tokenizer for OpenVINO GenAI"
_PACKAGES = "pip install openvino-tokenizers transformers"


def writes_text(model: Model) -> bool:
    """Whether a model continues texts by itself, with a cache."""
    decoder = find_decoder(model.ir)
    return decoder is not None and decoder.generates


def complete(main: Path) -> Companions:
    """Write what OpenVINO GenAI needs next to a decoder's `.xml`, or say why it opens none."""
    if b"ReadValue" not in main.read_bytes():
        return Companions(
            notes=(
                "OpenVINO GenAI does not open it: its cache stays inputs and outputs, since not "
                "all of its attention is fused (irc optimize --passes cleanup,fuse)",
            )
        )
    return _write_tokenizers(main.parent)


def _write_tokenizers(folder: Path) -> Companions:
    """Write the tokenizer of a folder as models of OpenVINO, one each way.

    Where the packages that do so are absent, or cannot, a note says it: the model runs without.
    """
    if not (folder / _TOKENIZER).is_file():
        return Companions(notes=(f"{_MISSING}: there is no {_TOKENIZER}",))
    ov = import_openvino()
    try:
        library = importlib.import_module("openvino_tokenizers")
        transformers = importlib.import_module("transformers")
    except ImportError:
        return Companions(notes=(f"{_MISSING}: {_PACKAGES}",))
    try:
        models = _convert(library, transformers, folder)
    except Exception as error:  # Tokenizers fail to convert in as many ways as there are kinds.
        return Companions(notes=(f"{_MISSING}: {clean_message(error)}",))
    names: list[str] = []
    for name, model in zip(_NAMES, models, strict=True):
        ov.save_model(model, folder / f"{name}.xml")
        names += (f"{name}.xml", f"{name}.bin")
    return Companions(tuple(names))


def _convert(library: Any, transformers: Any, folder: Path) -> tuple[Any, Any]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False
    )
    made: tuple[Any, Any] = library.convert_tokenizer(tokenizer, with_detokenizer=True)
    return made
