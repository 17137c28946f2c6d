"""Networks without a cache: encoders of texts and images, and decoders that read whole texts."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from irtools.errors import UnsupportedError
from irtools.frontends.checkpoint.text_inputs import draw_extras, further_inputs, note_on_left_out
from irtools.frontends.torch import EXAMPLE_SIZES, Tensors, TorchSource, tensors_of

__all__ = [
    "channels_of",
    "describe_encoder",
    "image_size",
    "images",
    "sequence_limit",
    "texts",
    "within",
]

_DEFAULT_IMAGE = 224
# Position tables of these families start after the padding token.
_OFFSET_POSITIONS = frozenset({"roberta", "xlm-roberta", "camembert", "mpnet", "longformer"})


def describe_encoder(
    module: Any, folder: Path, where: str, metadata: Mapping[str, str]
) -> TorchSource:
    """Describe a network that takes texts or images and keeps nothing between calls.

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
    names = _input_names(module)
    parameters = inspect.signature(module.forward).parameters
    extras = further_inputs(config, parameters) if "input_ids" in names else {}
    make: Callable[[int, int], Tensors]
    axes: dict[str, dict[int, str]]
    if "pixel_values" in names:
        vision = getattr(config, "vision_config", config)
        make = partial(images, torch, channels_of(vision), image_size(vision, folder))
        axes, limits = {"pixel_values": {0: "batch"}}, {}
    else:
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
    if "pixel_values" in parameters and "input_ids" not in parameters:
        return ("pixel_values",)
    if "input_ids" not in parameters:
        raise UnsupportedError(
            f"{type(module).__name__} takes {', '.join(parameters)}; expected input_ids or "
            "pixel_values"
        )
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


def channels_of(config: Any) -> int:
    """Return the channels of an image; some families say none and mean colours."""
    return int(getattr(config, "num_channels", 3))


def image_size(config: Any, folder: Path) -> tuple[int, int]:
    """Return height and width that a network was trained on."""
    size = getattr(config, "image_size", None)
    if size is None:
        size = _processed_size(folder) or _DEFAULT_IMAGE
    if isinstance(size, int):
        return size, size
    return int(size[0]), int(size[1])


def _processed_size(folder: Path) -> tuple[int, int] | int | None:
    file = folder / "preprocessor_config.json"
    if not file.is_file():
        return None
    config = json.loads(file.read_text(encoding="utf-8"))
    size = config.get("crop_size") if config.get("do_center_crop") else config.get("size")
    match size:
        case int():
            return size
        case {"height": int(height), "width": int(width)}:
            return height, width
        case {"shortest_edge": int(edge)}:
            return edge
        case _:
            return None


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


def images(torch: Any, channels: int, size: tuple[int, int], batch: int, _: int) -> dict[str, Any]:
    """Return seeded normalised pixels."""
    generator = torch.Generator().manual_seed(batch)
    return {"pixel_values": torch.randn(batch, channels, *size, generator=generator)}
