"""Networks that compare images with texts: CLIP (Radford et al. 2021), SigLIP and their like.

One model of both towers: `input_ids` and `attention_mask` [text_batch, sequence] and `pixel_values`
[image_batch, channels, height, width] to `logits_per_image` [image_batch, text_batch], its
transpose `logits_per_text`, and the embeddings of both.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from irtools.errors import UnsupportedError
from irtools.frontends.checkpoint.encoder import sequence_limit, texts, within
from irtools.frontends.checkpoint.signals import channels_of, image_size, images
from irtools.frontends.torch import Tensors, TorchSource

__all__ = ["describe_image_text", "takes_both"]

_TEXT = {0: "text_batch", 1: "sequence"}
_OUTPUTS: Mapping[str, dict[int, str]] = {
    "logits_per_image": {0: "image_batch", 1: "text_batch"},
    "logits_per_text": {0: "text_batch", 1: "image_batch"},
    "text_embeds": {0: "text_batch"},
    "image_embeds": {0: "image_batch"},
}


def takes_both(module: Any) -> bool:
    """Whether a network takes images and texts at once."""
    return {"pixel_values", "input_ids"} <= set(inspect.signature(module.forward).parameters)


def describe_image_text(
    module: Any, folder: Path, where: str, metadata: Mapping[str, str]
) -> TorchSource:
    """Describe a network that scores each image with each text.

    Raises:
        UnsupportedError: It does something else with them.
    """
    import torch

    config = module.config
    text, vision = (getattr(config, f"{part}_config", None) for part in ("text", "vision"))
    scores = hasattr(module, "logit_scale") and not type(module).can_generate()
    if text is None or vision is None or not scores:
        raise UnsupportedError(
            f"{where} takes images and texts together; of such networks those that compare them "
            "(CLIP, SigLIP) are exported, and each tower by itself"
        )
    config.return_dict = True
    limits = sequence_limit(text)
    draw_texts = partial(
        texts, torch, ("input_ids", "attention_mask"), text.vocab_size, text.pad_token_id
    )
    draw_images = partial(images, torch, channels_of(vision), image_size(vision, folder))
    return TorchSource(
        module,
        partial(within, partial(_inputs, draw_texts, draw_images), limits.get("sequence")),
        {
            "input_ids": _TEXT,
            "attention_mask": _TEXT,
            "pixel_values": {0: "image_batch"},
            **_OUTPUTS,
        },
        tuple(_OUTPUTS),
        where,
        limits,
        forward=_compare,
        metadata=metadata,
    )


def _inputs(
    draw_texts: Callable[[int, int], Tensors],
    draw_images: Callable[[int, int], Tensors],
    batch: int,
    length: int,
) -> Tensors:
    """Draw one image more than there are texts: neither number follows from the other."""
    return {**draw_texts(batch, length), **draw_images(batch + 1, 0)}


def _compare(call: Callable[..., Any], inputs: Tensors) -> list[Any]:
    found = call(**inputs)
    return [found[name] for name in _OUTPUTS]
