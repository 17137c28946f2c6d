"""Learned prompts and prefixes of a decoder, as the cache that a text begins after.

Prefix tuning learns keys and values in front of every text (Li and Liang 2021); prompt tuning and
p-tuning learn embeddings in front of it (Lester et al. 2021, Liu et al. 2021), whose keys and
values no later token changes, since a decoder looks back alone. Either is a cache of P tokens, so
the model stays the base, any runtime can read on after it, and it costs what P tokens of context
cost.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from irtools.errors import ModelError, UnsupportedError
from irtools.frontends.checkpoint.adapters import Adapter
from irtools.frontends.checkpoint.decoder import PAST, past_names, positions_of, tensors_in, tokens
from irtools.frontends.torch import LIBRARY_FAILURES, TorchSource, first_line, relative_l2
from irtools.targets import Feeds, Runner
from irtools.words import counted

__all__ = ["PREFIXES", "Prefix", "read_prefix"]

PREFIXES = frozenset({"PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING"})
"""Methods whose result is a cache."""

_TEXT = (2, 7)
"""Batch and tokens of the text that a prefix is checked with."""


@dataclass(frozen=True)
class Prefix:
    """A cache, and what the base computes after it.

    Attributes:
        past: By the names of cache inputs, [1, heads, P, size].
        trials: What an export must reproduce after it.
    """

    past: Mapping[str, np.ndarray]
    trials: tuple[PrefixTrial, ...]

    @property
    def content(self) -> bytes:
        """Return it as `.npz`."""
        file = io.BytesIO()
        np.savez(file, **self.past)  # type: ignore[arg-type]
        return file.getvalue()


@dataclass(frozen=True)
class PrefixTrial:
    """A text after a prefix, against peft.

    Attributes:
        past: The prefix.
        feeds: Tokens, mask and positions of the text, as far as the model takes them.
        wanted: Logits of peft, [B, S, V].
        name: Of the adapter.
    """

    past: Feeds
    feeds: Feeds
    wanted: np.ndarray
    name: str

    @property
    def where(self) -> str:
        return f"batch {_TEXT[0]}, {counted(_TEXT[1], 'token')} after the prefix {self.name!r}"

    def errors(self, runner: Runner) -> Iterator[tuple[str, str, float]]:
        rows = len(self.feeds["input_ids"])
        past = {name: np.repeat(array, rows, 0) for name, array in self.past.items()}
        found = runner.run({**self.feeds, **past}, ["logits"])["logits"]
        yield "logits", self.where, relative_l2(self.wanted, found)


def read_prefix(source: TorchSource, adapter: Adapter, *, check: bool) -> Prefix:
    """Compute the cache of a learned prompt or prefix.

    Args:
        source: The base, a decoder with its cache; unchanged.
        adapter: One of `PREFIXES`.
        check: Also run the base after it.

    Raises:
        ModelError: It was made for another base.
        UnsupportedError: The base is not exported with its cache.
    """
    import torch

    names = [name for name in source.axes if name.startswith(PAST)]
    if not names or names != past_names(len(names) // 2):
        raise UnsupportedError(
            f"adapter {adapter.folder} ({adapter.kind}) is a cache in front of the text: give "
            "--with-past"
        )
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        attached = _attached(source, adapter)
        found = [tensor.float().numpy() for tensor in tensors_in(_cache(attached))]
        past = dict(zip(names, found, strict=True))
        trials = (_trial(attached, source, past, adapter),) if check else ()
    return Prefix(past, trials)


def _attached(source: TorchSource, adapter: Adapter) -> Any:
    from peft import PeftModelForCausalLM

    try:
        return PeftModelForCausalLM.from_pretrained(source.module, adapter.folder).eval()
    except (*LIBRARY_FAILURES, RuntimeError) as error:
        raise ModelError(
            f"adapter {adapter.folder} was made for another base: {first_line(error)}"
        ) from error


def _cache(attached: Any) -> Any:
    """Return the keys and values of the prefix, a cache of Transformers."""
    prompt = attached.get_prompt(batch_size=1)
    if hasattr(prompt, "layers"):
        return prompt
    return attached.base_model(inputs_embeds=prompt, use_cache=True).past_key_values


def _trial(
    attached: Any, source: TorchSource, past: Mapping[str, np.ndarray], adapter: Adapter
) -> PrefixTrial:
    import torch

    rows, length = _TEXT
    ids = tokens(torch, source.module.config.vocab_size, rows, length)
    logits = attached(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, -length:]
    before = next(iter(past.values())).shape[2]
    mask = torch.ones((rows, before + length), dtype=torch.long)
    made = {
        "input_ids": ids,
        "attention_mask": mask,
        "position_ids": positions_of(mask)[:, before:],
    }
    feeds = {name: made[name].numpy() for name in made if name in source.axes}
    return PrefixTrial(past, feeds, logits.float().numpy(), adapter.folder.resolve().name)
