"""Encoder-decoders, as two models that share nothing but what one computes for the other.

The encoder takes the source and gives `last_hidden_state`. The decoder takes `input_ids` [batch,
sequence] and `encoder_hidden_states` and gives `logits`. With a cache, the encoder also gives the
keys and values of cross-attention (`present.N.encoder.key`), which do not change from step to
step, and the decoder takes these in place of the hidden state, along with its own past
(`past_key_values.N.decoder.key`): one graph for the first call and for all that follow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from irtools.errors import UnsupportedError
from irtools.frontends.checkpoint.decoder import (
    PAST,
    PRESENT,
    TOTAL,
    CachedTrial,
    filled_cache,
    past_names,
    tensors_in,
    tokens,
)
from irtools.frontends.checkpoint.encoder import sequence_limit, texts
from irtools.frontends.checkpoint.signals import features
from irtools.frontends.torch import PlainTrial, Tensors, TorchSource, Trial
from irtools.words import counted

__all__ = ["PARTS", "describe_part"]

PARTS = ("encoder", "decoder")
_CHUNKS = ((4, 1, 1), (3, 1, 1, 2))
_BATCHES = (1, 3)
_SOURCES = (16, 29)
_PAST = 7
_HIDDEN, _MASK = "encoder_hidden_states", "encoder_attention_mask"
_SOURCE = "encoder_sequence"


def describe_part(
    module: Any, part: str, where: str, metadata: Mapping[str, str], *, with_past: bool
) -> TorchSource:
    """Describe the encoder or the decoder of a network.

    Args:
        part: One of `PARTS`.
        with_past: With a cache.

    Raises:
        UnsupportedError: The source is neither text nor mel features.
    """
    pair = _Pair(module, where, with_past)
    describe = pair.encoder if part == "encoder" else pair.decoder
    return describe({**metadata, "part": part})


@dataclass(frozen=True)
class _Pair:
    """Both halves of a network.

    Attributes:
        cached: With a cache.
    """

    module: Any
    where: str
    cached: bool

    @cached_property
    def takes_text(self) -> bool:
        return bool(self.module.main_input_name == "input_ids")

    @cached_property
    def layers(self) -> int:
        config = self.module.config
        for name in ("decoder_layers", "num_decoder_layers", "num_hidden_layers"):
            if isinstance(getattr(config, name, None), int):
                return int(getattr(config, name))
        raise UnsupportedError(f"{self.where} does not say how many layers its decoder has")

    @cached_property
    def cross_names(self) -> list[str]:
        return past_names(self.layers, "encoder")

    @cached_property
    def past_names(self) -> list[str]:
        return past_names(self.layers, "decoder")

    def sources(self, batch: int, length: int) -> dict[str, Any]:
        """Return seeded inputs of the encoder."""
        import torch

        config = self.module.config
        if self.takes_text:
            names = ("input_ids", "attention_mask")
            return texts(torch, names, config.vocab_size, config.pad_token_id, batch, length)
        signal = features(config)
        if signal is None:
            raise UnsupportedError(
                f"{self.where} takes {self.module.main_input_name}; of encoder-decoders those for "
                "text and those with mel features of a fixed length are exported"
            )
        return dict(signal.make(batch, length))

    def encoder(self, metadata: Mapping[str, str]) -> TorchSource:
        outputs = ["last_hidden_state"]
        axes: dict[str, dict[int, str]] = {}
        if self.takes_text:
            axes = {n: {0: "batch", 1: "sequence"} for n in ("input_ids", "attention_mask")}
        else:
            axes = {"input_features": {0: "batch"}}
        if self.cached:
            outputs += [name.replace(PAST, PRESENT, 1) for name in self.cross_names]
        limits = sequence_limit(self.module.config) if self.takes_text else {}
        return TorchSource(
            self.module,
            self.sources,
            axes,
            outputs,
            f"the encoder of {self.where}",
            limits,
            forward=self._encode,
            metadata=metadata,
        )

    def _encode(self, call: Callable[..., Any], inputs: Tensors) -> list[Any]:
        import torch

        hidden = self.module.get_encoder()(**inputs).last_hidden_state
        if not self.cached:
            return [hidden]
        # The first step of the decoder is what computes keys and values; the rest of it is dead.
        start = torch.ones((hidden.shape[0], 1), dtype=torch.long)
        found = self._decode(call, start, hidden, inputs.get("attention_mask"), use_cache=True)
        return [hidden, *tensors_in(found.past_key_values.cross_attention_cache)]

    def decoder(self, metadata: Mapping[str, str]) -> TorchSource:
        names, axes = ["input_ids"], {"input_ids": {0: "batch", 1: "sequence"}}
        source = {1: _SOURCE} if self.takes_text else {}
        if self.takes_text:
            names.append(_MASK)
            axes[_MASK] = {0: "batch", 1: _SOURCE}
        outputs = ["logits"]
        axes["logits"] = {0: "batch", 1: "sequence"}
        if self.cached:
            names += [*self.cross_names, *self.past_names]
            outputs += [name.replace(PAST, PRESENT, 1) for name in self.past_names]
            cross = {2: _SOURCE} if self.takes_text else {}
            axes |= {name: {0: "batch", **cross} for name in self.cross_names}
            axes |= {name: {0: "batch", 2: "past_sequence"} for name in self.past_names}
            axes |= {name: {0: "batch", 2: TOTAL} for name in outputs[1:]}
        else:
            names.append(_HIDDEN)
            axes[_HIDDEN] = {0: "batch", **source}
        return TorchSource(
            self.module,
            lambda batch, length: self._decoder_example(names, batch, length),
            axes,
            outputs,
            f"the decoder of {self.where}",
            forward=self._step if self.cached else self._whole,
            make_trials=self._trials,
            metadata=metadata,
        )

    def _decode(
        self, call: Callable[..., Any], ids: Any, hidden: Any, mask: Any, **how: Any
    ) -> Any:
        from transformers.modeling_outputs import BaseModelOutput

        masked = {"attention_mask": mask} if self.takes_text else {}
        return call(
            encoder_outputs=BaseModelOutput(last_hidden_state=hidden),
            decoder_input_ids=ids,
            return_dict=True,
            **masked,
            **how,
        )

    def _whole(self, call: Callable[..., Any], inputs: Tensors) -> list[Any]:
        found = self._decode(
            call, inputs["input_ids"], inputs[_HIDDEN], inputs.get(_MASK), use_cache=False
        )
        return [found.logits]

    def _step(self, call: Callable[..., Any], inputs: Tensors) -> list[Any]:
        import torch
        from transformers.cache_utils import EncoderDecoderCache

        cross = [inputs[name] for name in self.cross_names]
        cache = EncoderDecoderCache(
            filled_cache([inputs[name] for name in self.past_names]), filled_cache(cross)
        )
        cache.is_updated = dict.fromkeys(range(self.layers), True)
        # Only its sizes count: keys and values are there already.
        shape = (cross[0].shape[0], cross[0].shape[2], self.module.config.d_model)
        found = self._decode(
            call,
            inputs["input_ids"],
            torch.zeros(shape),
            inputs.get(_MASK),
            past_key_values=cache,
            use_cache=True,
        )
        return [found.logits, *tensors_in(found.past_key_values.self_attention_cache)]

    def _encoded(self, batch: int, length: int) -> dict[str, Any]:
        """Return what the decoder gets from the encoder, by input name."""
        import torch

        source = self.sources(batch, length)
        with torch.inference_mode():
            found = self._encode(self.module, source)
        made = dict(zip((_HIDDEN, *self.cross_names), found, strict=False))
        if self.takes_text:
            made[_MASK] = source["attention_mask"]
        return {name: tensor.clone() for name, tensor in made.items()}

    def _decoder_example(self, names: Sequence[str], batch: int, length: int) -> dict[str, Any]:
        import torch

        made = self._encoded(batch, length - 5)
        made["input_ids"] = tokens(torch, self.module.config.vocab_size, batch, length)
        for name in self.past_names if self.cached else ():
            like = made[self.cross_names[0]]
            made[name] = torch.randn(batch, like.shape[1], _PAST, like.shape[3])
        return {name: made[name] for name in names}

    def _trials(self) -> list[Trial]:
        return [
            self._trial(batch, length, chunks)
            for batch, length, chunks in zip(_BATCHES, _SOURCES, _CHUNKS, strict=True)
        ]

    def _trial(self, batch: int, length: int, chunks: tuple[int, ...]) -> Trial:
        import torch

        total = sum(chunks)
        encoded = self._encoded(batch, length)
        ids = tokens(torch, self.module.config.vocab_size, batch, total)
        with torch.inference_mode():
            found = self._whole(self.module, {**encoded, "input_ids": ids})
        wanted = found[0].float().numpy()
        arrays = {name: tensor.numpy() for name, tensor in encoded.items()}
        if not self.cached:
            return PlainTrial(
                {"input_ids": ids.numpy(), **arrays},
                {"logits": wanted},
                f"batch {batch}, {counted(total, 'token')}, source of {length}",
            )
        del arrays[_HIDDEN]
        like = arrays[self.cross_names[0]].shape
        empty = np.zeros((batch, like[1], 0, like[3]), np.float32)
        ones = np.ones((batch, total), np.int64)
        return CachedTrial(
            ids=ids.numpy(),
            mask=ones,
            positions=ones,
            chunks=chunks,
            empty=dict.fromkeys(self.past_names, empty),
            wanted=wanted,
            fixed=arrays,
            inputs=("input_ids", *arrays),
        )
