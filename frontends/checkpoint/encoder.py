"""Networks without a cache: encoders of texts and signals, and decoders that read whole texts."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from irtools.errors import UnsupportedError
from irtools.frontends.checkpoint.signals import find_signal
from irtools.frontends.checkpoint.text_inputs import draw_extras, further_inputs, note_on_left_out
from irtools.frontends.torch import EXAMPLE_SIZES, Tensors, TorchSource, tensors_of

__all__ = [
    "describe_encoder",
    "sequence_limit",
    "texts",
    "within",
]

# Position tables of these families start after the padding token.
_OFFSET_POSITIONS = frozenset({"roberta", "xlm-roberta", "camembert", "mpnet", "longformer"})


def describe_encoder(
    module: Any, folder: Path, where: str, metadata: Mapping[str, str]
) -> TorchSource:
    """Describe a network that takes texts, images, sounds or time series and keeps nothing.

    Raises:
        UnsupportedError: It takes something else.
    """
    import torch
    from transformers.models.auto.modeling_auto import MODEL_FOR_MULTIPLE_CHOICE_MAPPING_NAMES

    config = module.config
    if type(module).__name__ in MODEL_FOR_MULTIPLE_CHOICE_MAPPING_NAMES.values():
        raise UnsupportedError(
            f"{where} chooses among several texts [batch, choices, sequence], and one text per "
            "sample is exported; --task feature-extraction takes its encoder alone"
        )
    if hasattr(config, "use_cache"):
        config.use_cache = False
    config.return_dict = True  # Outputs have names.
    if hasattr(config, "use_mems_eval"):
        config.use_mems_eval = False
    parameters = inspect.signature(module.forward).parameters
    signal = find_signal(module, folder)
    make: Callable[[int, int], Tensors]
    axes: dict[str, dict[int, str]]
    if signal is not None:
        make, axes, limits = signal.make, {signal.name: dict(signal.axes)}, {}
    else:
        names, extras = _input_names(module), further_inputs(config, parameters)
        limits = sequence_limit(config)
        draw = partial(texts, torch, names, config.vocab_size, getattr(config, "pad_token_id", 0))
        make = partial(draw_extras, torch, extras, partial(within, draw, limits.get("sequence")))
        axes = {name: {0: "batch", 1: "sequence"} for name in (*names, *extras)}
    with torch.inference_mode():
        outputs = tuple(tensors_of(module(**make(*EXAMPLE_SIZES))))
    forward = _with_input_mask if config.model_type == "xlnet" else None
    note = note_on_left_out(type(module).__name__, tuple(parameters), axes)
    return TorchSource(
        module,
        make,
        axes,
        outputs,
        where,
        limits,
        forward=forward,
        metadata=metadata,
        notes=(note,) if note else (),
    )


def _with_input_mask(call: Callable[..., Any], inputs: Tensors) -> list[Any]:
    """Give XLNet its own mask, 1 at padding.

    It makes one of the usual mask by `1.0 - mask`, which the exporter of torch 2.13 has no
    operator for where the mask holds integers.
    """
    mask = (inputs["attention_mask"] == 0).float()
    others = {name: tensor for name, tensor in inputs.items() if name != "attention_mask"}
    return list(tensors_of(call(**others, input_mask=mask)).values())


def _input_names(module: Any) -> tuple[str, ...]:
    parameters = inspect.signature(module.forward).parameters
    names = ["input_ids", "attention_mask"]
    config = module.config
    # XLNet does not look types up in a table.
    has_types = getattr(config, "type_vocab_size", 0) > 1 or config.model_type == "xlnet"
    if "token_type_ids" in parameters and has_types:
        names.append("token_type_ids")
    return tuple(names)


def sequence_limit(config: Any) -> dict[str, int]:
    """Return the longest text that the position table holds, by axis; {} where there is none."""
    longest = getattr(config, "max_position_embeddings", None)
    if not isinstance(longest, int) or longest < 0:
        return {}
    if config.model_type in _OFFSET_POSITIONS:
        longest -= (config.pad_token_id or 0) + 1
    return {"sequence": longest}


def within(
    draw: Callable[[int, int], Tensors], longest: int | None, batch: int, length: int
) -> Tensors:
    """Draw inputs of texts that the position table holds."""
    return draw(batch, length if longest is None else min(length, longest))


def texts(
    torch: Any,
    names: tuple[str, ...],
    vocabulary: int,
    padding: int | None,
    batch: int,
    length: int,
) -> dict[str, Any]:
    """Return seeded token ids; every row but the first ends in padding."""
    padding = padding or 0
    generator = torch.Generator().manual_seed(batch * 1000 + length)
    lengths = length - (torch.arange(batch) * length) // (2 * batch)
    mask = (torch.arange(length) < lengths[:, None]).long()
    ids = torch.randint(0, vocabulary, (batch, length), generator=generator)
    # A padding id inside the text would move the positions of families that count from it.
    ids = torch.where(ids == padding, (padding + 1) % vocabulary, ids)
    inputs = {
        "input_ids": ids.where(mask == 1, padding),
        "attention_mask": mask,
        "token_type_ids": (torch.arange(length) >= length // 2).long() * mask,
    }
    return {name: inputs[name] for name in names}
