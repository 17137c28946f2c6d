"""Decoders with a key-value cache: one graph for prefill and for every step after it.

Inputs `input_ids` [batch, sequence], `attention_mask` [batch, past_sequence + sequence],
`position_ids` [batch, sequence] and, for each layer N, `past_key_values.N.key` and `.value`
[batch, key heads, past_sequence, head size]; outputs `logits` and `present.N.key`, `.value`, which
are the next step's past. Prefill is the same graph with a past of length 0.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from irtools.errors import UnsupportedError
from irtools.frontends.torch import Tensors, TorchSource, relative_l2
from irtools.targets import Feeds, Runner
from irtools.words import counted

__all__ = ["PAST", "PRESENT", "TOTAL", "CachedTrial", "describe_decoder", "past_names"]

TOTAL = "past_sequence + sequence"
PAST, PRESENT = "past_key_values", "present"
# Tokens of each call. The last one is a continuation of several tokens, as speculative decoding
# and chunked prefill make them.
CHUNKS = ((5, 1, 1, 1), (11, 1, 1, 4))
BATCHES = (1, 3)
_EXAMPLE_PAST = 7


@dataclass(frozen=True)
class CachedTrial:
    """Tokens fed in several calls, each with the cache of the one before, against one torch run.

    Attributes:
        ids: All tokens, [B, T].
        mask: 1 where there is a token, [B, T].
        positions: Place of each token in its row, [B, T].
        chunks: Tokens of each call; they sum to T.
        empty: The cache before the first call, by input name.
        wanted: Logits of torch for all tokens at once, without a cache, [B, T, V].
        fixed: Further inputs that every call takes.
        inputs: Names of the inputs that the model takes.
    """

    ids: np.ndarray
    mask: np.ndarray
    positions: np.ndarray
    chunks: tuple[int, ...]
    empty: Feeds
    wanted: np.ndarray
    fixed: Feeds
    inputs: tuple[str, ...]

    @property
    def where(self) -> str:
        return f"batch {len(self.ids)}, {counted(self.ids.shape[1], 'token')} in several calls"

    def errors(self, runner: Runner) -> Iterator[tuple[str, str, float]]:
        past, start = dict(self.empty), 0
        for size in self.chunks:
            end = start + size
            made = {
                "input_ids": self.ids[:, start:end],
                "decoder_input_ids": self.ids[:, start:end],
                "attention_mask": self.mask[:, :end],
                "position_ids": self.positions[:, start:end],
                **self.fixed,
            }
            found = runner.run({n: made[n] for n in made if n in self.inputs} | past)
            # Values at padding do not matter.
            kept = self.mask[:, start:end].astype(bool)
            error = relative_l2(self.wanted[:, start:end][kept], found["logits"][kept])
            step = f"batch {len(self.ids)}, {counted(size, 'token')} after {start}"
            yield "logits", step, error
            past = {name: found[name.replace(PAST, PRESENT, 1)] for name in past}
            start = end


def describe_decoder(module: Any, where: str, metadata: Mapping[str, str]) -> TorchSource:
    """Describe a causal language model with its cache as inputs and outputs.

    Raises:
        UnsupportedError: Its cache is more than keys and values of attention.
    """
    import torch

    shapes = _cache_shapes(torch, module, where)
    positions = "position_ids" in inspect.signature(module.forward).parameters
    past = past_names(len(shapes) // 2)
    named = ["input_ids", "attention_mask"] + ["position_ids"] * positions
    axes: dict[str, dict[int, str]] = {
        "input_ids": {0: "batch", 1: "sequence"},
        "attention_mask": {0: "batch", 1: TOTAL},
        "position_ids": {0: "batch", 1: "sequence"},
        "logits": {0: "batch", 1: "sequence"},
    }
    axes |= {name: {0: "batch", 2: "past_sequence"} for name in past}
    presents = [name.replace(PAST, PRESENT, 1) for name in past]
    axes |= {name: {0: "batch", 2: TOTAL} for name in presents}
    names = tuple(named + past)
    config = module.config
    draw = partial(tokens, torch, config.vocab_size)
    return TorchSource(
        module,
        partial(_example, torch, draw, shapes, names),
        {name: axes[name] for name in (*names, "logits", *presents)},
        ("logits", *presents),
        where,
        forward=partial(_forward, tuple(past)),
        make_trials=partial(_trials, torch, module, draw, shapes, names),
        metadata=metadata,
    )


def past_names(layers: int, kind: str = "") -> list[str]:
    """Return names of cache inputs; `kind` is `decoder` or `encoder` where there are two."""
    middle = f".{kind}" if kind else ""
    return [f"{PAST}.{n}{middle}.{what}" for n in range(layers) for what in ("key", "value")]


def filled_cache(past: Sequence[Any]) -> Any:
    """Return a cache that holds keys and values, one pair after the other.

    Every layer is a plain one: the mask alone makes attention slide, so that one graph serves
    texts shorter and longer than the window.
    """
    from transformers.cache_utils import DynamicCache, DynamicLayer

    cache = DynamicCache()
    for key, value in zip(past[::2], past[1::2], strict=True):
        layer = DynamicLayer()
        layer.lazy_initialization(key, value)
        layer.keys, layer.values = key, value
        cache.layers.append(layer)
    return cache


def tensors_in(cache: Any) -> list[Any]:
    """Return keys and values, one pair after the other."""
    return [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]


def _forward(past: Sequence[str], call: Callable[..., Any], inputs: Tensors) -> list[Any]:
    named = {name: tensor for name, tensor in inputs.items() if name not in past}
    cache = filled_cache([inputs[name] for name in past])
    found = call(**named, past_key_values=cache, use_cache=True, return_dict=True)
    return [found.logits, *tensors_in(found.past_key_values)]


def _cache_shapes(torch: Any, module: Any, where: str) -> list[tuple[int, int]]:
    """Return heads and head size of every key and value in the cache."""
    ids = torch.ones((1, 2), dtype=torch.long)
    with torch.inference_mode():
        found = module(input_ids=ids, use_cache=True, return_dict=True)
    cache = getattr(found, "past_key_values", None)
    if cache is None:
        raise UnsupportedError(f"{where} returns no cache; export it without --with-past")
    for layer in cache.layers:
        keys = getattr(layer, "keys", None)
        if keys is None or keys.ndim != 4 or hasattr(layer, "conv_states"):
            raise UnsupportedError(
                f"{where} has a cache of {type(layer).__name__}, and only keys and values of "
                "attention layers can be inputs; export it without --with-past"
            )
    return [(int(t.shape[1]), int(t.shape[3])) for t in tensors_in(cache)]


def tokens(torch: Any, vocabulary: int, batch: int, length: int) -> Any:
    """Return seeded token ids, [batch, length]."""
    generator = torch.Generator().manual_seed(batch * 1000 + length)
    return torch.randint(0, vocabulary, (batch, length), generator=generator)


def _example(
    torch: Any,
    draw: Callable[[int, int], Any],
    shapes: Sequence[tuple[int, int]],
    names: Sequence[str],
    batch: int,
    length: int,
) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(length)
    mask = torch.ones((batch, _EXAMPLE_PAST + length), dtype=torch.long)
    mask[-1, :3] = 0
    made = {
        "input_ids": draw(batch, length),
        "attention_mask": mask,
        "position_ids": positions_of(mask)[:, _EXAMPLE_PAST:],
    }
    for name, (heads, size) in zip(past_names(len(shapes) // 2), shapes, strict=True):
        shape = (batch, heads, _EXAMPLE_PAST, size)
        made[name] = torch.randn(shape, generator=generator)
    return {name: made[name] for name in names}


def positions_of(mask: Any) -> Any:
    """Number the tokens of each row, padding left out, as `generate` does."""
    return (mask.cumsum(-1) - 1).clamp(min=0)


def masks(torch: Any, batch: int, prompt: int, total: int) -> Any:
    """Return a mask, [batch, total]: row 1 is padded on the left, row 2 after its prompt."""
    mask = torch.ones((batch, total), dtype=torch.long)
    if batch > 1:
        mask[1, : prompt // 2] = 0
    if batch > 2:
        mask[2, prompt - prompt // 3 : prompt] = 0
    return mask


def _trials(
    torch: Any,
    module: Any,
    draw: Callable[[int, int], Any],
    shapes: Sequence[tuple[int, int]],
    names: Sequence[str],
) -> list[CachedTrial]:
    return [
        _trial(torch, module, draw, shapes, names, batch, chunks)
        for batch, chunks in zip(BATCHES, CHUNKS, strict=True)
    ]


def _trial(
    torch: Any,
    module: Any,
    draw: Callable[[int, int], Any],
    shapes: Sequence[tuple[int, int]],
    names: Sequence[str],
    batch: int,
    chunks: tuple[int, ...],
) -> CachedTrial:
    total = sum(chunks)
    ids, mask = draw(batch, total), masks(torch, batch, chunks[0], total)
    whole = {"input_ids": ids, "attention_mask": mask, "position_ids": positions_of(mask)}
    with torch.inference_mode():
        found = module(**{n: t for n, t in whole.items() if n in names}, use_cache=False)
    empty = {
        name: np.zeros((batch, heads, 0, size), np.float32)
        for name, (heads, size) in zip(past_names(len(shapes) // 2), shapes, strict=True)
    }
    return CachedTrial(
        ids=ids.numpy(),
        mask=mask.numpy(),
        positions=whole["position_ids"].numpy(),
        chunks=chunks,
        empty=empty,
        wanted=found.logits.float().numpy(),
        fixed={},
        inputs=tuple(names),
    )
