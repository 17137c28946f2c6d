"""`genai_config.json`, by which onnxruntime-genai opens the folder of a decoder.

Its names of inputs and outputs are those of our exports. Read against onnxruntime-genai 0.18.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from irtools.analysis.decoder import CachedDecoder, find_decoder
from irtools.backends.onnxruntime.coded_cache import SHARED_CACHE, coded_caches
from irtools.errors import FileError
from irtools.files import context_length, read_settings
from irtools.model import Model
from irtools.targets import Companions

__all__ = ["CONFIG", "genai_config", "write_config"]

CONFIG = "genai_config.json"
_CONFIGURATION = "config.json"
_GENERATION = "generation_config.json"
_HEADS = ("num_attention_heads", "n_head")
_WIDTHS = ("hidden_size", "n_embd")
_ENDS = ("bos_token_id", "eos_token_id", "pad_token_id")
# Of the families only the way through a text matters, and ours is the same for all.
_TYPE = "decoder"


def write_config(model: Model, main: Path) -> Companions:
    """Write the configuration next to a decoder that writes text; nothing for other models.

    Past and present are one buffer where the file says that they may be: lowering notes it in there
    where it could rewrite all attention.

    Args:
        model: The model.
        main: Its file; `config.json` is next to it.

    Raises:
        FileError: A configuration there cannot be read.
    """
    decoder = find_decoder(model.ir)
    if decoder is None or main.suffix != ".onnx":
        return Companions()
    if not decoder.generates:
        return Companions(
            notes=(
                f"no {CONFIG} for onnxruntime-genai: {main.name} does not continue a text by "
                "itself, as the decoder of an encoder-decoder does not",
            )
        )
    folder = main.parent
    known = read_settings(folder / _CONFIGURATION) | read_settings(folder / _GENERATION)
    missing = [] if context_length(known) else ["max_position_embeddings"]
    missing += [names[0] for names in (_HEADS, _WIDTHS) if _first(known, names) is None]
    if known.get("eos_token_id") is None:
        missing.append("eos_token_id")
    if missing:
        return Companions(
            notes=(
                f"no {CONFIG} for onnxruntime-genai: {_CONFIGURATION} next to the model lacks "
                f"{', '.join(missing)}",
            )
        )
    metadata = Model.load(main).ir.metadata_props
    if len({cache.bits for cache in coded_caches(metadata).values()}) > 1:
        return Companions(
            notes=(
                f"no {CONFIG}: onnxruntime-genai has one type for all caches, and here some are in "
                "8 bits and others in 4 (kv:form=int4:max-loss=none has 4 in all)",
            )
        )
    shared = SHARED_CACHE in metadata
    made = genai_config(decoder, known, _vocabulary(model), main.name, shared=shared)
    path = folder / CONFIG
    try:
        path.write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror or error}") from error
    return Companions((CONFIG,))


def genai_config(
    decoder: CachedDecoder, known: dict[str, Any], vocabulary: int, file: str, *, shared: bool
) -> dict[str, Any]:
    """Return the configuration of a decoder.

    Args:
        decoder: Its inputs and outputs.
        known: What `config.json` and `generation_config.json` say.
        vocabulary: Scores of each token.
        file: Name of the model's file.
        shared: Past and present may be one buffer.
    """
    keys = decoder.past[0]
    length = context_length(known)
    inputs = {name: name for name in (decoder.ids, decoder.mask, decoder.positions) if name}
    tokens = {name: known[name] for name in _ENDS if known.get(name) is not None}
    if "pad_token_id" not in tokens:
        ends = tokens["eos_token_id"]
        tokens["pad_token_id"] = ends[0] if isinstance(ends, list) else ends
    return {
        "model": {
            "type": _TYPE,
            **tokens,
            "vocab_size": vocabulary,
            "context_length": length,
            "decoder": {
                "filename": file,
                "hidden_size": _first(known, _WIDTHS),
                "num_attention_heads": _first(known, _HEADS),
                "num_key_value_heads": keys.heads,
                "head_size": keys.size,
                "num_hidden_layers": len(decoder.past) // 2,
                "inputs": {
                    **inputs,
                    "past_key_names": "past_key_values.%d.key",
                    "past_value_names": "past_key_values.%d.value",
                },
                "outputs": {
                    "logits": decoder.logits,
                    "present_key_names": "present.%d.key",
                    "present_value_names": "present.%d.value",
                },
                "session_options": {"provider_options": []},
            },
        },
        "search": {
            "do_sample": bool(known.get("do_sample", False)),
            "max_length": length,
            "past_present_share_buffer": shared,
        },
    }


def _vocabulary(model: Model) -> int:
    (logits,) = [value for value in model.ir.graph.outputs if value.name == "logits"]
    size = None if logits.shape is None else logits.shape[-1]
    return size if isinstance(size, int) else 0


def _first(known: dict[str, Any], names: tuple[str, ...]) -> int | None:
    return next((known[name] for name in names if isinstance(known.get(name), int)), None)
